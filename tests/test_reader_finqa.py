"""FinQA's files as questions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finqa_sft.documents import Document, Evidence, Paragraph, Question, Table
from finqa_sft.errors import DataError
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader, program_text
from finqa_sft.readers.values import RowProblem

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "finqa"

ROW: dict[str, Any] = {
    "id": "QZX/2017/page_12.pdf-1",
    "filename": "QZX/2017/page_12.pdf",
    "pre_text": ["harbour freight grew in 2017 . ", "", "."],
    "post_text": ["the dividend was $ 3 million ."],
    "table": [["", "2017", "2016"], ["revenue", "$ 120", "$ 100"], ["costs", "80"]],
    "table_ori": [["", "2017", "2016"]],
    "qa": {
        "question": "what was the growth of revenue? ",
        "answer": "20%",
        "program": "subtract(120, 100), divide(#0, 100)",
        "exe_ans": 0.2,
        "gold_inds": {"table_1": "the revenue of 2017 is $ 120 ;", "text_3": "the dividend ..."},
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """The row with other values; `qa__answer=...` changes `qa.answer`, an ellipsis removes."""
    row = copy.deepcopy(ROW)
    for key, value in changes.items():
        *parents, name = key.split("__")
        place = row[parents[0]] if parents else row
        place.pop(name, None)
        if value is not ...:
            place[name] = value
    return row


def read(tmp_path: Path, *rows: object) -> list[Question | BadRow]:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return list(FinqaReader(FinqaOptions(files=(path,))))


def good(tmp_path: Path, **changes: Any) -> Question:
    (question,) = read(tmp_path, changed(**changes))
    assert isinstance(question, Question), question
    return question


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(FinqaReader(FinqaOptions(files=(path,))))
    return str(caught.value).replace(f"{path.parent}/", "")


def written(tmp_path: Path, text: str | bytes, name: str = "train.json") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_row_becomes_a_question_on_its_page(tmp_path: Path) -> None:
    question = good(tmp_path)
    assert question.id == "QZX/2017/page_12.pdf-1"
    assert question.text == "what was the growth of revenue?"
    assert (question.answer, question.executed_answer, question.scale) == ("20%", 0.2, "")
    assert question.program == "subtract(120, 100), divide(#0, 100)"
    assert question.source == "train.json row 1"
    document = question.document
    assert (document.id, document.company) == ("QZX/2017/page_12.pdf", "QZX")
    assert document.blocks == (
        Paragraph("harbour freight grew in 2017 ."),
        Paragraph("."),
        Table(rows=(("", "2017", "2016"), ("revenue", "$ 120", "$ 100"), ("costs", "80", ""))),
        Paragraph("the dividend was $ 3 million ."),
    )


def test_evidence_finds_its_block_past_empty_texts(tmp_path: Path) -> None:
    question = good(tmp_path)
    assert question.evidence == (Evidence(2, row=1), Evidence(3))


def test_a_page_without_a_table_has_no_table_block(tmp_path: Path) -> None:
    question = good(tmp_path, table=[], qa__gold_inds={"text_3": ""})
    assert question.document.tables == ()
    assert question.evidence == (Evidence(2),)
    assert good(tmp_path, table=[[]], qa__gold_inds={}).document.tables == ()


def test_questions_of_a_page_share_one_document(tmp_path: Path) -> None:
    first, second = read(tmp_path, ROW, changed(id="QZX/2017/page_12.pdf-2"))
    assert isinstance(first, Question)
    assert isinstance(second, Question)
    assert first.document is second.document


def test_a_page_without_filename_is_named_after_the_id(tmp_path: Path) -> None:
    assert good(tmp_path, filename=...).document.id == "QZX/2017/page_12.pdf"
    assert good(tmp_path, filename=..., id="page-7-1").document.id == "page-7"
    assert good(tmp_path, filename=..., id="page-7-1").document.company is None


@pytest.mark.parametrize(
    ("value", "executed"),
    [(1393, 1393.0), ("0.5", 0.5), ("Yes", "yes"), ("no", "no"), (None, None), (..., None)],
)
def test_the_executed_answer_is_a_number_or_yes_or_no(
    tmp_path: Path, value: object, executed: object
) -> None:
    assert good(tmp_path, qa__exe_ans=value).executed_answer == executed


def test_the_executed_answer_stands_in_for_a_blank_one(tmp_path: Path) -> None:
    assert good(tmp_path, qa__answer="", qa__exe_ans=1393.0).answer == "1393"
    assert good(tmp_path, qa__answer=" ", qa__exe_ans="yes").answer == "yes"


@pytest.mark.parametrize("program", ["", None, [], ["EOF"], ...])
def test_a_row_may_have_no_program(tmp_path: Path, program: object) -> None:
    assert good(tmp_path, qa__program=program).program is None


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["subtract(", "5", "4", ")", "EOF"], "subtract(5, 4)"),
        (
            ["subtract(", "5", "4", ")", "divide(", "#0", "4", ")", "EOF"],
            "subtract(5, 4), divide(#0, 4)",
        ),
        (
            ["table_sum(", "income (", "loss", ")", " net", "none", ")"],
            "table_sum(income (loss) net, none)",
        ),
        (["subtract(5, 4)", "divide(#0, 4)"], "subtract(5, 4), divide(#0, 4)"),
    ],
)
def test_a_list_of_tokens_joins_to_a_program(tokens: list[str], text: str) -> None:
    assert program_text(tokens, field="qa.program") == text


def test_tokens_that_join_to_no_program_are_refused() -> None:
    with pytest.raises(RowProblem) as caught:
        program_text(["subtract", "(", "5", "4", ")"], field="qa.program")
    assert caught.value.problem.startswith("no program: no step at character 1: 'subtract, (5, 4)'")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"qa__answer": ...}, "field 'qa.answer': missing; rows without labels cannot be used"),
        (
            {"qa__answer": "", "qa__exe_ans": None},
            "field 'qa.answer': empty, and there is no exe_ans to stand in for it",
        ),
        ({"qa__answer": ["5", "6"]}, "field 'qa.answer': a list; expected text"),
        ({"qa__question": "  "}, "field 'qa.question': empty; expected text"),
        ({"qa__question": ...}, "field 'qa.question': missing; expected text"),
        (
            {"qa__question": "\ud83d"},
            "field 'qa.question': half a surrogate pair; expected valid Unicode text",
        ),
        ({"qa": None}, "field 'qa': null; expected an object with question and answer"),
        ({"qa": ...}, "field 'qa': missing; expected an object with question and answer"),
        ({"id": ...}, "field 'id': missing; expected text"),
        ({"pre_text": "one text"}, "field 'pre_text': text; expected a list"),
        ({"post_text": ...}, "field 'post_text': missing; expected a list"),
        ({"table": ["a | b"]}, "field 'table[0]': text; expected a list of cells"),
        ({"table": [[{}]]}, "field 'table[0][0]': an object; expected text"),
        ({"qa__exe_ans": "n/a"}, "field 'qa.exe_ans': 'n/a'; expected a number, yes or no"),
        ({"qa__exe_ans": "inf"}, "field 'qa.exe_ans': 'inf'; expected a number, yes or no"),
        (
            {"qa__program": ["add(", 5, 4, ")"]},
            "field 'qa.program': a number in the list of tokens; expected text",
        ),
        (
            {"qa__gold_inds": {"row_1": ""}},
            "field 'qa.gold_inds': 'row_1'; expected keys as 'table_3' or 'text_12'",
        ),
        (
            {"qa__gold_inds": {"text_4": ""}},
            "field 'qa.gold_inds': 'text_4'; the page has no such text or table row",
        ),
        ({"qa__gold_inds": ["text_0"]}, "field 'qa.gold_inds': a list; expected an object"),
    ],
)
def test_a_bad_row_names_field_and_problem(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    _, bad = read(tmp_path, changed(id="first-1", filename="first"), changed(**changes))
    assert str(bad) == f"train.json row 2, {problem}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = [*ROW, *(f"qa__{key}" for key in ROW["qa"])]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.just(...), min_size=1))
def test_whatever_stands_in_its_fields_a_row_is_a_question_or_bad(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    if "qa" in changes:
        changes = {key: value for key, value in changes.items() if not key.startswith("qa__")}
    _, row = read(tmp_path, changed(id="first-1", filename="first"), changed(**changes))
    assert row.source == "train.json row 2"
    if isinstance(row, Question):
        assert row.text
        assert row.answer
        assert all(evidence.block < len(row.document.blocks) for evidence in row.evidence)


def test_a_bad_row_does_not_claim_its_page(tmp_path: Path) -> None:
    bad = changed(post_text=[], qa__gold_inds={}, qa__answer=...)
    refused, question = read(tmp_path, bad, ROW)
    assert isinstance(refused, BadRow)
    assert isinstance(question, Question)


def test_a_page_with_other_content_is_refused(tmp_path: Path) -> None:
    _, bad = read(tmp_path, ROW, changed(id="QZX/2017/page_12.pdf-2", pre_text=["a", "b", "c"]))
    assert str(bad) == (
        "train.json row 2, field 'filename': document 'QZX/2017/page_12.pdf' has another context "
        "in train.json row 1; give each context a document id of its own"
    )


def test_an_id_that_repeats_is_refused(tmp_path: Path) -> None:
    _, bad = read(tmp_path, ROW, ROW)
    assert str(bad) == (
        "train.json row 2, field 'id': 'QZX/2017/page_12.pdf-1' is also the id of train.json row "
        "1; give each question an id of its own"
    )


def test_a_row_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (bad,) = read(tmp_path, "a question")
    assert str(bad) == "train.json row 1, field 'row': text; expected an object with 'qa'"


def test_several_files_are_read_in_order_and_again(tmp_path: Path) -> None:
    one = written(tmp_path, json.dumps([ROW]), "one.json")
    two = written(tmp_path, json.dumps(changed(id="QZX/2017/page_12.pdf-2")) + "\n", "two.jsonl")
    reader = FinqaReader(FinqaOptions(files=(one, two)))
    sources = [row.source for row in reader]
    assert sources == ["one.json row 1", "two.jsonl row 1"]
    assert [row.source for row in reader] == sources


def test_files_are_one_path_or_a_list_relative_to_the_recipe() -> None:
    context = {"folder": Path("recipes")}
    one = FinqaOptions.model_validate({"files": "a.json"}, context=context)
    several = FinqaOptions.model_validate({"files": ["a.json", "b.json"]}, context=context)
    assert one.files == (Path("recipes/a.json"),)
    assert several.files == (Path("recipes/a.json"), Path("recipes/b.json"))
    with pytest.raises(ValidationError, match="at least 1 item"):
        FinqaOptions.model_validate({"files": []})
    with pytest.raises(ValidationError, match="files"):
        FinqaOptions.model_validate({})
    schema = FinqaOptions.model_json_schema()["properties"]["files"]
    assert [branch["type"] for branch in schema["anyOf"]] == ["string", "array"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"paragraphs": [], "table": {}, "questions": []},
            "train.json: row 1 has 'paragraphs' and looks like TAT-QA, not FinQA; use reader: "
            "tatqa",
        ),
        (
            ROW | {"annotation": {"dialogue_break": []}},
            "train.json: row 1 has 'annotation' and looks like ConvFinQA, not FinQA; use reader: "
            "convfinqa",
        ),
        (
            {"financebench_id": "1", "question": "?"},
            "train.json: row 1 has 'financebench_id' and looks like FinanceBench, not FinQA; use "
            "reader: financebench",
        ),
        (
            {"question": "?", "context": "c", "answer": "a"},
            "train.json: row 1 has 'question' and looks like plain columns, not FinQA; use reader: "
            "columns",
        ),
    ],
)
def test_another_layout_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    assert refusal(written(tmp_path, json.dumps([row]))) == message


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    written(tmp_path, "[]", "train.json")
    assert refusal(tmp_path / "tran.json") == (
        "tran.json: no such file; did you mean 'train.json'?"
    )
    assert refusal(tmp_path / "xyz") == "xyz: no such file; check name and folder"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data" / "train.json"
    with pytest.raises(DataError) as caught:
        list(FinqaReader(FinqaOptions(files=(path,))))
    assert str(caught.value) == (
        f"{path}: no such file; there is no folder {tmp_path / 'data'} either"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert refusal(tmp_path / "data") == "data: a folder, not a file; name the files in it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.json: an empty file; was it written or downloaded completely?"),
        (" \n", "train.json: only white space; was it written or downloaded completely?"),
        ("[]", "train.json: an empty list; expected rows"),
        (
            '{"data": [], "version": 1}',
            "train.json: an object with the keys 'data', 'version' at the top level; expected a "
            "list of rows",
        ),
        ('"text"', "train.json: text at the top level; expected a list of rows"),
        (
            b'[{"id": "5 \xa3"}]',
            "train.json: not UTF-8 text (byte 11 is 0xa3); save the file with the encoding UTF-8",
        ),
        (
            b'\xef\xbb\xbf[{}\n, "\xa3"]',
            "train.json: not UTF-8 text (byte 10 is 0xa3); save the file with the encoding UTF-8",
        ),
        (
            '[{"id": "a"},\n {"id"',
            "train.json:2:7: not JSON: expected ':' delimiter; the file seems cut off, copy or "
            "download it again",
        ),
        (
            '[{"id": "a"},\n {"id": "b',
            "train.json:2:9: not JSON: unterminated string; the file seems cut off, copy or "
            "download it again",
        ),
        (
            '[{"id": "a"}\n {"id": "b"}]',
            "train.json:2:2: not JSON: expected ',' delimiter; mend it there",
        ),
        (
            '{"id": "a"}\n{"id": "b"}\n',
            "train.json:2:1: not JSON: the JSON value ends before; with one value a line, name the "
            "file .jsonl",
        ),
    ],
)
def test_an_unusable_file_is_refused_with_place_and_remedy(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    assert refusal(written(tmp_path, content)) == message


def test_json_nested_past_reason_is_refused(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, "[" * 200_000)) == (
        "train.json:1:2: lists or objects nested too deeply to be read; write flat rows"
    )


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf" + json.dumps([ROW]).encode())
    (question,) = FinqaReader(FinqaOptions(files=(path,)))
    assert isinstance(question, Question)


@pytest.mark.parametrize(("name", "rows"), [("train_100.json", 100), ("dev_200.json", 200)])
def test_the_official_rows_are_all_read(name: str, rows: int) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip("needs FinQA's files in shared/data/finqa beside the checkout")
    raw = json.loads(path.read_text(encoding="utf-8"))
    questions = list(FinqaReader(FinqaOptions(files=(path,))))
    assert len(questions) == rows
    pages: dict[str, Document] = {}
    for row, question in zip(raw, questions, strict=True):
        assert isinstance(question, Question), str(question)
        document = pages.setdefault(row["filename"], question.document)
        assert question.document is document
        assert question.program == row["qa"]["program"]
        assert question.answer
        texts = row["pre_text"] + row["post_text"]
        assert len(document.blocks) == len([text for text in texts if text.strip()]) + 1
        assert document.tables[0].rows == tuple(map(tuple, row["table"]))
        assert len(question.evidence) == len(row["qa"]["gold_inds"])
        for key, evidence in zip(row["qa"]["gold_inds"], question.evidence, strict=True):
            block, index = document.blocks[evidence.block], int(key.partition("_")[2])
            if isinstance(block, Paragraph):
                assert (key.partition("_")[0], evidence.row) == ("text", None)
                assert block.text == texts[index].strip()
            else:
                assert evidence.row == index
                assert block.rows[index] == tuple(row["table"][index])
