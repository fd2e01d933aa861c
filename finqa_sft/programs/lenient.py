"""Programs as a model most likely meant them: near misses of the language are mended and told.

What is mended is how a program is written, never what it says: a text that can be read in two ways
is refused. Texts that are well formed already are taken as they are.
"""

from __future__ import annotations

import re

from finqa_sft.programs.arguments import is_readable, mended_argument
from finqa_sft.programs.language import (
    MAX_STEPS,
    OPERATORS,
    TABLE_OPERATORS,
    Program,
    ProgramSyntaxError,
    Step,
    check_length,
    too_many_steps,
    unknown_operator,
)
from finqa_sft.programs.plain import LABEL, parse_plain

MAX_DEPTH = 32
"""Steps within steps are followed this deep."""

_QUOTES = "\"'`*\u2018\u2019\u201c\u201d"
_WRAPPING = rf"[\s\[\]{_QUOTES}]*"
_OPENING = re.compile(
    rf"{_WRAPPING}(?:[a-z]+\n)?{_WRAPPING}(?:(?:the |final )*(?:program|answer|output)"
    rf"[\s{_QUOTES}]*(?:is)?\s*[:=]?|=)?{_WRAPPING}(?:(?<=```)[a-z]+\n)?{_WRAPPING}",
    re.IGNORECASE,
)
_CALL = re.compile(r"([A-Za-z_]{1,20})\s*\(")
_STEP_NUMBER = re.compile(r"(?:step\s*+)?#?\s*+([0-9]{1,3})\s*+[:=.)]\s*", re.IGNORECASE)
_BETWEEN = re.compile(rf"[\s,;{_QUOTES}]*")
_RESULT = re.compile(
    r"\s*+(?:=|->|\u2192|\u2248)\s*+[-\u2212$(]*[0-9][0-9.,]*(?:\s*+(?:%\)?|\)))?"
    r"(?=\s*+(?:[,;]|$)|[^\S\n]*+\n)"
)
_CLOSING = re.compile(rf"(?:[\s.,;)\[\]{_QUOTES}]|EOF|</s>)*\Z")
_ROW = re.compile(rf"({LABEL})(,\s*+[{_QUOTES}]?none[{_QUOTES}]?\s*+\))", re.IGNORECASE)
_THOUSANDS = re.compile(r"[0-9]{3}(?![0-9])")


def parse_lenient(text: str) -> Program:
    """Parse a program as a model may have written it.

    Raises:
        ProgramSyntaxError: Nothing can be made of it, or two different things.
    """
    check_length(text)
    try:
        program = parse_plain(text)
    except ProgramSyntaxError:
        return _Reader(text).program()
    arguments = (arg for step in program.steps if step.op in OPERATORS for arg in step.args)
    return program if all(map(is_readable, arguments)) else _Reader(text).program()


