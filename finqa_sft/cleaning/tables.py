"""Rules for tables: header rows, empty rows and columns, labels that stand several times.

A table's label is a row's first cell. Programs find a row by it, and of equal labels mean the last.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import count

from finqa_sft.cleaning.vocabulary import HEADER_FILLERS, MONTHS, PERIODS, UNITS

MAX_HEADER_ROWS = 3

_WORD = re.compile(r"[a-z]+|\d+|[%$€£¥]|[^\s\w]")
_YEAR = re.compile(r"(?:19|20)\d\d")
_HEADER_WORDS = UNITS | PERIODS | HEADER_FILLERS | MONTHS


def header_rows(rows: Sequence[Sequence[str]], *, known: int) -> int:
    """How many of the first rows are headers.

    A row under a header is one too if it holds only units ("in millions", "%"), or if its first
    cell is empty and the others hold only dates, periods and units, of which the rows above name
    none. At least one row remains; `MAX_HEADER_ROWS` are the most that are found.

    Args:
        rows: All rows of the table.
        known: How many are known to be headers; a table without any keeps none.
    """
    found = known
    while 0 < found < min(MAX_HEADER_ROWS, len(rows) - 1):
        row = rows[found]
        above = " ".join(cell for row in rows[:found] for cell in row)
        if not (_only_units(row) or _only_dates(row, above)):
            break
        found += 1
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _only_units(row: Sequence[str]) -> bool:
    """Whether all filled cells, of which one is behind the first, name a unit and nothing else."""
    if not any(row[1:]):
        return False
    cells = [set(_words(cell)) for cell in row if cell]
    return all(cell <= UNITS | HEADER_FILLERS and cell & UNITS for cell in cells)


def _only_dates(row: Sequence[str], above: str) -> bool:
    """Whether the first cell is empty and the others hold dates that the rows above lack."""
    if row[0] or not any(row[1:]) or any(map(_YEAR.fullmatch, _words(above))):
        return False
    return all(_is_date(_words(cell)) for cell in row if cell)


def _is_date(words: Sequence[str]) -> bool:
    """Whether words are those of a date, a period or a unit, with a year or a word of time."""
    known = set(words)
    days = bool(known & MONTHS)
    return bool(known & (MONTHS | PERIODS | UNITS) or any(map(_YEAR.fullmatch, words))) and all(
        word in _HEADER_WORDS
        or _YEAR.fullmatch(word)
        or (days and word.isdigit() and 1 <= int(word) <= 31)
        for word in words
    )


def filled_rows(rows: Sequence[Sequence[str]]) -> list[int]:
    """Indices of the rows that hold text; all of them where none does."""
    return [i for i, row in enumerate(rows) if any(row)] or list(range(len(rows)))


def filled_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Indices of the first column and of those that hold text; all where no cell does."""
    columns = list(zip(*rows, strict=True))
    if not any(map(any, columns)):
        return list(range(len(columns)))
    return [i for i, column in enumerate(columns) if i == 0 or any(column)]


def unique_labels(
    rows: Sequence[Sequence[str]],
    *,
    header_rows: int,
    taken: Collection[str] = (),
    usable: Callable[[str], bool] = lambda label: True,
) -> list[str]:
    """The rows' labels, where no two rows with figures have the same one.

    Of rows with equal labels the last keeps it. An earlier one gets the heading above it in front,
    or, where there is none or that is not unique, a number behind. Headers, headings (rows with a
    label alone), empty labels and labels that are not usable stay.

    Args:
        rows: All rows of the table.
        header_rows: How many of the first are headers.
        taken: Further labels that no new one may equal.
        usable: Whether a label may be used; numbers behind one that may are tried in turn.
    """
    labels = [row[0] for row in rows]
    remaining = Counter(filter(None, labels))
    if len(remaining) == sum(remaining.values()):
        return labels
    used = {*remaining, *taken}
    numbers: dict[str, count[int]] = {}
    heading = ""
    for index, row in enumerate(rows):
        label = row[0]
        remaining[label] -= 1
        if index < header_rows or not label:
            continue
        if not any(row[1:]):
            heading = label
        elif remaining[label] and usable(label):
            new = f"{heading.rstrip(' :')}: {label}"
            if not heading or new in used or not usable(new):
                number = numbers.setdefault(label, count(1))
                new = next(
                    numbered
                    for numbered in (f"{label} ({i})" for i in number)
                    if numbered not in used and usable(numbered)
                )
            labels[index] = new
            used.add(new)
    return labels
