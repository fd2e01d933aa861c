"""Files of rows: read once and in bounded memory, and every bad one refused with its remedy."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finqa_sft.documents import Document, Paragraph, Question
from finqa_sft.errors import DataError
from finqa_sft.readers import files, json_files
from finqa_sft.readers.columns import ColumnsOptions, ColumnsReader
from finqa_sft.readers.context import Register
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.files import check_file, text_lines
from finqa_sft.readers.json_files import json_rows
from finqa_sft.readers.values import RowProblem

ROW = {"question": "What was freight in 2019?", "context": "Freight was 5.", "answer": "5"}
EACH = settings(
    deadline=None,
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(read: Callable[[], object], path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read()
    return str(caught.value).replace(f"{path.parent}/", "")


def refusal_of(path: Path) -> str:
    return refusal(lambda: list(ColumnsReader(ColumnsOptions(files=(path,)))), path)


def in_stretches(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(files, "CHUNK", size)
    patch.setattr(json_files, "CHUNK", size)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
SIZES = st.integers(1, 40)


@EACH
@given(
    st.lists(VALUES, min_size=1), SIZES, st.booleans(), st.sampled_from([None, 1, "\t"]), st.data()
)
def test_a_list_read_in_stretches_is_what_the_decoder_makes_of_it_whole(
    tmp_path: Path, rows: list[Any], size: int, ascii: bool, indent: Any, data: st.DataObject
) -> None:
    text = json.dumps(rows, ensure_ascii=ascii, indent=indent)
    path = written(tmp_path / "a.json", text.encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        in_stretches(patch, size)
        assert list(json_rows(path)) == rows


@EACH
@given(st.lists(VALUES, min_size=1, max_size=4), SIZES, st.data())
def test_a_damaged_list_is_refused_where_the_decoder_refuses_it(
    tmp_path: Path, rows: list[Any], size: int, data: st.DataObject
) -> None:
    text = json.dumps(rows, indent=1)
    start = data.draw(st.integers(1, len(text)))
    end = data.draw(st.sampled_from([start, start + 1, len(text)]))
    text = text[:start] + data.draw(st.sampled_from(["", "x", '"', "]", "{", "\n"])) + text[end:]
    path = written(tmp_path / "a.json", text)
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as error:
        fault: json.JSONDecodeError | None = error
    else:
        fault = None
    with pytest.MonkeyPatch.context() as patch:
        in_stretches(patch, size)
        if fault is None and expected:
            assert list(json_rows(path)) == expected
            return
        message = refusal(lambda: list(json_rows(path)), path)
    if fault and "a comma with nothing" not in message:
        assert message.startswith(f"a.json:{fault.lineno}:{fault.colno}: not JSON: ")


@pytest.mark.parametrize(
    "value", ["1e-05", "-Infinity", "NaN", "123456.5E+10", '"\\ud83d\\ude00"', "false", "-0.5"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_mark_may_be_cut_anywhere(
    value: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_stretches(monkeypatch, size)
    path = written(tmp_path / "a.json", f'[{value}, {{"a": {value}}},{value} ]')
    first, second, third = json_rows(path)
    assert repr([first, second, third]) == repr(json.loads(path.read_text()))


@EACH
@given(st.text(st.characters(codec="utf-8"), min_size=1), SIZES)
def test_lines_joined_are_the_text_whatever_the_stretches(
    tmp_path: Path, text: str, size: int
) -> None:
    text = f"text {text}"
    path = written(tmp_path / "a.txt", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK", size)
        lines = list(text_lines(path))
    assert "".join(lines) == text
    assert all(line.endswith("\n") for line in lines[:-1])
    assert len(lines) == text.count("\n") + (not text.endswith("\n"))


class Watched:
    """An open file that counts the bytes read from it."""

    def __init__(self, file: Any, taken: list[int]) -> None:
        self._file = file
        self._taken = taken

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        self._taken[-1] += len(data)
        return data


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_a_file_is_opened_once_and_its_first_row_given_before_it_is_read_to_its_end(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ROW | {"context": f"Freight was {i}. {'harbour ' * 1000}"} for i in range(300)]
    lines = [json.dumps(row) for row in rows]
    content = {
        ".json": "[" + ",".join(lines) + "]",
        ".jsonl": "\n".join(lines),
        ".csv": "\n".join([",".join(ROW), *(",".join(row.values()) for row in rows)]),
    }
    path = written(tmp_path / f"a{suffix}", content[suffix])
    taken: list[int] = []
    opened = Path.open

    def watched(path: Path, mode: str) -> Watched:
        taken.append(0)
        return Watched(opened(path, mode), taken)

    monkeypatch.setattr(Path, "open", watched)
    questions: Iterator[object] = iter(ColumnsReader(ColumnsOptions(files=(path,))))
    assert isinstance(next(questions), Question)
    # Columns are looked for in the first hundred rows of JSON.
    assert taken[0] <= len(content[suffix]) // 2
    assert len(list(questions)) == 299
    assert taken == [len(content[suffix])]


FINQA_ROWS = """
import json, sys
from pathlib import Path

