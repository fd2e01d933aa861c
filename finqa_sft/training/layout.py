"""What a collator makes of a run's rows, in numbers, and the first moment of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finqa_sft.preparation import Part
from finqa_sft.preparation.statistics import tokens_of
from finqa_sft.training.announce import Batches

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel


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


class Beginning(TrainerCallback):
    """Tries the collator on the model as it will train; only then an earlier run's files may go."""

    def __init__(
        self,
        check: Callable[[PreTrainedModel], dict[str, Any]],
        begin: Callable[[dict[str, Any]], None],
    ) -> None:
        """Take what is to be done.

        Args:
            check: Refuses the model, or says what was measured.
            begin: Takes that, and makes room for this run.
        """
        self._check = check
        self._begin = begin

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do both."""
        self._begin(self._check(kwargs["model"]))
