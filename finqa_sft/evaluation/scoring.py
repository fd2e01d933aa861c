"""Scoring: gold questions and predictions in, one verdict a question out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finqa_sft.documents import Evidence, Question
from finqa_sft.evaluation.faults import Verdict
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.metrics.base import Figure, Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One gold question with what was predicted for it.

    Attributes:
        question: The question as it was read.
        predicted: What was predicted, or None.
        scores: What each metric that applies makes of it, by the metric's name; zeros without a
            prediction.
        verdict: Right or wrong, and why.
        used: The rows and paragraphs that the prediction works with.
    """

    question: Question
    predicted: Predicted | None
    scores: Mapping[str, Score]
    verdict: Verdict
    used: tuple[Evidence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All gold questions, scored.

    Attributes:
        scored: One entry a gold question, in the order of the gold.
        figures: What each metric gives, by its name.
        extra: Ids of predictions that no gold question has.
        duplicates: Ids that the predictions hold more than once; the first of them counts.
    """

    scored: Sequence[Scored]
    figures: Mapping[str, tuple[Figure, ...]]
    extra: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
