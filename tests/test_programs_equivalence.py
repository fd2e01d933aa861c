"""Whether two programs are the same up to algebra, with sympy as the judge."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finqa_sft.errors import ProgramError
from finqa_sft.programs import (
    Program,
    Step,
    equivalent_programs,
    matches_gold,
    official_result,
    parse_program,
)

OPERATORS = ("add", "subtract", "multiply", "divide")
SYMBOLS = {name: sympy.Symbol(f"x{name}") for name in ("2", "3", "5")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("add(1, 2)", "add(2, 1)"),
        ("multiply(1, 2)", "multiply(2, 1)"),
        (
            "subtract(5, 4), divide(#0, 4)",
            "divide(5, 4), divide(4, 4), subtract(#0, #1)",
        ),
        ("add(1, 2)", "add(1, 2), add(1, 1), subtract(#0, #1), add(#2, #1)"),
        ("add(1, 2)", "multiply(1, 1), add(1, 2)"),
        ("add(1, 2)", "add( 1 , 2\u00a0)"),
        ("add(1, 2)", "add(1, 2), exp(#0"),
        ("divide(5, 4)", "divide(5|4)"),
        ("divide(5, 4), add(#0, 4)", "divide(5, 4), add(##0, 4)"),
        (
            "divide(4, 4), divide(#0, 5)",
            "divide(4, 4), subtract(4, 4), subtract(#1, #0), exp(5, #2)",
        ),
        ("add(5, 4)", "divide(5, 5), add(5, 4), exp(#1, #0)"),
        ("divide(5, 5)", "subtract(5, 5), exp(4, #0)"),
        ("divide(5, 5)", "divide(4, 4), exp(#0, 5)"),
        ("multiply(5, 5)", "divide(5, 5), add(#0, #0), exp(5, #1)"),
        ("exp(5, 4)", "divide(4, 4), multiply(4, #0), exp(5, #1)"),
        ("greater(5, 4)", "add(5, 5), add(4, 4), greater(#0, #1)"),
        ("greater(5, 4)", "subtract(5, 4), subtract(4, 4), greater(#0, #1)"),
        (
            "table_sum(a, none), divide(#0, 4)",
            "table_sum(a, none), divide(#0, 4), add(#1, 4), subtract(#2, 4)",
        ),
        ("subtract(5, 5), divide(4, #0)", "subtract(5, 5), divide(4, #0)"),
        ("subtract(5, 5), divide(5, #0), add(#1, 4)", "subtract(5, 5), divide(5, #0), add(4, #1)"),
    ],
)
def test_equal_formulas_are_equivalent(one: str, other: str) -> None:
    assert equivalent_programs(one, other)
    assert equivalent_programs(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("subtract(1, 2)", "subtract(2, 1)"),
        ("divide(1, 2)", "divide(2, 1)"),
        ("add(5, 4)", "add(5.0, 4)"),
        ("add(const_100, 4)", "add(100, 4)"),
        ("add(5%, 4)", "add(0.05, 4)"),
        ("add(5, 4)", "add(+5, 4)"),
        ("divide(10, 5)", "divide(10, 5), multiply(#0, 1)"),
        ("divide(5, 5)", "add(1, 0)"),
        ("exp(5, 2)", "multiply(5, 5)"),
        ("exp(5, 4), divide(4, 4), divide(#1, 4), exp(#0, #2)", "add(5, 4), subtract(#0, 4)"),
        (
            "multiply(5, 5), divide(4, 4), add(#1, #1), divide(#1, #2), exp(#0, #3)",
            "add(5, 5), subtract(#0, 5)",
        ),
        ("greater(5, 4)", "greater(4, 5)"),
        ("greater(5, 4)", "multiply(5, 3), multiply(4, 3), greater(#0, #1)"),
        ("greater(5, 4)", "divide(5, 4), divide(4, 4), greater(#0, #1)"),
        ("greater(5, 4)", "greater(5, 5)"),
        ("greater(5, 4)", "subtract(5, 4)"),
        ("table_sum(a, none)", "table_max(a, none)"),
        ("table_sum(a, none)", "table_sum(b, none)"),
        ("table_sum(a, none)", "table_sum(a,  none)"),
        ("table_sum(a, none)", "table_sum( a, none)"),
        ("table_sum(a, none)", "table_sum(a, none), table_sum(a, none)"),
        ("table_sum(a, none), add(#0, 1)", "add(1, 1), table_sum(a, none), add(#1, 1)"),
        (
            "table_sum(a, none), table_sum(b, none), add(#0, #1)",
            "table_sum(b, none), table_sum(a, none), add(#0, #1)",
        ),
        ("subtract(5, 5), divide(4, #0)", "subtract(5, 5), divide(5, #0)"),
        ("add(1, 2)", "add(1, 2) "),
        ("93", "93"),
        ("", ""),
        ("add(1, #0)", "add(1, #0)"),
        ("add(1, #-1)", "add(1, #-1)"),
        ("no program", "no program"),
    ],
)
def test_other_formulas_are_not(one: str, other: str) -> None:
    assert not equivalent_programs(one, other)
    assert not equivalent_programs(other, one)
    assert not matches_gold(one, other)


def test_a_prediction_may_only_use_what_stands_in_the_gold_program() -> None:
    gold = "add(1, 2)"
    assert matches_gold("multiply(2, 1), add(2, 1)", gold)
    for unused in ("add(5, 6)", "table_sum(a, none)"):
        assert equivalent_programs(f"{unused}, add(1, 2)", gold)
        assert not matches_gold(f"{unused}, add(1, 2)", gold)
        assert matches_gold(gold, f"{unused}, add(1, 2)")
    assert not matches_gold("add(1, 2), add(#0, 5), subtract(#1, 5)", gold)


@pytest.mark.parametrize(
    ("predicted", "gold", "same"),
    [
        ("93", "93", True),
        ("93, ", "93", True),
        (" 93", "93", False),
        ("93.0", "93", False),
        ("add(93, 0)", "93", False),
        ("93", "add(93, 0)", False),
        ("add(0, 93)", "add(93, 0)", True),
    ],
)
def test_bare_numbers_match_by_their_token(predicted: str, gold: str, same: bool) -> None:
    assert matches_gold(predicted, gold, bare_numbers=True) == same


def test_plain_compares_well_formed_programs_wherever_table_steps_stand() -> None:
    one = "table_sum(a, none), table_sum(b, none), subtract(#0, #1)"
    other = "table_sum(b, none), table_sum(a, none), subtract(#1, #0)"
    assert equivalent_programs(one, other, strictness="plain")
    assert not equivalent_programs("add(5, 4)", "add(5.0, 4)", strictness="plain")
    assert equivalent_programs(parse_program(" add(5,4)"), "add(4, 5)", strictness="plain")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("add(const_100, 4)", "add(100.0, $4)"),
        ("multiply(4.35%, 4)", "multiply(0.0435, 4)"),
        ("divide(subtract(5, 4), 4)", "subtract(5, 4), divide(#0, 4)"),
        ("table_sum(a (b)), add(#0, -0)", "table_sum(a (b), none), add(#0, 0)"),
    ],
)
def test_lenient_shows_near_misses(one: str, other: str) -> None:
    assert equivalent_programs(one, other, strictness="lenient")
    assert not equivalent_programs(one, other)
    assert not equivalent_programs(one, "add(1, 2)", strictness="lenient")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("93", "no step at character 1: '93'; a step is op(arg, arg)"),
        ("add(1, #0)", "#0 in step 0 refers to no earlier step"),
    ],
)
def test_what_is_no_program_cannot_be_compared_but_officially(text: str, message: str) -> None:
    for strictness in ("plain", "lenient"):
        with pytest.raises(ProgramError) as caught:
            equivalent_programs("add(1, 2)", text, strictness=strictness)
        assert str(caught.value) == message
    assert not equivalent_programs("add(1, 2)", text)
    with pytest.raises(ProgramError, match=r"^the program has no step$"):
        equivalent_programs(Program(()), "add(1, 2)", strictness="plain")


@pytest.mark.parametrize(
    "step",
    [
        "multiply(#{0}, #{0})",
        "exp(#{0}, #{0})",
        "exp(5, #{0})",
        "divide(4, #{0})",
        "divide(#{0}, #{0})",
        "greater(#{0}, 4)",
    ],
)
@pytest.mark.parametrize("first", ["add(5, 4)", "divide(5, 5)", "subtract(5, 5)", "exp(5, 4)"])
def test_hostile_programs_end_at_once(first: str, step: str) -> None:
    program = ", ".join([first, *(step.format(index) for index in range(62))])
    start = time.process_time()
    assert equivalent_programs(f"{program}, greater(#62, 4)", f"{program}, greater(#62, 4)")
    assert time.process_time() - start < 1


def test_the_period_of_the_field_is_no_identity() -> None:
    squares = ", ".join(["multiply(5, 4)", *(f"multiply(#{i}, #{i})" for i in range(520))])
    assert equivalent_programs(squares, squares)
    assert not equivalent_programs(squares, "multiply(5, 4), divide(#0, 5), multiply(#1, 5)")
    assert not equivalent_programs(
        f"{squares}, multiply(#520, #520)", "multiply(5, 4), multiply(#0, #0)"
    )


@st.composite
def programs(draw: st.DrawFn, *, most: int = 6) -> Program:
    """A program whose last step rests on the one before it."""
    steps: list[Step] = []
    for index in range(draw(st.integers(1, most))):
        names = [*SYMBOLS, *(f"#{k}" for k in range(index))]
        args = [draw(st.sampled_from(names)), draw(st.sampled_from(names))]
        if index:
            args[draw(st.integers(0, 1))] = f"#{index - 1}"
        steps.append(Step(draw(st.sampled_from(OPERATORS)), (args[0], args[1])))
    return Program(tuple(steps))


def formula(program: Program) -> sympy.Expr:
    values: list[sympy.Expr] = []
    for step in program.steps:
        left, right = (
            values[int(arg[1:])] if arg.startswith("#") else SYMBOLS[arg] for arg in step.args
        )
        match step.op:
            case "add":
                value = left + right
            case "subtract":
                value = left - right
            case "multiply":
                value = left * right
            case _:
                assume(sympy.expand(sympy.numer(sympy.together(right))) != 0)
                value = left / right
        values.append(value)
    return values[-1]


@st.composite
def rewritten(draw: st.DrawFn, program: Program) -> Program:
    """The same formula in other steps."""
    steps: list[Step] = []
    new: dict[str, str] = {}

    def put(op: str, left: str, right: str) -> str:
        steps.append(Step(op, (left, right)))
        return f"#{len(steps) - 1}"

    for index, step in enumerate(program.steps):
        left, right = (new.get(arg, arg) for arg in step.args)
        way = draw(st.integers(0, 2))
        if way == 0:
            result = put(step.op, left, right)
        elif step.op in ("add", "multiply"):
            inverse = "subtract" if step.op == "add" else "divide"
            if way == 1:
                result = put(step.op, right, left)
            else:
                more = put(step.op, put(step.op, left, "2"), right)
                result = put(inverse, more, "2")
        elif step.op == "subtract":
            result = put("subtract", put("subtract", right, right), put("subtract", right, left))
        else:
            result = put("multiply", left, put("divide", put("divide", "3", right), "3"))
        new[f"#{index}"] = result
    return Program(tuple(steps))


@settings(deadline=None, max_examples=60)
@given(programs(), programs(most=3))
def test_programs_are_equivalent_where_sympy_says_so(one: Program, other: Program) -> None:
    same = sympy.cancel(sympy.together(formula(one) - formula(other))) == 0
    assert equivalent_programs(one, other) == same


@settings(deadline=None, max_examples=100)
@given(st.data(), programs(most=5))
def test_it_is_an_equivalence_relation(data: st.DataObject, one: Program) -> None:
    formula(one)
    second = data.draw(rewritten(one))
    third = data.draw(rewritten(second))
    for strictness in ("official", "plain", "lenient"):
        for left, right in itertools.product((one, second, third), repeat=2):
            assert equivalent_programs(left, right, strictness=strictness)
    other = data.draw(programs(most=3))
    found = {equivalent_programs(program, other) for program in (one, second, third)}
    found |= {equivalent_programs(other, program) for program in (one, second, third)}
    assert len(found) == 1


@settings(deadline=None)
@given(st.text("add(multiply,greater#012 )|exp", max_size=40), st.text("add(12 ,#)|", max_size=30))
def test_official_equivalence_of_any_two_texts_is_an_answer(one: str, other: str) -> None:
    assert equivalent_programs(one, other) == equivalent_programs(other, one)
    if equivalent_programs(one, other):
        assert equivalent_programs(one, one)
    if matches_gold(one, other):
        assert equivalent_programs(one, other)


def test_gold_programs_of_the_same_numbers_are_judged_as_by_sympy(real_data: Path) -> None:
    golds = {turn["gold_program"] for turn in gold_turns(real_data) if "(" in turn["gold_program"]}
    for name in ("train_100", "dev_200"):
        rows = json.loads((real_data / "finqa" / f"{name}.json").read_text())
        golds |= {row["qa"]["program"] for row in rows}
    assert len(golds) == 983
    assert all(equivalent_programs(gold, gold) and matches_gold(gold, gold) for gold in golds)
    groups: dict[frozenset[str], list[Program]] = {}
    for gold in sorted(golds):
        program = parse_program(gold)
        if not any(step.op.startswith(("table", "greater", "exp")) for step in program.steps):
            names = frozenset(a for step in program.steps for a in step.args if a[0] != "#")
            groups.setdefault(names, []).append(program)
    pairs = [pair for group in groups.values() for pair in itertools.combinations(group, 2)]
    same = [pair for pair in pairs if equivalent_programs(*pair)]
    assert (len(pairs), len(same)) == (246, 2)
    for one, other in pairs:
        difference = symbolic(one) - symbolic(other)
        is_zero = sympy.cancel(sympy.together(difference)) == 0
        assert is_zero == ((one, other) in same), f"{one} | {other}"


def symbolic(program: Program) -> sympy.Expr:
    values: list[sympy.Expr] = []
    ways = {"add": "__add__", "subtract": "__sub__", "multiply": "__mul__", "divide": "__truediv__"}
    for step in program.steps:
        left, right = (
            values[int(a[1:])] if a.startswith("#") else sympy.Symbol(f"n{a}") for a in step.args
        )
        values.append(getattr(left, ways[step.op])(right))
    return values[-1]


def gold_turns(real_data: Path) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = json.loads(
        (real_data / "convfinqa" / "gold_turns.json").read_text()
    )["gold"]
    return turns


def test_the_gold_turns_match_themselves(real_data: Path) -> None:
    turns = gold_turns(real_data)
    assert sum(
        matches_gold(turn["gold_program"], turn["gold_program"], bare_numbers=True)
        for turn in turns
    ) == len(turns)
    assert official_result("93", bare_numbers=True).valid
