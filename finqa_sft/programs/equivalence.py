"""Whether two programs are the same up to algebra: FinQA's program accuracy, without sympy."""

from __future__ import annotations

from dataclasses import dataclass

from finqa_sft.errors import ProgramError
from finqa_sft.programs.algebra import Value, combined, symbol
from finqa_sft.programs.flat import Strictness, parse_program
from finqa_sft.programs.language import (
    MAX_CHARACTERS,
    MAX_STEPS,
    TABLE_OPERATORS,
    Program,
    ProgramSyntaxError,
)
from finqa_sft.programs.official import OfficialStep, official_steps, official_tokens
from finqa_sft.programs.plain import literal_value, reference

MAX_OFFICIAL_STEPS = 10 * MAX_STEPS
"""Predictions with more steps, which the official reading itself allows, match no program."""


def equivalent_programs(
    a: str | Program, b: str | Program, *, strictness: Strictness = "official"
) -> bool:
    """Whether two programs compute the same formula.

    A formula is the last step with the steps that it uses, as a rational function in its literals:
    add and multiply commute, and (x - y) / y is x/y - y/y. Literals are symbols: 5 and 5.0 are two,
    and 10/5 is not 2. So are the results of table steps, and powers but those with a constant whole
    exponent that comes from the formula itself, as x^(y/y). `greater(l, r)` is the same where
    l - r is, up to a positive factor. A formula that divides by zero equals itself alone, as it is
    written.

    It is an equivalence relation on programs. Formulas are compared by their values at fixed points
    of a prime field, in time linear in the steps; that two different ones pass for equal has a
    probability below 2**-120 (`finqa_sft.programs.algebra`).

    Args:
        a: A program, as text or parsed.
        b: Another one.
        strictness: `official` compares as FinQA's script does: table steps by their text, the first
            step of a program being a different one from the same step further on. Texts that are
            no program there equal nothing. `plain` compares well-formed programs, table steps by
            operator and label wherever they stand. `lenient` reads leniently and takes literals by
            their value: const_100, 100 and 100.0 are one.

    Raises:
        ProgramError: In `plain` and `lenient`, one of the two is no program.
    """
    if strictness != "official":
        return _formula(_steps(a, strictness)) == _formula(_steps(b, strictness))
    try:
        return _formula(_official(str(a))) == _formula(_official(str(b)))
    except ProgramError:
        return False


def matches_gold(predicted: str, gold: str, *, bare_numbers: bool = False) -> bool:
    """Whether the official script counts a predicted program as equal to the gold one.

    That takes more than equivalent programs: all literals and table steps of the prediction, those
    of unused steps too, must stand in the gold program. `add(1, 2)` is no match with the unused
    step `add(5, 6)` before it, although the gold program may have such a step. ConvFinQA's script
    demands a valid prediction besides (`official_result`).

    Args:
        predicted: The program as predicted.
        gold: The program to compare with.
        bare_numbers: Compare lone numbers as ConvFinQA does: the same token, white space included.
    """
    if max(len(predicted), len(gold)) > MAX_CHARACTERS:
        return False
    if bare_numbers:
        tokens = official_tokens(gold)
        if len(tokens) == 1:
            return official_tokens(predicted) == tokens
    try:
        steps, gold_steps = _official(predicted), _official(gold)
    except ProgramError:
        return False
    return _symbols(steps) <= _symbols(gold_steps) and _formula(steps) == _formula(gold_steps)


@dataclass(frozen=True, slots=True)
class _Step:
    """A step whose arguments are indices of earlier steps or names of symbols.

    Attributes:
        op: The operator, or "" where the step is a symbol.
        args: Two arguments, or the one name of the symbol.
    """

    op: str
    args: tuple[int | str, ...]


def _symbols(steps: list[_Step]) -> set[tuple[str, str]]:
    return {
        ("" if step.op else "table", arg)
        for step in steps
        for arg in step.args
        if isinstance(arg, str)
    }


def _formula(steps: list[_Step]) -> tuple[object, ...]:
    """The key of the last step's formula."""
    values: dict[int, Value] = {}
    for index in _used(steps):
        step = steps[index]
        if not step.op:
            values[index] = symbol(f"table {step.args[0]}")
            continue
        left, right = (
            values[arg] if isinstance(arg, int) else symbol(f"literal {arg}") for arg in step.args
        )
        values[index] = combined(step.op, left, right)
    return values[len(steps) - 1].key


def _used(steps: list[_Step]) -> list[int]:
    """The indices of the last step and of all that it rests on, in order."""
    used = {len(steps) - 1}
    for index in range(len(steps) - 1, -1, -1):
        if index in used:
            used |= {arg for arg in steps[index].args if isinstance(arg, int)}
    return sorted(used)


def _official(text: str) -> list[_Step]:
    """The steps that the official script compares.

    Raises:
        ProgramSyntaxError: There is none, too many, or one that refers to no earlier step.
    """
    steps = official_steps(text)
    if not 0 < len(steps) <= MAX_OFFICIAL_STEPS:
        raise ProgramSyntaxError(f"{len(steps)} steps; expected 1 to {MAX_OFFICIAL_STEPS}")
    return [_official_step(step, index) for index, step in enumerate(steps)]


def _official_step(step: OfficialStep, index: int) -> _Step:
    if step.op in TABLE_OPERATORS:
        return _Step("", (step.text,))
    return _Step(step.op, tuple(_official_argument(arg, index) for arg in step.args))


def _official_argument(arg: str, index: int) -> int | str:
    if "#" not in arg:
        return arg
    try:
        referred, checked = int(arg.replace("#", "")), int(arg.strip("#"))
    except ValueError as error:
        raise ProgramError(f"{arg[:30]!r} is no reference") from error
    if checked >= index or not 0 <= referred < index:
        raise ProgramError(f"{arg[:30]!r} refers to no earlier step")
    return referred


def _steps(program: str | Program, strictness: Strictness) -> list[_Step]:
    """The steps of a well-formed or mended program.

    Raises:
        ProgramError: It is no program, or a step refers to no earlier one.
    """
    if isinstance(program, str):
        program = parse_program(program, strictness=strictness)
    if not program.steps:
        raise ProgramError("the program has no step")
    steps = []
    for index, step in enumerate(program.steps):
        if step.op in TABLE_OPERATORS:
            steps.append(_Step("", (f"{step.op} {step.args[0]}",)))
            continue
        args = tuple(_argument(arg, index, strictness) for arg in step.args)
        steps.append(_Step(step.op, args))
    return steps


def _argument(arg: str, index: int, strictness: Strictness) -> int | str:
    if arg.startswith("#"):
        referred = reference(arg)
        if referred is None or referred >= index:
            raise ProgramError(f"{arg[:30]} in step {index} refers to no earlier step")
        return referred
    if strictness == "plain":
        return arg
    try:
        # 4.35% and 0.0435 are neighbouring floats; + 0 turns -0 into 0.
        return f"{literal_value(arg) + 0:.12g}"
    except ProgramError:
        return arg
