"""The built-in metrics on questions as readers give them, and what predictions come to."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finqa_sft.documents import Document, Question, Table
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics import score_convfinqa, score_finqa, score_tatqa
from finqa_sft.metrics.base import Metric
from finqa_sft.metrics.components import (
    AnswerMetric,
    AnswerMetricOptions,
    ConvfinqaMetric,
    FinqaMetric,
    TatqaMetric,
)
from finqa_sft.metrics.computed import Computed, computed_prediction
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

DOCUMENT = Document(
    id="p1",
    blocks=(
        Table((("", "2012"), ("sales", "30"))),
        Table((("", "2012"), ("costs", "$ 20"))),
    ),
)
METRICS: tuple[Metric, ...] = (FinqaMetric(), ConvfinqaMetric(), TatqaMetric(), AnswerMetric())


def question(**changes: Any) -> Question:
    labels = {"answer": "10", "program": "subtract(30, 20)", "executed_answer": 10.0}
    return Question(id="q1", text="What?", document=DOCUMENT, **{**labels, **changes})


def turn(answer: str = "30") -> Question:
    return question(program=None, answer=answer, executed_answer=30.0)


def tatqa(answer: str = "10", kind: str = "arithmetic", scale: Any = "million") -> Question:
    return question(
        answer=answer, answer_type=kind, scale=scale, program=None, derivation="30 - 20"
    )


def says(text: str = "", **parts: Any) -> Prediction:
    return Prediction(text=text, **parts)


def test_the_first_figure_says_right_or_wrong_and_all_have_a_summary() -> None:
    names = [[figure.name for figure in metric.figures] for metric in METRICS]
    assert names == [
        ["execution", "program", "valid"],
        ["execution", "program", "valid"],
        ["em", "f1", "scale", "em_with_zero", "f1_with_zero"],
        ["correct", "exact", "numeric", "f1"],
    ]
    for metric in METRICS:
        assert all(figure.summary for figure in metric.figures)
        figures = metric.score(question(answer_type="span"), says(answer="x")).figures
        assert list(figures) == [figure.name for figure in metric.figures]


@pytest.mark.parametrize(
    ("asked", "applying"),
    [
        (question(), "finqa convfinqa answer"),
        (turn(), "convfinqa answer"),
        (turn("const_100"), "convfinqa answer"),
        (turn("30 dollars"), "answer"),
        (question(executed_answer=None), "answer"),
        (tatqa(), "tatqa answer"),
        (question(answer_type="span"), "finqa convfinqa tatqa answer"),
        (question(derivation="30 - 20"), "answer"),
        (question(program=None, executed_answer=None, answer=""), "answer"),
    ],
)
def test_a_metric_applies_where_its_labels_are(asked: Question, applying: str) -> None:
    names = ("finqa", "convfinqa", "tatqa", "answer")
    found = [name for name, metric in zip(names, METRICS, strict=True) if metric.applies(asked)]
    assert found == applying.split()


def test_the_program_is_scored_and_without_one_the_answer_in_its_place() -> None:
    right = {"execution": 1.0, "program": 1.0, "valid": 1.0}
    for metric in (FinqaMetric(), ConvfinqaMetric()):
        assert metric.score(question(), says(program="subtract(30, 20)")).figures == right
        assert (
            metric.score(question(), says(program="", answer="subtract(30, 20)")).figures == right
        )
        assert metric.score(question(), says(answer="subtract(30, 20)")).figures == right
    assert ConvfinqaMetric().score(turn(), says(answer="30")).figures == right
    assert ConvfinqaMetric().score(turn(), says(program=" ", answer="30")).figures == right
    assert ConvfinqaMetric().score(question(), says(answer="10")).figures["execution"] == 1
    assert FinqaMetric().score(question(), says(answer="10")).figures["execution"] == 0


@pytest.mark.parametrize("metric", [FinqaMetric(), ConvfinqaMetric()])
def test_a_prediction_that_says_nothing_is_not_valid(metric: Metric) -> None:
    score = metric.score(question(), says("I cannot say."))
    assert score.figures == {"execution": 0.0, "program": 0.0, "valid": 0.0}
    assert score.note == "neither a program nor an answer"


def test_what_was_handed_in_is_scored_as_it_is() -> None:
    tokens = ["subtract(", "30", "20", ")", "EOF"]
    for metric in (FinqaMetric(), ConvfinqaMetric()):
        assert metric.submissions == "programs"
        assert set(metric.score_submitted(question(), tokens).figures.values()) == {1.0}
        assert metric.score_submitted(question(), "").figures["valid"] == 1
        assert metric.score_submitted(question(), None).figures["valid"] == 0
    assert TatqaMetric().submissions == "answers"
    score = TatqaMetric().score_submitted(tatqa("0", scale=""), [0, ""])
    assert (score.figures["em"], score.figures["em_with_zero"]) == (0, 1)
    assert score.note == "the official script takes the number 0 for no answer"


@pytest.mark.parametrize("submitted", [None, 5, "5", [], ["5"], ["5", "", ""], {"answer": 5}])
def test_an_answer_handed_in_without_a_scale_scores_0(submitted: object) -> None:
    score = TatqaMetric().score_submitted(tatqa("5"), submitted)
    assert set(score.figures.values()) == {0.0}
    assert score.note == "not a list of an answer and its scale"


def test_programs_look_up_the_rows_of_all_tables() -> None:
    program = "table_sum(sales, none), table_sum(costs, none), subtract(#0, #1)"
    assert FinqaMetric().score(question(), says(program=program)).figures["execution"] == 1


def test_the_note_of_the_official_script_is_passed_on() -> None:
    score = FinqaMetric().score(question(executed_answer=11.0), says(program="subtract(30, 20)"))
    assert score.note.startswith("the official script ends here with an AssertionError")


@pytest.mark.parametrize(
    ("prediction", "computed"),
    [
        (says(program="subtract(30, 20)", scale="million"), Computed("10", "million", result="10")),
        (says(program="Program: `subtract(30,20)`", answer="11"), Computed("10", "", result="10")),
        (
            says(program="divide(1, 1000000), divide(#0, 0.1)"),
            Computed("0.00001", "", result="0.00001"),
        ),
        (says(program="multiply(1e9, 1e9)"), Computed("1" + "0" * 18, "", result="1" + "0" * 18)),
        (says(program="greater(2, 1)"), Computed("yes", "", result="yes")),
        (says(program="table_sum(costs, none)"), Computed("20", "", result="20")),
        (says(program="93.0"), Computed("93", "", result="93")),
        (says(program="14.2%"), Computed("0.142", "", result="0.142")),
        (
            says(program="divide(142, 1000)", answer="14.2", scale="percent"),
            Computed("14.2", "percent", result="0.142"),
        ),
        (
            says(program="divide(-142, 1000)", answer="15", scale="percent"),
            Computed("-14.2", "percent", result="-0.142"),
        ),
        (
            says(program="add(14, 0.2)", answer="14.2", scale="percent"),
            Computed("14.2", "percent", result="14.2"),
        ),
        (
            says(program="divide(142, 1000)", scale="percent"),
            Computed("0.142", "percent", result="0.142"),
        ),
        (
            says(program="greater(2, 1)", answer="14.2", scale="percent"),
            Computed("yes", "percent", result="yes"),
        ),
        (says(program=" ", answer=" 5 "), Computed("5", "")),
        (says(answer="12.50", scale="percent"), Computed("12.50", "percent")),
        (says("I cannot say."), Computed("", "")),
    ],
)
def test_a_prediction_comes_to_its_programs_result_or_else_its_answer(
    prediction: Prediction, computed: Computed
) -> None:
    assert computed_prediction(prediction, question()) == computed


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("divide(1, 0)", "step 0 divide(1, 0): float division by zero"),
        (
            "table_sum(profit, none)",
            "step 0 table_sum(profit, none): the table has no row 'profit'",
        ),
        ("about five", "'about five' is not a number"),
    ],
)
def test_where_the_program_fails_the_stated_answer_counts_and_the_problem_is_said(
    program: str, problem: str
) -> None:
    prediction = says(program=program, answer="10", scale="million")
    assert computed_prediction(prediction, question()) == Computed("10", "million", problem)
    assert TatqaMetric().score(tatqa(), prediction).figures["em"] == 1


def test_a_program_is_executed_for_tatqa_in_the_unit_of_the_scale() -> None:
    prediction = says(program="divide(3, 30), multiply(#0, 100)", scale="percent")
    score = TatqaMetric().score(tatqa("10", scale="percent"), prediction)
    assert set(score.figures.values()) == {1.0}


def test_zero_is_an_answer_since_it_is_sent_as_text() -> None:
    score = TatqaMetric().score(tatqa("0", scale=""), says(program="subtract(5, 5)"))
    assert (score.figures["em"], score.figures["em_with_zero"], score.note) == (1, 1, "")


def test_spans_are_parted_and_have_no_order() -> None:
    metric, asked = TatqaMetric(), tatqa("sales | costs", kind="multi-span", scale="")
    assert metric.score(asked, says(answer="costs | sales")).figures["em"] == 1
    assert metric.score(asked, says(answer="costs")).figures["f1"] == 0.67
    assert metric.score(asked, says("I cannot say.")).figures["scale"] == 0


def test_plain_answers_are_compared_with_their_scales() -> None:
    metric = AnswerMetric()
    asked = question(answer="14.2", scale="percent")
    for prediction in (
        says(program="divide(142, 999)"),
        says(answer="14.2%"),
        says(answer="14.2", scale="percent"),
    ):
        assert metric.score(asked, prediction).figures["correct"] == 1, prediction
    assert metric.score(asked, says(answer="14.2")).figures["correct"] == 0


def test_the_tolerance_is_an_option() -> None:
    lenient = AnswerMetric(AnswerMetricOptions(tolerance=0.01))
    asked = question(answer="100.0")
    assert lenient.score(asked, says(answer="100.9")).figures["numeric"] == 1
    assert AnswerMetric().score(asked, says(answer="100.9")).figures["numeric"] == 0
    for tolerance in (-0.1, 0.2, float("nan")):
        with pytest.raises(ValidationError):
            AnswerMetricOptions(tolerance=tolerance)


parts = st.sampled_from(
    ["subtract(", "30", ", ", "20", ")", "#0", "table_sum(", "sales", "%", "1e999", "9" * 5000]
)
texts = st.none() | st.text() | st.lists(parts).map("".join)


@given(answer=texts, program=texts, scale=st.sampled_from(["", "percent", "billion"]))
def test_every_prediction_has_a_score(answer: str | None, program: str | None, scale: Any) -> None:
    prediction = Prediction(text="", answer=answer, program=program, scale=scale)
    for metric in METRICS:
        figures = metric.score(tatqa(), prediction).figures
        assert all(0 <= value <= 1 for value in figures.values())


def questions(reader: Any) -> list[Question]:
    found = list(reader)
    assert not any(isinstance(row, BadRow) for row in found)
    return found


def altered(text: str, chance: random.Random) -> Iterator[str]:
    """The text, and the text with a number, a place or an operator changed."""
    yield text
    yield text.replace("subtract", "add")
    yield text.replace("#0", "#1")
    yield re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text, count=1)
    yield text.replace(",", "", 1)
    place = chance.randrange(len(text) + 1)
    yield text[:place] + chance.choice(["%", "(", " ", "1", "-", ", "]) + text[place + 1 :]
    yield ", ".join(reversed(text.split(", ")))
    yield f"{text}, {text}"


def compare_programs(
    metric: Metric, scorer: Callable[..., Any], asked: Question, raw: dict[str, Any]
) -> int:
    """Score altered golds through the question and from the file's own values."""
    assert metric.applies(asked)
    right = 0
    for text in altered(raw["program"], random.Random(asked.id)):
        figures = metric.score(asked, says(program=text)).figures
        score = scorer(text, **raw)
        expected = {
            "execution": score.execution,
            "program": score.program,
            "valid": score.valid,
        }
        assert figures == expected, (asked.id, text)
        right += score.execution
    return right


