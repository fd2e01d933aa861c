from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.errors import ProgramError
from finqa_sft.programs import execute_program, parse_program

TABLE = [["", "2012", "2011"], ["net sales", "$ 5829", "5735"], ["loss", "(12)", "3 ( a )"]]


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
        ("greater(1, 2), add(#0, 1)", None),
        ("add(#0, 1)", None),
        ("exp(10, 308), multiply(#0, 100)", None),
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


@given(st.text("add(subtract,divide#0123const_m1 )%-.table_max(none)"))
def test_no_text_raises_anything_but_a_program_error(text: str) -> None:
    try:
        program = parse_program(text)
        execute_program(program, TABLE)
    except ProgramError:
        return
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
