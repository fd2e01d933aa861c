"""TAT-QA's official scores, rule by rule, and on the real gold answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.metrics import TatQAScore, score_tatqa

NONE_RIGHT = (0.0, 0.0, 0.0)


def scored(
    answer: object, gold: object, scale: object = "", gold_scale: str = "", kind: str = ""
) -> tuple[float, float, float]:
    """Exact match, F1 and scale, of a score without a note."""
    score = given_score(answer, gold, scale, gold_scale, kind)
    assert score.note == ""
    assert (score.em_with_zero, score.f1_with_zero) == (score.em, score.f1)
    return score.em, score.f1, score.scale


def given_score(
    answer: object, gold: object, scale: object = "", gold_scale: str = "", kind: str = ""
) -> TatQAScore:
    kind = kind or ("arithmetic" if isinstance(gold, int | float) else "span")
    return score_tatqa(answer, scale, gold_answer=gold, gold_scale=gold_scale, answer_type=kind)


def em(answer: object, gold: object, scale: object = "", gold_scale: str = "") -> float:
    return scored(answer, gold, scale, gold_scale)[0]


def test_case_articles_and_punctuation_do_not_matter() -> None:
    assert scored("the Net-Sales,  of A company", ["netsales of company"]) == (1, 1, 1)


def test_f1_is_that_of_the_sets_of_words() -> None:
    assert scored("net sales sales", ["net sales in total"]) == (0, 0.67, 1)
    assert scored("costs", ["net sales"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("size", "gold", "common", "expected"),
    [(21, 59, 7, 0.18), (22, 58, 1, 0.02), (5, 11, 1, 0.13), (7, 9, 5, 0.63)],
)
def test_f1_is_rounded_to_2_digits_as_numpy_rounds(
    size: int, gold: int, common: int, expected: float
) -> None:
    words = [f"w{n}" for n in range(size - common + gold)]
    precision, recall = common / size, common / gold
    rounded = np.round(2 * precision * recall / (precision + recall), 2)
    _, found, _ = scored(" ".join(words[:size]), [" ".join(words[size - common :])])
    assert found == rounded == expected


def test_f1_of_arithmetic_and_count_is_the_exact_match() -> None:
    assert scored("12.5 in total", 12.5) == (0, 0, 1)
    assert scored("12.5 in total", ["12.5 in all"]) == (0, 0.67, 1)
    assert scored("5.0 in total", "5", kind="count") == (0, 0, 1)
    assert scored("5.0", "5", kind="count") == (1, 1, 1)


def test_numbers_are_rounded_to_2_digits_before_the_scale_is_applied() -> None:
    assert em("12.346", 12.35)
    assert em("12.346", 12.35, "million", "million")
    assert not em("12.34", 12.35, "million", "million")
    assert em("12350", 12.35, "thousand", "million")
    # First to 4 digits, which gives 12.345.
    assert em("12.344996", 12.35)


@pytest.mark.parametrize("answer", ["23.42", "23.42%", 23.42])
def test_percent_counts_in_hundredths(answer: object) -> None:
    assert scored(answer, 23.42, "percent", "percent") == (1, 1, 1)


def test_a_fraction_is_read_as_percent_where_no_scale_is_given() -> None:
    assert scored("0.2342", 23.42, "", "percent") == (1, 1, 0)
    assert scored("23.42%", 23.42, "", "percent") == (1, 1, 0)
    assert scored("23.42", 23.42, "", "percent") == (0, 0, 0)
    assert scored("0.2342", 23.42, "thousand", "percent") == (0, 0, 0)
    assert em("0.23424", 23.42, "", "percent")
    assert not em("0.23426", 23.42, "", "percent")


def test_a_number_in_parentheses_is_negative_without_comma_only() -> None:
    assert em("(5062)", -5062)
    assert em("(5,062)", 5062)
    assert not em("(5,062)", -5062)
    assert em("5,062", ["(5,062)"])
    assert not em("-5,062", ["(5,062)"])
    assert em("($5062)", 5062)
    assert em("(5", 5)
    assert em("-(5)", 5)
    assert em("(-5)", -5)


def test_a_percentage_in_parentheses_is_no_percentage_or_not_negative() -> None:
    assert em("(5%)", 5, "", "percent")
    assert em("(5)%", -5)
    assert not em("(5)%", -5, "percent", "percent")


def test_a_percent_sign_makes_the_scale_not_matter() -> None:
    assert scored("13%", ["13.0%"], "billion") == (1, 1, 0)
    assert em("%13", 13)


@pytest.mark.parametrize(
    ("answer", "read"), [("1e5", 1), (2e17, 2), (8e-05, 8), ("1_000", 1), ("2.5E-3", 2.5)]
)
def test_of_a_number_with_an_exponent_only_the_digits_before_it_are_read(
    answer: object, read: float
) -> None:
    assert em(answer, read)


def test_a_number_that_begins_with_a_point_is_the_word_none() -> None:
    assert not em(".18", 0.18)
    assert not em("-.5", -0.5)
    assert em(".18", ["inf"])
    assert em("infinity", [".5"])


@pytest.mark.parametrize(
    "answer",
    ["$46.4 million in 2019", "46.4 million", "46.4 millions", "$46.4\u00a0million", "46400000"],
)
def test_the_first_two_words_of_a_number_decide(answer: str) -> None:
    assert em(answer, 46.4, "", "million")


@pytest.mark.parametrize(
    "answer",
    ["46.4 in 2019", "approximately 46.4", "US$46.4", "46.4 USD", "46.4m", "46.4million"],
)
def test_other_words_make_a_number_text(answer: str) -> None:
    assert not em(answer, 46.4)
    assert not em(answer, 46.4, "million", "million")


def test_two_spaces_or_a_comma_before_the_word_hide_it() -> None:
    assert not em("$46.4  million", 46.4, "", "million")
    assert not em("$46.4, million", 46.4, "", "million")


def test_words_of_scales_are_found_within_words() -> None:
    assert em("5 hundredths", 500)
    assert em("19 percentage points", 0.19)
    assert scored("5", 5, "MILLION", "million") == (1, 1, 0)
    assert scored("5", 5, "in thousands", "thousand") == (1, 1, 0)
    assert scored("5", 5, "percent percent", "percent") == (1, 1, 0)
    assert em("5", 5, "thousand million", "thousand")
    assert em("5", 500, "hundred thousand", "")


@pytest.mark.parametrize("answer", ["- 12.5", "= 12.5", "* 12.5", "12.5 !"])
def test_marks_beside_a_number_drop_out_even_its_sign(answer: str) -> None:
    assert em(answer, 12.5)
    assert not em(answer, 12.5, "million", "million")


def test_text_numbers_keep_their_digits_so_that_whole_ones_differ() -> None:
    assert not em("- 12", 12)
    assert scored("in 2019", ["2019"]) == (0, 0, 1)
    assert scored("2019", ["in 2019"]) == (0, 0, 1)


@pytest.mark.parametrize("answer", ["2,019", "2019.0", 2019, "'2019'"])
def test_a_year_is_a_number(answer: object) -> None:
    assert em(answer, ["2019"])


@pytest.mark.parametrize("answer", ["the 2017", "(2017)"])
def test_a_year_with_something_beside_it_is_not_the_year(answer: str) -> None:
    assert not em(answer, ["2017"])


SPANS = ["$106.4", "$70.5", "1,000"]


def test_spans_are_compared_without_their_order() -> None:
    assert scored(["$70.5", "1,000", "$106.4"], SPANS, kind="multi-span") == (1, 1, 1)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ([106.4, 70.5], ["106.4", "70.5"]),
        (["1000", "100"], ["1,000", "100"]),
        (["106.4", "$70.5"], ["106.4", "70.5"]),
    ],
)
def test_spans_that_sort_otherwise_are_no_exact_match(answer: object, gold: list[str]) -> None:
    assert scored(answer, gold, kind="multi-span") == (0, 1, 1)


def test_sorted_text_may_be_one_string_but_for_whole_numbers() -> None:
    assert em("costs sales", ["sales", "costs"])
    assert not em("sales costs", ["sales", "costs"])
    assert em("5% 6%", ["6%", "5%"])
    assert em("106.4 70.5", ["106.4", "70.5"])
    assert not em("106 70", ["106", "70"])
    assert not em("106.4 70.5", ["106.4", "70.5"], "million", "million")


def test_an_empty_span_is_harmless_without_a_scale() -> None:
    assert em(["sales", ""], ["sales"])
    assert not em(["sales", ""], ["sales"], "million", "million")


def test_a_span_said_twice_is_no_exact_match() -> None:
    assert scored(["sales", "sales"], ["sales"]) == (0, 1, 1)


@pytest.mark.parametrize("answer", [["sales", 1], [None, "x"], [{}, {}], [[1], "x"]])
def test_a_list_that_cannot_be_sorted_ends_the_official_script(answer: object) -> None:
    score = given_score(answer, ["sales"])
    assert (score.em, score.f1, score.scale) == NONE_RIGHT
    assert score.note.startswith("the official script ends here with an error: '<' not supported")


def test_a_scale_of_null_ends_the_official_script_at_numbers() -> None:
    score = given_score("5", 5, None)
    note = "the official script ends here with an error: the scale is NoneType, not text"
    assert score == TatQAScore(0, 0, 0, 0, 0, note=note)
    assert scored("sales", ["sales"], None) == (1, 1, 0)


def test_text_gets_the_word_of_its_scale_span_by_span() -> None:
    assert scored("x million", ["x"], "", "million") == (1, 1, 0)
    assert em("x million y million", ["x", "y"], "", "million")
    assert not em("x y million", ["x", "y"], "", "million")


@pytest.mark.parametrize("answer", [False, "", [], {}, None])
def test_an_empty_answer_scores_0_in_everything(answer: object) -> None:
    assert scored(answer, 0) == NONE_RIGHT


@pytest.mark.parametrize("answer", [0, 0.0, -0.0])
def test_the_number_0_is_no_answer_to_the_official_script(answer: float) -> None:
    note = "the official script takes the number 0 for no answer"
    assert given_score(answer, 0) == TatQAScore(0, 0, 0, 1, 1, note=note)
    assert given_score(answer, 5) == TatQAScore(0, 0, 0, 0, 0, note=note)
    assert given_score(answer, 0, None) == TatQAScore(0, 0, 0, 0, 0, note=note)


@pytest.mark.parametrize("answer", ["0", [0], "0.0", "-0"])
def test_other_forms_of_0_are_answers(answer: object) -> None:
    assert scored(answer, 0) == (1, 1, 1)


@pytest.mark.parametrize("answer", ["-0.0", -0.004, "-0.00"])
def test_a_negative_zero_is_not_0(answer: object) -> None:
    assert not em(answer, 0)


@pytest.mark.parametrize(
    "answer", ["9" * 400, "9" * 5000, 10**400, 10**5000], ids=["400", "5000", "int 400", "int 5000"]
)
def test_numbers_with_too_many_digits_end_the_official_script(answer: object) -> None:
    score = given_score(answer, 5)
    assert score.note.startswith("the official script ends here with an error: ")
    assert (score.em, score.f1, score.scale) == NONE_RIGHT


@pytest.mark.parametrize(
    "answer",
    ["５ million", "٥ million", "5\u00a0million", "'5 million'", "[5 million]", "$5 million$"],
)
def test_these_spellings_of_a_number_are_read(answer: str) -> None:
    assert em(answer, 5, "", "million")


def test_quotes_and_brackets_around_text_do_not_matter() -> None:
    assert em("['net sales']", ["net sales"])
    assert em('"net\u00a0sales"', ["net sales"])
    assert em([["net sales"]], ["net sales"])
    assert em("1'234", 1234)
    assert em("29,17", 2917)


@pytest.mark.parametrize(
    "answer",
    ["\u22125", "\u20135", "-\u200b5", "**-5**", "`-5`", "\u201c-5\u201d", "-5\u00b2"],
)
def test_these_spellings_of_a_number_are_not(answer: str) -> None:
    assert not em(answer, -5)


def test_a_thin_space_between_digits_ends_the_number() -> None:
    assert not em("1\u2009234", 1234)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from(
    ["5", "-", "(", ")", "%", " ", " million", "the ", ".", ",", "$", "e", "net sales", "9" * 400]
)
answers = json_values | st.lists(words).map("".join) | st.lists(st.lists(words).map("".join))
scales = st.sampled_from(["", "percent", "million", "thousand", "billion", None, 5, [], {}])
golds = st.sampled_from([5, -5.5, 0, ["net sales"], ["5", "6%"], ["the"], "5"])


@given(answer=answers, scale=scales | json_values, gold=golds, gold_scale=scales)
def test_no_prediction_raises_and_exact_match_implies_f1(
    answer: object, scale: object, gold: object, gold_scale: object
) -> None:
    score = given_score(answer, gold, scale, gold_scale if isinstance(gold_scale, str) else "")
    assert score.em in (0.0, 1.0)
    assert score.em <= score.f1 <= 1
    assert score.em <= score.em_with_zero <= score.f1_with_zero


@given(st.lists(words).map("".join), scales)
def test_an_answer_is_an_exact_match_of_itself(text: str, scale: object) -> None:
    score = given_score(text, [text], scale, scale if isinstance(scale, str) else "")
    assert score.em == 1 or not text or score.note or not isinstance(scale, str)


def test_a_deeply_nested_list_does_not_raise() -> None:
    nested: Any = "x"
    for _ in range(5000):
        nested = [nested]
    assert given_score(nested, ["x"]).em in (0, 1)


def test_a_long_answer_takes_no_time() -> None:
    assert not em("9 " * 100_000, 5)
    assert not em("((" * 100_000 + "%" * 100_000, 5)
    assert not em("9" * 300 + " " * 100_000, 5)


def test_tatqas_gold_answers_score_as_published_and_100_with_zero(real_data: Path) -> None:
    contexts = json.loads((real_data / "tatqa" / "dev.json").read_text("utf-8"))
    scores = [
        score_tatqa(
            question["answer"],
            question["scale"],
            gold_answer=question["answer"],
            gold_scale=question["scale"],
            answer_type=question["answer_type"],
        )
        for context in contexts
        for question in context["questions"]
    ]
    assert len(scores) == 1668

    def percent(figure: str) -> float:
        return round(100 * sum(getattr(score, figure) for score in scores) / len(scores), 2)

    assert (percent("em"), percent("f1"), percent("scale")) == (99.70, 99.70, 99.70)
    assert (percent("em_with_zero"), percent("f1_with_zero")) == (100, 100)
