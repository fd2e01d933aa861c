from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from finqa_sft.documents import Document, Evidence, Paragraph, Question
from finqa_sft.errors import PluginError, ProgramError
from finqa_sft.evaluation.faults import Fault
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.scoring import Evaluation, score_predictions
from finqa_sft.evaluation.submissions import Kind, Submission
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.base import Figure, Score
from finqa_sft.metrics.components import AnswerMetric, ConvfinqaMetric, FinqaMetric, TatqaMetric

PAGE = Document(id="page", blocks=(Paragraph("Sales were 5 and costs 3."),))


def question(id: str, answer: str = "5", **of: Any) -> Question:
    return Question(id=id, text="?", document=PAGE, answer=answer, **of)


def predicted(id: str, answer: str | None = "5", **of: Any) -> Predicted:
    return Predicted(id=id, prediction=Prediction(answer or "", answer=answer), **of)


def by_id(*several: Predicted) -> dict[str, Predicted]:
    return {one.id: one for one in several}


@dataclass
class Same:
    """Gives what it is told to; the first figure is whether the answer is the gold one."""

    figures: tuple[Figure, ...] = (Figure("same", "the same text"), Figure("half", "one half"))
    given: Any = None
    only: str = ""
    error: BaseException | None = None

    def applies(self, question: Question) -> bool:
        return self.only in question.id

    def score(self, question: Question, prediction: Prediction) -> Score:
        if self.error:
            raise self.error
        if self.given is not None:
            return Score(self.given)
        return Score({"same": float(prediction.answer == question.answer), "half": 0.5})


class Handed(Same):
    """Also scores what was handed in, of the kind `answers`."""

    submissions: Kind = "answers"

    def score_submitted(self, question: Question, submitted: Any) -> Score:
        return Score({"same": float(submitted[0] == 5), "half": 0.25}, note=repr(submitted))


def evaluated(*several: Predicted, of: Any = None, ids: str = "abc") -> Evaluation:
    metrics = {"same": Same()} if of is None else of
    return score_predictions([question(id) for id in ids], by_id(*several), metrics)


def test_every_gold_question_is_scored_in_the_order_of_the_gold() -> None:
    found = evaluated(predicted("c"), predicted("a", "6"), predicted("x"))
    assert [one.question.id for one in found.scored] == ["a", "b", "c"]
    assert [one.verdict.right for one in found.scored] == [False, False, True]
    assert [one.verdict.fault for one in found.scored] == [
        Fault.NUMBER,
        Fault.NO_PREDICTION,
        None,
    ]
    assert found.extra == ("x",)
    assert found.figures == {"same": Same().figures}


def test_without_a_prediction_and_unasked_all_figures_are_zero() -> None:
    found = evaluated(predicted("a", problem="too long"), ids="ab")
    assert [dict(one.scores["same"].figures) for one in found.scored] == [
        {"same": 0.0, "half": 0.0}
    ] * 2
    assert [one.verdict.fault for one in found.scored] == [Fault.NOT_ASKED, Fault.NO_PREDICTION]


def test_right_goes_by_the_first_metric_that_applies() -> None:
    metrics = {
        "one": Same(only="a", given={"same": 0.0, "half": 1.0}),
        "two": Same(only="ab"[0:0], given={"same": 1.0, "half": 0.0}),
    }
    found = evaluated(predicted("a"), predicted("b"), of=metrics, ids="ab")
    assert [one.verdict.right for one in found.scored] == [False, True]
    assert [list(one.scores) for one in found.scored] == [["one", "two"], ["two"]]


def test_almost_right_is_not_right() -> None:
    found = evaluated(predicted("a"), of={"m": Same(given={"same": 0.999, "half": 1})}, ids="a")
    assert not found.scored[0].verdict.right


def test_a_question_that_no_metric_applies_to_is_neither_right_nor_at_fault() -> None:
    (one,) = evaluated(predicted("a"), of={"m": Same(only="z")}, ids="a").scored
    assert (one.scores, one.verdict.right, one.verdict.fault) == ({}, False, None)


def test_what_a_prediction_works_with_is_found_in_the_document() -> None:
    (one,) = evaluated(predicted("a"), ids="a").scored
    assert one.used == (Evidence(0),)


TURN = question("a", "93", executed_answer=93.0)
STEPS = question("a", "3", program="add(1, 2)", executed_answer=3.0)
ZERO = question("a", "0", answer_type="arithmetic", executed_answer=0.0)
SPANS = question("a", "net sales | cash", answer_type="multi-span")


