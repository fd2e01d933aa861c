"""Mistakes in the data: what stands in the files, and what the command line answers."""

from __future__ import annotations

import json
import time

import pytest
from bad_input import OWN, ROWS, Shell, edited
from runs import manifest

pytest_plugins = ["bad_input"]

ROW = {"question": "What were sales?", "context": "Sales were 5.", "answer": "5"}
BIG = 10_000_000
"""Characters of a cell that somebody pasted a whole book into."""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("owm.csv", None, "no such file; did you mean 'own.csv'?"),
        ("sub/own.csv", None, "no such file; there is no folder sub either"),
        ("a.csv", "", "an empty file; was it written or downloaded completely?"),
        ("a.csv", "question,context,answer\n", "no rows; expected at least one"),
        ("a.csv", "\n\n", "only blank lines; expected a header and rows"),
        (
            "a.csv",
            ROWS.replace("sales", "Ertr\xe4ge").encode("latin-1"),
            "not UTF-8 text (byte 38 is 0xe4); save the file with the encoding UTF-8",
        ),
        ("a.csv", ROWS.encode("utf-16"), "UTF-16 text; save the file with the encoding UTF-8"),
        (
            "a.xlsx",
            "PK",
            "the suffix '.xlsx' names no known format; save the file as one of .csv, .tsv, .json, "
            ".jsonl, .ndjson, .parquet",
        ),
        (
            "a.csv",
            ROWS.replace(",", ";"),
            "the header 'question;context;answer' is one column; columns here are separated by "
            "';'; set delimiter: ';'",
        ),
        (
            "a.csv",
            ROWS.replace("question,", "questions,"),
            "no column 'question'; there are 'questions', 'context', 'answer'; did you mean "
            "'questions'?",
        ),
        (
            "a.csv",
            ROWS.replace("question,", "Frage,"),
            "no column 'question'; there are 'Frage', 'context', 'answer'; set 'question' to the "
            "column to use",
        ),
        (
            "a.csv",
            ROWS + 'Why?,"open,3\n',
            "the row that begins in line 4 cannot be read (unexpected end of data); is a quote "
            "left open?",
        ),
        ("a.json", "[]", "an empty list; expected rows"),
        ("a.json", '["x"]', "row 1 is text; expected an object with a key for each column"),
        (
            "a.json",
            json.dumps({"rows": [ROW]}),
            "an object with the keys 'rows' at the top level; expected a list of rows",
        ),
        (
            "a.parquet",
            b"PAR1",
            "no Parquet file, or a damaged one (Parquet file size is 4 bytes, smaller than the "
            "minimum file footer (8 bytes)); write it again",
        ),
    ],
)
def test_a_file_that_cannot_be_read(
    shell: Shell, name: str, content: str | bytes | None, said: str
) -> None:
    shell.write("r.yaml", edited("own.csv", name))
    if content is not None:
        shell.write(name, content)
    assert shell.refused("r.yaml") == f"{name}: {said}"


def test_a_file_that_was_cut_off(shell: Shell) -> None:
    shell.write("r.yaml", edited("own.csv", "a.json"))
    shell.write("a.json", json.dumps([ROW, ROW])[:-20])
    assert shell.refused("r.yaml") == (
        "a.json:1:123: not JSON: unterminated string; the file seems cut off, copy or download it "
        "again"
    )


def test_a_folder_in_place_of_a_file(shell: Shell) -> None:
    shell.write("r.yaml", edited("own.csv", "sub"))
    shell.write("sub/own.csv", ROWS)
    assert shell.refused("r.yaml") == "sub: a folder, not a file; name the files in it"


def test_an_empty_file_among_several(shell: Shell) -> None:
    shell.write("r.yaml", edited("own.csv", "[own.csv, more.csv]"))
    shell.write("more.csv", "")
    assert shell.refused("r.yaml") == (
        "more.csv: an empty file; was it written or downloaded completely?"
    )


