"""The contract of a metric, as a check."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finqa_sft.documents import Question
from finqa_sft.evaluation.submissions import SubmissionMetric
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.base import Figure, Metric, Score
from finqa_sft.testing.contract import Checked, Rule, excerpt
from finqa_sft.testing.fields import misfits
from finqa_sft.testing.samples import (
    SUBMITTED,
    gold_prediction,
    sample_predictions,
    sample_questions,
)

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class MetricRule(Rule):
    """What holds for every metric."""

    FIGURES = (
        "figures is a tuple of Figures, each with a name of its own and a line about it",
        "Return at least one; names are lower-case letters, digits and underscores, summaries one "
        "line.",
    )
    APPLIES = (
        "applies says True or False of any question",
        "Look whether the fields that score() compares with are there; return a bool and raise "
        "nothing.",
    )
    SOME = (
        "it applies to a question",
        "Give the check a few questions that the metric is for.",
    )
    SCORES = (
        "score takes any prediction and gives a Score",
        "Give 0 to what cannot be read and say why in the score's note; raise nothing.",
    )
    NUMBERS = (
        "a score has the declared figures and no others, each a number from 0 to 1",
        "Put a float for each Figure into Score.figures; percentages are for reports, and what has "
        "no value is 0.",
    )
    SAME = (
        "a prediction scores the same every time, whatever was scored before it",
        "Keep nothing from call to call, make a new dict in each, and draw nothing at random.",
    )
    UNCHANGED = (
        "question and prediction are left as they were",
        "Use dataclasses.replace instead of changing them.",
    )
    RIGHT = (
        "the gold labels as a prediction are right",
        "Give them 1 in the first figure; where that is not what the metric counts, call the check "
        "with gold_is_right=False.",
    )
    SUBMITTED = (
        "score_submitted, where there is one, takes any JSON value",
        "Give 0 to what is not as the benchmark's files have it; raise nothing.",
    )


def check_metric(
    metric: Metric, questions: Iterable[Question] = (), *, gold_is_right: bool = True
) -> None:
    """Check what `finqa_sft.metrics.base.Metric` promises.

    It is tried on questions of all kinds, with predictions that are right, wrong, empty or garbage.

    Args:
        metric: The metric.
        questions: More to try it on: some that it is for, if it is for a kind of its own.
        gold_is_right: Whether the gold labels have to score 1 in the first figure.

    Raises:
        ContractError: A rule of `MetricRule` is broken.
        ValueError: A question is not made as its class says.
    """
    checked = Checked("metric", type(metric).__name__)
    asked = list(questions)
    for number, question in enumerate(asked, start=1):
        if wrong := "; ".join(misfits(question, Question, path=f"item {number}")):
            raise ValueError(f"check_metric needs questions: {wrong}")
    some = _check_scores(checked, metric, [*sample_questions(), *asked], right=gold_is_right)
    checked.require(MetricRule.SOME, some, f"it applies to none of {len(asked)} questions given")


def check_built(metric: Metric) -> None:
    """Check a metric whose questions are not known, and whether gold labels are right to it.

    Raises:
        ContractError: A rule of `MetricRule` is broken.
    """
    _check_scores(Checked("metric", type(metric).__name__), metric, sample_questions(), right=False)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A prediction with its score, as it was when it was made."""

    question: Question
    prediction: Prediction
    score: Score
    figures: dict[str, float]
    note: str


def _check_scores(
    checked: Checked, metric: Metric, questions: Sequence[Question], *, right: bool
) -> bool:
    """Check figures and scores; whether the metric applies to any question."""
    figures = _figures(checked, metric)
    names = [figure.name for figure in figures]
    before = copy.deepcopy(questions)
    chosen = [question for question in questions if _applies(checked, metric, question)]
    tried: list[_Tried] = []
    for question in chosen:
        predictions = list(sample_predictions(question))
        tried += [_scored(checked, metric, question, one, names) for one in predictions]
        as_before = predictions == list(sample_predictions(question))
        checked.require(
            MetricRule.UNCHANGED, as_before, f"a prediction for question {question.id!r} is changed"
        )
        _check_submitted(checked, metric, question, names)
    # In reverse, and another time: what is kept from call to call shows.
    for first in reversed(tried):
        kept = dict(first.score.figures)
        again = _scored(checked, metric, first.question, first.prediction, names)
        for later in (kept, again.figures):
            checked.require(
                MetricRule.SAME,
                (later, again.note) == (first.figures, first.note),
                f"{_named(first.question, first.prediction)} scores {first.figures}"
                f"{f' ({first.note})' if first.note else ''} at first, then {later}"
                f"{f' ({again.note})' if again.note else ''}",
            )
    checked.require(
        MetricRule.SAME,
        _figures(checked, metric) == figures
        and chosen == [question for question in questions if _applies(checked, metric, question)],
        "figures or applies() tell something else after the scoring",
    )
    for question, unchanged in zip(questions, before, strict=True):
        checked.require(
            MetricRule.UNCHANGED, question == unchanged, f"question {question.id!r} is changed"
        )
    for question in chosen if right else ():
        gold = gold_prediction(question)
        found = _scored(checked, metric, question, gold, names)
        checked.require(
            MetricRule.RIGHT,
            found.figures[names[0]] == 1,
            f"{_named(question, gold)}, the gold labels, scores {found.figures}",
        )
    return bool(chosen)


