"""Rows of question, context and answer, from every file format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finqa_sft.documents import Paragraph, Question, Table
from finqa_sft.errors import DataError
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.columns import ColumnsOptions, ColumnsReader
from finqa_sft.readers.values import is_blank

ROWS = [
    {
        "question": "What was revenue in 2021?",
        "context": "Harbour Ltd.\n\n| | 2021 |\n|---|---|\n| Revenue | 310 |",
        "answer": "310",
    },
    {
        "question": "Did costs fall?",
        "context": "Harbour Ltd.\n\n| | 2021 |\n|---|---|\n| Revenue | 310 |",
        "answer": "yes",
    },
    {"question": "Who audits?", "context": 'The "Big" firm, since 2019.', "answer": "Müller & 净"},
]


def csv_text(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def jsonl_text(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **options: Any) -> list[Question | BadRow]:
    return list(ColumnsReader(ColumnsOptions(files=(path,), **options)))


def rows_of(tmp_path: Path, *rows: object, **options: Any) -> list[Question | BadRow]:
    return read(written(tmp_path / "train.jsonl", jsonl_text(list(rows))), **options)


def one(tmp_path: Path, row: object, **options: Any) -> Question:
    (question,) = rows_of(tmp_path, row, **options)
    assert isinstance(question, Question), str(question)
    return question


def problem(tmp_path: Path, row: object, **options: Any) -> str:
    """What is wrong with the second of two rows."""
    _, bad = rows_of(tmp_path, ROWS[0], row, **options)
    assert isinstance(bad, BadRow), bad
    return str(bad)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    return str(caught.value).replace(f"{path.parent}/", "")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def contents(rows: list[Question | BadRow]) -> list[tuple[object, ...]]:
    """The rows without what names their file."""
    assert all(isinstance(row, Question) for row in rows), [str(row) for row in rows]
    return [
        (row.id, row.text, row.document, row.answer) for row in rows if isinstance(row, Question)
    ]


def test_rows_become_questions_and_equal_contexts_one_document(tmp_path: Path) -> None:
    first, second, third = rows_of(tmp_path, *ROWS)
    assert isinstance(first, Question)
    assert isinstance(second, Question)
    assert isinstance(third, Question)
    assert (first.text, first.answer) == ("What was revenue in 2021?", "310")
    assert first.document is second.document
    assert first.document.blocks == (
        Paragraph("Harbour Ltd."),
        Table(rows=(("", "2021"), ("Revenue", "310"))),
    )
    assert first.document.id == "context-a1d68338d245feab"
    assert first.document.id != third.document.id
    assert [first.id, second.id] == [f"{first.document.id}-1", f"{first.document.id}-2"]
    assert (third.answer, third.source) == ("Müller & 净", "train.jsonl row 3")
    assert (first.program, first.executed_answer, first.scale, first.evidence) == (
        None,
        None,
        "",
        (),
    )


def test_every_format_holds_the_same_rows(tmp_path: Path) -> None:
    expected = contents(rows_of(tmp_path, *ROWS))
    assert contents(read(written(tmp_path / "a.csv", csv_text(ROWS)))) == expected
    assert contents(read(written(tmp_path / "b.csv", "\ufeff" + csv_text(ROWS)))) == expected
    assert contents(read(written(tmp_path / "a.tsv", csv_text(ROWS, "\t")))) == expected
    assert contents(read(written(tmp_path / "a.json", json.dumps(ROWS)))) == expected
    assert contents(read(write_parquet(tmp_path / "A.PARQUET", ROWS))) == expected


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda text: not is_blank(text))


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50
)
@given(
    st.lists(
        st.fixed_dictionaries({"question": TEXTS, "context": TEXTS, "answer": TEXTS}), min_size=1
    )
)
def test_csv_and_jsonl_of_the_same_rows_are_equal(
    tmp_path: Path, rows: list[dict[str, str]]
) -> None:
    as_csv = read(written(tmp_path / "a.csv", csv_text(rows)))
    as_jsonl = read(written(tmp_path / "a.jsonl", jsonl_text(rows)))
    assert len(as_csv) == len(as_jsonl) == len(rows)
    assert [str(row) for row in as_csv] == [
        str(row).replace("a.jsonl", "a.csv") for row in as_jsonl
    ]


def test_columns_can_have_any_name(tmp_path: Path) -> None:
    row = {
        "Frage": "?",
        "Text": "c",
        "Antwort": 5,
        "Seite": "p-1",
        "Code": "add(2, 3)",
        "Einheit": "Millions",
        "Nr": 17,
    }
    question = one(
        tmp_path,
        row,
        question="Frage",
        context="Text",
        answer="Antwort",
        document="Seite",
        program="Code",
        scale="Einheit",
        id="Nr",
    )
    assert (question.id, question.document.id) == ("17", "p-1")
    assert (question.answer, question.program, question.scale) == ("5", "add(2, 3)", "million")


def test_optional_columns_are_used_where_they_have_their_own_names(tmp_path: Path) -> None:
    row = ROWS[0] | {"document": "p", "program": "", "scale": "percent", "id": "q"}
    question = one(tmp_path, row)
    assert (question.id, question.document.id, question.program, question.scale) == (
        "q",
        "p",
        None,
        "percent",
    )


def test_a_column_that_serves_as_context_does_not_name_the_document(tmp_path: Path) -> None:
    row = {"question": "?", "document": "Sales rose.", "answer": "yes"}
    question = one(tmp_path, row, context="document")
    assert question.document.blocks == (Paragraph("Sales rose."),)
    assert question.document.id.startswith("context-")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.5, "12.5"),
        (1200.0, "1200"),
        (1e22, "10000000000000000000000"),
        (-0.000001, "-0.000001"),
        (7, "7"),
        (True, "yes"),
        (False, "no"),
        (" 5 % ", "5 %"),
    ],
)
def test_answers_become_text(tmp_path: Path, value: object, text: str) -> None:
    assert one(tmp_path, ROWS[0] | {"answer": value}).answer == text


def test_a_list_of_paragraphs_is_a_context(tmp_path: Path) -> None:
    row = ROWS[0] | {"context": ["Sales rose.", "", "a | b\nc | 1", "Costs fell."]}
    blocks = (
        Paragraph("Sales rose."),
        Table(rows=(("a", "b"), ("c", "1"))),
        Paragraph("Costs fell."),
    )
    assert one(tmp_path, row).document.blocks == blocks
    (question,) = read(write_parquet(tmp_path / "a.parquet", [row]))
    assert isinstance(question, Question)
    assert question.document.blocks == blocks


def test_a_program_may_be_a_list_of_tokens(tmp_path: Path) -> None:
    row = ROWS[0] | {"program": ["subtract(", "5", "4", ")", "EOF"]}
    assert one(tmp_path, row).program == "subtract(5, 4)"


def test_a_question_asked_twice_is_kept_twice(tmp_path: Path) -> None:
    first, second = rows_of(tmp_path, ROWS[0], ROWS[0])
    assert isinstance(first, Question)
    assert isinstance(second, Question)
    assert (first.text, first.document) == (second.text, second.document)
    assert first.id != second.id


def test_several_files_are_read_in_order_and_again(tmp_path: Path) -> None:
    files = (
        written(tmp_path / "a.jsonl", jsonl_text(ROWS[:1])),
        written(tmp_path / "b.csv", csv_text(ROWS[1:])),
    )
    reader = ColumnsReader(ColumnsOptions(files=files))
    assert [row.source for row in reader] == ["a.jsonl row 1", "b.csv row 1", "b.csv row 2"]
    assert contents(list(reader)) == contents(list(reader))


def test_columns_that_only_some_json_rows_have_are_found(tmp_path: Path) -> None:
    _, second = rows_of(tmp_path, ROWS[0], ROWS[2] | {"program": "add(1, 2)"}, program="program")
    assert isinstance(second, Question)
    assert second.program == "add(1, 2)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": ""}, "field 'question': empty; expected text"),
        ({"answer": None}, "field 'answer': empty; expected text"),
        ({"answer": float("nan")}, "field 'answer': empty; expected text"),
        ({"answer": float("inf")}, "field 'answer': a number that is not finite; expected text"),
        ({"answer": ["1", "2"]}, "field 'answer': a list; expected text"),
        ({"context": " \n "}, "field 'context': empty; expected text"),
        ({"context": ["", None]}, "field 'context': empty; expected text"),
        ({"context": [["a"]]}, "field 'context': a list; expected text"),
        ({"context": {"text": "a"}}, "field 'context': an object; expected text"),
        (
            {"scale": "dozens"},
            "field 'scale': 'dozens'; expected thousand, million, billion, percent, or an empty "
            "cell; or set scale to null to leave the column out",
        ),
    ],
)
def test_a_bad_cell_names_its_column(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert problem(tmp_path, ROWS[0] | changes) == f"train.jsonl row 2, {message}"


def test_a_json_row_without_a_column_is_refused(tmp_path: Path) -> None:
    row = {"question": "?", "context": "c"}
    assert problem(tmp_path, row) == ("train.jsonl row 2, field 'answer': missing; expected text")


def test_a_json_row_that_is_no_object_is_refused(tmp_path: Path) -> None:
    assert problem(tmp_path, ["?", "c", "a"]) == (
        "train.jsonl row 2, field 'row': a list; expected an object with a key for each column"
    )


def test_a_document_with_two_contexts_is_refused(tmp_path: Path) -> None:
    first, second = (row | {"document": "10-K 2021"} for row in (ROWS[0], ROWS[2]))
    _, bad = rows_of(tmp_path, first, second)
    assert str(bad) == (
        "train.jsonl row 2, field 'document': document '10-K 2021' has another context in "
        "train.jsonl row 1; give each context a document id of its own; or set document to null to "
        "leave the column out"
    )


def test_an_id_that_repeats_is_refused(tmp_path: Path) -> None:
    _, bad = rows_of(tmp_path, ROWS[0] | {"id": 1}, ROWS[1] | {"id": 1})
    assert str(bad) == (
        "train.jsonl row 2, field 'id': '1' is also the id of train.jsonl row 1; give each "
        "question an id of its own; or set id to null to leave the column out"
    )


def test_rows_that_are_longer_or_shorter_than_the_header_are_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", "question,context,answer\n?,c,1\n\n?,c, by 4%,1\n?,c\n?,c,2\n"
    )
    first, longer, shorter, last = read(path)
    hint = "a cell with ',' or a line break in it needs quotes"
    assert isinstance(first, Question)
    assert str(longer) == (
        f"a.csv row 2, field 'row': 4 cells, expected 3 as in the header; {hint}"
    )
    assert str(shorter) == (
        f"a.csv row 3, field 'row': 2 cells, expected 3 as in the header; {hint}"
    )
    assert isinstance(last, Question)


def test_a_cell_may_be_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", f"question,context,answer\n?,{'words ' * 50_000},1\n")
    (question,) = read(path)
    assert isinstance(question, Question)


def test_a_column_that_is_not_there_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "questions,context,label\n?,c,1\n")
    assert refusal(path) == (
        "a.csv: no column 'question'; there are 'questions', 'context', 'label'; did you mean "
        "'questions'?"
    )
    assert refusal(path, question="questions") == (
        "a.csv: no column 'answer'; there are 'questions', 'context', 'label'; set 'answer' to "
        "the column to use, or to null where the answers are not known "
        "(answer: null; --option answer=null)"
    )
    assert refusal(path, question="questions", answer="label", program="contxt") == (
        "a.csv: no column 'contxt'; there are 'questions', 'context', 'label'; did you mean "
        "'context'?"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv: an empty file; was it written or downloaded completely?"),
        ("a.csv", "\n\n", "a.csv: only blank lines; expected a header and rows"),
        ("a.csv", "question,context,answer\n", "a.csv: no rows; expected at least one"),
        (
            "a.csv",
            "question;context;answer\n?;c;1\n",
            "a.csv: the header 'question;context;answer' is one column; columns here are separated "
            "by ';'; set delimiter: ';'",
        ),
        (
            "a.csv",
            "question,answer,context,answer\n",
            "a.csv: the column 'answer' stands twice; rename one of them",
        ),
        (
            "a.csv",
            'question,context,answer\n?,c,1\n?,"c,1\n?,c,1\n',
            "a.csv: the row that begins in line 3 cannot be read (unexpected end of data); is a "
            "quote left open?",
        ),
        (
            "a.csv",
            b"question,context,answer\n?,c,5 \x80\n",
            "a.csv: not UTF-8 text (byte 30 is 0x80); save the file with the encoding UTF-8",
        ),
        (
            "a.xlsx",
            "PK",
            "a.xlsx: the suffix '.xlsx' names no known format; save the file as one of .csv, .tsv, "
            ".json, .jsonl, .ndjson, .parquet",
        ),
        ("a.jsonl", "\n\n", "a.jsonl: only blank lines; expected rows"),
        (
            "a.jsonl",
            '[\n{"question": "?"}]',
            "a.jsonl: line 1:2: not JSON: expected value; expected one JSON value a line, a list "
            "of rows belongs in a .json file",
        ),
        (
            "a.json",
            "[1, 2]",
            "a.json: row 1 is a number; expected an object with a key for each column",
        ),
        (
            "a.json",
            '[{"question": "Wh',
            "a.json:1:15: not JSON: unterminated string; the file seems cut off, copy or download "
            "it again",
        ),
    ],
)
def test_an_unusable_file_is_refused_with_its_remedy(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    assert refusal(written(tmp_path / name, content)) == message


def test_a_missing_file_of_unknown_suffix_is_first_of_all_missing(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", "x")
    assert refusal(tmp_path / "train.cvs") == ("train.cvs: no such file; did you mean 'train.csv'?")


def test_a_line_that_is_not_json_is_a_bad_row(tmp_path: Path) -> None:
    first, last = json.dumps(ROWS[0]), json.dumps(ROWS[2])
    path = written(tmp_path / "a.jsonl", f'{first}\n\n{{"question": \n{last}\n')
    _, bad, question = read(path)
    assert str(bad) == "a.jsonl row 2, field 'row': line 3:13: not JSON: expected value"
    assert isinstance(question, Question)
    assert question.source == "a.jsonl row 3"


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    message = refusal(written(tmp_path / "a.parquet", "question,context,answer\n"))
    assert message.startswith("a.parquet: no Parquet file, or a damaged one (")
    assert message.endswith("); write it again")


def test_unwanted_parquet_columns_are_not_read(tmp_path: Path) -> None:
    rows = [row | {"embedding": [0.5] * 8} for row in ROWS]
    path = write_parquet(tmp_path / "a.parquet", rows)
    assert contents(read(path)) == contents(rows_of(tmp_path, *ROWS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "set either 'files' or 'dataset'; neither is given"),
        ({"files": []}, "set either 'files' or 'dataset'; neither is given"),
        (
            {"files": "a.csv", "dataset": "owner/name"},
            "set either 'files' or 'dataset'; both are given",
        ),
        (
            {"files": "a.csv", "revision": "v1"},
            "'revision' belongs to 'dataset' and does nothing for 'files'",
        ),
    ],
)
def test_rows_come_from_files_or_from_the_hub(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ColumnsOptions.model_validate(options)
    assert caught.value.errors()[0]["msg"] == f"Value error, {message}"


def test_a_hub_data_set_is_read_by_split_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[object] = []

    def load(name: str, subset: str | None, *, revision: str | None, split: str) -> object:
        asked.extend([name, subset, revision, split])
        return datasets.Dataset.from_list([row | {"extra": 1} for row in ROWS])

    monkeypatch.setattr(datasets, "load_dataset", load)
    options = ColumnsOptions(
        dataset="owner/name", subset="en", revision="abc", dataset_split="test"
    )
    rows = list(ColumnsReader(options))
    assert asked == ["owner/name", "en", "abc", "test"]
    assert rows[0].source == "owner/name test row 1"
    assert len(contents(rows)) == 3
    with pytest.raises(DataError) as caught:
        list(ColumnsReader(options.model_copy(update={"answer": "anser"})))
    assert str(caught.value) == (
        "owner/name (test): no column 'anser'; there are 'question', 'context', 'answer', 'extra'; "
        "did you mean 'answer'?"
    )


def test_a_hub_data_set_out_of_reach_names_what_works_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = pytest.importorskip("datasets")

    def load(*_: object, **__: object) -> object:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError) as caught:
        list(ColumnsReader(ColumnsOptions(dataset="owner/name")))
    assert str(caught.value) == (
        "owner/name: the data set cannot be loaded (Couldn't reach 'owner/name' on the Hub); check "
        "its name, subset and split, and the network; 'files' (.csv, .tsv, .json, .jsonl, .ndjson, "
        ".parquet) need none"
    )