@pytest.mark.parametrize("reader", ["finqa", "tatqa", "convfinqa"])
def test_a_file_of_another_reader(shell: Shell, reader: str) -> None:
    shell.write("r.yaml", edited("columns", reader).replace("own.csv", "a.json"))
    shell.write("a.json", json.dumps([ROW]))
    name = {"finqa": "FinQA", "tatqa": "TAT-QA", "convfinqa": "ConvFinQA"}[reader]
    assert shell.refused("r.yaml") == (
        f"a.json: row 1 has 'question' and looks like plain columns, not {name}; use reader: "
        "columns"
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", f"{ROWS},Costs were 3.,3\n", "row 3, field 'question': empty; expected text"),
        ("a.csv", f"{ROWS}Costs?,Costs were 3.,\n", "row 3, field 'answer': empty; expected text"),
        ("a.csv", f"{ROWS}Costs?,,3\n", "row 3, field 'context': empty; expected text"),
        (
            "a.csv",
            f"{ROWS}Costs?,3\n",
            "row 3, field 'row': 2 cells, expected 3 as in the header; a cell with ',' or a line "
            "break in it needs quotes",
        ),
        (
            "a.csv",
            "id,question,context,answer\n1,a,b,c\n2,d,e,f\n1,g,h,i\n",
            "row 3, field 'id': '1' is also the id of a.csv row 1; give each question an id of its "
            "own; or set id to null to leave the column out",
        ),
        (
            "a.csv",
            "document,question,context,answer\np1,a,b,c\np2,d,e,f\np1,g,h,i\n",
            "row 3, field 'document': document 'p1' has another context in a.csv row 1; give each "
            "context a document id of its own; or set document to null to leave the column out",
        ),
        (
            "a.jsonl",
            f"{json.dumps(ROW)}\n{json.dumps(ROW | {'answer': 6})}\n{json.dumps(ROW)[:30]}\n",
            "row 3, field 'row': line 3:14: not JSON: unterminated string",
        ),
        (
            "a.json",
            json.dumps([ROW, ROW | {"answer": 6}, ROW | {"answer": float("nan")}]),
            "row 3, field 'answer': empty; expected text",
        ),
        (
            "a.json",
            json.dumps([ROW, ROW | {"answer": 6}, ROW | {"answer": [5]}]),
            "row 3, field 'answer': a list; expected text",
        ),
    ],
)
def test_a_row_that_cannot_be_read(shell: Shell, name: str, content: str, said: str) -> None:
    shell.write("r.yaml", edited("own.csv", name))
    shell.write(name, content)
    assert shell.refused("r.yaml") == (
        f"1 of 3 rows cannot be read:\n  {name} {said}\n"
        "Mend them, or leave such rows out with data.bad_rows=skip"
    )


def test_nothing_but_bad_rows_that_are_to_be_left_out(shell: Shell) -> None:
    shell.write("own.csv", "question,context,answer\n,Sales were 5.,5\n")
    assert shell.refused("r.yaml", "data.bad_rows=skip") == (
        "source 1 (columns) holds no question that can be read: all 1 rows are bad, first own.csv "
        "row 1, field 'question': empty; expected text; mend it, or take it out of the recipe"
    )


def test_a_number_that_is_missing_in_a_table_is_an_empty_cell(shell: Shell) -> None:
    qa = {"question": "Sales?", "answer": "5", "program": "add(2, 3)", "exe_ans": 5.0}
    table = [["", "2020"], ["sales", float("nan")]]
    row = {"id": "a", "pre_text": ["Sales."], "post_text": [], "table": table, "qa": qa}
    shell.write("r.yaml", edited("columns", "finqa").replace("own.csv", "a.json"))
    shell.write("a.json", json.dumps([row]))
    said = shell("r.yaml")
    assert (said.status, said.err) == (0, "")
    assert "| sales |  |" in said.out


LONG = "longer than formatter.max_length without any paragraph or table row"
GONE = "nothing of its document fits into formatter.max_length"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (("x" * BIG, "Sales were 5.", "5"), LONG),
        (("Sales?", "x" * BIG, "5"), GONE),
        (("Sales?", "Sales were 5.", "x" * BIG), LONG),
    ],
)
def test_a_cell_of_ten_megabytes_is_left_out_and_counted(
    shell: Shell, cells: tuple[str, ...], reason: str
) -> None:
    began = time.monotonic()
    shell.write("own.csv", f"{ROWS}{','.join(cells)}\n")
    said = shell("r.yaml")
    assert (said.status, said.err) == (0, "")
    assert f"left out              1 × {reason}; first own.csv row 3\n" in said.out
    recorded = manifest(shell.folder / "run")["data"]
    assert recorded["left_out"] == {reason: 1}
    assert recorded["places"] == {reason: ["own.csv row 3"]}
    assert time.monotonic() - began < 60


