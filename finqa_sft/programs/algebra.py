"""Rational functions as values at fixed points of a prime field, so that equality is cheap.

Two formulas over symbols are the same rational function if they agree at random points: where they
differ, they agree at a random point of the field with a probability of at most their degree over
its size (the Schwartz-Zippel lemma). Points are derived from the symbols' names by SHA-512, so a
formula has one value everywhere and always. No formula is ever expanded: 64 steps of repeated
squaring are 64 multiplications.

With the field of 2**521 - 1 elements and formulas of a degree up to 2**400, beyond which they are
only compared by how they are written, two different ones pass for equal with a probability below
2**-120 a point, and `POINTS` points are looked at. Ordinary programs have degrees below 10, and so
about 2**-517 a point.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

PRIME = 2**521 - 1
POINTS = 3
MAX_DEGREE = 2**400

_LARGEST_EXPONENT = 2**64
_REALS = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


@dataclass(frozen=True, slots=True)
class Value:
    """A formula.

    Attributes:
        key: Equal for equal formulas.
        at: The formula's values at the points, or None where it has none: a quotient by zero, a
            comparison, or a degree beyond `MAX_DEGREE`.
        degree: Bound on the degree of numerator and denominator.
        real: The value at a further point, of positive real numbers; it tells the sign.
    """

    key: tuple[object, ...]
    at: tuple[int, ...] | None
    degree: int
    real: Decimal


def symbol(name: str) -> Value:
    """A variable."""
    seed = name.encode("utf-8", "surrogatepass")
    at = tuple(_hashed(seed, point) for point in range(POINTS))
    real = _REALS.scaleb(Decimal(_hashed(seed, POINTS) % 10**30 + 10**29), Decimal(-29))
    return Value(at, at, 1, real)


def combined(op: str, left: Value, right: Value) -> Value:
    """The formula `left op right`.

    Powers with a constant whole number as exponent are multiplications, and those of 1 are 1. Any
    other power is a symbol of its own, named by base and exponent: (a^b)^(1/b) is not a, nor is
    a^b a^c known as a^(b + c). So are formulas without values, named by operator and operands.
    """
    if left.at is None or right.at is None:
        return _opaque(op, left, right)
    if op == "greater":
        return _comparison(left, right)
    if op == "exp":
        return _power(left, right)
    return _arithmetic(op, left, right)


def _arithmetic(op: str, left: Value, right: Value) -> Value:
    assert left.at is not None
    assert right.at is not None
    pairs = zip(left.at, right.at, strict=True)
    match op:
        case "add":
            at = tuple((a + b) % PRIME for a, b in pairs)
            real = _REALS.add(left.real, right.real)
        case "subtract":
            at = tuple((a - b) % PRIME for a, b in pairs)
            real = _REALS.subtract(left.real, right.real)
        case "multiply":
            at = tuple(a * b % PRIME for a, b in pairs)
            real = _REALS.multiply(left.real, right.real)
        case "divide":
            if not all(right.at):
                return _opaque(op, left, right)
            inverses = _inverses(right.at)
            at = tuple(a * b % PRIME for a, b in zip(left.at, inverses, strict=True))
            real = _REALS.divide(left.real, right.real)
        case _:
            raise ValueError(op)
    degree = left.degree + right.degree
    return Value(at, at, degree, real) if degree <= MAX_DEGREE else _opaque(op, left, right)


def _inverses(values: tuple[int, ...]) -> tuple[int, ...]:
    """One over each value; the inverse of their product is the only one that is searched for."""
    product = 1
    for value in values:
        product = product * value % PRIME
    whole = pow(product, -1, PRIME)
    inverses = []
    for index in range(len(values)):
        others = whole
        for value in (*values[:index], *values[index + 1 :]):
            others = others * value % PRIME
        inverses.append(others)
    return tuple(inverses)


def _power(base: Value, exponent: Value) -> Value:
    assert base.at is not None
    if base.at == (1,) * POINTS:
        return base
    count = _whole_number(exponent)
    if count is None:
        return symbol(f"power {_digest(base.key, exponent.key)}")
    degree = base.degree * abs(count)
    if degree > MAX_DEGREE or (count < 0 and not all(base.at)):
        return _opaque("exp", base, exponent)
    at = tuple(pow(value, count, PRIME) for value in base.at)
    return Value(at, at, degree, _REALS.power(base.real, count))


def _comparison(left: Value, right: Value) -> Value:
    """`left > right`, which is known by `left - right` up to a positive factor."""
    difference = _arithmetic("subtract", left, right)
    if difference.at is None:
        return _opaque("greater", left, right)
    first = difference.at[0]
    sign = 0 if difference.real.is_nan() else (difference.real > 0) - (difference.real < 0)
    if all(value == first for value in difference.at):
        return Value(("greater", bool(first) and sign > 0), None, 0, Decimal(0))
    ratios = tuple(value * pow(first, -1, PRIME) % PRIME for value in difference.at[1:])
    return Value(("greater", ratios, sign), None, 0, Decimal(0))


def _whole_number(value: Value) -> int | None:
    """The number that a formula is at every point, if it is a whole one of moderate size."""
    assert value.at is not None
    first = value.at[0]
    if any(other != first for other in value.at):
        return None
    number = first if first <= PRIME // 2 else first - PRIME
    return number if abs(number) <= _LARGEST_EXPONENT else None


def _opaque(op: str, left: Value, right: Value) -> Value:
    keys = [left.key, right.key]
    if op in ("add", "multiply"):
        keys.sort(key=repr)
    return Value(("formula", _digest(op, *keys)), None, 0, Decimal(0))


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _hashed(seed: bytes, point: int) -> int:
    return int.from_bytes(hashlib.sha512(b"%d:%b" % (point, seed)).digest(), "big")
