"""Components that raise, each where its option says."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from finqa_sft import AnswerFormatter, PaddedCollator, Question, hookimpl
from finqa_sft.documents import Document
from finqa_sft.encoding import EncodedRow
from finqa_sft.options import NoOptions, Options
from finqa_sft.plugins import CallbackRecord, CollatorRecord, FormatterRecord, ReaderRecord


class Where(Options):
    """Where a formatter raises."""

    where: Literal["build", "prompt", "exit"]
    """In build, in prompt, or not at all: the program is ended in prompt."""


class RaisingFormatter(AnswerFormatter):
    def __init__(self, options: Where) -> None:
        super().__init__()
        if options.where == "build":
            raise RuntimeError("a ledger without a spine")
        self._where = options.where

    def prompt(self, question: Question, *, document: Document) -> list:
        if self._where == "exit":
            sys.exit("no ledger today")
        raise KeyError("ledger")


@hookimpl
def finqa_sft_formatters() -> list[FormatterRecord]:
    return [FormatterRecord(name="raising", summary="raises", config=Where, build=RaisingFormatter)]


class RaisingReader:
    def __init__(self, options: NoOptions) -> None:
        pass

    def __iter__(self) -> Iterator[Question]:
        yield from ()
        raise ZeroDivisionError("a ledger of no pages")


@hookimpl
def finqa_sft_readers() -> list[ReaderRecord]:
    return [ReaderRecord(name="raising", summary="raises", build=RaisingReader)]


class RaisingCollator(PaddedCollator):
    def __call__(self, rows: Sequence[EncodedRow]) -> dict:
        raise IndexError("a ledger with a page torn out")


def _collator(options: NoOptions, tokenizer) -> RaisingCollator:
    return RaisingCollator(tokenizer.pad_token_id)


@hookimpl
def finqa_sft_collators() -> list[CollatorRecord]:
    return [
        CollatorRecord(
            name="raising", summary="raises", build=_collator, sft_args=PaddedCollator(0).sft_args
        )
    ]


def _callback(options: NoOptions, output_dir: Path):
    from transformers import TrainerCallback

    class RaisingCallback(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise ValueError("a ledger that does not add up")

    return RaisingCallback()


@hookimpl
def finqa_sft_callbacks() -> list[CallbackRecord]:
    return [CallbackRecord(name="raising", summary="raises", build=_callback)]
