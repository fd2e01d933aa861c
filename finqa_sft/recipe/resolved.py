"""What a recipe comes out as: checked values and the components that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel

from finqa_sft.collators.base import Collator
from finqa_sft.errors import PluginError
from finqa_sft.formatters.base import Formatter
from finqa_sft.metrics.base import Metric
from finqa_sft.models.base import ModelFactory
from finqa_sft.plugins.manager import SINGULAR, Component
from finqa_sft.plugins.records import (
    CallbackRecord,
    CollatorRecord,
    ComponentRecord,
    FormatterRecord,
    MetricRecord,
    ModelFactoryRecord,
    ReaderRecord,
)
from finqa_sft.readers.base import Reader
from finqa_sft.recipe.schema import DataRules, EvaluationRules

R = TypeVar("R", bound=ComponentRecord)

Origin: TypeAlias = Literal["default", "recipe", "override", "collator"]


@dataclass(frozen=True, slots=True)
class Chosen(Generic[R]):
    """A component that a recipe names, with its options.

    Attributes:
        name: As the recipe names it.
        component: The record and its provider.
        options: The component's options, checked.
    """

    name: str
    component: Component[R]
    options: BaseModel

    @property
    def record(self) -> R:
        """The component's record."""
        return self.component.record

    def build(self, *rest: Any) -> Any:
        """Build the component; an unexpected exception names it and its provider.

        Args:
            rest: What `build` of its record takes after the options.

        Raises:
            PluginError: What was built lacks a method that its kind must have.
        """
        record: Any = self.component.record
        with self.component.blamed():
            part = record.build(self.options, *rest)
        lacking = _lacking(part, _PROTOCOLS.get(self.component.kind))
        if lacking:
            raise PluginError(
                f"the {SINGULAR[self.component.kind]} {record.name!r} of {self.component.provider} "
                f"cannot be used: its build gave {type(part).__name__}, which lacks "
                f"{', '.join(lacking)}; mend or update the plugin"
            )
        return part


_PROTOCOLS: Mapping[str, type] = {
    "readers": Reader,
    "formatters": Formatter,
    "collators": Collator,
    "metrics": Metric,
    "model_factories": ModelFactory,
}
"""What `build` of a record gives, by kind."""


def _lacking(part: object, protocol: type | None) -> list[str]:
    """The methods and attributes that a component of a kind must have, and this one has not."""
    if protocol is None:
        # The first of the methods that every `TrainerCallback` has.
        return [] if callable(getattr(part, "on_init_end", None)) else ["on_init_end"]
    members = {
        name: member
        for name, member in vars(protocol).items()
        if name in ("__call__", "__iter__") or name[0] != "_"
    }
    return [
        name
        for name, member in members.items()
        if getattr(part, name, None) is None
        or (callable(member) and not callable(getattr(part, name)))
    ]


@dataclass(frozen=True, slots=True)
class Source(Chosen[ReaderRecord]):
    """A reader of questions.

    Attributes:
        weight: How often its questions are seen in an epoch.
    """

    weight: float


@dataclass(frozen=True, slots=True)
class Output:
    """Where a run writes.

    Attributes:
        dir: The run's folder.
        overwrite: Whether a finished run in that folder may be replaced.
        grace_period: Seconds from SIGTERM until its processes must have ended, if any.
    """

    dir: Path
    overwrite: bool
    grace_period: float | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a resolved recipe.

    Attributes:
        path: The dotted key.
        value: Plain data.
        origin: Where it was set; `collator` for what the collator needs of the trainer.
        line: Its line in the recipe, where that is its origin.
    """

    path: str
    value: Any
    origin: Origin
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked recipe.

    Attributes:
        path: The recipe file.
        name: Its name without `.yaml`.
        model: The model factory.
        sources: What is trained on.
        evaluation_sources: What is evaluated on besides the split's held-out documents.
        formatter: The formatter.
        max_length: Longest row, in tokens.
        collator: The collator.
        callbacks: What runs beside the training.
        metrics: What answers are scored by: those that the recipe names, else the readers' own.
        evaluation: When held-out questions are asked, and how.
        data: What is done with questions once they are read.
        trainer: The `SFTConfig` fields that the recipe sets, and no others.
        output: The run's folder, and whether it may be overwritten.
        plugins: Plugin files.
        notes: Anything.
    """

    path: Path
    name: str
    model: Chosen[ModelFactoryRecord]
    sources: tuple[Source, ...]
    evaluation_sources: tuple[Source, ...]
    formatter: Chosen[FormatterRecord]
    max_length: int
    collator: Chosen[CollatorRecord]
    callbacks: tuple[Chosen[CallbackRecord], ...]
    metrics: tuple[Chosen[MetricRecord], ...]
    evaluation: EvaluationRules
    data: DataRules
    trainer: Mapping[str, Any]
    output: Output
    plugins: tuple[Path, ...]
    notes: Any
    _values: tuple[Value, ...] = field(repr=False)

    def values(self) -> tuple[Value, ...]:
        """Every value of the recipe with its origin, defaults and trainer fields included."""
        return self._values
