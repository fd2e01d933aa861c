"""How two numbers differ: by a scale, a sign, a rounding, or altogether."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from enum import Enum

from finqa_sft.documents import Scale
from finqa_sft.metrics.numbers import WrittenNumber, written_number

POWERS = (2, 3, 6, 9)
"""Powers of ten between the scales: percent, thousand, million, billion."""

_WITHIN = Decimal("0.0001")
_WITHIN_DECIMAL = Decimal("0.01")
_LAST_DIGIT_WITHIN = Decimal("0.1")
_CUT_WITHIN = Decimal("0.1")


class Difference(Enum):
    """How a number differs from the one that was expected; a member's value says it in words."""

    NONE = "the same number"
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

    Two numbers pass for one where one is the other rounded to fewer digits, or cut off if that is
    within 10%, zeros at the end of a whole number being no digits; or if they are within 0.01%.
    Where a number has digits behind the point they may be 1% apart; and of two with as many digits,
    the last one may be off by one, up to 10%. So 12.4 passes for 12.5 and 5,830 for 5,829, but 2018
    not for 2019.

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
    decimal = bare.unit < 1 or bare_wanted.unit < 1
    if found_scale != expected_scale and _alike(bare, bare_wanted, decimal=decimal):
        return Difference.STATED_SCALE, 0
    for power in POWERS:
        if _alike(_shifted(total, -power), wanted, decimal=decimal):
            return Difference.TOO_LARGE, power
        if _alike(_shifted(total, power), wanted, decimal=decimal):
            return Difference.TOO_SMALL, power
    if _alike(replace(total, value=-total.value), wanted, decimal=decimal):
        return Difference.SIGN, 0
    alike = _alike(total, wanted, decimal=decimal)
    return (Difference.ROUNDING if alike else Difference.OTHER), 0


def are_roundings(a: str, b: str) -> bool:
    """Whether one of two numbers as written is the other, rounded or cut off to fewer digits."""
    one, other = written_number(a), written_number(b)
    return one is not None and other is not None and _is_rounded(one, other)


def _shifted(number: WrittenNumber, power: int) -> WrittenNumber:
    return WrittenNumber(number.value.scaleb(power), number.unit.scaleb(power))


def _alike(a: WrittenNumber, b: WrittenNumber, *, decimal: bool) -> bool:
    """Whether two numbers are one but for their rounding; 0 is like no other.

    Args:
        a: A number.
        b: Another one.
        decimal: Whether one of them is written with digits behind the point.
    """
    if not a.value or not b.value:
        return False
    off = abs(a.value - b.value)
    if off <= (_WITHIN_DECIMAL if decimal else _WITHIN) * abs(b.value):
        return True
    if a.unit == b.unit and decimal:
        return off <= a.unit and off <= _LAST_DIGIT_WITHIN * abs(b.value)
    return _is_rounded(a, b)


def _is_rounded(a: WrittenNumber, b: WrittenNumber) -> bool:
    """Whether one of two numbers is the other to fewer digits; cut off, if that is near enough."""
    for coarse, fine in ((a, b), (b, a)):
        unit = _last_digit(coarse)
        if unit <= fine.unit:
            continue
        units = fine.value / unit
        if units.to_integral_value(ROUND_HALF_UP) * unit == coarse.value:
            return bool(coarse.value)
        if abs(fine.value - coarse.value) <= _CUT_WITHIN * abs(fine.value):
            return units.to_integral_value(ROUND_DOWN) * unit == coarse.value
    return False


def _last_digit(number: WrittenNumber) -> Decimal:
    """What the last digit of a number counts that is no zero at the end of a whole number."""
    digits = number.value.normalize().as_tuple()
    assert isinstance(digits.exponent, int)
    return max(number.unit, Decimal(1).scaleb(digits.exponent))
