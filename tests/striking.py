"""A plugin file whose components send Ctrl-C, or raise, when the run reaches a certain phase.

It is named in recipes as a stranger's file would be; the tests copy it into their folders.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from finqa_sft import hookimpl
from finqa_sft.options import Options
from finqa_sft.plugins.records import (
    CallbackRecord,
    CollatorRecord,
    FormatterRecord,
    ModelFactoryRecord,
    ReaderRecord,
)


def strike(times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


class When(Options):
    phase: Literal["training", "evaluating", "checkpoint", "adapter", "full", "raising"]
    times: int = 1
    file: str = ""


def reader(options: Any) -> Iterator[Any]:
    strike()
    yield from ()


def formatter(options: Any) -> Any:
    from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions

    class Striking(AnswerFormatter):
        def prompt(self, *arguments: Any, **named: Any) -> Any:
            strike()
            return super().prompt(*arguments, **named)

    return Striking(AnswerOptions())


def factory(options: Any) -> Any:
    from finqa_sft.models.options import QLoRAOptions
    from finqa_sft.models.qlora import QLoRAFactory

    class Striking(QLoRAFactory):
        def load_model(self, args: Any) -> Any:
            strike()
            return super().load_model(args)

    return Striking(QLoRAOptions(base="tiny"))


def collator(options: Any, tokenizer: Any) -> Any:
    from finqa_sft.collators.padded import PaddedCollator

    class Raising(PaddedCollator):
        def __call__(self, rows: Any) -> Any:
            raise ZeroDivisionError("a bug")

    return Raising(0)


def once(owner: Any, name: str, before: Callable[..., None]) -> None:
    """Have something done before the next call of a function, and of no other."""
    real = getattr(owner, name)

    def replaced(*arguments: Any, **named: Any) -> Any:
        setattr(owner, name, real)
        before(*arguments)
        return real(*arguments, **named)

    setattr(owner, name, replaced)


def callback(options: When, folder: Path) -> Any:
    import torch
    from transformers import TrainerCallback

    class Striking(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step != 2:
                return
            match options.phase:
                case "training":
                    strike(options.times)
                case "checkpoint":
                    once(torch, "save", lambda *_: strike(options.times))
                case "full":
                    (folder / "checkpoint-3").mkdir()
                    (folder / "checkpoint-3" / options.file).symlink_to("/dev/full")
                case "raising":
                    raise ZeroDivisionError("a bug")
                case _:
                    pass

        def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if options.phase == "adapter":
                once(named["model"], "save_pretrained", lambda *_: strike(options.times))

        def on_prediction_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if options.phase == "evaluating" and state.global_step == 2:
                strike(options.times)

    return Striking()


@hookimpl
def finqa_sft_readers() -> list[ReaderRecord]:
    return [ReaderRecord(name="striking", summary="Ctrl-C", build=reader)]


@hookimpl
def finqa_sft_formatters() -> list[FormatterRecord]:
    return [FormatterRecord(name="striking", summary="Ctrl-C", build=formatter)]


@hookimpl
def finqa_sft_model_factories() -> list[ModelFactoryRecord]:
    return [ModelFactoryRecord(name="striking", summary="Ctrl-C", build=factory)]


@hookimpl
def finqa_sft_collators() -> list[CollatorRecord]:
    from finqa_sft.collators.padded import SFT_ARGS

    return [CollatorRecord(name="raising", summary="Raises", build=collator, sft_args=SFT_ARGS)]


@hookimpl
def finqa_sft_callbacks() -> list[CallbackRecord]:
    return [CallbackRecord(name="striking", summary="Ctrl-C", config=When, build=callback)]