@pytest.mark.parametrize("file", ["train_100.json", "dev_200.json"])
def test_finqas_figures_are_those_of_the_files_own_values(file: str, real_data: Path) -> None:
    path = real_data / "finqa" / file
    rows = json.loads(path.read_text("utf-8"))
    right = 0
    for row, asked in zip(rows, questions(FinqaReader(FinqaOptions(files=[path]))), strict=True):
        raw = {"program": row["qa"]["program"], "executed": row["qa"]["exe_ans"]}
        raw["table"] = row["table"]
        right += compare_programs(FinqaMetric(), score_finqa, asked, raw)
    assert len(rows) <= right < 4 * len(rows)


def test_convfinqas_figures_are_those_of_the_official_turns(real_data: Path) -> None:
    folder = real_data / "convfinqa"
    turns = json.loads((folder / "gold_turns.json").read_text("utf-8"))
    reader = ConvfinqaReader(ConvfinqaOptions(files=[folder / "dev_421_cleaned.json"]))
    by_id = {asked.id: asked for asked in questions(reader)}
    right = 0
    for row in turns["gold"]:
        raw = {"program": row["gold_program"], "executed": row["gold_answer"]}
        raw["table"] = turns["tables"][row["id"]]
        asked = by_id.pop(f"{row['id']}_{row['turn']}")
        right += compare_programs(ConvfinqaMetric(), score_convfinqa, asked, raw)
    assert not by_id
    assert 1490 <= right < 4 * 1490


