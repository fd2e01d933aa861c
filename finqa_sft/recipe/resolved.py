"""What a recipe comes out as: checked values and the components that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel

from finqa_sft.plugins.records import (
    CallbackRecord,
    CollatorRecord,
    ComponentRecord,
    FormatterRecord,
    ModelFactoryRecord,
    ReaderRecord,
)
from finqa_sft.recipe.schema import SplitSection

if TYPE_CHECKING:
    from finqa_sft.plugins.manager import Component

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
        """
        record: Any = self.component.record
        with self.component.blamed():
            return record.build(self.options, *rest)


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
    """

    dir: Path
    overwrite: bool


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
        split: Which documents are held out.
        bad_rows: What to do about rows that cannot be read.
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
    split: SplitSection
    bad_rows: Literal["error", "skip"]
    trainer: Mapping[str, Any]
    output: Output
    plugins: tuple[Path, ...]
    notes: Any
    _values: tuple[Value, ...] = field(repr=False)

    def values(self) -> tuple[Value, ...]:
        """Every value of the recipe with its origin, defaults and trainer fields included."""
        return self._values
