"""The built-in metrics: official scores, and scores of plain answers, for questions as read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from finqa_sft.documents import Question
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.answer import DEFAULT_TOLERANCE, score_answer
from finqa_sft.metrics.base import Figure, Score
from finqa_sft.metrics.computed import computed_prediction, stated_program, table_rows
from finqa_sft.metrics.finqa import FinQAScore, score_convfinqa, score_finqa
from finqa_sft.metrics.tatqa import score_tatqa
from finqa_sft.options import Options
from finqa_sft.programs import official_result
from finqa_sft.readers.tatqa import SPAN_SEPARATOR

_PROGRAM_FIGURES = (
    Figure("execution", "the program's result is the gold answer"),
    Figure("program", "the program is the gold program up to algebra"),
    Figure("valid", "the program can be computed"),
)
_Submissions: TypeAlias = Literal["programs", "answers"]
_TATQA_TYPES = ("span", "multi-span", "arithmetic", "count")


class FinqaMetric:
    """FinQA's official execution accuracy and program accuracy; a number alone is no program.

    The prediction's program is scored as it is written, else its answer in place of a program.
    """

    figures = _PROGRAM_FIGURES
    submissions: _Submissions = "programs"

    def applies(self, question: Question) -> bool:
        """Whether there are a gold program and its result, and not TAT-QA's derivation."""
        return _has_result(question) and question.program is not None

    def score(self, question: Question, prediction: Prediction) -> Score:
        """Score a prediction; one without program and answer counts 0, also as `valid`."""
        return _program_score(score_finqa, question, prediction)

    def score_submitted(self, question: Question, submitted: object) -> Score:
        """Score what a prediction file of the benchmark holds: a list of tokens, or text."""
        return _submitted_score(score_finqa, question, submitted)


class ConvfinqaMetric:
    """ConvFinQA's official execution accuracy and program accuracy of a turn.

    As `FinqaMetric`, but for turns that pick a number from the page: the number is the program.
    """

    figures = _PROGRAM_FIGURES
    submissions: _Submissions = "programs"

    def applies(self, question: Question) -> bool:
        """Whether there is a gold result, and a gold program or a number in its place."""
        return _has_result(question) and (
            question.program is not None or _is_bare_number(question.answer)
        )

    def score(self, question: Question, prediction: Prediction) -> Score:
        """Score a prediction; one without program and answer counts 0, also as `valid`."""
        return _program_score(score_convfinqa, question, prediction)

    def score_submitted(self, question: Question, submitted: object) -> Score:
        """Score what a prediction file of the benchmark holds: a list of tokens, or text."""
        return _submitted_score(score_convfinqa, question, submitted)


class TatqaMetric:
    """TAT-QA's official exact match, F1 and scale.

    The result of the prediction's program is scored, else its answer, a `" | "` in which parts
    spans. Both are text, so 0 is an answer. What was handed in to the benchmark may be the number
    0; that is where the figures with zero differ.
    """

    figures = (
        Figure("em", "answer and scale are the gold ones, as TAT-QA compares them"),
        Figure("f1", "share of words in common; of numbers the exact match"),
        Figure("scale", "the scale is the gold one"),
        Figure("em_with_zero", "exact match if the number 0 is an answer"),
        Figure("f1_with_zero", "F1 if the number 0 is an answer"),
    )
    submissions: _Submissions = "answers"

    def applies(self, question: Question) -> bool:
        """Whether the question has one of TAT-QA's four types of answer."""
        return question.answer_type in _TATQA_TYPES

    def score(self, question: Question, prediction: Prediction) -> Score:
        """Score what the prediction comes to."""
        computed = computed_prediction(prediction, question)
        spans = computed.text.split(SPAN_SEPARATOR) if computed.text else ""
        return self._scored(question, spans, computed.scale)

    def score_submitted(self, question: Question, submitted: object) -> Score:
        """Score what a prediction file of the benchmark holds: a list of answer and scale."""
        if not isinstance(submitted, list | tuple) or len(submitted) != 2:
            return Score(dict.fromkeys(self._names, 0.0), "not a list of an answer and its scale")
        return self._scored(question, *submitted)

    def _scored(self, question: Question, answer: object, scale: object) -> Score:
        score = score_tatqa(
            answer,
            scale,
            gold_answer=question.answer.split(SPAN_SEPARATOR),
            gold_scale=question.scale,
            answer_type=question.answer_type or "",
        )
        return Score({name: getattr(score, name) for name in self._names}, score.note)

    @property
    def _names(self) -> list[str]:
        return [figure.name for figure in self.figures]


class AnswerMetricOptions(Options):
    """Options of the metric `answer`."""

    tolerance: Annotated[float, Field(ge=0, le=0.1)] = DEFAULT_TOLERANCE
    """How far a number may be from the gold one, as a share of it. A number that rounds to the gold
    one, as 0.14212 does to 14.2%, is right whatever the tolerance is."""


class AnswerMetric:
    """Compares answers as text and as numbers; for data that has no official script.

    The result of the prediction's program is scored, else its answer.
    """

    figures = (
        Figure("correct", "the answer is the gold one, as text or as a number"),
        Figure("exact", "it is the same text"),
        Figure("numeric", "it is the same number, within the tolerance or the gold one's rounding"),
        Figure("f1", "share of words in common"),
    )

    def __init__(self, options: AnswerMetricOptions | None = None) -> None:
        """Take the options; all have defaults."""
        self._options = options or AnswerMetricOptions()

    def applies(self, question: Question) -> bool:
        """Every question has an answer."""
        return True

    def score(self, question: Question, prediction: Prediction) -> Score:
        """Score what the prediction comes to."""
        computed = computed_prediction(prediction, question)
        score = score_answer(
            computed.text,
            gold=question.answer,
            tolerance=self._options.tolerance,
            scale=computed.scale,
            gold_scale=question.scale,
        )
        return Score(
            {
                "correct": float(score.correct),
                "exact": float(score.exact),
                "numeric": float(score.numeric),
                "f1": score.f1,
            }
        )


def _has_result(question: Question) -> bool:
    """Whether there is a result to compare with, and not in the unit of an analyst's derivation."""
    return question.executed_answer is not None and question.derivation is None


def _is_bare_number(answer: str) -> bool:
    return "(" not in answer and isinstance(official_result(answer, bare_numbers=True).value, float)


def _program_score(
    scorer: Callable[..., FinQAScore], question: Question, prediction: Prediction
) -> Score:
    """The figures of an official script for what the prediction says as its program."""
    predicted = stated_program(prediction) or prediction.answer
    if predicted is None:
        figures = {figure.name: 0.0 for figure in _PROGRAM_FIGURES}
        return Score(figures, "neither a program nor an answer")
    return _submitted_score(scorer, question, predicted)


def _submitted_score(
    scorer: Callable[..., FinQAScore], question: Question, submitted: object
) -> Score:
    score = scorer(
        submitted,
        program=question.program if question.program is not None else question.answer,
        executed=question.executed_answer,
        table=table_rows(question.document),
    )
    return Score(
        {figure.name: float(getattr(score, figure.name)) for figure in _PROGRAM_FIGURES},
        score.note,
    )
