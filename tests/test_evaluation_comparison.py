from __future__ import annotations

from dataclasses import replace

import pytest

from finqa_sft.documents import Document, Paragraph, Question
from finqa_sft.evaluation.comparison import compare
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.scoring import Evaluation, score_predictions
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.base import Figure, Score


class Same:
    figures: tuple[Figure, ...] = (Figure("same", "the same text"),)

    def applies(self, question: Question) -> bool:
        return True

    def score(self, question: Question, prediction: Prediction) -> Score:
        return Score({f.name: float(prediction.answer == question.answer) for f in self.figures})


class SameTwice(Same):
    figures = (Figure("same", "the same text"), Figure("again", "the same text"))


def evaluated(
    answers: dict[str, str], *, metric: Same | None = None, name: str = "m"
) -> Evaluation:
    gold = [
        Question(
            id=id,
            text="?",
            document=Document(id=f"page {id[0]}", blocks=(Paragraph("Sales were 5."),)),
            answer="5",
        )
        for id in answers
    ]
    predictions = {
        id: Predicted(id=id, prediction=Prediction(text, answer=text))
        for id, text in answers.items()
        if text
    }
    return score_predictions(gold, predictions, {name: metric or Same()})


def test_questions_that_both_have_are_better_worse_or_as_before() -> None:
    before = evaluated({"a1": "5", "a2": "6", "b1": "5", "b2": "", "old": "5"})
    now = evaluated({"b2": "5", "b1": "6", "a2": "7", "a1": "5", "new": "5"})
    found = compare(now, before)
    assert (found.better, found.worse) == (("b2",), ("b1",))
    assert (found.both_right, found.both_wrong) == (("a1",), ("a2",))
    assert (found.only_now, found.only_before) == (("new",), ("old",))
    assert found.questions == 4


def test_the_difference_is_paired_by_document() -> None:
    before = evaluated({f"{page}{n}": "6" for page in "abcdefgh" for n in range(4)})
    now = evaluated({f"{page}{n}": "5" if n < 2 else "6" for page in "abcdefgh" for n in range(4)})
    difference = compare(now, before).differences["m"]["same"].change
    assert (difference.value, difference.n) == (0.5, 32)
    # Every document got better by as much, so that drawing documents changes nothing.
    assert (difference.low, difference.high) == (0.5, 0.5)
    assert compare(before, now).differences["m"]["same"].change.value == -0.5


def test_both_means_are_over_the_questions_that_both_have() -> None:
    before = evaluated({"a": "5", "b": "6", "old": "5"})
    now = evaluated({"a": "5", "b": "5", "new": "6", "newer": "6"})
    difference = compare(now, before).differences["m"]["same"]
    assert (difference.now, difference.before, difference.change.value) == (1.0, 0.5, 0.5)


def test_predictions_of_questions_that_were_not_asked_now_are_counted() -> None:
    before, now = evaluated({"a": "5"}), evaluated({"a": "5"})
    before, now = replace(before, extra=("x", "y")), replace(now, extra=("y",))
    assert compare(now, before).only_before == ("x",)


def test_an_evaluation_differs_from_itself_by_nothing() -> None:
    same = evaluated({"a1": "5", "a2": "6"})
    found = compare(same, same)
    assert (found.better, found.worse, found.only_now, found.only_before) == ((), (), (), ())
    difference = found.differences["m"]["same"].change
    assert (difference.low, difference.value, difference.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("swapped", [False, True])
def test_only_figures_that_both_have_are_compared(swapped: bool) -> None:
    one, other = evaluated({"a": "5"}), evaluated({"a": "5"}, metric=SameTwice())
    pair = (other, one) if swapped else (one, other)
    assert list(compare(*pair).differences["m"]) == ["same"]
    assert compare(one, evaluated({"a": "5"}, name="n")).differences == {}


def test_evaluations_without_a_common_question_have_no_difference() -> None:
    found = compare(evaluated({"a": "5"}), evaluated({"b": "5"}))
    assert (found.questions, found.differences) == (0, {})
