"""JSON files row by row, in memory that grows with the longest row and not with the file.

The decoder is the standard library's, which is given a stretch of the file's text at a time.
Incremental parsers such as ijson refuse NaN, as which data frames write what is missing, and name
no line and column.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from finqa_sft.errors import DataError
from finqa_sft.readers.files import CHUNK, text_chunks, text_lines
from finqa_sft.readers.layouts import is_conversation
from finqa_sft.readers.values import RowProblem, kind

JSON_LINES = (".jsonl", ".ndjson")
"""Suffixes of files with one JSON value a line; every other JSON file is one list."""

_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_CUT_OFF = "the file seems cut off, copy or download it again"
_TOO_DEEP = "lists or objects nested too deeply to be read; write flat rows"
_KEYS_SHOWN = 5
_LONGEST_MARK = 12
"""More characters than any mark has that counts as a whole: `-Infinity`, a character's escape, the
exponent of a number. Up to so many before the end of a stretch it can be cut in two."""


def _whole_number(digits: str) -> int | float:
    """The number; infinity if it has more digits than Python converts, so that its row is named."""
    try:
        return int(digits)
    except ValueError:
        return math.inf


_DECODER = json.JSONDecoder(parse_int=_whole_number)


class JsonText:
    """The text of a JSON file, from which one value after the other is taken.

    Only the stretch of text that the next value stands in is held. Where a value goes on past its
    end, at least as much text again is added before the next try, so that time stays proportional
    to the text.
    """

    def __init__(self, path: Path) -> None:
        """Take the path; the file is opened when the text is first looked at."""
        self._path = path
        self._chunks = text_chunks(path)
        self._text = ""
        self._position = 0
        self._line = 1
        self._column = 1

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            self._position = _skipped(self._text, self._position)
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_on():
                return ""

    def value(self) -> object:
        """Take the next value, as a whole.

        Raises:
            DataError: It is no JSON; line and column are named.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if not (self._may_go_on(error) and self._read_on()):
                    raise self._not_json(error) from error
            except RecursionError as error:
                raise self._too_deep() from error
            else:
                # Where a number ends is known from what follows it.
                if len(self._text) - end > _LONGEST_MARK or not self._read_on():
                    self._position = end
                    return value

    def items(self) -> Iterator[object]:
        """Take the values of a list one by one; the text is in front of its bracket.

        Raises:
            DataError: It is no JSON; line and column are named.
        """
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        yield self.value()
        while self._has_next("]"):
            yield self.value()

    def names(self) -> Iterator[str]:
        """Take the names in an object one by one; the text is in front of its brace.

        The value under each name is to be taken before the next name.

        Raises:
            DataError: It is no JSON; line and column are named.
        """
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        yield self._name()
        while self._has_next("}"):
            yield self._name()

    def skip(self) -> object:
        """Pass over the next value, of which never more is held than a value in a list in it.

        Returns:
            The first value in it, if it is a list.
        """
        first: object = None
        try:
            match self.peek():
                case "[":
                    items = self.items()
                    first = next(items, None)
                    for _ in items:
                        pass
                case "{":
                    for _ in self.names():
                        self.skip()
                case _:
                    self.value()
        except RecursionError as error:
            raise self._too_deep() from error
        return first

    def end(self) -> None:
        """See that nothing follows.

        Raises:
            DataError: Something does.
        """
        if self.peek():
            cause = "the JSON value ends before; with one value a line, name the file .jsonl"
            raise self._error(self._position, cause)

    def _read_on(self) -> bool:
        """Forget what was taken and add text; false if there is none left, and nothing changes."""
        needed = len(self._text) - self._position
        added = "".join(islice(self._chunks, 1 + needed // CHUNK))
        if added:
            self._line, self._column = self._place(self._position)
            self._text, self._position = self._text[self._position :] + added, 0
        return bool(added)

    def _name(self) -> str:
        if self.peek() != '"':
            raise self._expected("property name enclosed in double quotes")
        name = str(self.value())
        self._take(":")
        return name

    def _has_next(self, closing: str) -> bool:
        """Pass over the comma in front of a further value, or over the closing bracket."""
        if self.peek() == closing:
            self._take(closing)
            return False
        comma = self._position
        self._take(",")
        if self.peek() == closing:
            raise self._error(comma, f"a comma with nothing between it and {closing!r}; remove it")
        return True

    def _take(self, mark: str) -> None:
        if self.peek() != mark:
            raise self._expected(f"{mark!r} delimiter")
        self._position += 1

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether what follows could make the text JSON; else it is broken for good."""
        unfinished = error.msg.startswith("Unterminated string")
        return unfinished or len(self._text) - error.pos <= _LONGEST_MARK

    def _expected(self, what: str) -> DataError:
        return self._not_json(json.JSONDecodeError(f"Expecting {what}", self._text, self._position))

    def _not_json(self, error: json.JSONDecodeError) -> DataError:
        cause = _expectation(error)
        if error.pos >= len(self._text.rstrip()) or error.msg.startswith("Unterminated string"):
            return self._error(error.pos, f"{cause}; {_CUT_OFF}")
        if self._place(error.pos) == (1, 1):
            return self._error(error.pos, f"{cause}; is this a file of another kind?")
        return self._error(error.pos, f"{cause}; mend it there")

    def _too_deep(self) -> DataError:
        line, column = self._place(self._position)
        return DataError(f"{self._path}:{line}:{column}: {_TOO_DEEP}")

    def _error(self, position: int, cause: str) -> DataError:
        line, column = self._place(position)
        return DataError(f"{self._path}:{line}:{column}: not JSON: {cause}")

    def _place(self, position: int) -> tuple[int, int]:
        """Line and column in the file of a position in the text held, both from 1."""
        lines = self._text.count("\n", 0, position)
        if not lines:
            return self._line, self._column + position
        return self._line + lines, position - self._text.rfind("\n", 0, position)


def _skipped(text: str, position: int) -> int:
    """The position behind the white space at a position."""
    match = _WHITE_SPACE.match(text, position)
    return match.end() if match else position


def _expectation(error: json.JSONDecodeError) -> str:
    """The decoder's message as part of a sentence."""
    message = error.msg.removesuffix(" at").removesuffix(" starting")
    message = message.replace("Expecting", "expected")
    return message[:1].lower() + message[1:]


def json_rows(path: Path) -> Iterator[object]:
    """The rows of a JSON list, or of a `.jsonl` file, one by one.

    A line of a `.jsonl` file that is not JSON comes as a `RowProblem`, not raised; if it is the
    first, the file is in another format. A fault in a list leaves open where the next row begins,
    and is raised.

    Raises:
        DataError: The file as a whole cannot be read, or holds no list, or no rows.
    """
    if path.suffix.lower() in JSON_LINES:
        return json_lines(path)
    return list_rows(path, opened_json(path))


def opened_json(path: Path) -> JsonText:
    """A JSON file's text, which begins with something.

    Raises:
        DataError: The file is missing, empty, blank or not UTF-8.
    """
    text = JsonText(path)
    if not text.peek():
        raise DataError(f"{path}: only white space; was it written or downloaded completely?")
    return text


def list_rows(path: Path, text: JsonText) -> Iterator[object]:
    """The rows of a file that is one list.

    Raises:
        DataError: It is no JSON, something else, or an empty list.
    """
    remedy = ""
    match text.peek():
        case "[":
            empty = True
            for row in text.items():
                empty = False
                yield row
            text.end()
            if empty:
                raise DataError(f"{path}: an empty list; expected rows")
            return
        case "{":
            names: list[str] = []
            for name in text.names():
                if len(names) < _KEYS_SHOWN:
                    names.append(name)
                if is_conversation(text.skip()) and not remedy:
                    remedy = f"; {name!r} looks like ConvFinQA, use reader: convfinqa"
            keys = f"with the keys {', '.join(map(repr, names))}" if names else "without keys"
            found = f"an object {keys}"
        case _:
            found = kind(text.value())
    text.end()
    raise DataError(f"{path}: {found} at the top level; expected a list of rows{remedy}")


def json_lines(path: Path) -> Iterator[object]:
    """The rows of a file with one JSON value a line; blank lines are passed over.

    Raises:
        DataError: The file as a whole cannot be read, or its first line is no JSON, or a list.
    """
    rows = 0
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        rows += 1
        try:
            row = _DECODER.decode(line.rstrip())
        except json.JSONDecodeError as error:
            problem = f"line {number}:{error.colno}: not JSON: {_expectation(error)}"
            row = RowProblem("row", problem)
        except RecursionError:
            row = RowProblem("row", f"line {number}: {_TOO_DEEP}")
        if rows == 1 and isinstance(row, list | RowProblem):
            found = f"line {number}: a list" if isinstance(row, list) else row.problem
            raise DataError(
                f"{path}: {found}; expected one JSON value a line, a list of rows belongs in a "
                ".json file"
            )
        yield row
    if not rows:
        raise DataError(f"{path}: only blank lines; expected rows")