def test_rows_that_are_left_out_changed_or_odd_are_said_and_recorded(shell: Shell) -> None:
    shell.write(
        "own.csv",
        "id,question,context,answer\n"
        "1,Sales?,Sales were <|end|> 5.,5\n"
        "2,Sales?,Sales were <|end|> 5.,6\n"
        "3,Costs?,Costs were 3.,3<|user|>\n"
        + "".join(f"{i % 2 + 1},Why?,Because {i}.,1\n" for i in range(6)),
    )
    said = shell("r.yaml", "data.bad_rows=skip")
    assert (said.status, said.err) == (0, "")
    bad = (
        "own.csv row 4, field 'id': '1' is also the id of own.csv row 1; give each question an id "
        "of its own; or set id to null to leave the column out"
    )
    token = "control token '<|user|>' of the tokenizer in the answer"
    apart = "control token of the tokenizer in the text, taken apart"
    twice = "one question with different answers"
    for line in (
        "training              2 questions on 1 document, ",
        f"left out              6 × bad row: id; first {bad}\n",
        f"left out              1 × {token}; first own.csv row 3\n",
        f"changed               1 × {apart}; first own.csv row 1\n",
        f"noticed               1 × {twice}; first own.csv row 1 and own.csv row 2\n",
    ):
        assert line in said.out
    recorded = manifest(shell.folder / "run")["data"]
    assert recorded["left_out"] == {"bad row: id": 6, token: 1}
    assert recorded["noticed"] == {twice: 1}
    assert recorded["places"]["bad row: id"][0] == bad
    assert len(recorded["places"]["bad row: id"]) == 6


def test_what_a_terminal_would_obey_is_shown_as_escapes(shell: Shell) -> None:
    page = "Sales \x1b[31mwere\x1b[0m \a5.\u202e"
    shell.write("own.csv", f"question,context,answer\nSales?,{page},5\n")
    said = shell("r.yaml")
    assert (said.status, said.err) == (0, "")
    assert "Sales \\x1b[31mwere\\x1b[0m \\x075.\\u202e\n" in said.out
    assert "\x1b[31m" not in said.out


def test_nothing_that_fits(shell: Shell) -> None:
    assert shell.refused("r.yaml", "formatter.max_length=32") == (
        f"no token is left to train on: of 2 questions read, 0 remain ({LONG}: 2); raise "
        "formatter.max_length"
    )


def test_a_document_on_both_sides(shell: Shell) -> None:
    shell.write(
        "r.yaml", OWN + "evaluation:\n  sources:\n    - reader: columns\n      files: dev.csv\n"
    )
    shell.write("own.csv", "document,question,context,answer\np1,a,b,c\np2,d,e,f\n")
    shell.write("dev.csv", "document,question,context,answer\np9,x,b,c\n")
    assert shell.refused("r.yaml") == (
        "1 held-out documents are in the training data as well: 'p9' (dev.csv row 1; in training: "
        "'p1', own.csv row 1). Scores on them would be too good; take them out of one side, or "
        "hold documents out with data.split"
    )


def test_a_split_that_leaves_one_side_empty(shell: Shell) -> None:
    shell.write(
        "own.csv", "question,context,answer\nSales?,Sales were 5.,5\nWhat?,Sales were 5.,5\n"
    )
    assert shell.refused("r.yaml", "data.split.held_out=0.5") == (
        "data.split.held_out is 0.5, but all questions belong to one document: nothing could be "
        "held out without its twin in training; set data.split.held_out=0 or name other files "
        "under evaluation.sources"
    )


def test_a_split_by_companies_that_nobody_names(shell: Shell) -> None:
    shell.write("own.csv", "document,question,context,answer\np1,a,b,c\np2,d,e,f\n")
    by_company = ("data.split.held_out=0.5", "data.split.by=company")
    assert shell.refused("r.yaml", *by_company) == (
        "data.split.by is company, but document 'p1' (own.csv row 1) names none; use "
        "data.split.by=document"
    )
