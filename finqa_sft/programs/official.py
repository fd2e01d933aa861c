"""Programs as the official scripts of FinQA and ConvFinQA read and compute them, oddities included.

A score is only comparable with published ones if it is counted as they were. So this module accepts
what those scripts accept, a missing last parenthesis for one, and computes what they compute, be it
a complex number on the way. Its one own rule: a text of more than `MAX_CHARACTERS` is invalid,
so that hostile input costs nothing.

Source of the rules: `code/evaluate/evaluate.py` of github.com/czyssrs/FinQA and
`code/utils/general_utils.py` of github.com/czyssrs/ConvFinQA, observed on some 50,000 predictions.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finqa_sft.programs.language import (
    MAX_CHARACTERS,
    OPERATORS,
    ROW_FUNCTIONS,
    TABLE_OPERATORS,
    Program,
    ProgramSyntaxError,
    Step,
    check_length,
    unknown_operator,
)

_PIECE = re.compile(r"(?:[^()]*\()|\)|[^()]+")
_GROUP = 4


@dataclass(frozen=True, slots=True)
class OfficialResult:
    """What the official script makes of a program.

    Attributes:
        valid: Whether it calls the program valid; an invalid one counts as wrong.
        value: A number rounded to 5 digits (it may be infinite or nan), "yes" or "no". None where
            there is no result; a valid program without a complete step has none either. Of an
            invalid program it is the result of the last step that was computed, which FinQA's
            script compares with the gold answer where the program equals the gold one; after a
            division by zero and the like it is not rounded.
    """

    valid: bool
    value: float | str | None


@dataclass(frozen=True, slots=True)
class OfficialStep:
    """A step in the official reading.

    Attributes:
        text: The step's tokens with "|" between and before them, as table steps are compared.
        op: The operator.
        args: The two arguments, without surrounding white space.
    """

    text: str
    op: str
    args: tuple[str, str]


def official_tokens(text: str) -> list[str]:
    """A program's tokens: `add(1, 2)` is "add(", "1", "2", ")".

    Tokens are the parts between one ", " and the next; a parenthesis also ends a token, and a
    closing one stands alone. Empty tokens vanish.
    """
    return [token for token, _ in _tokens(text)]


def official_steps(text: str) -> list[OfficialStep]:
    """The complete steps of a program; text behind the last ")" is dropped, as the script drops it.

    Raises:
        ProgramSyntaxError: The structure check refuses it, or a step is not operator and arguments.
    """
    return list(_steps(text))


def parse_official(text: str) -> Program:
    """Parse a program that the official structure check accepts; it may have no complete step.

    Raises:
        ProgramSyntaxError: It does not accept it; the message says where and why.
    """
    return Program(tuple(Step(step.op, step.args) for step in _steps(text)))


def official_result(
    text: str, table: Sequence[Sequence[str]] = (), *, bare_numbers: bool = False
) -> OfficialResult:
    """Compute a program as the official script does.

    Compare `value` with the gold answer by `==`, as the script does: there is no tolerance.

    Args:
        text: The program as predicted.
        table: Rows of cells; the first cell of a row is its label, the last row of a label counts.
        bare_numbers: Take a lone number for a program that computes it, as ConvFinQA does.
    """
    if len(text) > MAX_CHARACTERS:
        return OfficialResult(valid=False, value=None)
    tokens = official_tokens(text)
    if bare_numbers and len(tokens) == 1:
        try:
            return OfficialResult(valid=True, value=round(_number(tokens[0]), 5))
        except ValueError:
            return OfficialResult(valid=False, value=None)
    machine = _Machine(table)
    valid = rounded = True
    try:
        for step in _steps(text):
            machine.run(step)
    except (_UnreadableError, _NestedError):
        # The script leaves its loop here, and rounds what it has.
        valid = False
    except (ArithmeticError, LookupError, TypeError, ValueError):
        valid = rounded = False
    match machine.result:
        case None | "yes" | "no" as value:
            return OfficialResult(valid=valid, value=value)
        case int() | float() as value:
            return OfficialResult(valid=valid, value=round(value, 5) if rounded else value)
        case _:
            return OfficialResult(valid=False, value=None)


class _UnreadableError(ValueError):
    """A literal is no number, or a row cannot be read; the script stops without an exception."""


class _NestedError(ProgramSyntaxError):
    """A step holds another one; the script stops without an exception."""


class _Machine:
    """Results of the steps so far; numbers are floats, yet also complex numbers and words."""

    def __init__(self, table: Sequence[Sequence[str]]) -> None:
        self.result: Any = None
        self._results: dict[int, Any] = {}
        self._index = 0
        self._table = table
        self._labels: Mapping[str, Sequence[str]] | None = None
        self._row: list[float] | None = None

    def run(self, step: OfficialStep) -> None:
        """Compute one step.

        Raises:
            ArithmeticError, LookupError, TypeError, ValueError: It cannot be computed, for instance
                because an argument is no number; the script calls the program invalid then.
        """
        if step.op in ROW_FUNCTIONS:
            self.result = ROW_FUNCTIONS[step.op](self._numbers(step.args[0]))
        else:
            left = self._argument(step.args[0])
            self.result = _ARITHMETIC[step.op](left, self._argument(step.args[1]))
        self._results[self._index] = self.result
        self._index += 1

    def _argument(self, arg: str) -> Any:
        if "#" in arg:
            return self._results[int(arg.replace("#", ""))]
        return _number(arg)

    def _numbers(self, arg: str) -> list[float]:
        """The numbers of a row; a reference in place of a label takes the last row once more."""
        if self._labels is None:
            self._labels = {row[0]: row[1:] for row in self._table}
        if "#" in arg:
            _ = self._results[int(arg.replace("#", ""))]
            if self._row is None:
                raise LookupError(arg)
            return self._row
        if arg not in self._labels:
            raise _UnreadableError(arg)
        cells = self._labels[arg]
        self._row = [_number(cell.replace("$", "").split("(")[0].strip()) for cell in cells]
        return self._row


def _number(text: str) -> float:
    """A literal: what `float` reads, without commas; a hundredth if "%" is in it; "const_" is off.

    Raises:
        ValueError: It is none; an `_UnreadableError` where it does not begin as a constant does.
    """
    digits = text.replace(",", "")
    try:
        return float(digits)
    except ValueError as error:
        if "%" not in digits and "const" in digits:
            bare = digits.replace("const_", "")
            return -1.0 if bare == "m1" and bare != digits else float(bare)
        if "%" not in digits:
            raise _UnreadableError(text) from error
    try:
        return float(digits.replace("%", "")) / 100
    except ValueError as error:
        raise _UnreadableError(text) from error


def _larger(left: Any, right: Any) -> str:
    return "yes" if left > right else "no"


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "exp": operator.pow,
    "greater": _larger,
}


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """The tokens, each with the place of its first character."""
    start = 0
    for part in text.split(", "):
        for match in _PIECE.finditer(part):
            yield match[0], start + match.start()
        start += len(part) + 2


def _steps(text: str) -> Iterator[OfficialStep]:
    """The steps one by one, after the structure check.

    Raises:
        ProgramSyntaxError: The check fails, or the step at hand is not operator and arguments.
    """
    check_length(text)
    tokens = list(_tokens(text))
    for index, (token, place) in enumerate(tokens):
        if index % _GROUP == 0 and token.strip("(") not in _KNOWN:
            raise unknown_operator(token, place + 1)
        if index % _GROUP == _GROUP - 1 and token != ")":
            raise ProgramSyntaxError(
                f"{token[:30]!r} at character {place + 1}, where ')' has to close two arguments",
                place + 1,
            )
    joined = "|".join(token for token, _ in tokens)
    begins = [0, *(index + 1 for index, (token, _) in enumerate(tokens) if token == ")")]
    for begin, part in zip(begins, joined.split(")")[:-1], strict=False):
        step = part.strip()
        pieces = step.split("(")
        args = pieces[-1].strip("|").strip().split("|")
        if len(pieces) != 2 or len(args) < 2:
            place = tokens[begin][1] + 1
            refused = _NestedError if len(pieces) > 2 else ProgramSyntaxError
            raise refused(
                f"no step at character {place}: {step[:30]!r}; a step is op(arg, arg)", place
            )
        op = pieces[0].strip("|").strip()
        yield OfficialStep(step, op, (args[0].strip(), args[1].strip()))


_KNOWN = frozenset((*OPERATORS, *TABLE_OPERATORS))
