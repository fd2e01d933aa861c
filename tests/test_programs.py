"""Well-formed programs: what they compute, and what errors say."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.errors import ProgramError
from finqa_sft.programs import Program, Step, execute_program, parse_program

TABLE = [["", "2012", "2011"], ["net sales", "$ 5829", "5735"], ["loss", "(12)", "3 ( a )"]]

ARITHMETIC = ["add", "subtract", "multiply", "divide", "exp", "greater"]
ROW_OPERATORS = ["table_max", "table_min", "table_sum", "table_average"]
LITERALS = st.sampled_from(["5", "12.5%", "const_100", "const_m1", "-3", "#0", "#1", "net sales"])
LABELS = st.text("ab (),%", max_size=8).map(str.strip).filter(lambda label: ", none" not in label)
PROGRAMS = st.lists(
    st.builds(
        lambda op, left, right: Step(op, (left, right)),
        st.sampled_from(ARITHMETIC),
        LITERALS,
        LITERALS,
    )
    | st.builds(
        lambda op, label: Step(op, (label, "none")), st.sampled_from(ROW_OPERATORS), LABELS
    ),
    min_size=1,
    max_size=6,
).map(lambda steps: Program(tuple(steps)))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("subtract(5829, 5735), divide(#0, 5735)", 0.01639),
        ("multiply(249, const_1000), divide(#0, 49.9%)", 498997.99599),
        ("add(const_m1, 3)", 2.0),
        ("greater(3, 2)", "yes"),
        ("greater(2, 2)", "no"),
        ("exp(2, 10)", 1024.0),
        ("divide(1,234, 2)", None),
        ("table_average(net sales, none)", 5782.0),
        ("table_max(net sales, none), divide(#0, const_100)", 58.29),
        ("table_sum(loss, none)", None),
        ("table_sum(nowhere, none)", None),
        ("divide(1, 0)", None),
        ("exp(-8, 0.5)", None),
        ("exp(9, 999)", None),
        ("greater(1, 2), add(#0, 1)", None),
        ("add(#0, 1)", None),
        ("add(const_m15, 1)", None),
        ("add(const_5%, 1)", None),
        ("add(#\u00b2, 1)", None),
        ("exp(10, 308), multiply(#0, 100)", None),
        ("divide(1, inf)", None),
        ("greater(nan, 1)", None),
        ("subtract(12, 7", None),
        ("add(1, add(2, 3))", None),
        ("minus(1, 2)", None),
        ("", None),
        ("5829", None),
    ],
)
def test_programs_compute_what_their_language_says(text: str, result: float | str | None) -> None:
    if result is None:
        with pytest.raises(ProgramError):
            execute_program(parse_program(text), TABLE)
    else:
        assert execute_program(parse_program(text), TABLE) == result


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 1, "the program is empty; expected op(arg, arg)"),
        (
            "add(1, 2), divide(#0 3",
            11,
            "no step at character 11: ' divide(#0 3'; a step is op(arg, arg)",
        ),
        (
            "add(1, 2), minus(1, 2)",
            12,
            "no operator 'minus' at character 12; there are add, subtract, multiply, divide, exp, "
            "greater, table_max, table_min, table_sum, table_average",
        ),
        (
            "add(1, 2), add(1, 2, 3)",
            12,
            "add at character 12 takes two arguments, got 3: 'add(1, 2, 3)'",
        ),
        ("add(1, 2), " * 64 + "add(1, 2)", 705, "more than 64 steps"),
        ("add(1, 2)" + " " * 20_000, 20_001, "20009 characters; a program has at most 20000"),
    ],
)
def test_an_error_names_the_character(text: str, position: int, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    assert str(caught.value) == message
    assert vars(caught.value) == {"position": position}
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), vars(again)) == (message, {"position": position})


def test_a_step_that_cannot_be_computed_is_named_with_the_reason() -> None:
    with pytest.raises(ProgramError) as caught:
        execute_program(parse_program("add(1, 2), divide(#0, $5)"))
    assert str(caught.value) == "step 1 divide(#0, $5): '$5' is not a number"
    with pytest.raises(ProgramError) as caught:
        execute_program(Program(()))
    assert str(caught.value) == "the program has no step, and so no result"


def test_a_label_may_hold_parentheses_and_commas_but_no_step() -> None:
    program = parse_program("table_sum(income (loss), net, none), divide(#0, 2)")
    assert program.steps[0] == Step("table_sum", ("income (loss), net", "none"))
    program = parse_program("table_sum(sales, 2), table_max(loss (net), none)")
    assert [step.args[0] for step in program.steps] == ["sales", "loss (net)"]


def test_programs_of_equal_steps_are_equal_whatever_was_repaired() -> None:
    steps = (Step("add", ("1", "2")),)
    assert Program(steps) == Program(steps, repairs=("closed the last step",))
    assert len({Program(steps), Program(steps, repairs=("closed the last step",))}) == 1


@given(st.text("add(subtract,divide#0123const_m1 )%-.table_max(none)"))
def test_no_text_raises_anything_but_a_program_error(text: str) -> None:
    try:
        program = parse_program(text)
        execute_program(program, TABLE)
    except ProgramError:
        return
    assert parse_program(str(program)) == program


@given(PROGRAMS)
def test_a_program_as_text_is_that_program(program: Program) -> None:
    assert parse_program(str(program)) == program


def test_the_programs_of_finqa_compute_the_answers_of_finqa(real_data: Path) -> None:
    rows = [
        row
        for name in ("train_100", "dev_200")
        for row in json.loads((real_data / "finqa" / f"{name}.json").read_text())
    ]
    assert len(rows) == 300
    for row in rows:
        program = parse_program(row["qa"]["program"])
        assert execute_program(program, row["table"]) == row["qa"]["exe_ans"]
        assert str(program) == row["qa"]["program"]
