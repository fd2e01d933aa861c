"""TAT-QA's contexts as questions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finqa_sft.documents import Evidence, Paragraph, Question, Table
from finqa_sft.errors import DataError
from finqa_sft.programs import execute_program, parse_program
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.tatqa import SPAN_SEPARATOR, TatqaOptions, TatqaReader, header_rows

ASKED: dict[str, Any] = {
    "uid": "q-1",
    "order": 1,
    "question": "What is the percentage change in freight? ",
    "answer": 22.5,
    "derivation": "(49-40)/40",
    "answer_type": "arithmetic",
    "answer_from": "table-text",
    "rel_paragraphs": ["2"],
    "req_comparison": False,
    "scale": "percent",
}
ROW: dict[str, Any] = {
    "table": {
        "uid": "t-1",
        "table": [["", "Years ended", ""], ["", "2019", "2018"], ["Freight", "49", "40"]],
    },
    "paragraphs": [
        {"uid": "p-2", "order": 2, "text": "Freight grew with the new harbour."},
        {"uid": "p-1", "order": 1, "text": "Amounts are in thousands. "},
        {"uid": "p-3", "order": 3, "text": ""},
    ],
    "questions": [ASKED],
}


def row(**changes: Any) -> dict[str, Any]:
    """The row with other values in its one question; an ellipsis removes a key."""
    asked = {key: value for key, value in (ASKED | changes).items() if value is not ...}
    return copy.deepcopy(ROW) | {"questions": [asked]}


def read(tmp_path: Path, *rows: object) -> list[Question | BadRow]:
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return list(TatqaReader(TatqaOptions(files=(path,))))


def good(tmp_path: Path, **changes: Any) -> Question:
    (question,) = read(tmp_path, row(**changes))
    assert isinstance(question, Question), str(question)
    return question


def test_a_context_is_its_table_and_then_its_paragraphs_in_order(tmp_path: Path) -> None:
    question = good(tmp_path)
    assert (question.id, question.text) == ("q-1", "What is the percentage change in freight?")
    assert question.source == "dev.json row 1 question 1"
    assert (question.document.id, question.document.company) == ("t-1", None)
    assert question.document.blocks == (
        Table(
            rows=(("", "Years ended", ""), ("", "2019", "2018"), ("Freight", "49", "40")),
            header_rows=2,
        ),
        Paragraph("Amounts are in thousands."),
        Paragraph("Freight grew with the new harbour."),
    )


def test_short_rows_of_a_table_are_filled_even_empty_ones(tmp_path: Path) -> None:
    content = row()
    content["table"]["table"] = [["", "2019"], [], ["Freight"], ["Fuel", "7"]]
    (question,) = read(tmp_path, content)
    assert isinstance(question, Question), str(question)
    (table,) = question.document.tables
    assert table == Table(
        rows=(("", "2019"), ("", ""), ("Freight", ""), ("Fuel", "7")), header_rows=2
    )


def test_a_number_is_the_executed_answer_in_the_unit_of_its_scale(tmp_path: Path) -> None:
    question = good(tmp_path)
    assert (question.answer, question.executed_answer, question.scale) == ("22.5", 22.5, "percent")
    assert question.answer_type == "arithmetic"
    assert good(tmp_path, answer_type="count", answer="3", scale="").executed_answer == 3.0
    assert good(tmp_path, answer_type="count", answer="three").executed_answer is None
    assert good(tmp_path, answer_type="span", answer=["2019"]).executed_answer is None


def test_a_derivation_that_computes_the_answer_is_the_program(tmp_path: Path) -> None:
    question = good(tmp_path)
    assert question.derivation == "(49-40)/40"
    assert question.program == "subtract(49, 40), divide(#0, 40), multiply(#1, const_100)"
    assert good(tmp_path, scale="million").program is None
    other = good(tmp_path, derivation=" -(49 + 41) / 4 ")
    assert (other.derivation, other.program) == ("-(49 + 41) / 4", None)
    other = good(tmp_path, answer="-22.5", derivation=" -(49 + 41) / 4 ")
    assert other.program == "add(49, 41), multiply(#0, const_m1), divide(#1, 4)"


@pytest.mark.parametrize(
    ("changes", "derivation"),
    [
        ({"derivation": ...}, None),
        ({"derivation": ""}, None),
        ({"derivation": "see table"}, "see table"),
        ({"answer": "n.a."}, "(49-40)/40"),
        ({"answer_type": "count", "answer": "2", "derivation": "4 / 2", "scale": ""}, "4 / 2"),
        ({"answer_type": "count", "answer": "2", "derivation": "2019##2018"}, "2019##2018"),
        ({"answer_type": "span", "answer": ["2019"], "derivation": "49>40"}, "49>40"),
    ],
)
def test_no_other_derivation_is_a_program(
    tmp_path: Path, changes: dict[str, Any], derivation: str | None
) -> None:
    question = good(tmp_path, **changes)
    assert (question.derivation, question.program) == (derivation, None)


def test_spans_are_joined_by_a_separator_that_gives_them_back(tmp_path: Path) -> None:
    question = good(tmp_path, answer_type="multi-span", answer=["freight; rail", "", " fees "])
    assert question.answer == "freight; rail | fees"
    assert question.answer.split(SPAN_SEPARATOR) == ["freight; rail", "fees"]


@pytest.mark.parametrize(
    ("source", "paragraphs", "blocks"),
    [
        ("table", [], [0]),
        ("table-text", ["2"], [0, 2]),
        ("text", ["2", "1"], [2, 1]),
        ("text", [2, 2], [2]),
    ],
)
def test_evidence_is_the_table_and_the_related_paragraphs(
    tmp_path: Path, source: str, paragraphs: list[object], blocks: list[int]
) -> None:
    question = good(tmp_path, answer_from=source, rel_paragraphs=paragraphs)
    assert question.evidence == tuple(map(Evidence, blocks))


def test_questions_of_a_context_share_one_document_and_fail_alone(tmp_path: Path) -> None:
    asked = [ASKED, ASKED | {"uid": "q-2", "scale": "dozen"}, ASKED | {"uid": "q-3"}]
    first, bad, third = read(tmp_path, ROW | {"questions": asked})
    assert isinstance(first, Question)
    assert isinstance(third, Question)
    assert first.document is third.document
    assert str(bad) == (
        "dev.json row 1 question 2, field 'scale': 'dozen'; expected thousand, million, billion, "
        "percent or empty"
    )


@pytest.mark.parametrize(
    ("rows", "headers"),
    [
        ([], 0),
        ([["a", "b"]], 1),
        ([["As of", "2019", "2018"], ["Assets", "", ""], ["Cash", "5", "4"]], 1),
        ([["", "Years", ""], ["", "2019", "2018"], ["Cash", "5", "4"]], 2),
        ([["", "2019", "2018"], ["", "€m", "€m"], ["Cash", "5", "4"]], 2),
        ([["($m)", "", ""], ["At December 31:", "2019", "2018"], ["Cash", "5", "4"]], 2),
        ([["", "Years", ""], ["", "2019", "2018"], ["", "", "($m)"], ["Cash:", "", ""]], 3),
        ([["", "Shares", "", "Price"], ["Granted", "5", "6", ""], ["Sold", "4", "5", ""]], 1),
        ([["", "2019"], ["Cash", "5"], ["Debt", "4"]], 1),
        ([["", "a", "b"]] * 9, 4),
        ([["", "a", "b"]] * 2, 1),
    ],
)
def test_header_rows_have_no_label_or_follow_titles(rows: list[list[str]], headers: int) -> None:
    assert header_rows(rows) == headers


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"answer": ...}, "field 'answer': missing; questions without labels cannot be used"),
        (
            {"answer": [""]},
            "field 'answer': empty; expected text, a number or a list of spans",
        ),
        ({"answer": [["a"]]}, "field 'answer': a list; expected text"),
        (
            {"answer": ["a | b"]},
            "field 'answer': 'a | b' holds '|', which separates spans; write it out",
        ),
        ({"question": ""}, "field 'question': empty; expected text"),
        ({"uid": ...}, "field 'uid': missing; expected text"),
        (
            {"answer_type": "guess"},
            "field 'answer_type': 'guess'; expected span, multi-span, arithmetic, count",
        ),
        ({"answer_from": None}, "field 'answer_from': ''; expected table, text, table-text"),
        (
            {"rel_paragraphs": ["4"]},
            "field 'rel_paragraphs': '4'; the context has no such paragraph",
        ),
        ({"rel_paragraphs": "2"}, "field 'rel_paragraphs': text; expected a list"),
        ({"derivation": ["49-40"]}, "field 'derivation': a list; expected text"),
    ],
)
def test_a_bad_question_names_field_and_problem(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    (bad,) = read(tmp_path, row(**changes))
    assert str(bad) == f"dev.json row 1 question 1, {problem}"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"table": None}, "field 'table': null; expected an object with 'uid' and 'table'"),
        (
            {"table": {"uid": "t", "table": ["a"]}},
            "field 'table.table[0]': text; expected a list of cells",
        ),
        ({"table": {"table": [["a"]]}}, "field 'table.uid': missing; expected text"),
        ({"paragraphs": ["text"]}, "field 'paragraphs': text in the list; expected an object"),
        (
            {"paragraphs": [{"order": "1"}]},
            "field 'paragraphs.order': text; expected a whole number",
        ),
        (
            {"paragraphs": [{"order": 1, "text": "a"}, {"order": 1, "text": "b"}]},
            "field 'paragraphs': two have the order 1; expected one of each",
        ),
        ({"questions": {}}, "field 'questions': an object; expected a list"),
    ],
)
def test_a_bad_context_is_one_bad_row(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    (bad,) = read(tmp_path, ROW | changes)
    assert str(bad) == f"dev.json row 1, {problem}"


def test_a_context_without_a_table_cannot_be_answered_from_it(tmp_path: Path) -> None:
    (bad,) = read(tmp_path, ROW | {"table": {"uid": "t", "table": []}})
    assert str(bad) == ("dev.json row 1 question 1, field 'answer_from': the context has no table")


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"id": "1", "qa": {}})
    assert str(caught.value) == (
        f"{tmp_path / 'dev.json'}: row 1 has 'qa' and looks like FinQA, not TAT-QA; use reader: "
        "finqa"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from([*ROW]), JSON),
    st.dictionaries(st.sampled_from([*ASKED]), JSON | st.just(...)),
)
def test_whatever_stands_in_its_fields_a_row_is_questions_or_bad(
    tmp_path: Path, context: dict[str, Any], asked: dict[str, Any]
) -> None:
    other = ROW | {"table": {"uid": "t-0", "table": []}, "questions": []}
    for item in read(tmp_path, other, row(**asked) | context):
        assert item.source.startswith("dev.json row 2")
        if isinstance(item, Question):
            assert item.text
            assert all(item.answer.split(SPAN_SEPARATOR))
            assert all(place.block < len(item.document.blocks) for place in item.evidence)


@given(st.lists(st.lists(st.sampled_from(["", "a"]), max_size=4), max_size=7))
def test_headers_leave_a_row_for_the_body(rows: list[list[str]]) -> None:
    assert min(len(rows), 1) <= header_rows([["", *row] for row in rows]) <= max(len(rows) - 1, 1)


def test_the_real_contexts_are_all_read(real_data: Path) -> None:
    path = real_data / "tatqa" / "dev.json"
    raw = {
        asked["uid"]: (context, asked)
        for context in json.loads(path.read_text(encoding="utf-8"))
        for asked in context["questions"]
    }
    questions = list(TatqaReader(TatqaOptions(files=(path,))))
    assert len(questions) == len(raw) == 1668
    for question in questions:
        assert isinstance(question, Question), str(question)
        context, asked = raw[question.id]
        assert question.document.id == context["table"]["uid"]
        assert len(question.document.blocks) == 1 + len(context["paragraphs"])
        assert (question.scale, question.answer_type) == (asked["scale"], asked["answer_type"])
        if isinstance(asked["answer"], list):
            spans = [span.strip() for span in asked["answer"] if span]
            assert question.answer.split(SPAN_SEPARATOR) == spans
            assert question.executed_answer is None
        else:
            assert question.executed_answer == float(asked["answer"])
        assert question.derivation == (asked["derivation"].strip() or None)
        assert (question.program is not None) == (asked["answer_type"] == "arithmetic")
        if question.program is not None:
            value = execute_program(parse_program(question.program))
            assert isinstance(value, float)
            assert round(value - float(asked["answer"]), 4) == pytest.approx(0, abs=0.005)
        texts = [p["text"].strip() for p in context["paragraphs"]]
        related = [texts[int(order) - 1] for order in asked["rel_paragraphs"]]
        found = [question.document.blocks[place.block] for place in question.evidence]
        assert [block.text for block in found if isinstance(block, Paragraph)] == related
        assert (asked["answer_from"] != "text") == any(isinstance(b, Table) for b in found)
    assert sum(isinstance(q, Question) and q.program is not None for q in questions) == 718
    assert len({q.document.id for q in questions if isinstance(q, Question)}) == 278