@pytest.mark.parametrize(
    ("metric", "asked", "kind", "value", "figures"),
    [
        (FinqaMetric(), STEPS, "programs", ["add(", "1", "2", ")", "EOF"], (1, 1, 1)),
        (FinqaMetric(), STEPS, "programs", ["add(", "2", "1", ")"], (0, 0, 1)),
        (FinqaMetric(), STEPS, "programs", [], (0, 0, 1)),
        (FinqaMetric(), STEPS, "programs", "add(1, 2)", (1, 1, 1)),
        (ConvfinqaMetric(), TURN, "programs", ["93", "EOF"], (1, 1, 1)),
        (ConvfinqaMetric(), TURN, "programs", " 93", (1, 0, 1)),
        (ConvfinqaMetric(), TURN, "programs", "add(93, 0)", (1, 0, 1)),
        (TatqaMetric(), ZERO, "answers", [0, ""], (0, 0, 0, 1, 1)),
        (TatqaMetric(), ZERO, "answers", ["0", ""], (1, 1, 1, 1, 1)),
        (TatqaMetric(), ZERO, "answers", [0.0, None], (0, 0, 0, 0, 0)),
        (TatqaMetric(), ZERO, "answers", [None, {}], (0, 0, 0, 0, 0)),
        (TatqaMetric(), SPANS, "answers", [["cash", "net sales"], ""], (1, 1, 1, 1, 1)),
        (TatqaMetric(), SPANS, "answers", ["net sales | cash", ""], (0, 1, 1, 0, 1)),
    ],
)
def test_what_was_handed_in_is_scored_as_it_was(
    metric: Any, asked: Question, kind: Any, value: Any, figures: tuple[float, ...]
) -> None:
    handed = predicted("a", "7", submission=Submission(kind, value))
    (one,) = score_predictions([asked], by_id(handed), {"m": metric}).scored
    assert tuple(one.scores["m"].figures.values()) == figures


def test_a_strangers_metric_can_take_what_was_handed_in_too() -> None:
    handed = predicted("a", "6", submission=Submission("answers", [5, None]))
    other = predicted("b", "5", submission=Submission("programs", "5"))
    found = evaluated(handed, other, predicted("c", "5"), of={"handed": Handed()})
    halves = [one.scores["handed"].figures["half"] for one in found.scored]
    assert halves == [0.25, 0.5, 0.5]
    assert found.scored[0].scores["handed"].note == "[5, None]"


def test_other_metrics_score_what_a_submission_stands_for() -> None:
    handed = predicted("a", "5", submission=Submission("answers", [5, ""]))
    for metric in (Same(), AnswerMetric()):
        (one,) = score_predictions([question("a")], by_id(handed), {"m": metric}).scored
        assert one.verdict.right
    (one,) = score_predictions([STEPS], by_id(handed), {"m": FinqaMetric()}).scored
    assert not one.verdict.right


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            Same(given={"same": 1.0}),
            "the metric 'm' gives at question 'a' the figures same; it declares same, half",
        ),
        (
            Same(given={"same": 1.0, "half": 0.5, "more": 1.0}),
            "the metric 'm' gives at question 'a' the figures same, half, more; it declares same, "
            "half",
        ),
        (
            Same(given={}),
            "the metric 'm' gives at question 'a' the figures none; it declares same, half",
        ),
        (
            Same(given={"same": 1.5, "half": 0.5}),
            "the metric 'm' gives at question 'a' same = 1.5; expected a number from 0 to 1",
        ),
        (
            Same(given={"same": 1.0, "half": float("nan")}),
            "the metric 'm' gives at question 'a' half = nan; expected a number from 0 to 1",
        ),
        (
            Same(error=KeyError("unit")),
            "the metric 'm' raised at question 'a': KeyError: 'unit' (FILE)",
        ),
        (
            Same(error=ProgramError("no program")),
            "the metric 'm' raised at question 'a': ProgramError: no program (FILE)",
        ),
        (
            Same(given={"same": "1", "half": 0.5}),
            "the metric 'm' raised at question 'a': TypeError: '<=' not supported between "
            "instances of 'int' and 'str' (FILE)",
        ),
    ],
)
def test_a_metric_that_breaks_its_word_is_named_with_the_question(
    metric: Same, message: str
) -> None:
    with pytest.raises(PluginError) as caught:
        evaluated(predicted("a"), of={"m": metric}, ids="a")
    assert re.sub(r"\(\S+\.py:\d+\)", "(FILE)", str(caught.value)) == message


def test_a_metric_without_figures_is_named() -> None:
    message = "the metric 'm' declares no figures; it has to give one at least"
    with pytest.raises(PluginError, match=message):
        evaluated(of={"m": Same(figures=())})


def test_ctrl_c_in_a_metric_is_no_fault_of_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluated(predicted("a"), of={"m": Same(error=KeyboardInterrupt())}, ids="a")