def altered_answers(answer: Any, chance: random.Random) -> Iterator[Any]:
    """The answer as text, and changed: cut off, scaled, in parentheses, spans turned or lost.

    Empty spans, of which the gold answers have a few, cannot be said in one text.
    """
    spans = [span for span in answer if span] if isinstance(answer, list) else [f"{answer}"]
    yield spans
    yield [*reversed(spans)]
    yield spans[:-1] or [""]
    yield [span.upper() for span in spans]
    yield [f"{span}%" for span in spans]
    yield [f"({span.strip('-')})" for span in spans]
    yield [span[: chance.randrange(len(span) + 1)] or "-" for span in spans]
    yield [f"{span} million" for span in spans]


def test_tatqas_figures_are_those_of_the_files_own_values(real_data: Path) -> None:
    path = real_data / "tatqa" / "dev.json"
    rows = [row for page in json.loads(path.read_text("utf-8")) for row in page["questions"]]
    metric, right = TatqaMetric(), 0.0
    for row, asked in zip(rows, questions(TatqaReader(TatqaOptions(files=[path]))), strict=True):
        assert metric.applies(asked)
        chance = random.Random(asked.id)
        for spans in altered_answers(row["answer"], chance):
            scale = chance.choice([row["scale"], ""])
            prediction = says(answer=" | ".join(spans), scale=scale)
            figures = metric.score(asked, prediction).figures
            score = score_tatqa(
                spans if spans != [""] else "",
                scale,
                gold_answer=row["answer"],
                gold_scale=row["scale"],
                answer_type=row["answer_type"],
            )
            expected = (score.em, score.f1, score.scale)
            assert (figures["em"], figures["f1"], figures["scale"]) == expected, row
            right += figures["em"]
        gold = says(answer=asked.answer, scale=asked.scale)
        assert set(metric.score(asked, gold).figures.values()) == {1.0}
    assert right > len(rows)


@pytest.mark.parametrize("name", ["finqa", "tatqa"])
def test_gold_answers_are_correct_as_plain_answers(name: str, real_data: Path) -> None:
    reader = (
        FinqaReader(FinqaOptions(files=[real_data / "finqa" / "dev_200.json"]))
        if name == "finqa"
        else TatqaReader(TatqaOptions(files=[real_data / "tatqa" / "dev.json"]))
    )
    metric = AnswerMetric()
    for asked in questions(reader):
        score = metric.score(asked, says(answer=asked.answer, scale=asked.scale))
        assert score.figures["correct"] == score.figures["f1"] == 1, asked.answer