def _figures(checked: Checked, metric: Metric) -> tuple[Figure, ...]:
    with checked.unraised(MetricRule.FIGURES, "figures"):
        figures = metric.figures
    kept = isinstance(figures, tuple) and all(
        isinstance(figure, Figure) and not list(misfits(figure, Figure)) for figure in figures
    )
    checked.require(MetricRule.FIGURES, kept and bool(figures), f"figures is {figures!r}")
    for figure in figures:
        named = f"the figure {figure.name!r}"
        checked.require(
            MetricRule.FIGURES,
            _NAME.fullmatch(figure.name) is not None,
            f"{named} has other characters in its name",
        )
        checked.require(
            MetricRule.FIGURES,
            len(figure.summary.splitlines()) == 1 and bool(figure.summary.strip()),
            f"{named} has the summary {figure.summary!r}",
        )
    names = [figure.name for figure in figures]
    twice = sorted({name for name in names if names.count(name) > 1})
    checked.require(MetricRule.FIGURES, not twice, f"more than one is called {', '.join(twice)}")
    return figures


def _applies(checked: Checked, metric: Metric, question: Question) -> bool:
    with checked.unraised(MetricRule.APPLIES, f"applies() to question {question.id!r}"):
        applies: object = metric.applies(question)
    checked.require(
        MetricRule.APPLIES,
        isinstance(applies, bool),
        f"applies() gives {applies!r} for question {question.id!r}",
    )
    return applies is True


def _scored(
    checked: Checked, metric: Metric, question: Question, prediction: Prediction, names: list[str]
) -> _Tried:
    """Score a prediction."""
    named = _named(question, prediction)
    with checked.unraised(MetricRule.SCORES, f"scoring {named}"):
        score = metric.score(question, prediction)
    figures = _numbers(checked, score, names, named, rule=MetricRule.SCORES)
    return _Tried(question, prediction, score, figures, score.note)


def _numbers(
    checked: Checked, score: object, names: list[str], named: str, *, rule: MetricRule
) -> dict[str, float]:
    """The figures of a score, copied, each seen to be there and a number."""
    kept = isinstance(score, Score) and isinstance(score.note, str)
    checked.require(rule, kept, f"{named} scores {score!r}")
    assert isinstance(score, Score)
    with checked.unraised(rule, f"the figures of {named}"):
        figures = dict(score.figures)
    checked.require(
        MetricRule.NUMBERS,
        set(figures) == set(names),
        f"{named} scores {figures}; declared are {', '.join(names)}",
    )
    wrong = {
        name: value
        for name, value in figures.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
    }
    checked.require(MetricRule.NUMBERS, not wrong, f"{named} scores {wrong}")
    return figures


def _check_submitted(
    checked: Checked, metric: Metric, question: Question, names: list[str]
) -> None:
    if not isinstance(metric, SubmissionMetric):
        return
    for value in SUBMITTED:
        named = f"{excerpt(_text(value))} handed in for question {question.id!r}"
        with checked.unraised(MetricRule.SUBMITTED, f"scoring {named}"):
            score = metric.score_submitted(question, copy.deepcopy(value))
        _numbers(checked, score, names, named, rule=MetricRule.SUBMITTED)


def _text(value: object) -> str:
    """A value for an error; numbers of thousands of digits Python does not write."""
    try:
        return repr(value)
    except ValueError:
        return "a number with thousands of digits"


def _named(question: Question, prediction: Prediction) -> str:
    """A prediction as errors name it."""
    program = "" if prediction.program is None else f", program {excerpt(prediction.program)}"
    scale = f", scale {prediction.scale}" if prediction.scale else ""
    answer = "no answer" if prediction.answer is None else f"answer {excerpt(prediction.answer)}"
    return f"{answer}{program}{scale} to question {question.id!r}"
