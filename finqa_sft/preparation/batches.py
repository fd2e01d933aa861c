"""What a collator makes of a run's rows, in numbers: batches, steps and tokens."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from finqa_sft.preparation.parts import Part
from finqa_sft.preparation.statistics import tokens_of

if TYPE_CHECKING:
    from datasets import Dataset


class Schedule(Protocol):
    """The trainer's fields that say how many steps there are, as `SFTConfig` has them."""

    @property
    def per_device_train_batch_size(self) -> int:
        """Rows a process and forward."""

    @property
    def gradient_accumulation_steps(self) -> int:
        """Forwards an optimizer step."""

    @property
    def dataloader_drop_last(self) -> bool:
        """Whether a last batch that is not full is left out."""

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole run; 0 or less for whole epochs."""

    @property
    def num_train_epochs(self) -> float:
        """Epochs, where steps are not given."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Batch arithmetic of a run.

    Attributes:
        rows: Rows in the arranged data set.
        per_device: Rows a process and forward.
        accumulation: Forwards an optimizer step.
        processes: Processes.
        rows_a_step: The product of the last three.
        steps_an_epoch: Optimizer steps to see every row once.
        steps: Optimizer steps of the whole run.
    """

    rows: int
    per_device: int
    accumulation: int
    processes: int
    rows_a_step: int
    steps_an_epoch: int
    steps: int

    @classmethod
    def of(cls, schedule: Schedule, *, rows: int, processes: int) -> Batches:
        """Work it out as the trainer does.

        Args:
            schedule: The trainer's arguments.
            rows: Rows in the arranged data set.
            processes: Processes that train together.
        """
        per_device = schedule.per_device_train_batch_size
        accumulation = schedule.gradient_accumulation_steps
        batches = rows / (per_device * processes)
        batches = int(batches) if schedule.dataloader_drop_last else math.ceil(batches)
        steps_an_epoch = math.ceil(batches / accumulation)
        steps = schedule.max_steps
        if steps <= 0:
            steps = math.ceil(schedule.num_train_epochs * steps_an_epoch)
        return cls(
            rows=rows,
            per_device=per_device,
            accumulation=accumulation,
            processes=processes,
            rows_a_step=per_device * accumulation * processes,
            steps_an_epoch=steps_an_epoch,
            steps=steps,
        )

    def record(self) -> dict[str, int]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the questions of a run become batches.

    Attributes:
        questions: Questions to train on.
        tokens_apart: Their tokens as one row a question, without padding.
        tokens: Their tokens as arranged.
        token_ratio: How many times fewer those are.
        questions_a_step: In an optimizer step, in the mean.
        supervised_a_step: Supervised tokens in an optimizer step, in the mean.
    """

    questions: int
    tokens_apart: int
    tokens: int
    token_ratio: float
    questions_a_step: float
    supervised_a_step: float

    @classmethod
    def of(cls, part: Part, arranged: Dataset, batches: Batches) -> Layout:
        """Count.

        Args:
            part: The questions, encoded.
            arranged: What the collator made of their rows.
            batches: How many of its rows an optimizer step has.
        """
        apart = int(part.lengths.sum())
        tokens = tokens_of(arranged)
        # The whole data set may be less than one step.
        share = min(1.0, batches.rows_a_step / batches.rows)
        return cls(
            questions=len(part),
            tokens_apart=apart,
            tokens=tokens,
            token_ratio=apart / tokens,
            questions_a_step=len(part) * share,
            supervised_a_step=int(part.supervised.sum()) * share,
        )

    def record(self) -> dict[str, float]:
        """As plain values."""
        return asdict(self)
