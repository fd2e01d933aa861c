"""Files and the values in their rows: opening, decoding, and errors that say what to mend."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator

from finqa_sft.errors import DataError
from finqa_sft.options import RecipePath
from finqa_sft.readers.base import BadRow

JSON_LINES = (".jsonl", ".ndjson")
"""Suffixes of files with one JSON value a line; every other JSON file is one list."""

_BOM = b"\xef\xbb\xbf"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _one_or_several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Files: TypeAlias = Annotated[
    tuple[RecipePath, ...],
    BeforeValidator(_one_or_several, json_schema_input_type=RecipePath | tuple[RecipePath, ...]),
]
"""One path or a list of paths, each taken relative to the recipe file."""


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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the nearest known word; empty if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def check_file(path: Path) -> None:
    """See that a path leads to a file with something in it.

    Raises:
        DataError: It does not.
    """
    if path.is_dir():
        raise DataError(f"{path}: a folder, not a file; name the files in it")
    if not path.exists():
        if not path.parent.is_dir():
            raise DataError(f"{path}: no such file; there is no folder {path.parent} either")
        names = sorted(entry.name for entry in path.parent.iterdir())
        raise DataError(
            f"{path}: no such file; {did_you_mean(path.name, names) or 'check name and folder'}"
        )
    if not path.stat().st_size:
        raise DataError(f"{path}: an empty file; was it written or downloaded completely?")


def text_lines(path: Path) -> Iterator[str]:
    r"""The lines of a UTF-8 file one by one, with their ends; a byte order mark is left out.

    Lines end at `\n` alone, so that joined they are the file's text.

    Raises:
        DataError: The file is missing, empty, not readable or not UTF-8.
    """
    check_file(path)
    offset = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                line = raw if offset else raw.removeprefix(_BOM)
                offset += len(raw) - len(line)
                yield line.decode("utf-8")
                offset += len(line)
    except UnicodeDecodeError as error:
        position = offset + error.start
        raise DataError(
            f"{path}: not UTF-8 text (byte {position} is 0x{error.object[error.start]:02x}); save "
            "the file with the encoding UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its rights") from error


def read_json(path: Path) -> object:
    """The value in a JSON file, held in memory as a whole.

    Raises:
        DataError: The file is missing, empty, not UTF-8 or not JSON; line and column are named.
    """
    text = "".join(text_lines(path)).rstrip()
    if not text:
        raise DataError(f"{path}: only white space; was it written or downloaded completely?")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            cause = "the JSON value ends before; with one value a line, name the file .jsonl"
        elif error.pos >= len(text) or error.msg.startswith("Unterminated string"):
            cause = f"{_expectation(error)}; the file seems cut off, copy or download it again"
        else:
            cause = f"{_expectation(error)}; mend it there"
        raise DataError(f"{path}:{error.lineno}:{error.colno}: not JSON: {cause}") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: JSON that cannot be read ({error}); write it again") from error


def json_rows(path: Path) -> Iterator[object]:
    """The rows of a JSON list, or of a `.jsonl` file, which is streamed.

    A line that is not JSON comes as a `RowProblem`, not raised; if it is the first, the file is in
    another format.

    Raises:
        DataError: The file as a whole cannot be read, or holds no list, or no rows.
    """
    if path.suffix.lower() in JSON_LINES:
        yield from _jsonl_rows(path)
        return
    rows = read_json(path)
    if not isinstance(rows, list):
        found = kind(rows)
        if isinstance(rows, dict):
            found += f" with the keys {', '.join(map(repr, list(rows)[:5]))}"
        raise DataError(f"{path}: {found} at the top level; expected a list of rows")
    if not rows:
        raise DataError(f"{path}: an empty list; expected rows")
    yield from rows


def _jsonl_rows(path: Path) -> Iterator[object]:
    rows = 0
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        rows += 1
        try:
            yield json.loads(line.rstrip())
        except (RecursionError, ValueError) as error:
            where, reason = f"line {number}", str(error)
            if isinstance(error, json.JSONDecodeError):
                where, reason = f"{where}:{error.colno}", _expectation(error)
            if rows == 1:
                raise DataError(
                    f"{path}: {where}: not JSON: {reason}; expected one JSON value a line, a list "
                    "of rows belongs in a .json file"
                ) from error
            yield RowProblem("row", f"{where}: not JSON: {reason}")
    if not rows:
        raise DataError(f"{path}: only blank lines; expected rows")


def _expectation(error: json.JSONDecodeError) -> str:
    """The decoder's message as part of a sentence."""
    message = error.msg.removesuffix(" at").removesuffix(" starting")
    message = message.replace("Expecting", "expected")
    return message[:1].lower() + message[1:]


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
            return "a number"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a value of type {type(value).__name__}"


def as_text(value: object, *, field: str) -> str:
    """A cell's value as text without surrounding white space.

    Numbers are written plainly (`12.5`, `1200`, never `1.2e3`), true and false as `yes` and `no`;
    null is the empty text, and so is NaN, as which data frames write what is missing.

    Raises:
        RowProblem: The value is a list, an object, an infinite number, or no valid text.
    """
    match value:
        case str():
            if not value.isascii() and _LONE_SURROGATE.search(value):
                raise RowProblem(field, "half a surrogate pair; expected valid Unicode text")
            return value.strip()
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value)
        case None:
            return ""
        case float() if math.isnan(value):
            return ""
        case float() if math.isfinite(value):
            return f"{Decimal(repr(value)):f}".removesuffix(".0")
        case Decimal() if value.is_finite():
            return f"{value:f}"
        case _:
            raise RowProblem(field, f"{kind(value)}; expected text")


def required_text(row: Mapping[str, object], key: str, *, field: str | None = None) -> str:
    """The text under a key that must be there and must not be empty.

    Raises:
        RowProblem: It is missing, empty or no text.
    """
    field = field or key
    if key not in row:
        raise RowProblem(field, "missing")
    text = as_text(row[key], field=field)
    if not text:
        raise RowProblem(field, "empty; expected text")
    return text
