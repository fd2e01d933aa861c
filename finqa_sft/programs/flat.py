"""FinQA's flat program language: steps `op(arg, arg)` joined by ", "; `#k` is step k's result.

`parse_program` reads a text as strictly as it is asked to; `execute_program` computes in real
numbers, and refuses what the official scripts let pass: infinities, comparisons of words.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from finqa_sft.errors import ProgramError
from finqa_sft.programs.language import ROW_FUNCTIONS, Program
from finqa_sft.programs.lenient import parse_lenient
from finqa_sft.programs.official import parse_official
from finqa_sft.programs.plain import literal_value, number, parse_plain, reference

Strictness: TypeAlias = Literal["plain", "official", "lenient"]
"""How a program's text is read.

- `plain`: a well-formed program, white space aside. What readers accept.
- `official`: what FinQA's own script accepts, with its oddities. What scores are made of.
- `lenient`: what a model most likely meant. `Program.repairs` says what was mended.
"""


def parse_program(text: str, *, strictness: Strictness = "plain") -> Program:
    """Parse a flat program.

    Args:
        text: The program as written.
        strictness: How to read it. A well-formed program reads alike in plain and lenient.

    Raises:
        ProgramError: The text is no program; the message says where and why, and the attribute
            `position` holds the character at fault, counted from 1.
    """
    match strictness:
        case "plain":
            return parse_plain(text)
        case "official":
            return parse_official(text)
        case "lenient":
            return parse_lenient(text)


def execute_program(program: Program, table: Sequence[Sequence[str]] = ()) -> float | str:
    """Compute a program.

    Args:
        program: What `parse_program` gave.
        table: Rows of cells; the first cell of a row is the label that `table_*` steps look up.

    Returns:
        A number rounded to 5 digits, or "yes" / "no" where the last step is `greater`.

    Raises:
        ProgramError: A step cannot be computed, or the program has none.
    """
    if not program.steps:
        raise ProgramError("the program has no step, and so no result")
    results: list[float | str] = []
    for index, step in enumerate(program.steps):
        try:
            if step.op in ROW_FUNCTIONS:
                results.append(ROW_FUNCTIONS[step.op](_row_values(step.args[0], table)))
            else:
                left, right = (_value(arg, results) for arg in step.args)
                results.append(_ARITHMETIC[step.op](left, right))
        except (ArithmeticError, ValueError) as error:
            raise ProgramError(f"step {index} {str(step)[:100]}: {error}") from error
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


def _value(arg: str, results: Sequence[float | str]) -> float:
    """The number that an argument stands for."""
    if not arg.startswith("#"):
        return literal_value(arg)
    index = reference(arg)
    if index is None or index >= len(results):
        raise ProgramError(f"{arg[:60]} refers to no earlier step")
    result = results[index]
    if isinstance(result, str):
        raise ProgramError(f"{arg} is {result!r}, not a number")
    return result


def _row_values(label: str, table: Sequence[Sequence[str]]) -> list[float]:
    """The numbers of the row with this label; the last such row counts, as in FinQA's script."""
    rows = [row for row in table if row and row[0] == label]
    if not rows:
        raise ProgramError(f"the table has no row {label[:60]!r}")
    return [number(cell.replace("$", "").split("(")[0].strip()) for cell in rows[-1][1:]]
