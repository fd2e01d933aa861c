"""The words of FinQA's program language: operators, steps, programs, and how an error is told.

Source of the language: the FinQA data set (github.com/czyssrs/FinQA), whose programs, tables and
executed answers it was compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from finqa_sft.errors import ProgramError

OPERATORS = ("add", "subtract", "multiply", "divide", "exp", "greater")
"""Operators on two numbers; `greater` gives "yes" or "no"."""

ROW_FUNCTIONS: Mapping[str, Callable[[list[float]], float]] = {
    "table_max": max,
    "table_min": min,
    "table_sum": sum,
    "table_average": lambda values: sum(values) / len(values),
}
"""What the operators on a row make of its numbers."""

TABLE_OPERATORS = tuple(ROW_FUNCTIONS)
"""Operators on a table's row, which their first argument names; the second one says nothing."""

MAX_STEPS = 64
"""Programs longer than this are refused; the longest in FinQA has 6 steps."""

MAX_CHARACTERS = 20_000
"""Texts longer than this are refused before they are looked at; FinQA's stay under 300."""


class ProgramSyntaxError(ProgramError):
    """A text is no program.

    Attributes:
        position: The character at fault, counted from 1.
    """

    def __init__(self, message: str, position: int = 1) -> None:
        """Say what is wrong, and where."""
        super().__init__(message)
        self.position = position


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
    """A sequence of steps; the last one's result is the program's.

    Attributes:
        steps: The steps, first to last.
        repairs: What a lenient reading changed to get them, in words. Programs of equal steps are
            equal whatever was repaired.
    """

    steps: tuple[Step, ...]
    repairs: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return ", ".join(str(step) for step in self.steps)


def check_length(text: str) -> None:
    """Refuse a text that is too long to be a program.

    Raises:
        ProgramSyntaxError: It has more than `MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise ProgramSyntaxError(
            f"{len(text)} characters; a program has at most {MAX_CHARACTERS}", MAX_CHARACTERS + 1
        )


def too_many_steps(position: int) -> ProgramSyntaxError:
    """The error of a program with more than `MAX_STEPS` steps.

    Args:
        position: Where the first step too many begins, counted from 1.
    """
    return ProgramSyntaxError(f"more than {MAX_STEPS} steps", position)


def unknown_operator(op: str, position: int) -> ProgramSyntaxError:
    """The error of a step whose operator does not exist."""
    known = ", ".join([*OPERATORS, *TABLE_OPERATORS])
    return ProgramSyntaxError(
        f"no operator {op[:30]!r} at character {position}; there are {known}", position
    )
