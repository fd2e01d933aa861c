"""From an analyst's derivation to a program: "(680-774)/774" gives -12.14 percent in three steps.

A derivation is only taken if what it computes is the answer, so a slip in either cannot become a
label. What TAT-QA calls a percentage is derived as a fraction, which a last step multiplies by 100.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal

from finqa_sft.documents import Scale
from finqa_sft.errors import ProgramError
from finqa_sft.programs.arguments import SCALE_WORDS
from finqa_sft.programs.arithmetic import MAX_LENGTH, Arithmetic, parse_arithmetic
from finqa_sft.programs.flat import execute_program
from finqa_sft.programs.language import MAX_STEPS, Program, Step

NO_ARITHMETIC = "the derivation is no arithmetic"
NOT_PARSED = "the derivation cannot be parsed"
NOT_COMPUTED = "the derivation cannot be computed"
OTHER_SIGN = "the derivation computes the answer with the other sign"
OTHER_VALUE = "the derivation computes another value"
NO_NUMBER = "the answer is no number"

_DECIMALS = 2
_DIGIT = re.compile("[0-9]")
_WORDS = re.compile(rf"[<>#]|(?!(?:{'|'.join(SCALE_WORDS)})s?\b)\b[^\W\d_]+", re.IGNORECASE)


class DerivationError(ProgramError):
    """A derivation gives no program.

    Attributes:
        reason: Why, as one of a few fixed texts, so that cases can be counted.
    """

    def __init__(self, message: str, reason: str = NOT_PARSED) -> None:
        """Say what is wrong with this derivation, and which reason it counts under."""
        super().__init__(message)
        self.reason = reason


def derived_program(derivation: str, *, answer: float, scale: Scale) -> Program:
    """The flat program that computes an answer as its derivation does, in the unit of its scale.

    Args:
        derivation: Arithmetic as written: "-(0.9 + 0.1) / 2".
        answer: The number it should give, rounded to 2 decimals or as many as it has.
        scale: The unit that `answer` counts in. If it is percent and the derivation computes the
            fraction, a last step multiplies by 100. If a number in the derivation has a word of
            its own, as "60.3 million", a last step divides by the unit of the scale.

    Returns:
        A program whose execution, rounded as the answer is, is the answer.

    Raises:
        DerivationError: It gives no such program; the attribute `reason` is one of this module's
            constants.
    """
    if not math.isfinite(answer):
        raise DerivationError(f"{NO_NUMBER}: {answer}", NO_NUMBER)
    parsed = _parsed(derivation)
    found = None
    other_sign = False
    for program in _candidates(parsed, scale):
        try:
            value = execute_program(program)
        except ProgramError as error:
            raise DerivationError(f"{NOT_COMPUTED}: {error}", NOT_COMPUTED) from error
        assert isinstance(value, float)
        if _rounds_to(value, answer):
            return program
        found = value if found is None else found
        other_sign = other_sign or _rounds_to(-value, answer)
    reason = OTHER_SIGN if other_sign else OTHER_VALUE
    raise DerivationError(f"{reason}: {found} in place of {answer}", reason)


def derivation_problem(
    derivation: str | None, *, answer: float | str | None, scale: Scale
) -> str | None:
    """Why a derivation gives no program, as one of a few fixed texts; None if it gives one.

    Args:
        derivation: Arithmetic as written, or None where there is none.
        answer: The answer, of which only a number can be derived.
        scale: The unit that `answer` counts in.
    """
    if not isinstance(answer, int | float):
        return NO_NUMBER
    try:
        derived_program(derivation or "", answer=answer, scale=scale)
    except DerivationError as error:
        return error.reason
    return None


def _parsed(derivation: str) -> Arithmetic:
    is_short = len(derivation) <= MAX_LENGTH
    if is_short and (not _DIGIT.search(derivation) or _WORDS.search(derivation)):
        raise DerivationError(f"{NO_ARITHMETIC}: {derivation[:60]!r}", NO_ARITHMETIC)
    try:
        parsed = parse_arithmetic(derivation)
    except ProgramError as error:
        raise DerivationError(f"{NOT_PARSED}: {error}", NOT_PARSED) from error
    if not parsed.steps:
        raise DerivationError(f"{NO_ARITHMETIC}: {derivation[:60]!r}", NO_ARITHMETIC)
    return parsed


def _candidates(parsed: Arithmetic, scale: Scale) -> Iterator[Program]:
    """The derivation as it stands, and then in the unit of the scale."""
    yield Program(parsed.steps)
    if len(parsed.steps) == MAX_STEPS:
        return
    if scale == "percent":
        last = Step("multiply", (parsed.result, "const_100"))
        yield Program((*parsed.steps, last))
    elif scale and parsed.has_scale_words:
        last = Step("divide", (parsed.result, f"const_{10 ** SCALE_WORDS[scale]}"))
        yield Program((*parsed.steps, last))


def _rounds_to(value: float, answer: float) -> bool:
    """Whether a value is an answer that was rounded to 2 decimals or as many as it has."""
    decimals = -int(Decimal(repr(float(answer))).as_tuple().exponent)
    half = 0.5 * 10.0 ** -max(_DECIMALS, decimals)
    return abs(value - answer) <= half * (1 + 1e-6) + 1e-12 * abs(answer)