path, lines = Path(sys.argv[1]), sys.argv[1].endswith(".jsonl")
text = "harbour freight grew by 4% in the year as the fleet was enlarged . " * 4
with path.open("w", encoding="utf-8") as file:
    file.write("" if lines else "[")
    for i in range(20_000):
        page = f"QZX/2017/page_{i // 3}.pdf"
        row = {
            "id": f"{page}-{i % 3}",
            "filename": page,
            "pre_text": [f"{text} {i // 3}"] * 20,
            "post_text": [text] * 20,
            "table": [["", "2017"], ["revenue", "$ 120"]],
            "qa": {"question": "what was revenue?", "answer": "120", "gold_inds": {"table_1": ""}},
        }
        file.write(("" if lines or not i else ",") + json.dumps(row) + ("\\n" if lines else ""))
    file.write("" if lines else "]")
"""

PEAK = """
import resource, sys
from pathlib import Path
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
count = sum(1 for _ in FinqaReader(FinqaOptions(files=(Path(sys.argv[1]),))))
print(count, (peak() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_file_of_200_megabytes_is_read_in_a_fraction_of_its_size(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    subprocess.run([sys.executable, "-c", FINQA_ROWS, str(path)], check=True)
    assert path.stat().st_size > 200 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], check=True, capture_output=True, text=True
    )
    path.unlink()
    count, megabytes = map(int, done.stdout.split())
    assert count == 20_000
    assert megabytes < 80


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_a_cell_of_ten_megabytes_is_read(suffix: str, tmp_path: Path) -> None:
    row = ROW | {"context": "freight " * 1_300_000}
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    elif suffix == ".csv":
        written(path, f"{','.join(row)}\n{','.join(row.values())}\n")
    else:
        written(path, json.dumps([row] if suffix == ".json" else row))
    (question,) = ColumnsReader(ColumnsOptions(files=(path,)))
    assert isinstance(question, Question)
    assert question.document.blocks == (Paragraph(row["context"].strip()),)


def test_a_quote_left_open_does_not_take_the_rest_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finqa_sft.readers.csv_files._LONGEST_CELL", 1000)
    path = written(tmp_path / "a.csv", 'question,context,answer\n?,"c,1\n' + "?,c,1\n" * 1000)
    assert refusal_of(path) == (
        "a.csv: the row that begins in line 2 cannot be read (field larger than field limit "
        "(1000)); is a quote left open?"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe[\x00", "a.json: UTF-16 text; save the file with the encoding UTF-8"),
        (b"\xfe\xff\x00[", "a.json: UTF-16 text; save the file with the encoding UTF-8"),
        (
            "[1]".encode("utf-16-le"),
            "a.json: bytes of value 0 in the text, as in UTF-16; save the file with the encoding "
            "UTF-8",
        ),
        (
            b"PK\x03\x04\x14",
            "a.json: a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV",
        ),
        (b"\x1f\x8b\x08", "a.json: a gzip archive; unpack it"),
        (
            b"PAR1\x15",
            "a.json: a Parquet file; give it the suffix .parquet, which reader: columns takes",
        ),
        (
            b"%PDF-1.7",
            "a.json: a PDF document; write its questions and answers into a text file",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a.json: a Git LFS pointer; fetch the file itself with 'git lfs pull'",
        ),
        (b"<!DOCTYPE html>", "a.json: a web page; download the file itself"),
        (
            '["Erlöse'.encode("latin-1"),
            "a.json: not UTF-8 text (byte 5 is 0xf6); save the file with the encoding UTF-8",
        ),
        (
            '["5 €'.encode()[:-1],
            "a.json: ends within a character; the file seems cut off, copy or download it again",
        ),
        (
            "question,context\n",
            "a.json:1:1: not JSON: expected value; is this a file of another kind?",
        ),
        (
            "[{},\n{},\n]",
            "a.json:2:3: not JSON: a comma with nothing between it and ']'; remove it",
        ),
        (
            "[{}]\n[{}]",
            "a.json:2:1: not JSON: the JSON value ends before; with one value a line, name the "
            "file .jsonl",
        ),
        (
            "[{}, {}",
            "a.json:1:8: not JSON: expected ',' delimiter; the file seems cut off, copy or "
            "download it again",
        ),
        (
            "[{},",
            "a.json:1:5: not JSON: expected value; the file seems cut off, copy or download it "
            "again",
        ),
        (
            '{"data": {"rows": [1, {}], "n": {}}, "b": 1}',
            "a.json: an object with the keys 'data', 'b' at the top level; expected a list of rows",
        ),
        (
            '{"data": [1}',
            "a.json:1:12: not JSON: expected ',' delimiter; mend it there",
        ),
        (
            "{data: [1]}",
            "a.json:1:2: not JSON: expected property name enclosed in double quotes; mend it there",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_to_do(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.json", content)
    assert refusal(lambda: list(json_rows(path)), path) == message


def test_objects_nested_past_reason_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '{"a":' * 20_000)
    message = refusal(lambda: list(json_rows(path)), path)
    assert message.startswith("a.json:1:")
    assert message.endswith(": lists or objects nested too deeply to be read; write flat rows")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"question": "?"}]',
            "a.jsonl: line 1: a list; expected one JSON value a line, a list of rows belongs in a "
            ".json file",
        ),
        (
            "[" * 5000,
            "a.jsonl: line 1: lists or objects nested too deeply to be read; write flat rows; "
            "expected one JSON value a line, a list of rows belongs in a .json file",
        ),
    ],
)
def test_lines_that_are_no_rows_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", content)
    assert refusal(lambda: list(json_rows(path)), path) == message


