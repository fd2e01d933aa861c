"""FinQA's and ConvFinQA's official scores, rule by rule, and on the real gold labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.metrics import FinQAScore, score_convfinqa, score_finqa
from finqa_sft.programs.official import official_tokens

TABLE = [
    ["", "2012", "2011"],
    ["sales", "30", "10"],
    ["sales, net", "7", "8"],
    ["fees", "5%", "n/m"],
]
GOLD = "subtract(5829, 5735), divide(#0, 5735)"
ABORTS = (
    "the official script ends here with an AssertionError: the program equals the gold one, but "
    "its result does not"
)
RIGHT = (True, True, True)
ONLY_RESULT = (True, True, False)
ONLY_VALID = (True, False, False)
INVALID = (False, False, False)


def scored(
    predicted: object, gold: str, executed: float | str, *, turn: bool = False
) -> tuple[bool, bool, bool]:
    """Valid, execution and program, of a score without a note."""
    scorer = score_convfinqa if turn else score_finqa
    score = scorer(predicted, program=gold, executed=executed, table=TABLE)
    assert score.note == ""
    return score.valid, score.execution, score.program


def test_the_gold_program_is_right_and_its_result_is_given() -> None:
    score = score_finqa(GOLD, program=GOLD, executed=0.01639, table=TABLE)
    assert score == FinQAScore(valid=True, result=0.01639, execution=True, program=True)


def test_an_unclosed_last_step_is_dropped() -> None:
    assert scored("divide(4, 2), add(#0", "divide(4, 2)", 2) == RIGHT


@pytest.mark.parametrize("text", ["", "add(", "divide(1, 2"])
def test_a_program_without_a_complete_step_is_valid_and_has_no_result(text: str) -> None:
    assert scored(text, "divide(4, 2)", 2) == ONLY_VALID


@pytest.mark.parametrize(
    "text",
    [
        "add(4, 2), ",
        ", add(4, 2)",
        "add(4, , 2)",
        "add( 4\t,  2\u00a0)",
        "add(4|2)",
        "add(4|2, junk)",
    ],
)
def test_these_slips_do_not_matter(text: str) -> None:
    assert scored(text, "add(4, 2)", 6) == RIGHT


def test_a_missing_comma_between_steps_does_not_matter() -> None:
    assert scored(GOLD.replace("), ", ")"), GOLD, 0.01639) == RIGHT


@pytest.mark.parametrize(
    "text",
    [" add(4, 2)", "add(4, 2) ", "add (4, 2)", "add(4, 2),\nadd(4, 2)", "add(4, 2),  add(4, 2)"],
)
def test_white_space_around_steps_makes_a_program_invalid(text: str) -> None:
    assert scored(text, "add(4, 2)", 6) == INVALID


def test_a_comma_without_a_space_makes_a_program_invalid() -> None:
    assert scored("add(4,2)", "add(4, 2)", 6)[0] is False


@pytest.mark.parametrize(
    "literal",
    [
        *(
            "1,000",
            "1_000",
            "+1000",
            "1000.",
            "1e3",
            "１０００",
            "١٠٠٠",
            "const_1000",
            "1000const_",
        ),
        *("const_const_1000", "const_1,000", "%100000", "100000%%", "100000 %"),
    ],
)
def test_other_spellings_of_a_number_compute_the_same_but_are_another_program(literal: str) -> None:
    assert scored(f"add({literal}, 2)", "add(1000, 2)", 1002) == ONLY_RESULT


@pytest.mark.parametrize(
    "literal", ["const_5%", "const_m2", "CONST_5", "const5", "$5", "(5)", "- 5", "\u22125", "5m"]
)
def test_other_literals_are_invalid(literal: str) -> None:
    assert scored(f"add({literal}, 2)", "add(5, 2)", 7) == INVALID


@pytest.mark.parametrize("reference", ["#00", "##0", "0#", "# 0", "#+0"])
def test_a_reference_is_any_text_with_a_number_sign_and_a_number(reference: str) -> None:
    assert scored(GOLD.replace("#0", reference), GOLD, 0.01639) == RIGHT


@pytest.mark.parametrize("reference", ["#1", "#7"])
def test_a_reference_to_no_earlier_step_is_invalid(reference: str) -> None:
    assert scored(GOLD.replace("#0", reference), GOLD, 0.01639) == INVALID


def test_greater_gives_yes_or_no_and_a_tie_is_no() -> None:
    assert scored("greater(2, 1)", "greater(2, 1)", "yes") == RIGHT
    assert scored("greater(1, 1)", "greater(2, 1)", "no") == ONLY_RESULT


def test_yes_and_no_are_words_in_later_steps() -> None:
    both = "greater(2, 1), greater(1, 2), "
    assert scored(both + "greater(#0, #1)", "greater(2, 1)", "yes") == ONLY_RESULT
    assert scored(both + "add(#0, #1)", "greater(2, 1)", "yes") == INVALID
    assert scored(both + "add(#0, #1), add(1, 2)", "add(1, 2)", 3) == RIGHT


def test_a_complex_number_on_the_way_is_valid() -> None:
    assert scored("exp(-8, 0.5), add(4, 1)", "add(4, 1)", 5) == ONLY_RESULT
    assert scored("exp(-8, 0.5)", "add(4, 1)", 5) == INVALID


def test_an_error_in_an_unused_step_makes_all_invalid() -> None:
    assert scored("divide(1, 0), add(4, 1)", "add(4, 1)", 5) == INVALID
    assert scored("exp(10, 999), add(4, 1)", "add(4, 1)", 5) == INVALID


def test_infinities_and_nan_are_valid() -> None:
    assert scored("multiply(1e300, 1e300)", "add(4, 1)", 5) == ONLY_VALID
    assert scored("subtract(inf, inf)", "add(4, 1)", 5) == ONLY_VALID


def test_there_is_no_tolerance() -> None:
    assert scored("divide(47, 2867.5)", GOLD, 0.01639) == ONLY_RESULT
    assert scored("divide(47, 2866)", GOLD, 0.01639) == ONLY_VALID
    assert scored("multiply(0.01639, 100)", GOLD, 0.01639) == ONLY_VALID
    assert scored("subtract(0, 0.01639)", GOLD, 0.01639) == ONLY_VALID


@pytest.mark.parametrize(
    ("predicted", "gold", "executed"),
    [
        ("add(2, 1)", "add(1, 2)", 3),
        ("divide(5829, 5735), divide(5735, 5735), subtract(#0, #1)", GOLD, 0.01639),
        ("add(3, 3), divide(#0, #0), exp(3, #1)", "add(3, 0), subtract(#0, 0)", 3),
        ("add(2, 2), add(1, 1), greater(#0, #1)", "greater(2, 1)", "yes"),
    ],
)
def test_programs_are_compared_up_to_algebra(
    predicted: str, gold: str, executed: float | str
) -> None:
    assert scored(predicted, gold, executed) == RIGHT


@pytest.mark.parametrize(
    ("predicted", "gold", "executed"),
    [
        ("add(1.0, 2)", "add(1, 2)", 3),
        ("multiply(7, 100)", "multiply(7, const_100)", 700),
        ("exp(3, 2)", "multiply(3, 3), add(#0, 2), subtract(#0, 2)", 9),
        ("divide(1, 1), multiply(4, #0)", "multiply(4, 4), divide(1, 2), exp(#0, #1)", 4),
        ("greater(4, 1)", "greater(2, 1)", "yes"),
    ],
)
def test_literals_are_symbols_in_that_comparison(
    predicted: str, gold: str, executed: float | str
) -> None:
    assert scored(predicted, gold, executed) == ONLY_RESULT


def test_table_steps_are_looked_up_and_compared_as_text() -> None:
    gold = "table_sum(sales, none)"
    assert scored(gold, gold, 40) == RIGHT
    assert scored("table_sum(sales,  none)", gold, 40) == ONLY_RESULT
    assert scored("table_sum( sales, none)", gold, 40) == ONLY_RESULT
    assert scored("table_sum(sales, x)", gold, 40) == ONLY_RESULT
    assert scored("table_sum(fees, none)", gold, 40) == INVALID
    assert scored("table_sum(costs, none)", gold, 40) == INVALID


def test_where_a_table_step_stands_matters_to_the_program() -> None:
    gold = "table_max(sales, none), table_min(sales, none), subtract(#0, #1)"
    swapped = "table_min(sales, none), table_max(sales, none), subtract(#1, #0)"
    assert scored(gold, gold, 20) == RIGHT
    assert scored(swapped, gold, 20) == ONLY_RESULT
    gold = "table_sum(sales, none)"
    assert scored(f"{gold}, {gold}", gold, 40) == ONLY_RESULT
    assert scored(f"add(1, 2), {gold}", gold, 40) == ONLY_RESULT


def test_an_invalid_program_can_be_the_gold_program() -> None:
    gold = "add(5, 2), divide(5, 0), add(5, 2)"
    assert scored("add(5, 2), divide(5, 0), add(2, 5)", gold, 7) == (False, False, True)
    assert scored("add(5, 2), divide(5, 0), add(2, 5)", gold, 7, turn=True) == INVALID


@pytest.mark.parametrize("turn", [False, True])
def test_where_the_official_script_fails_an_assertion_the_score_is_0_and_says_so(
    turn: bool,
) -> None:
    scorer = score_convfinqa if turn else score_finqa
    score = scorer("add(5, 2)", program="add(2, 5)", executed=8, table=TABLE)
    assert score == FinQAScore(True, 7, execution=False, program=False, note=ABORTS)


def test_a_gold_program_with_an_unused_division_by_zero_aborts_finqa_only() -> None:
    gold, predicted = "add(5, 0)", "divide(5, 0), add(5, 0)"
    score = score_finqa(predicted, program=gold, executed=5, table=TABLE)
    assert score == FinQAScore(False, None, execution=False, program=False, note=ABORTS)
    assert scored(predicted, gold, 5, turn=True) == INVALID


def test_tokens_are_taken_as_they_are_given() -> None:
    tokens = [*official_tokens(GOLD), "EOF"]
    assert scored(tokens, GOLD, 0.01639) == RIGHT
    assert scored(tuple(tokens), GOLD, 0.01639) == RIGHT
    # The script removes the last token, whatever it is.
    assert scored(["add(", "5", "2", ")", "add(", "#0", "1", ")"], "add(5, 2)", 7) == RIGHT
    assert scored(["add(5, 2)", "EOF"], "add(5, 2)", 7) == INVALID
    assert scored(["add(", "5", "2)", "EOF"], "add(5, 2)", 7) == RIGHT
    assert scored(["add(", "5, ", "2", ")", "EOF"], "add(5, 2)", 7) == ONLY_RESULT
    assert scored(["add(", "5", "2(1", "EOF"], "add(5, 2)", 7) == ONLY_VALID
    assert scored([], GOLD, 0.01639) == scored(["EOF"], GOLD, 0.01639) == ONLY_VALID


def test_a_label_with_a_comma_works_as_a_token_and_not_as_text() -> None:
    tokens = ["table_sum(", "sales, net", "none", ")", "EOF"]
    assert scored(tokens, "add(7, 8)", 15) == ONLY_RESULT
    assert scored("table_sum(sales, net, none)", "add(7, 8)", 15) == INVALID


@pytest.mark.parametrize("number", ["93", " 93", "93\n", "93,", "const_93", "9300%", "93.000004"])
def test_a_turn_that_picks_a_number_takes_every_spelling_of_it(number: str) -> None:
    is_same_token = number == "93"
    assert scored(number, "93", 93, turn=True) == (True, True, is_same_token)
    assert scored([number, "EOF"], "93", 93, turn=True) == (True, True, is_same_token)


def test_only_the_separator_behind_a_lone_number_is_no_part_of_it() -> None:
    assert scored("93, ", "93", 93, turn=True) == RIGHT


@pytest.mark.parametrize("number", ["inf", "nan", "const_100"])
def test_these_lone_numbers_are_valid(number: str) -> None:
    assert scored(number, "93", 93, turn=True) == ONLY_VALID


@pytest.mark.parametrize("text", ["yes", "#0", "sales", "93 million", "$ 93"])
def test_other_lone_tokens_are_invalid(text: str) -> None:
    assert scored(text, "93", 93, turn=True) == INVALID


def test_a_number_is_no_program_where_one_is_expected_and_a_program_no_number() -> None:
    assert scored("7", "add(5, 2)", 7, turn=True) == ONLY_RESULT
    assert scored("add(93, 0)", "93", 93, turn=True) == ONLY_RESULT
    assert scored("7", "add(5, 2)", 7) == INVALID


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
parts = st.sampled_from([*official_tokens(GOLD), ", ", "|", "#", "%", "add(", "1e999", "9" * 5000])


@pytest.mark.parametrize("scorer", [score_finqa, score_convfinqa])
@given(predicted=json_values | st.lists(parts).map("".join) | st.lists(parts))
def test_no_prediction_raises(scorer: type, predicted: object) -> None:
    score = scorer(predicted, program=GOLD, executed=0.01639, table=TABLE)
    assert score.valid or not score.execution


@pytest.mark.parametrize(
    "predicted", [None, True, 93, 10**5000, {"program": GOLD}, float("nan")], ids=type
)
def test_other_values_are_no_program_and_the_note_says_so(predicted: object) -> None:
    score = score_convfinqa(predicted, program="93", executed=93, table=TABLE)
    note = "no program: neither text nor a list of tokens"
    assert score == FinQAScore(False, None, False, False, note=note)


@pytest.mark.parametrize("file", ["train_100.json", "dev_200.json"])
def test_finqas_gold_programs_score_100(file: str, real_data: Path) -> None:
    rows = json.loads((real_data / "finqa" / file).read_text("utf-8"))
    for row in rows:
        gold, executed = row["qa"]["program"], row["qa"]["exe_ans"]
        for predicted in (gold, [*official_tokens(gold), "EOF"]):
            score = score_finqa(predicted, program=gold, executed=executed, table=row["table"])
            assert (score.execution, score.program, score.note) == (True, True, ""), row["id"]


def test_convfinqas_gold_turns_score_100(real_data: Path) -> None:
    turns = json.loads((real_data / "convfinqa" / "gold_turns.json").read_text("utf-8"))
    assert len(turns["gold"]) == 1490
    for turn in turns["gold"]:
        gold, table = turn["gold_program"], turns["tables"][turn["id"]]
        score = score_convfinqa(gold, program=gold, executed=turn["gold_answer"], table=table)
        assert (score.execution, score.program, score.note) == (True, True, ""), turn
