"""Files of separated values: their header, and the rows below it."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from finqa_sft.errors import DataError
from finqa_sft.readers.files import cause, text_lines
from finqa_sft.readers.values import RowProblem, is_blank

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""What separates the cells, by the file's suffix."""

_OTHERS = ";\t,|"
_NAMED = re.compile(r'sep=([^"\s]|\t)\r?\n?')
_LONGEST_CELL = 2**25
_HEADER_SHOWN = 80


def csv_rows(path: Path, *, delimiter: str | None) -> tuple[list[str], Iterator[object]]:
    r"""The names of a file's columns, and its rows.

    Blank lines are passed over, and so are rows that hold nothing but blank cells, as spreadsheets
    write at the end; neither are counted. A row that does not fit the header comes as a
    `RowProblem`.

    Args:
        path: The file.
        delimiter: What separates the cells. None: what a first line such as `sep=;`, which Excel
            writes and reads, names; else what the suffix stands for.

    Raises:
        DataError: The file cannot be read, or its header cannot; or, from the rows, a quote in it
            is left open.
    """
    lines = enumerate(text_lines(path), start=1)
    number, first = _next_filled(lines)
    named = _NAMED.fullmatch(first)
    if named:
        number, first = _next_filled(lines)
    delimiter = delimiter or (named[1] if named else DELIMITERS[path.suffix.lower()])
    # A line in which every quote is closed is a whole row.
    if first and delimiter not in first and first.count('"') % 2 == 0:
        raise _one_column(path, first.strip())
    rest = chain([first], (line for _, line in lines))
    rows = _cells(path, rest, delimiter=delimiter, before=number - 1)
    header = [name.strip() for name in next(rows, [])]
    if not header:
        raise DataError(f"{path}: only blank lines; expected a header and rows")
    if len(header) < 2:
        raise _one_column(path, header[0])
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} stands twice; rename one of them")
    return header, (_row(cells, header=header, delimiter=delimiter) for cells in rows)


def _next_filled(lines: Iterator[tuple[int, str]]) -> tuple[int, str]:
    """The next line that is not blank, with its number; an empty one at the end of the file."""
    return next(((number, line) for number, line in lines if line.strip()), (1, ""))


def _one_column(path: Path, header: str) -> DataError:
    found = f"{path}: the header {header[:_HEADER_SHOWN]!r} is one column"
    others = Counter(character for character in header if character in _OTHERS)
    if not others:
        return DataError(
            f"{found}; columns are separated by a comma in .csv files and by a tab in .tsv files, "
            "or by what 'delimiter' is set to"
        )
    ((other, _),) = others.most_common(1)
    # A recipe is YAML, where a tab is written so between double quotes alone.
    name, value = ("a tab", r'"\t"') if other == "\t" else (repr(other), repr(other))
    return DataError(f"{found}; columns here are separated by {name}; set delimiter: {value}")


def _row(cells: list[str], *, header: list[str], delimiter: str) -> object:
    if len(cells) == len(header):
        return dict(zip(header, cells, strict=True))
    return RowProblem(
        "row",
        f"{len(cells)} cells, expected {len(header)} as in the header; a cell with {delimiter!r} "
        "or a line break in it needs quotes",
    )


def _cells(path: Path, lines: Iterator[str], *, delimiter: str, before: int) -> Iterator[list[str]]:
    """The cells of each row that is not blank, in lines with so many others before them."""
    # The module's own limit of 128 KiB a cell is too low for contexts. Without any, a quote left
    # open would take the rest of the file into memory.
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = before + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            remedy = "is a quote left open?"
            if "new-line character" in str(error):
                remedy = "save the file with line feeds at the ends of its lines"
            raise DataError(
                f"{path}: the row that begins in line {line} cannot be read ({cause(error)}); "
                f"{remedy}"
            ) from error
        if cells is None:
            return
        if not all(map(is_blank, cells)):
            yield cells