class _Reader:
    """Reads a text from left to right; `at` is the place reached."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.steps: list[Step] = []
        self.repairs: list[str] = []
        self._written = 0
        self._nested_from: int | None = None

    def program(self) -> Program:
        """Read the whole text.

        Raises:
            ProgramSyntaxError: It is no program, or could be two.
        """
        if opening := self._passed(_OPENING):
            self.repairs.append(f"left out {opening!r} in front")
        while True:
            self._step_number()
            self._step(depth=1)
            self._written += 1
            if result := self._passed(_RESULT):
                self.repairs.append(f"left out the result {result!r}")
            if _CLOSING.match(self.text, self.at):
                break
            if self._passed(_BETWEEN) != ",":
                self.repairs.append("put a comma between steps")
        if closing := self._passed(_CLOSING):
            self.repairs.append(f"left out {closing!r} at the end")
        program = Program(tuple(self.steps), repairs=tuple(dict.fromkeys(self.repairs)))
        if not _is_flat(program):
            raise ProgramSyntaxError("a row's label holds what a flat program cannot hold")
        return program

    def _passed(self, pattern: re.Pattern[str]) -> str:
        """Pass over what matches here, and give it without white space around it."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0].strip()

    def _step_number(self) -> None:
        """Pass over "#1 =" or "step 1:", which must be the number of the step at hand."""
        start = self.at + 1
        match = _STEP_NUMBER.match(self.text, self.at)
        if match is None:
            return
        written = self._passed(_STEP_NUMBER)
        if int(match[1]) != self._written or self._nested_from is not None:
            raise ProgramSyntaxError(
                f"{written!r} at character {start} stands before step {self._written}; steps are "
                "counted from 0",
                start,
            )
        self.repairs.append(f"left out {written!r} before a step")

    def _step(self, *, depth: int) -> None:
        """Read one step, and the steps within it before it."""
        start = self.at + 1
        match = _CALL.match(self.text, self.at)
        if match is None:
            raise ProgramSyntaxError(
                f"no step at character {start}: {self.text[self.at : self.at + 30]!r}; a step is "
                "op(arg, arg)",
                start,
            )
        op = match[1].lower()
        if op not in OPERATORS and op not in TABLE_OPERATORS:
            raise unknown_operator(match[1], start)
        if depth > MAX_DEPTH:
            raise ProgramSyntaxError(f"more than {MAX_DEPTH} steps within one another", start)
        if match[0] != f"{op}(":
            self.repairs.append(f"wrote {match[0]!r} as '{op}('")
        self.at = match.end()
        args = self._row(op) if op in TABLE_OPERATORS else self._arguments(op, start, depth)
        if len(self.steps) == MAX_STEPS:
            raise too_many_steps(start)
        self.steps.append(Step(op, args))

    def _row(self, op: str) -> tuple[str, str]:
        """A row's label, which may hold commas and parentheses, and "none"."""
        if match := _ROW.match(self.text, self.at):
            self.at = match.end()
            if match[2] != ", none)":
                self.repairs.append(f"wrote {match[2].strip()!r} as ', none)'")
            return match[1].strip(), "none"
        start = self.at
        self._close(_end(self.text, start, ")"))
        self.repairs.append(f"gave {op} its second argument, none")
        return self.text[start : self.at].removesuffix(")").strip(), "none"

    def _close(self, end: int) -> None:
        """Go on behind the ")" at `end`, or stop at the text's end."""
        if end == len(self.text):
            self.repairs.append("closed the last step")
        self.at = min(end + 1, len(self.text))

    def _arguments(self, op: str, start: int, depth: int) -> tuple[str, str]:
        """Two arguments, each a value or a step."""
        pieces: list[str] = []
        while True:
            begin = self.at
            self._passed(_SPACE)
            if _CALL.match(self.text, self.at):
                self._note_nesting()
                self._step(depth=depth + 1)
                begin = self.at
                pieces.append(f"#{len(self.steps) - 1}")
                self._passed(_SPACE)
                end = self.at
                if end < len(self.text) and self.text[end] not in ",)":
                    raise ProgramSyntaxError(
                        f"{self.text[end : end + 30]!r} at character {end + 1}, where ',' or ')' "
                        "has to follow a step within a step",
                        end + 1,
                    )
            else:
                end = _end(self.text, self.at, ",)")
                pieces.append(self._value(self.text[begin:end], start))
            if self.text[end : end + 1] != ",":
                break
            self.at = end + 1
        self._close(end)
        values = pieces if len(pieces) == 2 else _with_thousands(pieces)
        if len(values) != 2:
            raise ProgramSyntaxError(
                f"{op} at character {start} takes two arguments, got {len(values)}: "
                f"{self.text[start - 1 : self.at][:60]!r}",
                start,
            )
        return self._mended(values[0], start), self._mended(values[1], start)

    def _note_nesting(self) -> None:
        if self._nested_from is None:
            self._nested_from = self._written
            self.repairs.append("wrote steps within a step one after another")

    def _value(self, written: str, start: int) -> str:
        """A value as written; where steps stand within steps, references can mean two steps."""
        arg = written.strip()
        known = self._nested_from
        if arg.startswith("#") and known is not None:
            number = arg[1:].strip()
            if not number.isdecimal() or int(number[:4]) >= known:
                raise ProgramSyntaxError(
                    f"{arg[:30]!r} in the step at character {start} can mean two steps, since "
                    "steps stand within steps",
                    start,
                )
        return written

    def _mended(self, written: str, start: int) -> str:
        arg, repair = mended_argument(written)
        if repair:
            self.repairs.append(repair)
        if any(character in arg for character in "(),\n"):
            raise ProgramSyntaxError(
                f"{arg[:30]!r} in the step at character {start} is no argument", start
            )
        return arg


_SPACE = re.compile(r"\s*")


def _is_flat(program: Program) -> bool:
    """Whether a program as text is that program."""
    try:
        return parse_plain(str(program)) == program
    except ProgramSyntaxError:
        return False


def _end(text: str, at: int, characters: str) -> int:
    """The place of the next of these characters outside of parentheses, or the text's end."""
    depth = 0
    for place in range(at, len(text)):
        character = text[place]
        if depth == 0 and character in characters:
            return place
        depth += (character == "(") - (character == ")")
    return len(text)


def _with_thousands(pieces: list[str]) -> list[str]:
    """The arguments between commas, where a comma before three digits is no separator."""
    values: list[str] = []
    for piece in pieces:
        if values and _THOUSANDS.match(piece) and values[-1][-1:].isdecimal():
            values[-1] += f",{piece}"
        else:
            values.append(piece)
    return values
