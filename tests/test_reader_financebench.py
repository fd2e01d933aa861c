"""FinanceBench's rows as questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finqa_sft.documents import Evidence, Paragraph, Question, Table
from finqa_sft.errors import DataError
from finqa_sft.preparation.splits import document_groups
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.financebench import FinancebenchOptions, FinancebenchReader

FREIGHT = {
    "evidence_text": "Freight, in thousands:\n| | 2019 | 2018 |\n|---|---|---|\n| Rail | 5 | 4 |",
    "doc_name": "QUAYSIDE_2019_10K",
    "evidence_page_num": 41,
    "evidence_text_full_page": "Page 41.\n\nFreight was 5 in 2019.",
}
DIVIDEND = {
    "evidence_text": "The dividend was $3.",
    "doc_name": "QUAYSIDE_2019_10K",
    "evidence_page_num": 7,
    "evidence_text_full_page": "Page 7.",
}
ROW: dict[str, Any] = {
    "financebench_id": "financebench_id_90001",
    "company": "Quayside",
    "doc_name": "QUAYSIDE_2019_10K",
    "question_type": "metrics-generated",
    "question_reasoning": "Information extraction",
    "question": "What was freight in 2019? ",
    "answer": "$5 thousand",
    "justification": "It is in the table.",
    "evidence": [FREIGHT, DIVIDEND, FREIGHT],
}


def read(tmp_path: Path, *rows: object, **options: Any) -> list[Question | BadRow]:
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return list(FinancebenchReader(FinancebenchOptions(files=(path,), **options)))


def good(tmp_path: Path, row: dict[str, Any] = ROW, **options: Any) -> Question:
    (question,) = read(tmp_path, row, **options)
    assert isinstance(question, Question), str(question)
    return question


def test_the_context_is_the_distinct_evidence_in_order(tmp_path: Path) -> None:
    question = good(tmp_path)
    assert question.document.blocks == (
        Paragraph("Freight, in thousands:"),
        Table(rows=(("", "2019", "2018"), ("Rail", "5", "4"))),
        Paragraph("The dividend was $3."),
    )
    assert question.evidence == (Evidence(0), Evidence(1), Evidence(2))
    assert (question.id, question.text) == ("financebench_id_90001", "What was freight in 2019?")
    assert (question.answer, question.executed_answer) == ("$5 thousand", None)
    assert question.source == "bench.jsonl row 1"


def test_the_context_may_be_full_pages_whose_evidence_is_unknown(tmp_path: Path) -> None:
    question = good(tmp_path, context="page")
    assert question.document.blocks == (
        Paragraph("Page 41."),
        Paragraph("Freight was 5 in 2019."),
        Paragraph("Page 7."),
    )
    assert question.evidence == ()


def test_reasoning_or_else_the_type_is_the_answer_type(tmp_path: Path) -> None:
    assert good(tmp_path).answer_type == "Information extraction"
    assert good(tmp_path, ROW | {"question_reasoning": None}).answer_type == "metrics-generated"
    neither = {"question_reasoning": None, "question_type": ""}
    assert good(tmp_path, ROW | neither).answer_type is None


def test_a_filing_with_two_contexts_is_two_documents_of_one_company(tmp_path: Path) -> None:
    same = ROW | {"financebench_id": "2"}
    other = ROW | {"financebench_id": "3", "evidence": [DIVIDEND]}
    questions = [q for q in read(tmp_path, ROW, same, other) if isinstance(q, Question)]
    first, second, third = (question.document for question in questions)
    assert first is second
    assert first.id != third.id
    assert {first.id.partition("#")[0], third.id.partition("#")[0]} == {"QUAYSIDE_2019_10K"}
    assert first.company == third.company == "Quayside"
    assert len(set(document_groups(questions, by="company").values())) == 1


def test_a_document_id_is_the_same_in_every_run(tmp_path: Path) -> None:
    assert good(tmp_path, ROW | {"evidence": [DIVIDEND]}).document.id == (
        "QUAYSIDE_2019_10K#61008ef9e2ca0c30"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"evidence": []}, "field 'evidence': an empty list; expected a list of evidence"),
        ({"evidence": None}, "field 'evidence': null; expected a list of evidence"),
        ({"evidence": ["text"]}, "field 'evidence[0]': text; expected an object"),
        (
            {"evidence": [DIVIDEND, {"evidence_page_num": 5}]},
            "field 'evidence[1].evidence_text': missing; expected text",
        ),
        ({"company": ""}, "field 'company': empty; expected text"),
        ({"doc_name": None}, "field 'doc_name': empty; expected text"),
        ({"answer": ["5"]}, "field 'answer': a list; expected text"),
        (
            {"financebench_id": "0"},
            "field 'financebench_id': '0' is also the id of bench.jsonl row 1; give each question "
            "an id of its own",
        ),
    ],
)
def test_a_bad_row_names_field_and_problem(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    _, bad = read(tmp_path, ROW | {"financebench_id": "0"}, ROW | changes)
    assert str(bad) == f"bench.jsonl row 2, {problem}"


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"question": "?", "context": "c", "answer": "a"})
    assert str(caught.value) == (
        f"{tmp_path / 'bench.jsonl'}: row 1 has 'question' and looks like plain columns, not "
        "FinanceBench; use reader: columns"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
EVIDENCE = st.lists(st.dictionaries(st.sampled_from([*DIVIDEND]), JSON | st.text()), max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from([*ROW]), JSON),
    st.none() | EVIDENCE,
    st.sampled_from(["evidence", "page"]),
)
def test_whatever_stands_in_its_fields_a_row_is_a_question_or_bad(
    tmp_path: Path, changes: dict[str, Any], evidence: object, context: str
) -> None:
    row = ROW | changes | ({} if evidence is None else {"evidence": evidence})
    _, item = read(tmp_path, ROW | {"financebench_id": "0"}, row, context=context)
    assert item.source == "bench.jsonl row 2"
    if isinstance(item, Question):
        assert item.text
        assert item.answer
        assert item.document.blocks
        assert item.document.company
