"""Scoring: gold questions and predictions in, one verdict a question out."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finqa_sft.documents import Evidence, Question
from finqa_sft.errors import PluginError
from finqa_sft.evaluation.faults import Verdict, verdict
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.submissions import score_submission, scores_programs
from finqa_sft.evaluation.used import used_evidence
from finqa_sft.metrics.base import Figure, Metric, Score
from finqa_sft.wording import one_line


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


def score_predictions(
    questions: Sequence[Question],
    predictions: Mapping[str, Predicted],
    metrics: Mapping[str, Metric],
    *,
    duplicates: Sequence[str] = (),
) -> Evaluation:
    """Score what was predicted for some gold questions.

    A question without a prediction, or one that could not be asked, counts 0 in all figures. What
    comes from a benchmark's own prediction file is scored as it was handed in by the metrics that
    take such files (`score_submission`).

    Args:
        questions: The gold questions as they were read; nothing is cleaned.
        predictions: The predictions by the ids of their questions.
        metrics: The metrics by name. Right or wrong goes by the first that applies to a question.
        duplicates: Ids that the predictions held more than once, to be passed on.

    Raises:
        PluginError: A metric raises, declares no figures, gives others than it declares, or one
            that is not from 0 to 1. The text names metric and question.
    """
    for name, metric in metrics.items():
        if not metric.figures:
            raise PluginError(
                f"the metric {name!r} declares no figures; it has to give one at least"
            )
    known = {question.id for question in questions}
    return Evaluation(
        scored=[_scored(one, predictions.get(one.id), metrics) for one in questions],
        figures={name: metric.figures for name, metric in metrics.items()},
        extra=tuple(id for id in predictions if id not in known),
        duplicates=tuple(duplicates),
    )


def _scored(
    question: Question, predicted: Predicted | None, metrics: Mapping[str, Metric]
) -> Scored:
    scores: dict[str, Score] = {}
    for name, metric in metrics.items():
        score = _score(name, metric, question, predicted)
        if score is not None:
            scores[name] = score
    right = by_program = False
    if scores:
        first = next(iter(scores))
        right = scores[first].figures[metrics[first].figures[0].name] == 1
        by_program = scores_programs(metrics[first])
    return Scored(
        question=question,
        predicted=predicted,
        scores=scores,
        verdict=verdict(
            question, predicted, tuple(scores.values()), right=right, by_program=by_program
        ),
        used=used_evidence(question.document, predicted.prediction) if predicted else (),
    )


def _score(
    name: str, metric: Metric, question: Question, predicted: Predicted | None
) -> Score | None:
    """What a metric makes of a prediction; None where it does not apply to the question."""
    try:
        if not metric.applies(question):
            return None
        if predicted is None or predicted.problem:
            return Score({figure.name: 0.0 for figure in metric.figures})
        score = score_submission(metric, question, predicted.submission)
        if score is None:
            score = metric.score(question, predicted.prediction)
        problem = _problem(metric, score)
    # A metric may be a stranger's, and raise anything.
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise PluginError(
            f"the metric {name!r} raised at question {question.id!r}: {type(error).__name__}: "
            f"{one_line(error)} ({frame.filename}:{frame.lineno})"
        ) from error
    if problem:
        raise PluginError(f"the metric {name!r} gives at question {question.id!r} {problem}")
    return score


def _problem(metric: Metric, score: Score) -> str:
    """What is wrong with a score; empty if nothing is."""
    declared = [figure.name for figure in metric.figures]
    given = score.figures
    if set(given) != set(declared):
        return f"the figures {', '.join(given) or 'none'}; it declares {', '.join(declared)}"
    outside = next((name for name in declared if not 0 <= given[name] <= 1), None)
    return f"{outside} = {given[outside]}; expected a number from 0 to 1" if outside else ""
