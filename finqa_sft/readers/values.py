"""The values in a row: taking text, lists and objects out of it, and saying what is wrong there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import TypeAlias

from finqa_sft.readers.base import BadRow

Row: TypeAlias = Mapping[str, object]
"""A row as files hold it: values of any kind under the names of fields."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANK = re.compile("[\\s\u200b\u200c\u200d\u2060\ufeff]*")


class RowProblem(Exception):
    """Raised while one row is read, and yielded by the reader as a `BadRow`.

    Attributes:
        field: The field at fault; `row` where the whole row is.
        problem: What is wrong with it and what is expected instead.
    """

    def __init__(self, field: str, problem: str) -> None:
        """Name the field and the problem."""
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def at(self, source: str) -> BadRow:
        """The problem as what readers yield."""
        return BadRow(source=source, field=self.field, problem=self.problem)


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float() | Decimal():
            return "a number" if math.isfinite(value) else "a number that is not finite"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a value of type {type(value).__name__}"


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: only white space and characters without width."""
    return bool(_BLANK.fullmatch(text))


def as_text(value: object, *, field: str) -> str:
    """A cell's value as text without surrounding white space.

    Numbers are written plainly (`12.5`, `1200`, never `1.2e3`), true and false as `yes` and `no`;
    null is the empty text, and so is NaN, as which data frames write what is missing, and text that
    shows nothing. Dates and times are ISO 8601; of midnight only the date is written, since
    spreadsheets have no dates without a time.

    Raises:
        RowProblem: The value is a list, an object, an infinite number, or no valid text.
    """
    match value:
        case str():
            if not value.isascii() and _LONE_SURROGATE.search(value):
                raise RowProblem(field, "half a surrogate pair; expected valid Unicode text")
            return "" if is_blank(value) else value.strip()
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value)
        case None:
            return ""
        case datetime() if value.tzinfo is None and value.time() == time.min:
            return value.date().isoformat()
        case date():
            return value.isoformat()
        case float() | Decimal() if math.isnan(value):
            return ""
        case float() if math.isfinite(value):
            return f"{Decimal(repr(value)):f}".removesuffix(".0")
        case Decimal() if value.is_finite():
            return f"{value:f}"
        case _:
            raise RowProblem(field, f"{kind(value)}; expected text")


def filled_text(value: object, *, field: str) -> str:
    """A cell's value as text, which must not be empty.

    Raises:
        RowProblem: It is empty or no text.
    """
    text = as_text(value, field=field)
    if not text:
        raise RowProblem(field, "empty; expected text")
    return text


def required_text(row: Row, key: str, *, field: str | None = None) -> str:
    """The text under a key that must be there and must not be empty.

    Raises:
        RowProblem: It is missing, empty or no text.
    """
    field = field or key
    if key not in row:
        raise RowProblem(field, "missing; expected text")
    return filled_text(row[key], field=field)


def required_list(row: Row, key: str, *, field: str | None = None) -> list[object]:
    """The list under a key that must be there; it may be empty.

    Raises:
        RowProblem: It is missing or no list.
    """
    value = row.get(key)
    if not isinstance(value, list):
        found = kind(value) if key in row else "missing"
        raise RowProblem(field or key, f"{found}; expected a list")
    return value


def required_object(row: Row, key: str, *, expected: str = "an object") -> Row:
    """The object under a key that must be there.

    Args:
        row: The row.
        key: The key.
        expected: What problems ask for, as `an object with question and answer`.

    Raises:
        RowProblem: It is missing or no object.
    """
    value = row.get(key)
    if not isinstance(value, dict):
        found = kind(value) if key in row else "missing"
        raise RowProblem(key, f"{found}; expected {expected}")
    return value


def text_list(row: Row, key: str) -> list[str]:
    """The texts of a list under a key that must be there; some may be empty.

    Raises:
        RowProblem: It is missing, no list, or holds what is no text.
    """
    return [
        as_text(text, field=f"{key}[{index}]") for index, text in enumerate(required_list(row, key))
    ]


def table_cells(row: Row, key: str, *, field: str | None = None) -> list[list[str]]:
    """The cells of a table that is a list of rows, each a list of cells; rows may be ragged.

    Raises:
        RowProblem: It is missing, no list of lists, or holds what is no text.
    """
    field = field or key
    rows: list[list[str]] = []
    for number, cells in enumerate(required_list(row, key, field=field)):
        place = f"{field}[{number}]"
        if not isinstance(cells, list):
            raise RowProblem(place, f"{kind(cells)}; expected a list of cells")
        rows.append([as_text(cell, field=f"{place}[{i}]") for i, cell in enumerate(cells)])
    return rows
