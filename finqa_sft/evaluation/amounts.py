"""How two numbers differ: by a scale, a sign, a rounding, or altogether."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from enum import Enum

from finqa_sft.documents import Scale
from finqa_sft.metrics.numbers import WrittenNumber, written_number

POWERS = (2, 3, 6, 9)
"""Powers of ten between the scales: percent, thousand, million, billion."""

_WITHIN = Decimal("0.01")
_LAST_DIGIT_WITHIN = Decimal("0.1")


class Difference(Enum):
    """How a number differs from the one that was expected; a member's value says it in words."""

    NONE = "the same number, in a form that the metric does not accept"
    STATED_SCALE = "the right number with another scale beside it"
    TOO_LARGE = "times too large"
    TOO_SMALL = "times too small"
    SIGN = "the right number with the other sign"
    ROUNDING = "the right number but for its rounding"
    OTHER = "another number"
    NOT_NUMBERS = "not two numbers"


def difference(
    found: str, expected: str, *, found_scale: Scale, expected_scale: Scale
) -> tuple[Difference, int]:
    """How a number differs from the expected one.

    Two numbers pass for one where they are within 1%, or where one is the other rounded or cut off
    to fewer digits; of two with as many digits, the last one may be off by one, up to 10%.

    Args:
        found: A number as it was written.
        expected: The number that was expected.
        found_scale: What the first one counts in.
        expected_scale: What the second one counts in.

    Returns:
        The difference; and how many times the number is too large or too small, as a power of ten,
        for these two, else 0.
    """
    total = written_number(found, scale=found_scale)
    wanted = written_number(expected, scale=expected_scale)
    bare, bare_wanted = written_number(found), written_number(expected)
    if not (total and wanted and bare and bare_wanted):
        return Difference.NOT_NUMBERS, 0
    if total.value == wanted.value:
        return Difference.NONE, 0
    if found_scale != expected_scale and _alike(bare, bare_wanted):
        return Difference.STATED_SCALE, 0
    for power in POWERS:
        if _alike(_shifted(total, -power), wanted):
            return Difference.TOO_LARGE, power
        if _alike(_shifted(total, power), wanted):
            return Difference.TOO_SMALL, power
    if _alike(replace(total, value=-total.value), wanted):
        return Difference.SIGN, 0
    return (Difference.ROUNDING if _alike(total, wanted) else Difference.OTHER), 0


def _shifted(number: WrittenNumber, power: int) -> WrittenNumber:
    return WrittenNumber(number.value.scaleb(power), number.unit.scaleb(power))


def _alike(a: WrittenNumber, b: WrittenNumber) -> bool:
    """Whether two numbers are one but for their rounding; 0 is like no other."""
    if not a.value or not b.value:
        return False
    off = abs(a.value - b.value)
    if off <= _WITHIN * abs(b.value):
        return True
    if a.unit == b.unit:
        return off <= a.unit and off <= _LAST_DIGIT_WITHIN * abs(b.value)
    coarse, fine = (a, b) if a.unit > b.unit else (b, a)
    units = fine.value / coarse.unit
    return any(
        units.to_integral_value(rounding) * coarse.unit == coarse.value
        for rounding in (ROUND_HALF_UP, ROUND_DOWN)
    )