def test_a_line_nested_too_deeply_is_a_bad_row_among_good_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", f'{{"a": 1}}\n{"[" * 5000}\n{{"a": 2}}')
    first, problem, last = json_rows(path)
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert isinstance(problem, RowProblem)
    assert problem.problem == (
        "line 2: lists or objects nested too deeply to be read; write flat rows"
    )


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_number_of_too_many_digits_is_infinite_and_its_row_bad(
    suffix: str, tmp_path: Path
) -> None:
    digits = "9" * 5000
    row = json.dumps(ROW).replace('"5"', digits)
    content = f"[{row}]" if suffix == ".json" else row
    path = written(tmp_path / f"a{suffix}", content)
    (read,) = json_rows(path)
    assert isinstance(read, dict)
    assert read["answer"] == math.inf
    (bad,) = ColumnsReader(ColumnsOptions(files=(path,)))
    assert str(bad) == (
        f"a{suffix} row 1, field 'answer': a number that is not finite; expected text"
    )


def test_a_csv_row_that_cannot_be_read_is_named_without_control_characters(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'question\tcontext\tanswer\n"?" x\tc\t1\n')
    assert refusal_of(path) == (
        "a.tsv: the row that begins in line 2 cannot be read ('\\t' expected after '\"'); is a "
        "quote left open?"
    )


def test_lines_that_end_in_carriage_returns_alone_are_refused(tmp_path: Path) -> None:
    message = refusal_of(written(tmp_path / "a.csv", "question,context,answer\r?,c,1\r"))
    assert message.startswith("a.csv: the row that begins in line 1 cannot be read (new-line ")
    assert message.endswith("); save the file with line feeds at the ends of its lines")


def test_rows_of_another_data_set_are_named_where_a_column_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps([{"id": "1", "qa": {}}]))
    assert refusal_of(path) == (
        "a.json: no column 'question'; there are 'id', 'qa'; set 'question' to the column to use; "
        "for FinQA use reader: finqa"
    )


def test_a_parquet_file_with_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([ROW]), path, use_dictionary=False)
    written(path, path.read_bytes().replace(b"Freight was", b"\xff\xff\xffight was"))
    message = refusal_of(path)
    assert message.startswith("a.parquet: no Parquet file, or a damaged one ('utf-8' codec can't")


def test_links_pipes_and_closed_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, pipe = tmp_path / "a.json", tmp_path / "b.json"
    link.symlink_to("gone.json")
    os.mkfifo(pipe)
    assert refusal(lambda: check_file(link), link) == (
        "a.json: a link to gone.json, which is not there; download or link the file again"
    )
    assert refusal(lambda: check_file(pipe), pipe) == (
        "b.json: a pipe or device; write what it gives into a file"
    )

    def denied(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", denied)
    assert refusal(lambda: check_file(link), link) == (
        "a.json: cannot be read (Permission denied); check its rights"
    )


def test_a_file_that_may_not_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.json", "[1]")

    def denied(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refusal(lambda: list(json_rows(path)), path) == (
        "a.json: cannot be read (Permission denied); check its rights"
    )


def test_a_split_is_read_past_others_that_are_not_held(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '{"meta": {"v": [1]}, "dev": [5], "test": [{}, []]}')
    (bad,) = ConvfinqaReader(ConvfinqaOptions(files=(path,), split="dev"))
    assert str(bad) == ("a.json row 1, field 'row': a number; expected an object with 'annotation'")


def test_a_register_holds_recent_documents_up_to_some_bytes_of_text() -> None:
    register = Register(recent=2_000_000)

    def enter(id: str, name: str, *, company: str | None = None) -> Question:
        document = Document(id=name, blocks=(Paragraph(name * 900_000),), company=company)
        question = Question(id=id, text="?", document=document, answer="1", source=f"a row {id}")
        return register.enter(question, document_field="page", id_field="id")

    first, second = enter("1", "p"), enter("2", "q")
    assert enter("3", "p").document is first.document
    assert enter("4", "q").document is second.document
    enter("5", "r")
    assert enter("6", "p").document is not first.document
    with pytest.raises(RowProblem) as caught:
        enter("7", "q", company="Quayside")
    assert str(caught.value.at("a row 7")) == (
        "a row 7, field 'company': 'Quayside', but None for the same document in a row 2; write "
        "one of them in both"
    )
