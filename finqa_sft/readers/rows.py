"""From rows to questions: the loop that readers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from finqa_sft.documents import Question
from finqa_sft.errors import DataError
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.files import short_names
from finqa_sft.readers.json_files import json_rows
from finqa_sft.readers.layouts import LAYOUTS, layout_of
from finqa_sft.readers.values import Row, RowProblem, kind

Questions: TypeAlias = Callable[[Row, str], Iterable[Question | BadRow]]
"""Makes the questions of a row, given the row and what to call it, as `train.json row 17`; raises
`RowProblem` if it has none."""


def read_files(
    files: Iterable[Path],
    *,
    reader: str,
    questions: Questions,
    rows: Callable[[Path], Iterable[object]] = json_rows,
) -> Iterator[Question | BadRow]:
    """The questions in all rows of some files, which must not be in another reader's layout.

    Args:
        files: The files, in order.
        reader: The reader that asks, as `LAYOUTS` names it.
        questions: Makes the questions of a row.
        rows: Gives a file's rows.

    Raises:
        DataError: A file cannot be read, or its first row is in another data set's layout.
    """
    own = next(layout for layout in LAYOUTS if layout.reader == reader)

    def in_layout(path: Path) -> Iterator[object]:
        for number, row in enumerate(rows(path), start=1):
            found = layout_of(row) if number == 1 and isinstance(row, dict) else None
            if found and found.reader != reader:
                raise DataError(
                    f"{path}: row 1 has {found.key!r} and looks like {found.name}, not {own.name}; "
                    f"use reader: {found.reader}"
                )
            yield row

    for path, label in short_names(files):
        yield from read_each(
            in_layout(path),
            label=label,
            expected=f"an object with {own.key!r}",
            questions=questions,
        )


def read_each(
    rows: Iterable[object],
    *,
    label: str,
    what: str = "row",
    expected: str,
    questions: Questions,
) -> Iterator[Question | BadRow]:
    """The questions in all rows of one source; of a row with a problem, a `BadRow`.

    Args:
        rows: The rows; one that could not be read stands as a `RowProblem` among them.
        label: What to call the source.
        what: What to call a row.
        expected: What a row that is no object should have been.
        questions: Makes the questions of a row.
    """
    for number, row in enumerate(rows, start=1):
        source = f"{label} {what} {number}"
        try:
            if isinstance(row, RowProblem):
                raise row
            if not isinstance(row, dict):
                raise RowProblem(what, f"{kind(row)}; expected {expected}")
            yield from questions(row, source)
        except RowProblem as problem:
            yield problem.at(source)
