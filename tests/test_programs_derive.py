"""Programs from analysts' derivations."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import pytest

from finqa_sft.documents import Scale
from finqa_sft.programs import (
    DerivationError,
    derivation_problem,
    derived_program,
    execute_program,
    official_result,
    parse_program,
)


@pytest.mark.parametrize(
    ("derivation", "answer", "scale", "program"),
    [
        ("44.1-56.7", -12.6, "million", "subtract(44.1, 56.7)"),
        (
            "(680-774)/774",
            -12.14,
            "percent",
            "subtract(680, 774), divide(#0, 774), multiply(#1, const_100)",
        ),
        ("4.00 - 1.90 ", 2.1, "percent", "subtract(4.00, 1.90)"),
        (
            "(1.7%+1.5%+1.5%)/3",
            1.57,
            "percent",
            "add(1.7%, 1.5%), add(#0, 1.5%), divide(#1, 3), multiply(#2, const_100)",
        ),
        (
            "-(5,062 + 6,533 + 18,494) / 3",
            -10029.67,
            "thousand",
            "add(5062, 6533), add(#0, 18494), multiply(#1, const_m1), divide(#2, 3)",
        ),
        ("-114 - (71)", -43, "million", "subtract(-114, -71)"),
        (
            "60.3 million + 32,137 thousand",
            92437,
            "thousand",
            "multiply(60.3, const_1000000), multiply(32137, const_1000), add(#0, #1), "
            "divide(#2, const_1000)",
        ),
        ("5 million + 1", 5_000_001, "", "multiply(5, const_1000000), add(#0, 1)"),
        ("21.0% - 21.0%", 0, "percent", "subtract(21.0%, 21.0%)"),
        ("1/3", 0.3333, "", "divide(1, 3)"),
        ("10/4", 2.5, "", "divide(10, 4)"),
        ("1/8", 0.13, "", "divide(1, 8)"),
    ],
)
def test_a_derivation_gives_the_answer_in_the_unit_of_its_scale(
    derivation: str, answer: float, scale: Scale, program: str
) -> None:
    found = derived_program(derivation, answer=answer, scale=scale)
    assert str(found) == program
    assert parse_program(program) == found
    assert derivation_problem(derivation, answer=answer, scale=scale) is None
    assert official_result(program).value == execute_program(found)


@pytest.mark.parametrize(
    ("derivation", "answer", "scale", "reason", "message"),
    [
        ("", 5, "", "the derivation is no arithmetic", ": ''"),
        ("5", 5, "", "the derivation is no arithmetic", ": '5'"),
        ("2019##2018", 2, "", "the derivation is no arithmetic", ": '2019##2018'"),
        ("592>519", 5, "", "the derivation is no arithmetic", ": '592>519'"),
        (
            "locate net income in row 5",
            5,
            "",
            "the derivation is no arithmetic",
            ": 'locate net income in row 5'",
        ),
        (
            "(5 - 4",
            1,
            "",
            "the derivation cannot be parsed",
            ": the end at character 7; expected ')'",
        ),
        (
            "5 / (3 - 3)",
            1,
            "",
            "the derivation cannot be computed",
            ": step 1 divide(5, #0): float division by zero",
        ),
        (
            "774-680",
            -94,
            "million",
            "the derivation computes the answer with the other sign",
            ": 94.0 in place of -94",
        ),
        (
            "(774-680)/774",
            -12.14,
            "percent",
            "the derivation computes the answer with the other sign",
            ": 0.12145 in place of -12.14",
        ),
        (
            "(680-774)/774",
            -12.14,
            "million",
            "the derivation computes another value",
            ": -0.12145 in place of -12.14",
        ),
        (
            "10/4",
            2.51,
            "",
            "the derivation computes another value",
            ": 2.5 in place of 2.51",
        ),
        (
            "10/4",
            3,
            "",
            "the derivation computes another value",
            ": 2.5 in place of 3",
        ),
        (
            "1/3",
            0.3334,
            "",
            "the derivation computes another value",
            ": 0.33333 in place of 0.3334",
        ),
        ("5 - 4", float("nan"), "", "the answer is no number", ": nan"),
    ],
)
def test_a_derivation_of_anything_else_is_refused_and_counted_by_reason(
    derivation: str, answer: float, scale: Scale, reason: str, message: str
) -> None:
    with pytest.raises(DerivationError) as caught:
        derived_program(derivation, answer=answer, scale=scale)
    assert (str(caught.value), caught.value.reason) == (reason + message, reason)
    assert derivation_problem(derivation, answer=answer, scale=scale) == reason
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (reason + message, reason)


def test_no_derivation_and_answers_in_words_have_their_reasons() -> None:
    assert derivation_problem(None, answer=5, scale="") == "the derivation is no arithmetic"
    assert derivation_problem("5 - 4", answer=None, scale="") == "the answer is no number"
    assert derivation_problem("5 - 4", answer="yes", scale="") == "the answer is no number"


def test_all_derivations_of_the_real_arithmetic_questions_give_programs(real_data: Path) -> None:
    contexts = json.loads((real_data / "tatqa" / "dev.json").read_text(encoding="utf-8"))
    asked = [question for context in contexts for question in context["questions"]]
    reasons: Counter[tuple[str, str | None]] = Counter()
    for question in asked:
        kind, scale = question["answer_type"], question["scale"]
        if kind not in ("arithmetic", "count"):
            continue
        answer = float(question["answer"])
        problem = derivation_problem(question["derivation"], answer=answer, scale=scale)
        reasons[kind, problem] += 1
        if problem is None:
            program = derived_program(question["derivation"], answer=answer, scale=scale)
            value = execute_program(parse_program(str(program)))
            assert isinstance(value, float)
            assert abs(value - answer) <= 0.00501
            assert official_result(str(program)).value == value
    assert reasons == {
        ("arithmetic", None): 718,
        ("count", "the derivation is no arithmetic"): 32,
    }
