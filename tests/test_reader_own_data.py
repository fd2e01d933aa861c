"""What people's own files hold: columns of other meanings, and what spreadsheets write."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import test_reader_convfinqa as convfinqa
from pydantic import ValidationError
from test_reader_columns import ROWS, one, problem, read, refusal, rows_of, write_parquet, written

from finqa_sft.documents import Document, Paragraph, Question
from finqa_sft.errors import DataError
from finqa_sft.preparation.splits import document_groups
from finqa_sft.readers.columns import ColumnsOptions, ColumnsReader
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader
from finqa_sft.readers.values import as_text

HEADER = "question,context,answer\n"


def questions(items: list[Any]) -> list[Question]:
    assert all(isinstance(item, Question) for item in items), [str(item) for item in items]
    return items


LOANS = [
    ROWS[0] | {"program": "Mortgage", "document": "10-K 2022", "scale": "large", "id": "T-7"},
    ROWS[2] | {"program": "Mortgage", "document": "10-K 2022", "scale": "large", "id": "T-7"},
]


def test_columns_that_mean_something_else_are_left_out_with_null(tmp_path: Path) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("program", "document", "scale", "id", "company"))
    first, second = questions(rows_of(tmp_path, *LOANS, **nothing))
    assert (first.program, first.scale, first.document.company) == (None, "", None)
    assert first.document.id == "context-a1d68338d245feab"
    assert first.id == f"{first.document.id}-1"
    assert first.document.id != second.document.id


def test_a_column_left_out_is_not_read_from_parquet_either(tmp_path: Path) -> None:
    rows = [row | {"id": {"ticket": 7}} for row in ROWS]
    path = write_parquet(tmp_path / "a.parquet", rows)
    assert len(questions(read(path, id=None))) == 3


def test_null_set_by_an_override_of_the_recipe_leaves_the_column_out() -> None:
    options = ColumnsOptions.model_validate({"files": "a.csv", "program": None})
    assert "program" in options.model_fields_set
    assert "scale" not in options.model_fields_set


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "program",
            "no program: no step at character 1: 'Mortgage'; a step is op(arg, arg); or set "
            "program to null to leave the column out",
        ),
        (
            "document",
            "document '10-K 2022' has another context in train.jsonl row 1; give each context a "
            "document id of its own; or set document to null to leave the column out",
        ),
        (
            "scale",
            "'large'; expected thousand, million, billion, percent, or an empty cell; or set scale "
            "to null to leave the column out",
        ),
        (
            "id",
            "'T-7' is also the id of train.jsonl row 1; give each question an id of its own; or "
            "set id to null to leave the column out",
        ),
    ],
)
def test_a_problem_of_a_column_nobody_named_says_how_to_leave_it_out(
    tmp_path: Path, column: str, message: str
) -> None:
    good = ROWS[0] | ({column: LOANS[0][column]} if column in ("document", "id") else {column: ""})
    _, bad = rows_of(tmp_path, good, ROWS[2] | {column: LOANS[1][column]})
    assert str(bad) == f"train.jsonl row 2, field {column!r}: {message}"


def test_a_problem_of_a_column_that_was_named_does_not(tmp_path: Path) -> None:
    row = ROWS[0] | {"scale": "large"}
    assert problem(tmp_path, row, scale="scale").endswith("billion, percent, or an empty cell")


def test_a_company_column_gives_documents_their_company(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"company": " Harbour "}, ROWS[2] | {"company": None}]
    first, second = questions(rows_of(tmp_path, *rows))
    assert (first.document.company, second.document.company) == ("Harbour", None)
    row = ROWS[0] | {"company": "Harbour", "Firma": "Quayside"}
    assert one(tmp_path, row, company="Firma").document.company == "Quayside"
    assert one(tmp_path, row, company=None).document.company is None


def test_documents_of_a_company_are_kept_together(tmp_path: Path) -> None:
    rows = [row | {"company": "Harbour"} for row in ROWS]
    asked = questions(rows_of(tmp_path, *rows))
    assert len(set(document_groups(asked, by="document").values())) == 2
    assert len(set(document_groups(asked, by="company").values())) == 1


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "; or set company to null to leave the column out"),
        ({"company": "company"}, ""),
    ],
)
def test_a_document_of_two_companies_is_refused(
    tmp_path: Path, options: dict[str, Any], remedy: str
) -> None:
    _, bad = rows_of(
        tmp_path, ROWS[0] | {"company": "Harbour"}, ROWS[1] | {"company": "Pier"}, **options
    )
    assert str(bad) == (
        "train.jsonl row 2, field 'company': 'Pier', but 'Harbour' for the same document in "
        f"train.jsonl row 1; write one of them in both{remedy}"
    )


def test_a_company_column_of_another_name_is_the_one_at_fault(tmp_path: Path) -> None:
    rows = (ROWS[0] | {"Firma": "Harbour"}, ROWS[1] | {"Firma": "Pier"})
    _, bad = rows_of(tmp_path, *rows, company="Firma")
    assert str(bad).startswith("train.jsonl row 2, field 'Firma': 'Pier', but 'Harbour' for")


def two_folders(tmp_path: Path, name: str, content: str) -> tuple[Path, Path]:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    return written(tmp_path / "a" / name, content), written(tmp_path / "b" / name, content)


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    files = two_folders(tmp_path, "x.csv", f"{HEADER}?,c,1\n")
    other = written(tmp_path / "y.csv", f"{HEADER}?,c,1\n")
    rows = ColumnsReader(ColumnsOptions(files=(*files, other)))
    assert [row.source for row in rows] == [
        f"{tmp_path}/a/x.csv row 1",
        f"{tmp_path}/b/x.csv row 1",
        "y.csv row 1",
    ]


def test_so_are_those_of_the_other_readers(tmp_path: Path) -> None:
    files = two_folders(tmp_path, "x.json", "[5]")
    assert [row.source for row in FinqaReader(FinqaOptions(files=files))] == [
        f"{tmp_path}/a/x.json row 1",
        f"{tmp_path}/b/x.json row 1",
    ]


SEMICOLONS = 'question;context;answer\n"?";"Sales; 5,1";"5,1"\n'


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", SEMICOLONS, {"delimiter": ";"}),
        ("a.tsv", SEMICOLONS, {"delimiter": ";"}),
        ("a.csv", f"sep=;\n{SEMICOLONS}", {}),
        ("a.csv", f"\ufeffsep=;\r\n\r\n{SEMICOLONS}", {}),
        ("a.csv", f"sep=,\n{SEMICOLONS}", {"delimiter": ";"}),
        ("a.csv", 'sep=\t\nquestion\tcontext\tanswer\n?\t"Sales; 5,1"\t5,1\n', {}),
    ],
)
def test_a_delimiter_is_set_or_named_by_the_first_line(
    tmp_path: Path, name: str, content: str, options: dict[str, Any]
) -> None:
    (question,) = questions(read(written(tmp_path / name, content), **options))
    assert (question.text, question.answer) == ("?", "5,1")
    assert question.document.blocks == (Paragraph("Sales; 5,1"),)


def test_the_delimiter_in_use_is_named_where_a_row_does_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "sep=;\nquestion;context;answer\n?;c;1;2\n")
    (bad,) = read(path)
    assert str(bad) == (
        "a.csv row 1, field 'row': 4 cells, expected 3 as in the header; a cell with ';' or a line "
        "break in it needs quotes"
    )


def test_lines_are_counted_from_the_files_first(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'sep=;\n\nquestion;context;answer\n?;"c;1\n')
    assert refusal(path) == (
        "a.csv: the row that begins in line 4 cannot be read (unexpected end of data); is a quote "
        "left open?"
    )


@pytest.mark.parametrize(
    ("name", "header", "message"),
    [
        (
            "a.csv",
            '"question";"context";"answer"',
            'a.csv: the header \'"question";"context";"answer"\' is one column; columns here '
            "are separated by ';'; set delimiter: ';'",
        ),
        (
            "a.csv",
            "question\tcontext\tanswer",
            "a.csv: the header 'question\\tcontext\\tanswer' is one column; columns here are "
            'separated by a tab; set delimiter: "\\t"',
        ),
        (
            "a.tsv",
            "question,context,answer",
            "a.tsv: the header 'question,context,answer' is one column; columns here are "
            "separated by ','; set delimiter: ','",
        ),
        (
            "a.csv",
            "question",
            "a.csv: the header 'question' is one column; columns are separated by a comma in .csv "
            "files and by a tab in .tsv files, or by what 'delimiter' is set to",
        ),
        (
            "a.csv",
            '"question,context"',
            "a.csv: the header 'question,context' is one column; columns here are separated by "
            "','; set delimiter: ','",
        ),
    ],
)
def test_a_header_of_one_column_names_what_separates_it(
    tmp_path: Path, name: str, header: str, message: str
) -> None:
    assert refusal(written(tmp_path / name, f"{header}\n1\n")) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"files": "a.csv", "delimiter": "\\t"},
            'expected one character, and no quote; a tab is written "\\t"',
        ),
        (
            {"files": "a.csv", "delimiter": '"'},
            'expected one character, and no quote; a tab is written "\\t"',
        ),
        (
            {"files": "a.jsonl", "delimiter": ";"},
            "'delimiter' is for .csv and .tsv files, and none is given",
        ),
        (
            {"dataset": "owner/name", "delimiter": ";"},
            "'delimiter' is for .csv and .tsv files, and none is given",
        ),
    ],
)
def test_a_delimiter_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ColumnsOptions.model_validate(options)
    assert caught.value.errors()[0]["msg"] == f"Value error, {message}"


@pytest.mark.parametrize("column", ["question", "context", "answer", "document", "company", "id"])
@pytest.mark.parametrize(
    "value", ["#REF!", "#DIV/0!", "#N/A", "#VALUE!", "#NAME?", "#NUM!", "#NULL!"]
)
def test_an_error_value_of_a_spreadsheet_is_no_text(
    tmp_path: Path, column: str, value: str
) -> None:
    options = {column: column}
    row = ROWS[2] | dict.fromkeys(options, "x")
    _, bad = rows_of(tmp_path, row, ROWS[0] | {column: f" {value} "}, **options)
    assert str(bad) == (
        f"train.jsonl row 2, field {column!r}: {value}, an error value of a spreadsheet; expected "
        "text"
    )


@pytest.mark.parametrize("value", ["nan", "NaN"])
def test_what_data_frames_write_for_empty_is_no_answer(tmp_path: Path, value: str) -> None:
    (bad,) = read(written(tmp_path / "a.csv", f"{HEADER}?,c,{value}\n"))
    assert str(bad) == (
        f"a.csv row 1, field 'answer': {value}, which data frames write for empty; expected text"
    )


def test_error_values_within_a_text_are_text(tmp_path: Path) -> None:
    row = {"question": "Why #N/A?", "context": "| a | b |\n|---|---|\n| #REF! | nan |"}
    question = one(tmp_path, row | {"answer": "it is #N/A"})
    assert (question.text, question.answer) == ("Why #N/A?", "it is #N/A")
    assert question.document.tables[0].rows[1] == ("#REF!", "nan")


@pytest.mark.parametrize(
    ("reader", "options"),
    [
        (FinqaReader, FinqaOptions),
        (TatqaReader, TatqaOptions),
        (ColumnsReader, ColumnsOptions),
    ],
)
@pytest.mark.parametrize("row", [convfinqa.ROW, convfinqa.CLEANED], ids=["official", "cleaned"])
def test_conversations_under_names_are_sent_to_their_reader(
    tmp_path: Path, reader: Any, options: Any, row: dict[str, Any]
) -> None:
    content = {"version": [1], "dev": [row], "test": [row]}
    path = written(tmp_path / "a.json", json.dumps(content))
    with pytest.raises(DataError) as caught:
        list(reader(options(files=(path,))))
    assert str(caught.value) == (
        f"{path}: an object with the keys 'version', 'dev', 'test' at the top level; expected a "
        "list of rows; 'dev' looks like ConvFinQA, use reader: convfinqa"
    )


GOLD = {"tables": {"p": [["a", "1"]]}, "gold": [{"id": "p", "turn": 0, "gold_program": "1"}]}


def test_other_lists_under_names_are_not(tmp_path: Path) -> None:
    assert refusal(written(tmp_path / "a.json", json.dumps(GOLD))) == (
        "a.json: an object with the keys 'tables', 'gold' at the top level; expected a list of rows"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            GOLD,
            "an object with the keys 'tables', 'gold' at the top level; expected a list of rows, "
            "and no key holds conversations",
        ),
        (
            GOLD | {"dev": [convfinqa.ROW]},
            "an object with the keys 'tables', 'gold', 'dev' at the top level; expected a list of "
            "rows, or set 'split' to 'dev'",
        ),
    ],
)
def test_only_keys_that_hold_conversations_are_splits(
    tmp_path: Path, content: object, message: str
) -> None:
    path = written(tmp_path / "gold.json", json.dumps(content))
    with pytest.raises(DataError) as caught:
        list(ConvfinqaReader(ConvfinqaOptions(files=(path,))))
    assert str(caught.value) == f"{path}: {message}"


def test_blank_rows_are_passed_over_and_not_counted(tmp_path: Path) -> None:
    content = f",,\n{HEADER}?,c,1\n , ,\n,,,,\n?,c,\n,,\n\u200b,\xa0,\t\n"
    first, bad = read(written(tmp_path / "a.csv", content))
    assert isinstance(first, Question)
    assert str(bad) == "a.csv row 2, field 'answer': empty; expected text"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (",,\n , ,\n", "a.csv: only blank lines; expected a header and rows"),
        (" \n\n", "a.csv: only blank lines; expected a header and rows"),
        (f"{HEADER},,\n,,\n", "a.csv: no rows; expected at least one"),
    ],
)
def test_a_file_of_blank_rows_is_refused(tmp_path: Path, content: str, message: str) -> None:
    assert refusal(written(tmp_path / "a.csv", content)) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime.date(2022, 12, 31), "2022-12-31"),
        (datetime.datetime(2022, 12, 31), "2022-12-31"),
        (datetime.datetime(2022, 12, 31, 9, 30), "2022-12-31T09:30:00"),
        (
            datetime.datetime(2022, 12, 31, tzinfo=datetime.UTC),
            "2022-12-31T00:00:00+00:00",
        ),
        (Decimal("12.50"), "12.50"),
    ],
)
def test_values_that_parquet_has_types_for_are_text(
    tmp_path: Path, value: object, text: str
) -> None:
    (question,) = questions(
        read(write_parquet(tmp_path / "a.parquet", [ROWS[0] | {"answer": value}]))
    )
    assert question.answer == text


@pytest.mark.parametrize("value", ["\u200b", " \u200b\ufeff ", "\u2060\n"])
def test_text_without_width_is_empty(tmp_path: Path, value: str) -> None:
    assert problem(tmp_path, ROWS[0] | {"answer": value}) == (
        "train.jsonl row 2, field 'answer': empty; expected text"
    )
    assert as_text(f"{value}5", field="x").endswith("5")


def test_a_document_keeps_its_company_among_equal_ones(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"document": "p", "company": "Harbour"} for _ in range(2)]
    first, second = questions(rows_of(tmp_path, *rows))
    assert first.document is second.document
    assert first.document == Document("p", first.document.blocks, company="Harbour")
