"""What a metric is: figures between 0 and 1 for the prediction of one question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from finqa_sft.documents import Question
from finqa_sft.formatters.base import Prediction


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the numbers that a metric gives.

    Attributes:
        name: How reports and logs call it, as `execution`: lower case, digits, underscores.
        summary: What it counts, in one line.
    """

    name: str
    summary: str


@dataclass(frozen=True, slots=True)
class Score:
    """What a metric makes of one prediction.

    Attributes:
        figures: A number from 0 to 1 for each of the metric's figures, by name; the mean over all
            questions is what is reported.
        note: What a reader of the score has to know: "the official script ends here with an
            error". Empty where there is nothing.
    """

    figures: Mapping[str, float]
    note: str = ""


class Metric(Protocol):
    """Scores predictions, one question at a time."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What it gives; the first is the one by which a prediction is right (1.0) or wrong."""
        ...

    def applies(self, question: Question) -> bool:
        """Whether the question has what this metric compares with; others are left out of its n."""
        ...

    def score(self, question: Question, prediction: Prediction) -> Score:
        """Score a prediction; one that is missing counts 0 in all figures and is not asked for.

        Args:
            question: The question as it was read, with its gold labels; nothing is cleaned.
            prediction: Its program names rows as `question.document` does.
        """
        ...
