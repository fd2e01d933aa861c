"""The records that plugins return from their hooks: one frozen dataclass a hook.

A record names a component, says how its options are checked, and how it is built. Neither a record
nor the module that makes it imports torch: whatever is heavy is imported inside `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from finqa_sft.collators.base import Collator
from finqa_sft.formatters.base import Formatter
from finqa_sft.metrics.base import Metric
from finqa_sft.models.base import ModelFactory
from finqa_sft.options import NoOptions
from finqa_sft.readers.base import Reader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRecord:
    """What all records share.

    Attributes:
        name: How a recipe names the component: lower case, `[a-z][a-z0-9_]*`.
        summary: One line for `finqa-sft plugins`.
        config: Pydantic model of the component's options; must forbid unknown keys.
    """

    name: str
    summary: str
    config: type[BaseModel] = NoOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRecord(ComponentRecord):
    """A reader. `build(config)` gives an iterable of questions and bad rows.

    Attributes:
        build: Takes the options.
        metrics: Names of the metrics that its questions are scored by, unless a recipe names
            others; what is right and what is wrong goes by the first that applies to a question.
    """

    build: Callable[[Any], Reader]
    metrics: tuple[str, ...] = ("answer",)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatterRecord(ComponentRecord):
    """A formatter. `build(config)` gives an object with `prompt`, `completion` and `parse`."""

    build: Callable[[Any], Formatter]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollatorRecord(ComponentRecord):
    """A collator. `build(config, tokenizer)` gives what `finqa_sft.collators.base` describes.

    Attributes:
        build: Takes the options and the tokenizer.
        sft_args: `SFTConfig` fields that the collator needs; a recipe that contradicts them is
            refused.
        reasons: Why it needs a field, by the field's name: what such a recipe is told.
        attn_implementation: The attention implementation that it needs, or None for any.
    """

    build: Callable[[Any, PreTrainedTokenizerBase], Collator]
    sft_args: dict[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    attn_implementation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFactoryRecord(ComponentRecord):
    """A model factory. `build(config)` gives an object as `finqa_sft.models.base` describes."""

    build: Callable[[Any], ModelFactory]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRecord(ComponentRecord):
    """A metric. `build(config)` gives an object with `figures`, `applies` and `score`."""

    build: Callable[[Any], Metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRecord(ComponentRecord):
    """A trainer callback. `build(config, output_dir)` gives a `transformers.TrainerCallback`."""

    build: Callable[[Any, Path], TrainerCallback]
