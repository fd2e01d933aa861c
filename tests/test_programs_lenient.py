"""Programs as models write them: what is mended, what is told, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finqa_sft.errors import ProgramError
from finqa_sft.programs import Program, execute_program, parse_program

FLAT = "subtract(5, 4), divide(#0, 4)"
CALLS = "add(subtract,divide#0123const_m1 )%-.table_max(none)$\u2212`'\"=\n:;million[]"


def lenient(text: str) -> Program:
    return parse_program(text, strictness="lenient")


@pytest.mark.parametrize(
    ("text", "program", "repairs"),
    [
        (
            "divide(subtract(5, 4), 4)",
            FLAT,
            ("wrote steps within a step one after another",),
        ),
        (
            "divide(subtract(5, 4), add(1, multiply(2, 3)))",
            "subtract(5, 4), multiply(2, 3), add(1, #1), divide(#0, #2)",
            ("wrote steps within a step one after another",),
        ),
        ("add($5, US$ 4)", "add(5, 4)", ("read '$5' as 5", "read 'US$ 4' as 4")),
        ("add((5), ($4))", "add(-5, -4)", ("read '(5)' as -5", "read '($4)' as -4")),
        ("add((5%), (4)%)", "add(-5%, -4%)", ("read '(5%)' as -5%", "read '(4)%' as -4%")),
        (
            "add(5 million, 5.3 billion)",
            "add(5000000, 5300000000)",
            ("read '5 million' as 5000000", "read '5.3 billion' as 5300000000"),
        ),
        ("add(5 percent, 4)", "add(5%, 4)", ("read '5 percent' as 5%",)),
        (
            "add('5', \u201c4\u201d)",
            "add(5, 4)",
            ("read \"'5'\" as 5", "read '\u201c4\u201d' as 4"),
        ),
        ("add(\u22125, - 4)", "add(-5, -4)", ("read '\u22125' as -5", "read '- 4' as -4")),
        ("add(1,234, 5)", "add(1234, 5)", ("read '1,234' as 1234",)),
        (
            "add(# 0, CONST_M1)",
            "add(#0, const_m1)",
            ("read '# 0' as #0", "read 'CONST_M1' as const_m1"),
        ),
        (
            "add(const 100, constant_1,000)",
            "add(const_100, const_1000)",
            ("read 'const 100' as const_100", "read 'constant_1,000' as const_1000"),
        ),
        ("ADD (1, 2)", "add(1, 2)", ("wrote 'ADD (' as 'add('",)),
        ("`add(1, 2)`", "add(1, 2)", ("left out '`' in front", "left out '`' at the end")),
        (
            "```python\nadd(1, 2)\n```",
            "add(1, 2)",
            ("left out '```python' in front", "left out '```' at the end"),
        ),
        ("Program: add(1, 2)", "add(1, 2)", ("left out 'Program:' in front",)),
        (
            "The final answer is: add(1, 2).",
            "add(1, 2)",
            ("left out 'The final answer is:' in front", "left out '.' at the end"),
        ),
        (
            "subtract(5, 4) divide(#0, 4)",
            FLAT,
            ("put a comma between steps",),
        ),
        ("subtract(5, 4)\ndivide(#0, 4)", FLAT, ("put a comma between steps",)),
        (
            "['subtract(5, 4)', 'divide(#0, 4)']",
            FLAT,
            ('left out "[\'" in front', "put a comma between steps", 'left out "\']" at the end'),
        ),
        ("subtract(5, 4), divide(#0, 4", FLAT, ("closed the last step",)),
        ("subtract(5, 4), divide(#0, 4)), EOF", FLAT, ("left out '), EOF' at the end",)),
        (
            "subtract(5, 4) = 1, divide(#0, 4) = 0.25",
            FLAT,
            ("left out the result '= 1'", "left out the result '= 0.25'"),
        ),
        (
            "#0 = subtract(5, 4), #1 = divide(#0, 4)",
            FLAT,
            ("left out '#0 =' before a step", "left out '#1 =' before a step"),
        ),
        (
            "Step 0: subtract(5, 4); Step 1: divide(#0, 4)",
            FLAT,
            (
                "left out 'Step 0:' before a step",
                "put a comma between steps",
                "left out 'Step 1:' before a step",
            ),
        ),
        (
            "table_sum(income (loss))",
            "table_sum(income (loss), none)",
            ("gave table_sum its second argument, none",),
        ),
        (
            "table_sum(income (loss),None), add(#0, 1)",
            "table_sum(income (loss), none), add(#0, 1)",
            ("wrote ',None)' as ', none)'",),
        ),
        (
            "table_sum(Income, net",
            "table_sum(Income, net, none)",
            ("closed the last step", "gave table_sum its second argument, none"),
        ),
    ],
)
def test_near_misses_are_mended_and_told(text: str, program: str, repairs: tuple[str, ...]) -> None:
    found = lenient(text)
    assert (str(found), found.repairs) == (program, repairs)
    assert lenient(program) == found
    assert lenient(program).repairs == ()


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 1, "no step at character 1: ''; a step is op(arg, arg)"),
        (
            "I think that add(1, 2) is right",
            1,
            "no step at character 1: 'I think that add(1, 2) is righ'; a step is op(arg, arg)",
        ),
        (
            "add(1, 2) or subtract(2, 1)",
            11,
            "no step at character 11: 'or subtract(2, 1)'; a step is op(arg, arg)",
        ),
        (
            "add(1,234,567)",
            1,
            "add at character 1 takes two arguments, got 1: 'add(1,234,567)'",
        ),
        ("add(-(5), 4)", 1, "'-(5)' in the step at character 1 is no argument"),
        (
            "add(1, 2), divide(add(#0, 1), 3), add(#1, 2)",
            35,
            "'#1' in the step at character 35 can mean two steps, since steps stand within steps",
        ),
        (
            "#1 = add(1, 2), #2 = add(#1, 2)",
            1,
            "'#1 =' at character 1 stands before step 0; steps are counted from 0",
        ),
        (
            "add(add(1, 2) million, 3)",
            15,
            "'million, 3)' at character 15, where ',' or ')' has to follow a step within a step",
        ),
        ("add(" * 33 + "1", 129, "more than 32 steps within one another"),
        ("table_sum((a)\nb)", 1, "a row's label holds what a flat program cannot hold"),
    ],
)
def test_what_could_be_two_things_is_refused(text: str, position: int, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        lenient(text)
    assert (str(caught.value), vars(caught.value)) == (message, {"position": position})


def test_references_before_any_step_within_a_step_keep_their_meaning() -> None:
    text = "add(1, 2), divide(add(#0, 1), 3)"
    assert str(lenient(text)) == "add(1, 2), add(#0, 1), divide(#1, 3)"


def test_an_argument_that_nothing_is_known_of_stays() -> None:
    program = lenient("add(net sales, 5)")
    assert (str(program), program.repairs) == ("add(net sales, 5)", ())


@given(st.text(CALLS, max_size=60))
@example("table_sum(a, none), table_max(b), none)")
def test_a_lenient_reading_is_a_flat_program_that_reads_the_same_again(text: str) -> None:
    try:
        program = lenient(text)
    except ProgramError:
        return
    assert parse_program(str(program)) == program
    again = lenient(str(program))
    assert again == program
    assert again.repairs == ()


ARGUMENTS = st.sampled_from(
    ["5", "-5", "12.5%", "5 %", "const_100", "const_m1", "#0", "#1", ".5", "1e3", "\uff15", " 7 "]
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "divide", "greater"]), ARGUMENTS, ARGUMENTS), min_size=1
    )
)
def test_what_is_well_formed_is_not_repaired(steps: list[tuple[str, str, str]]) -> None:
    text = ", ".join(f"{op}({left}, {right})" for op, left, right in steps[:64])
    plain, found = parse_program(text), lenient(text)
    assert (found, found.repairs) == (plain, ())


@given(st.text(CALLS, max_size=60))
def test_no_repair_changes_what_was_valid(text: str) -> None:
    try:
        result = execute_program(parse_program(text))
    except ProgramError:
        return
    assert execute_program(lenient(text)) == result
    assert lenient(text).repairs == ()
