"""Arithmetic as analysts write it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.errors import ProgramError
from finqa_sft.programs import evaluate_arithmetic
from finqa_sft.programs.arithmetic import parse_arithmetic


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("44.1-56.7", -12.6),
        ("(44.1-56.7)/56.7", -0.22222),
        (" 2,664/909 ", 2.93069),
        ("$1,234.5 - 1,200", 34.5),
        ("($ 3,287.0+2,753.0)/$ 7,938.3", 0.76087),
        ("\u20ac5 + \u00a35", 10.0),
        ("44.1%", 0.441),
        ("44.1 %", 0.441),
        ("(1-15%)*($2.2/15%)", 12.46667),
        ("[(166+178)/2] - [(57+44)/2]", 121.5),
        ("((85,123 - 79,046) + (63,954 - 62,575)) / 2", 3728.0),
        ("-(0.9 + 0.1) / 2", -0.5),
        ("- (197 + 101 + 206) / 3", -168.0),
        ("-5,637-(-3,990)", -1647.0),
        ("(-238-(-168))/-168", 0.41667),
        ("$(290.2 + 239.6)", 529.8),
        ("$5,121 +$(-5,946)", -825.0),
        ("(8,217+7,527)/(2019-2017+1)", 5248.0),
        ("126 / 67 - 1", 0.8806),
        ("2 + 3 * 4", 14.0),
        ("2 - 3 - 4", -5.0),
        ("24 / 4 / 2", 3.0),
        ("2 \u00d7 3 \u00b7 4 \u00f7 6", 4.0),
        ("5 \u2212 3 \u2013 1", 1.0),
        ("2^3^2", 512.0),
        ("2**-1", 0.5),
        ("-2^2", -4.0),
        ("60.3 million + 32,137 thousand", 92437000.0),
        ("2 Billions", 2e9),
        ("5 million %", None),
        ("+5", 5.0),
        ("--5", 5.0),
        (".5 + 5.", 5.5),
        ("(1,234)", -1234.0),
        ("-114 - (71)", -43.0),
        ("3 + (13) + 26", 16.0),
        ("(5%) + (5)%", -0.1),
        ("((13) + 26) / 2", 6.5),
        ("[5]", 5.0),
        ("[(5)]", -5.0),
    ],
)
def test_arithmetic_is_computed_as_it_is_meant(text: str, value: float | None) -> None:
    if value is None:
        with pytest.raises(ProgramError):
            evaluate_arithmetic(text)
    else:
        assert evaluate_arithmetic(text) == value


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 1, "the end at character 1; expected a number"),
        ("2 +", 4, "the end at character 4; expected a number"),
        ("2 3", 3, "'3' at character 3; expected an operator"),
        ("2 (3)", 3, "'(' at character 3; expected an operator"),
        ("(2 + 3", 7, "the end at character 7; expected ')'"),
        ("[2 + 3)", 7, "')' at character 7; expected ']'"),
        ("1,23 + 4", 2, "',23 + 4' at character 2 is no arithmetic"),
        ("2019##2018", 5, "'##2018' at character 5 is no arithmetic"),
        ("net + 4", 1, "'net + 4' at character 1 is no arithmetic"),
        ("__import__('os')", 1, "\"__import__('os')\" at character 1 is no arithmetic"),
        ("-(71)", 2, "(71) at character 2 can be 71 or -71"),
        ("5 * (3)", 5, "(3) at character 5 can be 3 or -3"),
        ("(45)/9", 1, "(45) at character 1 can be 45 or -45"),
        ("(" * 40 + "5" + ")" * 40, 34, None),
        ("-" * 40 + "5", 34, None),
        ("2^" * 40 + "2", 67, None),
        ("1+" * 70 + "1", 132, "more than 64 operations before character 132"),
        ("1" * 2_001, 2_001, "2001 characters; arithmetic has at most 2000"),
    ],
)
def test_what_is_no_arithmetic_is_refused_by_its_character(
    text: str, position: int, message: str | None
) -> None:
    with pytest.raises(ProgramError) as caught:
        evaluate_arithmetic(text)
    found = f"{text[33:34]!r} at character 34; expected at most 32 brackets within one another"
    if message is None and text[0] == "2":
        found = "'2' at character 67; expected at most 32 brackets within one another"
    assert str(caught.value) == (message or found)
    assert vars(caught.value) == {"position": position}


@pytest.mark.parametrize(
    "text", ["1 / 0", "(5 - 5) / (3 - 3)", "(0 - 8) ^ .5", "9^9^9^9", "9" * 400]
)
def test_what_has_no_value_is_refused(text: str) -> None:
    with pytest.raises(ProgramError):
        evaluate_arithmetic(text)


def test_every_operation_is_one_step() -> None:
    parsed = parse_arithmetic("-(0.9 + 0.1) / 2")
    assert ", ".join(map(str, parsed.steps)) == (
        "add(0.9, 0.1), multiply(#0, const_m1), divide(#1, 2)"
    )
    assert (parsed.result, parsed.has_scale_words) == ("#2", False)
    parsed = parse_arithmetic("-5")
    assert (parsed.steps, parsed.result) == ((), "-5")


NUMBERS = st.integers(1, 999).map(str)


@st.composite
def sums(draw: st.DrawFn, *, depth: int = 3) -> str:
    """Arithmetic that Python reads alike: no lone number stands in brackets."""
    if depth == 0 or draw(st.booleans()):
        return draw(NUMBERS)
    left, right = draw(sums(depth=depth - 1)), draw(sums(depth=depth - 1))
    text = f"{left} {draw(st.sampled_from('+-*/'))} {right}"
    return f"({text})" if draw(st.booleans()) else text


@given(sums())
def test_precedence_is_that_of_python(text: str) -> None:
    try:
        value = float(eval(text))
    except ZeroDivisionError:
        with pytest.raises(ProgramError):
            evaluate_arithmetic(text)
        return
    assert math.isclose(evaluate_arithmetic(text), round(value, 5), rel_tol=1e-9, abs_tol=1e-5)
