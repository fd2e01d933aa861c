"""The six hooks of finqa_sft. Each returns records; none can change a run behind its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pluggy

from finqa_sft.plugins.records import (
    CallbackRecord,
    CollatorRecord,
    FormatterRecord,
    MetricRecord,
    ModelFactoryRecord,
    ReaderRecord,
)

PROJECT = "finqa_sft"
"""The pluggy project name, and the entry-point group that plugins register under."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class HookSpecs(Protocol):
    """What a plugin may implement, as functions of a module or methods of an object."""

    @hookspec
    def finqa_sft_readers(self) -> Sequence[ReaderRecord]:
        """Offer readers, which recipes name under `data.sources[].reader`.

        Example:
            ```python
            from finqa_sft.documents import Document, Paragraph, Question
            from finqa_sft.options import NoOptions
            from finqa_sft.plugins import ReaderRecord, hookimpl


            def one_question(options: NoOptions) -> list[Question]:
                page = Document(id="ACME/2024/page_1", blocks=(Paragraph("Revenue was $ 5."),))
                return [Question(id="1", text="What was revenue?", document=page, answer="5")]


            @hookimpl
            def finqa_sft_readers() -> list[ReaderRecord]:
                return [ReaderRecord(name="one", summary="a single question", build=one_question)]
            ```
        """
        ...

    @hookspec
    def finqa_sft_formatters(self) -> Sequence[FormatterRecord]:
        r"""Offer formatters, which recipes name under `formatter.name`.

        Example:
            ```python
            from finqa_sft.documents import Document, Question
            from finqa_sft.formatters.base import Message, Prediction
            from finqa_sft.formatters.linearize import document_text
            from finqa_sft.options import NoOptions
            from finqa_sft.plugins import FormatterRecord, hookimpl


            class Terse:
                def prompt(self, question: Question, *, document: Document) -> list[Message]:
                    content = document_text(document) + "\n\n" + question.text
                    return [{"role": "user", "content": content}]

                def completion(self, question: Question) -> list[Message]:
                    return [{"role": "assistant", "content": question.answer}]

                def parse(self, completion: str) -> Prediction:
                    text = completion.strip()
                    return Prediction(text=text, answer=text or None)


            def build(options: NoOptions) -> Terse:
                return Terse()


            @hookimpl
            def finqa_sft_formatters() -> list[FormatterRecord]:
                return [FormatterRecord(name="terse", summary="no instruction", build=build)]
            ```
        """
        ...

    @hookspec
    def finqa_sft_collators(self) -> Sequence[CollatorRecord]:
        """Offer collators, which recipes name under `collator.name`.

        A record's `sft_args` are applied to `SFTConfig`; a recipe that contradicts them is refused,
        with the record's `reasons` where it gives any.

        Example:
            ```python
            from finqa_sft.collators.padded import SFT_ARGS, PaddedCollator, PaddedOptions
            from finqa_sft.plugins import CollatorRecord, hookimpl


            def build(options: PaddedOptions, tokenizer) -> PaddedCollator:
                return PaddedCollator(tokenizer.pad_token_id, pad_to_multiple_of=8)


            @hookimpl
            def finqa_sft_collators() -> list[CollatorRecord]:
                return [
                    CollatorRecord(
                        name="eights",
                        summary="pads to multiples of eight",
                        config=PaddedOptions,
                        build=build,
                        sft_args=SFT_ARGS,
                    )
                ]
            ```
        """
        ...

    @hookspec
    def finqa_sft_model_factories(self) -> Sequence[ModelFactoryRecord]:
        """Offer model factories, which recipes name under `model.factory`.

        Example:
            ```python
            from finqa_sft.models.options import QLoRAOptions
            from finqa_sft.plugins import ModelFactoryRecord, hookimpl


            def build(options: QLoRAOptions):
                from finqa_sft.models.qlora import QLoRAFactory

                return QLoRAFactory(options.model_copy(update={"double_quant": False}))


            @hookimpl
            def finqa_sft_model_factories() -> list[ModelFactoryRecord]:
                return [
                    ModelFactoryRecord(
                        name="qlora_single",
                        summary="QLoRA without double quantisation",
                        config=QLoRAOptions,
                        build=build,
                    )
                ]
            ```
        """
        ...

    @hookspec
    def finqa_sft_metrics(self) -> Sequence[MetricRecord]:
        """Offer metrics, which recipes name under `evaluation.metrics` and `score` as `--metric`.

        Example:
            ```python
            from finqa_sft.documents import Question
            from finqa_sft.formatters.base import Prediction
            from finqa_sft.metrics.base import Figure, Score
            from finqa_sft.options import NoOptions
            from finqa_sft.plugins import MetricRecord, hookimpl


            class Same:
                figures = (Figure("same", "the answer is the gold one, letter by letter"),)

                def applies(self, question: Question) -> bool:
                    return True

                def score(self, question: Question, prediction: Prediction) -> Score:
                    return Score({"same": float(prediction.answer == question.answer)})


            def build(options: NoOptions) -> Same:
                return Same()


            @hookimpl
            def finqa_sft_metrics() -> list[MetricRecord]:
                return [MetricRecord(name="same", summary="equal strings", build=build)]
            ```
        """
        ...

    @hookspec
    def finqa_sft_callbacks(self) -> Sequence[CallbackRecord]:
        """Offer trainer callbacks; one runs only if the recipe names it under `callbacks`.

        Example:
            ```python
            from pathlib import Path

            from finqa_sft.options import NoOptions
            from finqa_sft.plugins import CallbackRecord, hookimpl


            def build(options: NoOptions, output_dir: Path):
                from transformers import TrainerCallback

                class Touch(TrainerCallback):
                    def on_train_end(self, args, state, control, **kwargs):
                        (output_dir / "ended").touch()

                return Touch()


            @hookimpl
            def finqa_sft_callbacks() -> list[CallbackRecord]:
                return [CallbackRecord(name="touch", summary="leaves a file", build=build)]
            ```
        """
        ...
