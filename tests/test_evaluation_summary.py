from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.documents import Block, Document, Evidence, Paragraph, Question, Table
from finqa_sft.evaluation.intervals import RESAMPLES, estimate
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.scoring import Evaluation, score_predictions
from finqa_sft.evaluation.summary import breakdown_rows, count_rows, metric_rows, summary
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.base import Figure, Score


class Says:
    """The first figure is the number that the prediction says."""

    figures = (Figure("share", "what it says"), Figure("rest", "the rest"))

    def applies(self, question: Question) -> bool:
        return not question.id.startswith("other")

    def score(self, question: Question, prediction: Prediction) -> Score:
        value = float(prediction.answer or 0)
        return Score({"share": value, "rest": 1 - value}, note="" if value else "nothing said")


def page(id: str, *blocks: Block) -> Document:
    return Document(id=id, blocks=blocks or (Paragraph("Sales were 5."),))


def question(id: str, document: Document | str = "page", **of: Any) -> Question:
    document = page(document) if isinstance(document, str) else document
    return Question(id=id, text="?", document=document, answer="1", **of)


def evaluated(gold: list[Question], values: dict[str, float | str], **of: Any) -> Evaluation:
    predictions = {
        id: Predicted(
            id=id,
            prediction=Prediction(str(value), answer=str(value)),
            problem="too long" if value == "" else "",
        )
        for id, value in values.items()
    }
    return score_predictions(gold, predictions, {"says": Says()}, **of)


def test_means_are_over_all_gold_questions_and_beside_that_over_the_predictions() -> None:
    gold = [question(id, id[0]) for id in ("a1", "a2", "b1", "c1")] + [question("other")]
    numbers = summary(evaluated(gold, {"a1": 1, "a2": 1, "b1": 0, "x": 1}, duplicates=("a1",)))
    share = numbers["metrics"]["says"]["share"]
    assert (share["value"], share["n"]) == (0.5, 4)
    assert (share["of_predictions"], share["predictions"]) == (pytest.approx(2 / 3), 3)
    assert share["summary"] == "what it says"
    assert 0 <= share["low"] < 0.5 < share["high"] <= 1
    assert numbers["metrics"]["says"]["rest"]["value"] == 0.25
    counts = {key: numbers[key] for key in ("questions", "documents", "right", "missing")}
    assert counts == {"questions": 5, "documents": 4, "right": 2, "missing": 2}
    assert (numbers["extra"], numbers["duplicates"]) == (1, 1)
    assert (numbers["not_asked"], numbers["not_scored"]) == (0, 1)
    assert numbers["faults"] == {"no prediction": 2, "wrong number": 1}
    assert numbers["notes"] == {"says": {"n": 1, "first": [{"id": "b1", "note": "nothing said"}]}}
    assert numbers["interval"] == "95% bootstrap over documents, 1,000 resamples, seed 0"


def test_a_summary_is_plain_json_and_always_the_same() -> None:
    gold = [question(f"{n}", f"page {n % 7}") for n in range(40)]
    found = evaluated(gold, {f"{n}": n % 3 / 2 for n in range(40)})
    numbers = summary(found)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert summary(found) == numbers


def test_without_any_prediction_there_is_no_mean_of_them() -> None:
    numbers = summary(evaluated([question("a")], {}))
    share = numbers["metrics"]["says"]["share"]
    assert (share["value"], share["of_predictions"], share["predictions"]) == (0.0, None, 0)


def test_a_metric_that_applies_nowhere_has_no_figures_and_no_breakdowns() -> None:
    numbers = summary(evaluated([question("other")], {"other": 1}))
    assert (numbers["metrics"], numbers["breakdowns"]) == ({"says": {}}, {"says": {}})
    assert list(metric_rows(numbers)) == [("metric", "figure", "value", "95% interval", "n")]
    assert list(breakdown_rows(numbers)) == []


def test_a_property_that_all_questions_share_is_not_broken_down() -> None:
    gold = [question("a", scale="million"), question("b")]
    rows = list(breakdown_rows(summary(evaluated(gold, {"a": 1}))))
    assert [row[:2] for row in rows] == [
        ("says share by", ""),
        ("scale", "none"),
        ("scale", "million"),
    ]
    numbers = summary(evaluated([question("a"), question("b")], {"a": 1}))
    assert list(breakdown_rows(numbers)) == []


