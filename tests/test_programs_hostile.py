"""Text that means harm, or nothing: every reading ends at once, and in a program error if any."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.errors import ProgramError
from finqa_sft.programs import (
    derivation_problem,
    derived_program,
    equivalent_programs,
    evaluate_arithmetic,
    execute_program,
    matches_gold,
    official_result,
    parse_program,
)

TABLE = [["net sales", "5", "(6)"], ["loss", "a"], []]

READINGS: dict[str, Callable[[str], object]] = {
    "plain": lambda text: execute_program(parse_program(text), TABLE),
    "official": lambda text: execute_program(parse_program(text, strictness="official"), TABLE),
    "lenient": lambda text: execute_program(parse_program(text, strictness="lenient"), TABLE),
    "official_result": lambda text: official_result(text, TABLE),
    "bare_numbers": lambda text: official_result(text, TABLE, bare_numbers=True),
    "equivalent": lambda text: equivalent_programs(text, text),
    "equivalent_plain": lambda text: equivalent_programs(text, text, strictness="plain"),
    "equivalent_lenient": lambda text: equivalent_programs(text, text, strictness="lenient"),
    "matches_gold": lambda text: matches_gold(text, text, bare_numbers=True),
    "evaluate_arithmetic": evaluate_arithmetic,
    "derived_program": lambda text: derived_program(text, answer=3.0, scale="percent"),
    "derivation_problem": lambda text: derivation_problem(text, answer=3.0, scale="million"),
}
"""Every public function of a text."""

ANSWERS = {"official_result", "bare_numbers", "equivalent", "matches_gold", "derivation_problem"}
"""Those that have an answer for every text."""

HOSTILE = {
    "digits": "9" * 10**6,
    "a long number": f"add({'9' * 5_000}, 1)",
    "a long reference": f"add(1, 2), add(#{'9' * 5_000}, 1)",
    "a million steps": "add(1, 2), " * 10**6,
    "many steps": "add(1, 2), " * 1_800,
    "deep nesting": "add(" * 10**5,
    "deep nesting that is short": "add(" * 4_900,
    "parentheses": "(" * 19_999,
    "brackets and signs": "-(" * 990,
    "powers": "9^" * 900 + "9",
    "a tower": "9^9^9^9^9",
    "steps of powers": "exp(9, 9), " + ", ".join(f"exp(#{i}, #{i})" for i in range(62)),
    "tables": "table_sum(net sales, none), " * 700,
    "labels": "table_sum(" * 1_999,
    "almost labels": "table_sum(" + "), none " * 2_400,
    "spaces": " " * 19_999,
    "spaces behind a result": f"add(1, 2) = 1{' ' * 19_000}x",
    "spaces in a step's number": f"step{' ' * 19_000}1",
    "spaces in a label": f"table_max({' ' * 19_000}x",
    "spaces behind a currency": f"add(${' ' * 19_000}x, 1)",
    "spaces behind a sign": f"add(-{' ' * 19_000}x, 1)",
    "commas": "add(" + "," * 19_990,
    "groups": "add(" + "1,234" * 3_900,
    "quotes": "'`\"" * 6_600,
    "results": "add(1, 2)" + "= 1,,,," * 2_800,
    "percents": "add(1" + "%" * 19_000 + ", 1)",
    "surrogates": "add(\ud800, 1)",
    "no width": "add(\u200b1, 2)\ufeff",
    "right to left": "\u202eadd(1, 2)",
    "other digits": "add(\u0661, \u4e00), add(#\u0660, \u00b2)",
    "combining": "add(1\u0301, 2\u20e3)",
    "controls": "add(1\x00, 2\x1f)\x85",
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_ends_at_once(text: str, reading: str) -> None:
    start = time.process_time()
    try:
        READINGS[reading](HOSTILE[text])
        message = ""
    except ProgramError as error:
        message = str(error)
    assert time.process_time() - start < 0.5
    assert len(message) < 400
    assert not (message and reading in ANSWERS)


PIECES = st.sampled_from(
    [
        *("add(", "divide(", "exp(", "greater(", "table_sum(", "table_max(", "ADD (", "minus("),
        *("1", "0", "-8", "0.5", "5%", "1e308", "nan", "#0", "#1", "#-1", "##", "const_100", "m1"),
        *(
            "net sales",
            "loss",
            "none",
            ", ",
            ",",
            ")",
            "(",
            " ",
            "|",
            "\n",
            "=",
            "^",
            "**",
            "\u2212",
        ),
        *("$", "%", "million", "[", "]", "`", '"', "Program:", "EOF", "\u0663", "\ud800", "_"),
    ]
)
STEPS = st.builds(
    lambda op, left, right: f"{op}({left}, {right})",
    st.sampled_from(["add", "subtract", "multiply", "divide", "exp", "greater", "table_sum"]),
    PIECES,
    PIECES,
)


@pytest.mark.parametrize("reading", READINGS)
@settings(deadline=None, max_examples=60)
@given(
    text=st.text(max_size=30)
    | st.lists(PIECES, max_size=16).map("".join)
    | st.lists(STEPS, min_size=1, max_size=5).map(", ".join)
)
def test_no_text_raises_anything_but_a_program_error(reading: str, text: str) -> None:
    try:
        READINGS[reading](text)
    except ProgramError:
        assert reading not in ANSWERS
