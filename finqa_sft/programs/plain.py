"""Well-formed programs as text, and the numbers in them."""

from __future__ import annotations

import math
import re

from finqa_sft.errors import ProgramError
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

LABEL = rf"(?:(?!\)[\s,]*(?:{'|'.join((*OPERATORS, *TABLE_OPERATORS))})\().)*?"
"""A row's label: it may hold parentheses, as "income (loss)", but not the beginning of a step."""

_STEP = re.compile(r"\s*([a-z_]+)\(([^()]*)\)\s*(?:,|$)")
_STEP_WITH_LABEL = re.compile(rf"\s*(table_[a-z]+)\(({LABEL}), none\)\s*(?:,|$)")
_REFERENCE = re.compile(r"#([0-9]{1,4})")


def parse_plain(text: str) -> Program:
    """Parse a well-formed flat program; arguments are not looked at.

    Raises:
        ProgramSyntaxError: The text is no program; the message says where and why.
    """
    check_length(text)
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP_WITH_LABEL.match(text, position) or _STEP.match(text, position)
        if match is None:
            raise ProgramSyntaxError(
                f"no step at character {position + 1}: {text[position : position + 30]!r}; a step "
                "is op(arg, arg)",
                position + 1,
            )
        op, start = match[1], match.start(1) + 1
        if op not in OPERATORS and op not in TABLE_OPERATORS:
            raise unknown_operator(op, start)
        args = [match[2], "none"] if match.re is _STEP_WITH_LABEL else match[2].split(",")
        if len(args) != 2:
            raise ProgramSyntaxError(
                f"{op} at character {start} takes two arguments, got {len(args)}: "
                f"{match[0].strip()[:60]!r}",
                start,
            )
        if len(steps) == MAX_STEPS:
            raise too_many_steps(start)
        steps.append(Step(op, (args[0].strip(), args[1].strip())))
        position = match.end()
    if not steps:
        raise ProgramSyntaxError("the program is empty; expected op(arg, arg)")
    return Program(tuple(steps))


def reference(arg: str) -> int | None:
    """The index that `#k` refers to, counted from 0; None if the argument is no reference."""
    match = _REFERENCE.fullmatch(arg)
    return int(match[1]) if match else None


def literal_value(arg: str) -> float:
    """The number that an argument stands for: `5`, `12.5%` for 0.125, `const_100`, `const_m1`.

    Raises:
        ProgramError: It is no number.
    """
    if arg == "const_m1":
        return -1.0
    if arg.endswith("%"):
        return number(arg)
    return number(arg.removeprefix("const_"))


def number(text: str) -> float:
    """A number in digits: commas are dropped, "x%" is x/100.

    Raises:
        ProgramError: It is no number, or infinite.
    """
    digits = text.replace(",", "")
    try:
        value = float(digits[:-1]) / 100 if digits.endswith("%") else float(digits)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProgramError(f"{text[:60]!r} is not a number")
    return value
