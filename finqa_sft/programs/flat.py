"""FinQA's flat program language: steps `op(arg, arg)` joined by ", "; `#k` is step k's result.

Source of the language and its semantics: the FinQA data set (github.com/czyssrs/FinQA), whose
programs, tables and executed answers it was compared with.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finqa_sft.errors import ProgramError

MAX_STEPS = 64
"""Programs longer than this are refused; the longest in FinQA has 6 steps."""

_STEP = re.compile(r"\s*([a-z_]+)\(([^()]*)\)\s*(?:,|$)")
_STEP_WITH_LABEL = re.compile(r"\s*(table_[a-z]+)\((.*?), none\)\s*(?:,|$)")


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    Attributes:
        op: The operator's name.
        args: Two arguments as written: a number, `const_x`, `#k`, or a table row's label.
    """

    op: str
    args: tuple[str, str]

    def __str__(self) -> str:
        return f"{self.op}({self.args[0]}, {self.args[1]})"


@dataclass(frozen=True, slots=True)
class Program:
    """A sequence of steps; the last one's result is the program's."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return ", ".join(str(step) for step in self.steps)


def parse_program(text: str) -> Program:
    """Parse a flat program.

    Raises:
        ProgramError: The text is no program; the message says where and why.
    """
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP_WITH_LABEL.match(text, position) or _STEP.match(text, position)
        if match is None:
            raise ProgramError(
                f"no step at character {position + 1}: {text[position : position + 30]!r}; a step "
                "is op(arg, arg)"
            )
        op = match[1]
        if op not in _ARITHMETIC and op not in _TABLE:
            known = ", ".join([*_ARITHMETIC, *_TABLE])
            raise ProgramError(f"no operator {op!r}; there are {known}")
        args = [match[2], "none"] if match.re is _STEP_WITH_LABEL else match[2].split(",")
        if len(args) != 2:
            raise ProgramError(f"{op} takes two arguments, got {len(args)}: {match[0].strip()!r}")
        steps.append(Step(op, (args[0].strip(), args[1].strip())))
        if len(steps) > MAX_STEPS:
            raise ProgramError(f"more than {MAX_STEPS} steps")
        position = match.end()
    if not steps:
        raise ProgramError("the program is empty; expected op(arg, arg)")
    return Program(tuple(steps))


def execute_program(program: Program, table: Sequence[Sequence[str]] = ()) -> float | str:
    """Compute a program.

    Args:
        program: What `parse_program` gave.
        table: Rows of cells; the first cell of a row is the label that `table_*` steps look up.

    Returns:
        A number rounded to 5 digits, or "yes" / "no" where the last step is `greater`.

    Raises:
        ProgramError: A step cannot be computed.
    """
    results: list[float | str] = []
    for index, step in enumerate(program.steps):
        try:
            if step.op in _TABLE:
                results.append(_TABLE[step.op](_row_values(step.args[0], table)))
            else:
                left, right = (_value(arg, results) for arg in step.args)
                results.append(_ARITHMETIC[step.op](left, right))
        except (ArithmeticError, ValueError) as error:
            raise ProgramError(f"step {index} {step}: {error}") from error
    last = results[-1]
    if isinstance(last, str):
        return last
    if not math.isfinite(last):
        raise ProgramError(f"the result is {last}")
    return round(last, 5)


def _power(base: float, exponent: float) -> float:
    result = base**exponent
    if isinstance(result, complex):
        raise ProgramError(f"{base} to the power {exponent} is not a real number")
    return float(result)


_ARITHMETIC: dict[str, Callable[[float, float], float | str]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "exp": _power,
    "greater": lambda left, right: "yes" if left > right else "no",
}

_TABLE: dict[str, Callable[[list[float]], float]] = {
    "table_max": max,
    "table_min": min,
    "table_sum": sum,
    "table_average": lambda values: sum(values) / len(values),
}


def _value(arg: str, results: Sequence[float | str]) -> float:
    """The number that an argument stands for."""
    if arg.startswith("#"):
        index = int(arg[1:]) if arg[1:].isdigit() else -1
        if not 0 <= index < len(results):
            raise ProgramError(f"{arg} refers to no earlier step")
        result = results[index]
        if isinstance(result, str):
            raise ProgramError(f"{arg} is {result!r}, not a number")
        return result
    if arg.startswith("const_"):
        return _number(arg.removeprefix("const_").replace("m1", "-1"))
    return _number(arg)


def _number(text: str) -> float:
    """A literal: commas are dropped, "x%" is x/100."""
    digits = text.replace(",", "")
    try:
        return float(digits[:-1]) / 100 if digits.endswith("%") else float(digits)
    except ValueError as error:
        raise ProgramError(f"{text!r} is not a number") from error


def _row_values(label: str, table: Sequence[Sequence[str]]) -> list[float]:
    """The numbers of the row with this label; the last such row counts, as in FinQA's script."""
    rows = [row for row in table if row and row[0] == label]
    if not rows:
        raise ProgramError(f"the table has no row {label!r}")
    return [_number(cell.replace("$", "").split("(")[0].strip()) for cell in rows[-1][1:]]
