"""What holds for every reader, whatever stands in its files."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import test_reader_columns as columns
import test_reader_convfinqa as convfinqa
import test_reader_financebench as financebench
import test_reader_finqa as finqa
import test_reader_tatqa as tatqa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finqa_sft.documents import Question, Table
from finqa_sft.errors import DataError
from finqa_sft.readers.base import BadRow, Reader
from finqa_sft.readers.columns import ColumnsOptions, ColumnsReader
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.financebench import FinancebenchOptions, FinancebenchReader
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

Items: TypeAlias = list[Question | BadRow]
Place: TypeAlias = tuple[str | int, ...]

STABLE = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Case:
    """A reader with a row that it can read.

    Attributes:
        reader: Makes the reader of one file.
        row: The row.
        names: What is to differ between two such rows: ids of question and document.
    """

    reader: Callable[[Path], Reader]
    row: dict[str, Any]
    names: tuple[str, ...]

    def another(self, number: int) -> dict[str, Any]:
        """The row under other ids."""
        text = json.dumps(self.row)
        for name in self.names:
            text = text.replace(name, f"{name}{number}")
        row: dict[str, Any] = json.loads(text)
        return row


ROW = columns.ROWS[0] | {"id": "q-0", "document": "d-0", "program": "add(1, 2)", "scale": "percent"}
CASES = {
    "finqa": Case(
        lambda path: FinqaReader(FinqaOptions(files=(path,))), finqa.ROW, ("QZX/2017/page_12",)
    ),
    "convfinqa": Case(
        lambda path: ConvfinqaReader(ConvfinqaOptions(files=(path,))),
        convfinqa.ROW,
        ("QZX/2017/page_12",),
    ),
    "convfinqa, cleaned": Case(
        lambda path: ConvfinqaReader(ConvfinqaOptions(files=(path,))),
        convfinqa.CLEANED,
        ("QZX/2017/page_12",),
    ),
    "tatqa": Case(lambda path: TatqaReader(TatqaOptions(files=(path,))), tatqa.ROW, ("t-1", "q-1")),
    "financebench": Case(
        lambda path: FinancebenchReader(FinancebenchOptions(files=(path,))),
        financebench.ROW,
        ("financebench_id_9",),
    ),
    "columns": Case(lambda path: ColumnsReader(ColumnsOptions(files=(path,))), ROW, ("q-0", "d-0")),
}

RAW = {
    "<huge>": "9" * 5000,
    "<deep>": "[" * 5000 + "]" * 5000,
    "<exponent>": "1e999",
    "<long>": json.dumps("long " * 20_000),
}
"""Values that `json.dumps` does not write, or that would make failing examples unreadable."""

REMOVED = object()
ODD = st.sampled_from(
    [
        *(REMOVED, None, True, False, 0, -1, 10**30, 2.5, float("nan"), float("inf")),
        *("", " ", "\n", "x", "0", "-", "nan", "1e5", "#0", "add(", "add(1, 2)", "|", "a | b\nc|d"),
        *("\x00", "\x1f\x7f", "\ud83d", "\u2028", "\ufeff", "\u202e12", "<huge>", "<exponent>"),
        *("<long>", "<deep>", [], {}, [[]], [{}], {"": None}, {"\udc80": "x"}, [None], ["EOF"]),
        *({"text_0": 1}, {"table_9": 1}, [["a"], []], [["\ud83d"]], {"table": []}, [float("nan")]),
    ]
)


def places(value: object, place: Place = ()) -> Iterator[Place]:
    """Where something stands in a row, at any depth."""
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, inner in entries:
        yield (*place, key)
        yield from places(inner, (*place, key))


def mangled(row: dict[str, Any], changes: list[tuple[Place, Any]]) -> dict[str, Any]:
    """The row with other values at some places, as far as the earlier changes leave them there."""
    row = copy.deepcopy(row)
    for (*parents, key), value in changes:
        holder: Any = row
        try:
            for parent in parents:
                holder = holder[parent]
            if value is REMOVED:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    return row


def dumped(row: object) -> str:
    text = json.dumps(row)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [dumped(row) for row in rows]
    listed = "[" + ",\n ".join(lines) + "]"
    path.write_text(listed if path.suffix == ".json" else "\n".join(lines), encoding="utf-8")


def read(case: Case, path: Path) -> Items | DataError:
    """What the reader gives, twice the same."""
    reader = case.reader(path)
    outcomes: list[Items | str] = []
    for _ in range(2):
        items: Items = []
        try:
            items.extend(reader)
        except DataError as error:
            refusal = error
            outcomes.append(str(error))
        else:
            outcomes.append(items)
        hold_invariants(items, path)
    assert outcomes[0] == outcomes[1]
    if isinstance(outcomes[0], list):
        return outcomes[0]
    assert outcomes[0].startswith(f"{path}:")
    assert outcomes[0].isprintable()
    return refusal


def hold_invariants(items: Items, path: Path) -> None:
    documents: dict[str, object] = {}
    ids: set[str] = set()
    for item in items:
        assert isinstance(item, Question | BadRow)
        assert item.source.startswith(f"{path.name} row ")
        assert item.source.split()[2].isdecimal()
        if isinstance(item, BadRow):
            assert item.field
            assert item.problem
            assert str(item).isprintable()
            continue
        assert item.id not in ids
        ids.add(item.id)
        assert documents.setdefault(item.document.id, item.document) == item.document
        for text in (item.id, item.text, item.answer, item.document.id):
            assert text.strip()
            assert text.encode()
        assert item.document.company is None or item.document.company
        for evidence in item.evidence:
            block = item.document.blocks[evidence.block]
            if evidence.row is not None:
                assert isinstance(block, Table)
                assert evidence.row in range(len(block.rows))
        for turn in item.history:
            assert turn.question
            assert turn.answer
        for table in item.document.tables:
            assert len({len(row) for row in table.rows}) == 1
            assert 0 <= table.header_rows <= len(table.rows)


@pytest.mark.parametrize("name", CASES)
def test_a_row_of_each_reader_is_read(name: str, tmp_path: Path) -> None:
    case, path = CASES[name], tmp_path / "rows.json"
    write(path, [case.another(1), case.another(2)])
    items = read(case, path)
    assert isinstance(items, list)
    assert {item.source.split(" question")[0] for item in items if isinstance(item, Question)} == {
        "rows.json row 1",
        "rows.json row 2",
    }


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("name", CASES)
@STABLE
@given(data=st.data())
def test_a_mangled_row_is_questions_or_bad_and_its_neighbours_stay_good(
    name: str, suffix: str, tmp_path: Path, data: st.DataObject
) -> None:
    case, path = CASES[name], tmp_path / f"rows{suffix}"
    change = st.tuples(st.sampled_from(list(places(case.row))), ODD)
    changes = data.draw(st.lists(st.lists(change, min_size=1, max_size=3), min_size=1, max_size=3))
    rows = [mangled(case.another(number), some) for number, some in enumerate(changes, start=2)]
    write(path, [case.another(1), *rows, case.another(9)])
    items = read(case, path)
    if isinstance(items, DataError):
        # A list cannot be read on behind a row that cannot be decoded; lines can.
        assert suffix == ".json"
        assert "nested too deeply" in str(items)
        return
    good = {item.source.split()[2] for item in items if isinstance(item, Question)}
    assert {"1", str(len(rows) + 2)} <= good
    named = {item.source.split()[2] for item in items}
    without_questions = name == "tatqa" and len(named) < len(rows) + 2
    assert without_questions or named == {str(number + 1) for number in range(len(rows) + 2)}


def file_of(suffix: str, case: Case) -> bytes:
    rows = [case.another(1), case.another(2), case.another(3)]
    if suffix in (".csv", ".tsv"):
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, list(rows[0]), delimiter="," if suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue().encode()
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return bytes(sink.getvalue())
    lines = [json.dumps(row) for row in rows]
    return ("[" + ", ".join(lines) + "]" if suffix == ".json" else "\n".join(lines)).encode()


FILES = [
    *((name, suffix) for name in CASES for suffix in (".json", ".jsonl")),
    *(("columns", suffix) for suffix in (".csv", ".tsv", ".parquet")),
]
BYTES = st.sampled_from(
    [
        *(b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\t", b"\x00"),
        *(b"\xff", b"\xe2", b"null", b"NaN", b"1e", b"-", b"\\ud83d", b"\\u12", b"PK\x03\x04"),
    ]
)


@pytest.mark.parametrize(("name", "suffix"), FILES)
@STABLE
@given(data=st.data())
def test_a_damaged_file_is_rows_or_refused(
    name: str, suffix: str, tmp_path: Path, data: st.DataObject
) -> None:
    case, path = CASES[name], tmp_path / f"rows{suffix}"
    content = file_of(suffix, case)
    start = data.draw(st.integers(0, len(content)))
    length = data.draw(st.sampled_from([0, 1, 2, 10, len(content)]))
    path.write_bytes(content[:start] + data.draw(BYTES) + content[start + length :])
    read(case, path)
