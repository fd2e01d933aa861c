"""The official reading of programs: every rule and oddity of FinQA's and ConvFinQA's scripts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.errors import ProgramError
from finqa_sft.programs import (
    OfficialResult,
    Program,
    execute_program,
    official_result,
    parse_program,
)
from finqa_sft.programs.official import official_tokens

TABLE = [
    ["", "2012", "2011"],
    ["net sales", "1", "2"],
    ["fees (net)", "5%", "$ 6 ( a )"],
    ["loss", "(12)", "3"],
    ["none at all"],
    ["net sales", "$ 5,829", "-2 ( 2 )"],
]
NOTHING = OfficialResult(valid=True, value=None)
INVALID = OfficialResult(valid=False, value=None)


def value(text: str) -> float | str | None:
    """The result of a program that has to be valid."""
    result = official_result(text, TABLE)
    assert result.valid, text
    return result.value


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("add(1, 2), exp(#0, 3)", ["add(", "1", "2", ")", "exp(", "#0", "3", ")"]),
        ("add(1,2)", ["add(", "1,2", ")"]),
        (", add(1, , 2), ", ["add(", "1", "2", ")"]),
        ("table_sum(a (b), none)", ["table_sum(", "a (", "b", ")", "none", ")"]),
        ("", []),
    ],
)
def test_tokens_end_at_comma_and_space_and_at_parentheses(text: str, tokens: list[str]) -> None:
    assert official_tokens(text) == tokens


def test_an_unclosed_last_step_is_dropped() -> None:
    assert value("divide(4, 2), add(#0") == 2.0
    assert value("divide(4, 2), add(#0, 3") == 2.0
    assert parse_program("divide(4, 2), add(#0", strictness="official") == parse_program(
        "divide(4, 2)"
    )


@pytest.mark.parametrize("text", ["", "add(", "divide(1, 2", ", ", "add"])
def test_a_program_without_a_complete_step_is_valid_and_has_no_result(text: str) -> None:
    assert official_result(text, TABLE) == NOTHING
    assert parse_program(text, strictness="official") == Program(())


@pytest.mark.parametrize(
    "text",
    [
        ", add(1, 2), ",
        "add(1, , 2)",
        "add(\t1, 2\u00a0)",
        "add( 1 ,  2 )",
        "add(1|2)",
        "add(1|2, junk)",
    ],
)
def test_some_looseness_is_let_pass(text: str) -> None:
    assert value(text) == 3.0


def test_the_comma_between_steps_may_be_missing() -> None:
    assert value("add(1, 2)divide(#0, 2)") == 1.5
    assert value("divide(5|4)") == 1.25


@pytest.mark.parametrize(
    "text",
    [
        " add(1, 2)",
        "add(1, 2) ",
        "add (1, 2)",
        "add(1, 2),  divide(#0, 2)",
        "add(1, 2),\ndivide(#0, 2)",
        "add(1, 2),divide(#0, 2)",
        "ADD(1, 2)",
        "minus(1, 2)",
        "add(1, 2, 3)",
        "add(1, 2))",
        "divide(subtract(5, 4), 4)",
        "table_sum(fees (net), none)",
        "The answer is add(1, 2)",
    ],
)
def test_other_looseness_is_not(text: str) -> None:
    assert official_result(text, TABLE).valid is False
    with pytest.raises(ProgramError):
        parse_program(text, strictness="official")


@pytest.mark.parametrize(
    ("literal", "number"),
    [
        ("1,2,3", 123.0),
        ("1_000", 1000.0),
        ("+5", 5.0),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("\uff15", 5.0),
        ("\u0665", 5.0),
        ("%5", 0.05),
        ("5%%", 0.05),
        ("5 %", 0.05),
        ("const_100", 100.0),
        ("const_m1", -1.0),
        ("5const_", 5.0),
        ("const_const_5", 5.0),
        ("const_1,000", 1000.0),
        ("inf", math.inf),
    ],
)
def test_a_literal_is_what_float_reads(literal: str, number: float) -> None:
    assert value(f"add({literal}, 0)") == number


@pytest.mark.parametrize(
    "literal",
    [
        "const_5%",
        "const_m2",
        "CONST_5",
        "const5",
        "$5",
        "(5)",
        "\u22125",
        "m1",
        "5 million",
        "none",
    ],
)
def test_other_literals_are_invalid(literal: str) -> None:
    assert official_result(f"add({literal}, 0)").valid is False


@pytest.mark.parametrize("reference", ["#0", "#00", "##0", "0#", "# 0", "#+0", "#-0"])
def test_a_reference_is_a_number_with_a_mark_anywhere(reference: str) -> None:
    assert value(f"add(1, 2), multiply({reference}, 2)") == 6.0


@pytest.mark.parametrize("reference", ["#1", "#2", "#-1", "#", "#x"])
def test_a_reference_to_no_earlier_step_is_invalid(reference: str) -> None:
    result = official_result(f"add(1, 2), multiply({reference}, 2)")
    assert result == OfficialResult(valid=False, value=3.0)


def test_yes_and_no_are_words_and_compare_and_join_as_words() -> None:
    steps = "greater(2, 1), greater(1, 2), "
    assert value(steps + "greater(#0, #1)") == "yes"
    assert value(steps + "greater(#1, #0)") == "no"
    assert value(steps + "add(#0, #1), add(1, 2)") == 3.0
    assert official_result(steps + "add(#0, #1)") == INVALID
    assert official_result(steps + "subtract(#0, #1), add(1, 2)").valid is False
    assert official_result("greater(2, 1), add(#0, 1)") == OfficialResult(valid=False, value="yes")


def test_a_complex_number_only_fails_where_it_is_compared_or_last() -> None:
    assert value("exp(-8, 0.5), add(4, 1)") == 5.0
    assert official_result("exp(-8, 0.5)") == INVALID
    assert official_result("exp(-8, 0.5), greater(#0, 1)").valid is False


@pytest.mark.parametrize("step", ["divide(1, 0)", "exp(10, 400)", "add($1, 2)", "exp(0, -1)"])
def test_an_error_in_an_unused_step_makes_the_program_invalid(step: str) -> None:
    assert official_result(f"{step}, add(1, 2)") == INVALID
    assert official_result(f"add(1, 2), {step}, add(1, 2)") == OfficialResult(False, 3.0)


def test_infinite_and_undefined_numbers_are_valid() -> None:
    assert value("multiply(1e300, 1e300)") == math.inf
    undefined = value("multiply(1e300, 1e300), subtract(#0, #0)")
    assert isinstance(undefined, float)
    assert math.isnan(undefined)


def test_results_are_rounded_to_five_digits() -> None:
    assert value("divide(1, 3)") == 0.33333
    assert value("divide(2, 3), multiply(#0, 3)") == 2.0


def test_table_steps_take_the_last_row_of_exactly_that_label() -> None:
    assert value("table_sum(net sales, none)") == 5827.0
    assert value("table_max( net sales , none)") == 5829.0
    assert value("table_sum(net sales, whatever)") == 5827.0
    assert value("table_average(net sales, none), divide(#0, const_100)") == 29.135
    assert value("table_min( , none)") == 2011.0
    assert value("table_sum(none at all, none)") == 0
    for row in ("Net sales", "sales", "loss", "nowhere"):
        assert official_result(f"table_sum({row}, none)", TABLE) == INVALID
    assert official_result("table_max(none at all, none)", TABLE) == INVALID


def test_a_reference_as_label_takes_the_row_of_the_last_table_step() -> None:
    assert value("table_sum(net sales, none), table_max(#0, none)") == 5829.0
    assert official_result("add(1, 2), table_max(#0, none)", TABLE).valid is False
    assert official_result("table_max(#0, none)", TABLE).valid is False


def test_a_row_without_cells_spoils_table_steps_alone() -> None:
    assert official_result("table_sum(a, none)", [["a", "1"], []]) == INVALID
    assert official_result("add(1, 2)", [["a", "1"], []]) == OfficialResult(True, 3.0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("93", 93.0),
        (" 93", 93.0),
        ("93\n", 93.0),
        ("93,", 93.0),
        ("93, ", 93.0),
        ("const_93", 93.0),
        ("9300%", 93.0),
        ("93.000004", 93.0),
        ("inf", math.inf),
        ("const_100", 100.0),
        ("-.5", -0.5),
    ],
)
def test_a_bare_number_computes_itself_in_convfinqa(text: str, number: float) -> None:
    assert official_result(text, bare_numbers=True) == OfficialResult(True, number)
    assert official_result(text).valid is False


@pytest.mark.parametrize("text", ["yes", "#0", "net sales", "$93", "add(", "add"])
def test_other_lone_tokens_are_invalid_in_convfinqa(text: str) -> None:
    assert official_result(text, TABLE, bare_numbers=True) == INVALID


def test_programs_and_nothing_read_alike_in_convfinqa() -> None:
    for text in ("add(1, 2)", "", "add(1, 2", "93, 94"):
        assert official_result(text, bare_numbers=True) == official_result(text)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        (
            "add(1, 2), minus(#0, 1)",
            12,
            "no operator 'minus(' at character 12; there are add, subtract, multiply, divide, "
            "exp, greater, table_max, table_min, table_sum, table_average",
        ),
        ("add(1, 2, 3)", 11, "'3' at character 11, where ')' has to close two arguments"),
        (
            "add(1, 2), add(exp(, 3)",
            12,
            "no step at character 12: '|add(|exp(|3|'; a step is op(arg, arg)",
        ),
    ],
)
def test_an_error_names_the_character(text: str, position: int, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse_program(text, strictness="official")
    assert (str(caught.value), vars(caught.value)) == (message, {"position": position})


@given(st.text("add(subtract,divide#0123const_m1 )%-.table_max(none)|", max_size=60))
def test_what_the_strict_reading_computes_the_official_one_does_too(text: str) -> None:
    official = official_result(text, TABLE)
    try:
        parsed = parse_program(text, strictness="official")
        strict = execute_program(parsed, TABLE)
    except ProgramError:
        return
    assert official == OfficialResult(True, strict)


def test_the_gold_programs_of_finqa_compute_their_gold_answers(real_data: Path) -> None:
    right = 0
    for name in ("train_100", "dev_200"):
        for row in json.loads((real_data / "finqa" / f"{name}.json").read_text()):
            result = official_result(row["qa"]["program"], row["table"])
            right += result.valid and result.value == row["qa"]["exe_ans"]
    assert right == 300


def test_the_gold_turns_of_convfinqa_compute_their_gold_answers(real_data: Path) -> None:
    data = json.loads((real_data / "convfinqa" / "gold_turns.json").read_text())
    right = bare = 0
    for turn in data["gold"]:
        table = data["tables"][turn["id"]]
        result = official_result(turn["gold_program"], table, bare_numbers=True)
        right += result.valid and result.value == turn["gold_answer"]
        bare += not official_result(turn["gold_program"], table).valid
    assert (right, bare, len(data["gold"])) == (1490, 487, 1490)
