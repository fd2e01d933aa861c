"""What was handed in, unchanged: the values in the prediction files of the benchmarks.

An official score depends on how a prediction is written: a list of tokens that a script does not
take apart again, a number where text could stand, a scale that is null. So what such a file holds
is kept beside the prediction that it stands for, and scored as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from finqa_sft.documents import Question
from finqa_sft.metrics.base import Metric, Score

Kind: TypeAlias = Literal["programs", "answers"]
"""Which files a value comes from: FinQA's and ConvFinQA's of programs, or TAT-QA's of answers."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A value from a benchmark's prediction file.

    Attributes:
        kind: Which files it comes from.
        value: Of `programs`, what stands under `predicted`: a list of tokens, or text. Of
            `answers`, the list of answer and scale, each any JSON value.
    """

    kind: Kind
    value: Any


@runtime_checkable
class SubmissionMetric(Protocol):
    """A metric that also scores what a prediction file of its benchmark holds.

    Attributes:
        submissions: The kind of submission that it scores.
    """

    submissions: Kind

    def score_submitted(self, question: Question, submitted: Any) -> Score:
        """Score the `value` of a `Submission`; never raises, whatever JSON value it is."""
        ...


def scores_programs(metric: Metric) -> bool:
    """Whether a metric goes by programs, as FinQA's script does, and not by answers."""
    return isinstance(metric, SubmissionMetric) and metric.submissions == "programs"


def score_submission(
    metric: Metric, question: Question, submission: Submission | None
) -> Score | None:
    """What a metric makes of a value as it was handed in.

    Args:
        metric: Any metric; those of benchmarks are `SubmissionMetric` too.
        question: A question that the metric applies to.
        submission: What was handed in for it, or None.

    Returns:
        The score; None where nothing was handed in, or nothing that the metric takes. It then
        scores the prediction that the value stands for.
    """
    if submission is None or not isinstance(metric, SubmissionMetric):
        return None
    if metric.submissions != submission.kind:
        return None
    return metric.score_submitted(question, submission.value)
