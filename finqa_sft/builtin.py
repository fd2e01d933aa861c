"""The components that come with the package, offered through the hooks that any plugin uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from finqa_sft.collators import flattened, shared_context
from finqa_sft.collators.padded import SFT_ARGS, PaddedCollator, PaddedOptions
from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
from finqa_sft.formatters.program import ProgramFormatter, ProgramOptions
from finqa_sft.formatters.steps import StepsFormatter, StepsOptions
from finqa_sft.metrics.components import (
    AnswerMetric,
    AnswerMetricOptions,
    ConvfinqaMetric,
    FinqaMetric,
    TatqaMetric,
)
from finqa_sft.models.base import ModelFactory
from finqa_sft.models.options import FullOptions, LoRAFactoryOptions, QLoRAOptions
from finqa_sft.options import NoOptions, Options
from finqa_sft.plugins import (
    CallbackRecord,
    CollatorRecord,
    FormatterRecord,
    MetricRecord,
    ModelFactoryRecord,
    ReaderRecord,
    hookimpl,
)
from finqa_sft.readers.columns import ColumnsOptions, ColumnsReader
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.filings import FilingsOptions, FilingsReader
from finqa_sft.readers.financebench import FinancebenchOptions, FinancebenchReader
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

if TYPE_CHECKING:
    from transformers import (
        PreTrainedTokenizerBase,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )


@hookimpl
def finqa_sft_readers() -> list[ReaderRecord]:
    """Readers of files and of generated pages."""
    return [
        ReaderRecord(
            name="columns",
            summary="csv, json, jsonl, parquet or a Hugging Face dataset with columns of your own",
            config=ColumnsOptions,
            build=ColumnsReader,
        ),
        ReaderRecord(
            name="convfinqa",
            summary="conversations in ConvFinQA's layouts, a question a turn",
            config=ConvfinqaOptions,
            build=ConvfinqaReader,
            metrics=("convfinqa", "answer"),
        ),
        ReaderRecord(
            name="filings",
            summary="generated annual-report pages with questions; needs no download",
            config=FilingsOptions,
            build=FilingsReader,
            metrics=("finqa", "answer"),
        ),
        ReaderRecord(
            name="financebench",
            summary="files in FinanceBench's layout, by evidence or whole page",
            config=FinancebenchOptions,
            build=FinancebenchReader,
        ),
        ReaderRecord(
            name="finqa",
            summary="files in FinQA's official layout",
            config=FinqaOptions,
            build=FinqaReader,
            metrics=("finqa", "answer"),
        ),
        ReaderRecord(
            name="tatqa",
            summary="files in TAT-QA's official layout",
            config=TatqaOptions,
            build=TatqaReader,
            metrics=("tatqa", "answer"),
        ),
    ]


@hookimpl
def finqa_sft_formatters() -> list[FormatterRecord]:
    """What a model is taught to write."""
    return [
        FormatterRecord(
            name="answer",
            summary="the answer itself",
            config=AnswerOptions,
            build=AnswerFormatter,
        ),
        FormatterRecord(
            name="program",
            summary="FinQA's flat program; the value where nothing is computed",
            config=ProgramOptions,
            build=ProgramFormatter,
        ),
        FormatterRecord(
            name="steps",
            summary="evidence, program, answer and scale, a line each",
            config=StepsOptions,
            build=StepsFormatter,
        ),
    ]


def _padded(options: PaddedOptions, tokenizer: PreTrainedTokenizerBase) -> PaddedCollator:
    pad = tokenizer.pad_token_id
    return PaddedCollator(
        pad if isinstance(pad, int) else 0, pad_to_multiple_of=options.pad_to_multiple_of
    )


def _flattened(
    options: NoOptions, tokenizer: PreTrainedTokenizerBase
) -> flattened.FlattenedCollator:
    return flattened.FlattenedCollator()


def _shared_context(
    options: shared_context.SharedContextOptions, tokenizer: PreTrainedTokenizerBase
) -> shared_context.SharedContextCollator:
    return shared_context.SharedContextCollator(
        tokens_per_batch=options.tokens_per_batch, attention=options.attention
    )


_REASONS = {
    "max_length": "rows are cut to formatter.max_length already, and their answers never",
    "dataset_kwargs": "rows are encoded already",
    "remove_unused_columns": "the collator needs the columns as they are",
    "packing": "the collator decides how rows share a batch",
    "padding_free": "the collator decides how rows share a batch",
}
"""Why every built-in collator needs a trainer field."""

_FLATTENED_REASONS = _REASONS | {
    "neftune_noise_alpha": "the noise would shrink with the tokens of the whole batch, whose "
    "questions share one row",
}

_ONE_ROW = "a row holds as many questions as collator.tokens_per_batch allows"
_COMPILED = "no two batches have the same layout, and each would be compiled anew"
_SHARED_CONTEXT_REASONS = _REASONS | {
    "per_device_train_batch_size": _ONE_ROW,
    "per_device_eval_batch_size": _ONE_ROW,
    "neftune_noise_alpha": "the noise would shrink with the tokens of a row, and a document would "
    "have the same for all its questions",
    "torch_compile": _COMPILED,
    "torch_compile_backend": _COMPILED,
    "torch_compile_mode": _COMPILED,
    "label_smoothing_factor": "a smoothed loss is made from the logits of all tokens, the "
    "document's too",
}


@hookimpl
def finqa_sft_collators() -> list[CollatorRecord]:
    """How rows become batches."""
    return [
        CollatorRecord(
            name="flattened",
            summary="the rows of a batch in one row, without padding",
            build=_flattened,
            sft_args=flattened.SFT_ARGS,
            reasons=_FLATTENED_REASONS,
        ),
        CollatorRecord(
            name="padded",
            summary="one row a question, padded to the longest of the batch",
            config=PaddedOptions,
            build=_padded,
            sft_args=SFT_ARGS,
            reasons=_REASONS,
        ),
        CollatorRecord(
            name="shared_context",
            summary="a document once for all its questions, many documents a row",
            config=shared_context.SharedContextOptions,
            build=_shared_context,
            sft_args=shared_context.SFT_ARGS,
            reasons=_SHARED_CONTEXT_REASONS,
            attn_implementation=shared_context.ATTENTION,
        ),
    ]


def _finqa(options: NoOptions) -> FinqaMetric:
    return FinqaMetric()


def _convfinqa(options: NoOptions) -> ConvfinqaMetric:
    return ConvfinqaMetric()


def _tatqa(options: NoOptions) -> TatqaMetric:
    return TatqaMetric()


@hookimpl
def finqa_sft_metrics() -> list[MetricRecord]:
    """What answers are scored by."""
    return [
        MetricRecord(
            name="answer",
            summary="the answer itself: exact, numeric with its scale, token F1",
            config=AnswerMetricOptions,
            build=AnswerMetric,
        ),
        MetricRecord(
            name="convfinqa",
            summary="ConvFinQA's official scores of a turn: execution and program accuracy",
            build=_convfinqa,
        ),
        MetricRecord(
            name="finqa",
            summary="FinQA's official scores: execution and program accuracy",
            build=_finqa,
        ),
        MetricRecord(
            name="tatqa",
            summary="TAT-QA's official scores: exact match, F1 and scale",
            build=_tatqa,
        ),
    ]


class EarlyStoppingOptions(Options):
    """Options of the callback `early_stopping`."""

    patience: int = Field(default=1, ge=1)
    """How many evaluations in a row may bring no better figure before the run ends."""

    threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """How much better a figure must be to count."""


def _early_stopping(options: EarlyStoppingOptions, output_dir: Path) -> TrainerCallback:
    from transformers import EarlyStoppingCallback

    from finqa_sft.recipe.scored import NLL, is_score

    class Stopping(EarlyStoppingCallback):
        """Says why it ends a run."""

        def on_evaluate(  # type: ignore[override]
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            **kwargs: Any,
        ) -> None:
            super().on_evaluate(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
            poor = self.early_stopping_patience_counter
            ends = poor >= self.early_stopping_patience and state.global_step < state.max_steps
            if not ends or not state.is_world_process_zero:
                return
            name, least = args.metric_for_best_model, self.early_stopping_threshold
            by = f" by more than {least:g}" if least else ""
            several = "" if poor == 1 else "s in a row"
            hint = f"; while no answer is right, {NLL} tells more" if is_score(name) else ""
            print(
                f"early stopping at step {state.global_step}: {name} got no better than "
                f"{state.best_metric:.4g}{by} in {poor} evaluation{several}"
                f"{'' if state.best_metric else hint}"
            )

    return Stopping(options.patience, options.threshold)


@hookimpl
def finqa_sft_callbacks() -> list[CallbackRecord]:
    """What can run beside the training."""
    return [
        CallbackRecord(
            name="early_stopping",
            summary="ends the run when trainer.metric_for_best_model gets no better",
            config=EarlyStoppingOptions,
            build=_early_stopping,
        )
    ]


def _full(options: FullOptions) -> ModelFactory:
    from finqa_sft.models.full import FullFactory

    return FullFactory(options)


def _lora(options: LoRAFactoryOptions) -> ModelFactory:
    from finqa_sft.models.lora import LoRAFactory

    return LoRAFactory(options)


def _qlora(options: QLoRAOptions) -> ModelFactory:
    from finqa_sft.models.qlora import QLoRAFactory

    return QLoRAFactory(options)


@hookimpl
def finqa_sft_model_factories() -> list[ModelFactoryRecord]:
    """How a base becomes trainable."""
    return [
        ModelFactoryRecord(
            name="full",
            summary="all weights of the base are trained; no adapter",
            config=FullOptions,
            build=_full,
        ),
        ModelFactoryRecord(
            name="lora",
            summary="base as it is, frozen; LoRA adapters in all linear layers",
            config=LoRAFactoryOptions,
            build=_lora,
        ),
        ModelFactoryRecord(
            name="qlora",
            summary="4-bit NF4 or 8-bit base, frozen; LoRA adapters in all linear layers",
            config=QLoRAOptions,
            build=_qlora,
        ),
    ]