def test_questions_are_grouped_by_what_they_ask_and_empty_groups_are_left_out() -> None:
    table = Table.from_cells([["", "2017"], ["sales", "5"]])
    small = page("small", Paragraph("one two three"), table)
    large = page("large", Paragraph("word " * 2_500))
    middle = page("middle", Paragraph("word " * 500))
    gold = [
        question("a", small, answer_type="span", evidence=(Evidence(0),)),
        question("b", small, program="add(1, 2)", evidence=(Evidence(1, 1),), scale="percent"),
        question("c", large, program="add(1, 2), add(#0, 1)", evidence=()),
        question("d", middle, program=", ".join(["add(1, 2)"] * 5), executed_answer=3.0),
        question("e", small, executed_answer="yes", evidence=(Evidence(0), Evidence(1))),
        question("f", small, executed_answer=5.0, scale="million", program="no program"),
    ]
    numbers = summary(evaluated(gold, {"a": 1}))
    groups = {
        name: {label: group["n"] for label, group in every.items()}
        for name, every in numbers["breakdowns"]["says"].items()
    }
    assert groups == {
        "answer type": {"number": 4, "span": 1, "yes or no": 1},
        "program length": {
            "no program": 2,
            "1 step": 1,
            "2 steps": 1,
            "4 steps or more": 1,
            "not readable": 1,
        },
        "evidence": {"table": 1, "text": 1, "both": 1, "not known": 3},
        "document length": {
            "up to 249 words": 4,
            "500 to 999 words": 1,
            "2,000 words or more": 1,
        },
        "scale": {"none": 4, "million": 1, "percent": 1},
    }
    assert [list(every) for every in groups.values()] == [
        ["number", "span", "yes or no"],
        ["no program", "1 step", "2 steps", "4 steps or more", "not readable"],
        ["table", "text", "both", "not known"],
        ["up to 249 words", "500 to 999 words", "2,000 words or more"],
        ["none", "million", "percent"],
    ]
    span = numbers["breakdowns"]["says"]["answer type"]["span"]
    assert span == {"value": 1.0, "low": pytest.approx(0.025), "high": 1.0, "n": 1}


def test_the_tables_show_percentages_and_leave_out_what_did_not_occur() -> None:
    gold = [question("a", "a", scale="million"), question("b", "b")]
    numbers = summary(evaluated(gold, {"a": 1}))
    rows = list(metric_rows(numbers))
    assert rows == [
        ("metric", "figure", "value", "95% interval", "n", "of predictions", "n"),
        ("says", "share", "50.00", "0.00 to 100.00", "2", "100.00", "1"),
        ("says", "rest", "0.00", "0.00 to 84.19", "2", "0.00", "1"),
    ]
    assert list(breakdown_rows(numbers)) == [
        ("says share by", "", "value", "95% interval", "n"),
        ("scale", "none", "0.00", "0.00 to 97.50", "1"),
        ("scale", "million", "100.00", "2.50 to 100.00", "1"),
    ]
    assert list(count_rows(numbers)) == [
        ("questions", "2"),
        ("documents", "2"),
        ("right", "1"),
        ("without a prediction", "1"),
        ("wrong: no prediction", "1"),
    ]


def test_an_interval_of_independent_questions_is_that_of_the_binomial() -> None:
    values = [float(n % 5 == 0) for n in range(500)]
    found = estimate(values, [str(n) for n in range(500)])
    half = 1.96 * math.sqrt(0.2 * 0.8 / 500)
    assert found.value == pytest.approx(0.2)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        shares = generator.beta(2, 2, size=40)
        documents = [str(index) for index in range(40) for _ in range(1 + index % 7)]
        values = [float(generator.random() < shares[int(document)]) for document in documents]
        found = estimate(values, documents)
        held += found.low <= 0.5 <= found.high
    assert 0.9 <= held / 200 <= 0.98


def test_one_document_says_nothing_about_others() -> None:
    found = estimate([1.0, 0.0], ["a", "a"])
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 2)


def test_questions_that_fall_together_make_the_interval_wider() -> None:
    values = [float(n // 10 % 2) for n in range(500)]
    alone = estimate(values, [str(n) for n in range(500)])
    together = estimate(values, [str(n // 10) for n in range(500)])
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


@settings(deadline=None, max_examples=50)
@given(data=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_an_interval_lies_among_the_means_of_the_documents(data: list[tuple[float, int]]) -> None:
    values, documents = [value for value, _ in data], [str(number) for _, number in data]
    found = estimate(values, documents, is_share=False)
    means = [
        np.mean([v for v, d in zip(values, documents, strict=True) if d == document])
        for document in set(documents)
    ]
    tiny = 1e-12
    assert min(means) - tiny <= found.low <= found.high <= max(means) + tiny
    assert found.value == pytest.approx(float(np.mean(values)))
    assert found.n == len(values)
    assert estimate(values, documents, is_share=False) == found


@pytest.mark.parametrize(("documents", "bound"), [(1, 0.975), (4, 0.6024), (20, 0.1684)])
def test_nothing_right_is_no_proof_that_nothing_ever_is(documents: int, bound: float) -> None:
    names = [str(n // 2) for n in range(2 * documents)]
    none, every = (estimate([value] * len(names), names) for value in (0.0, 1.0))
    assert (none.low, none.high) == (0.0, pytest.approx(bound, abs=1e-4))
    assert (every.low, every.high) == (pytest.approx(1 - bound, abs=1e-4), 1.0)
    same = estimate([0.0] * len(names), names, is_share=False)
    assert (same.low, same.high) == (0.0, 0.0)


def test_many_documents_are_drawn_a_stretch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [float(n % 3 == 0) for n in range(300)]
    documents = [str(n // 3) for n in range(300)]
    at_once = estimate(values, documents)
    monkeypatch.setattr("finqa_sft.evaluation.intervals._AT_ONCE", 700)
    assert estimate(values, documents) == at_once
    assert RESAMPLES % 7 != 0
