"""Scores of plain answers: as text, as numbers, and by shared words."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.metrics import AnswerScore, score_answer
from finqa_sft.metrics.numbers import written_number


def exact(answer: object, gold: object, scale: object = "", gold_scale: object = "") -> bool:
    return score_answer(answer, gold=gold, scale=scale, gold_scale=gold_scale).exact


def numeric(
    answer: object,
    gold: object,
    scale: object = "",
    gold_scale: object = "",
    tolerance: float = 0.0,
) -> bool:
    return score_answer(
        answer, gold=gold, tolerance=tolerance, scale=scale, gold_scale=gold_scale
    ).numeric


def test_an_answer_can_be_right_as_text_or_as_a_number() -> None:
    assert score_answer("Yes.", gold="yes") == AnswerScore(exact=True, numeric=False, f1=1.0)
    score = score_answer("0.142", gold="14.2%")
    assert score == AnswerScore(exact=False, numeric=True, f1=0.0)
    assert score.correct
    assert not score_answer("no", gold="yes").correct


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("The Net Sales.", "net sales"),
        ("\u201cnet  sales\u201d", "net\u00a0sales"),
        ("$ 1,234.50", "1234.5"),
        ("( 5 )", "-5"),
        ("14.2 %", "14.2%"),
        ("\u22125", "-5"),
        ("ＡＢＣ", "abc"),
        ("It came to -5; no more.", "it came to (5) no more"),
        ("a", "A"),
        ("4.9", "4.9\\n"),
        ("4.9", "4.9 \\\\n \\n"),
        ("3.2x", "3.2"),
    ],
)
def test_case_marks_articles_and_spelling_of_numbers_do_not_matter(answer: str, gold: str) -> None:
    assert exact(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"), [("14.2%", "14.2"), ("5", "-5"), ("sales net", "net sales"), ("", "x")]
)
def test_signs_percents_and_the_order_of_words_matter(answer: str, gold: str) -> None:
    assert not exact(answer, gold)


def test_the_same_text_in_another_scale_is_not_exact() -> None:
    assert exact("5", "5", "million", "million")
    assert not score_answer("5", gold="5", scale="million", gold_scale="thousand").correct
    assert exact("5", "5", None, "")


def test_spans_have_no_order() -> None:
    assert exact(["2019", "2018"], "2018 | 2019")
    assert exact("2019 | 2018", ["2018", "2019", ""])
    assert not exact(["2019", "2019"], "2018 | 2019")
    assert not exact("2019", "2018 | 2019")


@pytest.mark.parametrize(
    ("answer", "scale"),
    [
        ("14.2%", ""),
        ("14.2", "percent"),
        ("14.2%", "percent"),
        ("0.142", ""),
        (0.142, ""),
        (14.2, "percent"),
        ("14.2 percent", ""),
        ("about 14.2 per cent", ""),
        ("14.2%", "million"),
        ("14.2 percentage points", ""),
        ("14.2pp", ""),
        ("1,420 bps", ""),
        ("1420 basis points", ""),
    ],
)
def test_percent_is_a_hundredth_said_once(answer: object, scale: str) -> None:
    assert numeric(answer, "14.2%", scale)
    assert numeric(answer, "14.2", scale, "percent")
    assert numeric(answer, "0.142", scale)
    assert not numeric(answer, "14.2", scale)


@pytest.mark.parametrize(
    ("answer", "scale"),
    [
        ("$46.4 million", ""),
        ("46.4", "million"),
        ("46.4 million", "million"),
        ("46,400,000", ""),
        ("46,400", "thousand"),
        ("$0.0464 billions", ""),
        ("USD 46.4 million", ""),
        ("approximately US$ 46.4 million dollars", ""),
        (46400000, ""),
        ("4.64e7", ""),
        ("$46.4m", ""),
        ("46.4 mn", "thousand"),
        ("US$ 46.4 MM", ""),
        ("0.0464bn", ""),
        ("46,400k USD", ""),
    ],
)
def test_scales_are_multiplied_out(answer: object, scale: str) -> None:
    assert numeric(answer, "46.4", scale, "million")
    assert not numeric(answer, "46.4", scale, "thousand")


@pytest.mark.parametrize(
    "answer", ["(1,234)", "-1,234", "$ (1,234)", "($1,234)", "-$1,234", "$-1234", "(-1234)"]
)
def test_a_number_in_parentheses_is_negative(answer: str) -> None:
    assert numeric(answer, "-1234")
    assert not numeric(answer, "1234")


@pytest.mark.parametrize(
    "text",
    [
        *("", "sales", "5 of 6", "1,23", "--5", "-(5)", "(5", "5)", "5 million thousand", "5% %"),
        *("46.4 million in 2019", "nan", "inf", "#0", "1.2.3", "9" * 1001, "5 mm thousand"),
        *("1.234,56", "5-7", "31/12/2019", "2019-2020", "5 shares", "5 kb", "1 234"),
    ],
)
def test_a_text_that_is_not_one_number_is_none(text: str) -> None:
    assert written_number(text) is None


@pytest.mark.parametrize("value", [0.14212, 0.1415, 0.1425, 0.142])
def test_a_number_that_rounds_to_the_gold_one_is_the_same(value: float) -> None:
    assert numeric(value, "14.2%")
    assert numeric(value, "14.2", "", "percent")
    assert numeric(value * 1e9, 142, "", "million")


@pytest.mark.parametrize("value", [0.14149, 0.14251, -0.142])
def test_a_number_that_rounds_to_another_is_not(value: float) -> None:
    assert not numeric(value, "14.2%")


@pytest.mark.parametrize(
    ("answer", "gold", "is_same"),
    [
        ("1234.6", "1,235", True),
        ("49.6", "50", True),
        ("3.4", "3", False),
        ("2.97", "3", True),
        ("0.3", "0", False),
        ("0.0", "0", True),
        ("0.3%", "0%", True),
        ("46.4 million", "46 million", True),
        ("-0.4", "-0", False),
    ],
)
def test_what_rounds_to_a_plain_whole_number_has_to_be_near_it(
    answer: str, gold: str, is_same: bool
) -> None:
    assert numeric(answer, gold) == is_same


def test_how_exactly_the_prediction_is_written_does_not_matter() -> None:
    assert not numeric("14.2%", "14.21212%")
    assert not numeric("14%", "14.2%")
    assert not numeric("10", "12")


def test_the_tolerance_is_a_share_of_the_gold_number() -> None:
    assert numeric("101", "100.0", tolerance=0.01)
    assert not numeric("101.1", "100.0", tolerance=0.01)
    assert numeric("99", "100.0", tolerance=0.01)
    assert not numeric("0.06", "0.0", tolerance=0.01)


def test_the_default_tolerance_takes_results_that_programs_round() -> None:
    assert score_answer(0.14286, gold="0.142857142857").numeric
    assert not score_answer(0.14290, gold="0.142857142857").numeric


def test_the_unit_of_a_number_is_what_its_last_digit_counts() -> None:
    number = written_number("$46.4 million")
    assert number is not None
    assert (number.value, number.unit) == (Decimal(46_400_000), Decimal(100_000))


def test_f1_counts_shared_words() -> None:
    assert score_answer("net sales rose", gold="the net sales").f1 == 0.8
    assert score_answer("sales sales", gold="sales").f1 == pytest.approx(2 / 3)
    assert score_answer("", gold="sales").f1 == 0
    assert score_answer("5", gold="-5").f1 == 0


@pytest.mark.parametrize("answer", [None, {}, [], "", "  ", float("nan"), float("inf"), [None]])
def test_what_is_no_answer_scores_0(answer: object) -> None:
    assert score_answer(answer, gold="5") == AnswerScore(exact=False, numeric=False, f1=0.0)


def test_true_and_false_are_yes_and_no() -> None:
    assert exact(True, "yes")
    assert exact(False, "No")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
parts = st.sampled_from(
    [
        "5",
        ".",
        "-",
        "(",
        ")",
        "%",
        " ",
        "million",
        "the ",
        ",",
        "$",
        "e9",
        " | ",
        "9" * 400,
        "\ud800",
    ]
)
answers = json_values | st.lists(parts).map("".join)


@given(answer=answers, gold=answers, scale=json_values | st.sampled_from(["percent", "million"]))
def test_no_answer_raises_and_exact_implies_f1(answer: object, gold: object, scale: object) -> None:
    score = score_answer(answer, gold=gold, scale=scale)
    assert 0 <= score.f1 <= 1
    assert score.f1 == 1 or not score.exact


@given(answers)
def test_an_answer_is_itself(answer: object) -> None:
    score = score_answer(answer, gold=answer, tolerance=0)
    assert score.exact or score.f1 == 0


@given(st.integers(-(10**9), 10**9), st.integers(0, 6), st.integers(1, 4))
def test_a_number_equals_its_own_rounding(digits: int, places: int, kept: int) -> None:
    value = Decimal(digits).scaleb(-places)
    assert numeric(f"{value:f}", f"{round(value, kept):f}")


@pytest.mark.parametrize(
    "answer", [10**5000, "9" * 100_000, "(" * 100_000], ids=["int", "digits", "marks"]
)
def test_long_answers_take_no_time(answer: object) -> None:
    assert not score_answer(answer, gold="5").correct
