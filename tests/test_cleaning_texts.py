"""The rules of cleaning for text: quotation marks, doubled amounts, spaces and minus signs."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.cleaning.numbers import drop_doubles, plain_minus, plain_spaces
from finqa_sft.cleaning.quotes import count_dashes, is_stripped, repair_quotes

STABLE = settings(deadline=None, derandomize=True, max_examples=200)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("the company 2019s sales", "the company's sales"),
        ("quill inc . 2019s debt", "quill inc .'s debt"),
        ("the u.k . 2019s pension plan", "the u.k .'s pension plan"),
        ("poor 2019s 500 index", "poor's 500 index"),
        ("payments ( in $ 000 2019s )", "payments ( in $ 000's )"),
        ("sfas no . 25 2019s method", "sfas no . 25's method"),
        ("the ( old ) bank 2019s ceo", "the ( old ) bank's ceo"),
        ("o 2019malley parts", "o'malley parts"),
        ("we don 2019t hedge", "we don't hedge"),
        ("total stockholders 2019 equity", "total stockholders' equity"),
        ("workers 2019 compensation", "workers' compensation"),
        ('( the 201cnotes 201d ) and "x"', '( the "notes" ) and "x"'),
        ("the 201c2021 notes 201d fell", 'the "2021 notes" fell'),
        ("the 201c1-3 year 201d column", 'the "1-3 year" column'),
        ("asc 410 , 201c asset costs , 201d applies", 'asc 410 , "asset costs ," applies'),
        ("( 201cs&p 500 201d )", '( "s&p 500" )'),
        ("( 2018 2018plan 2019 2019 )", '( "plan" )'),
        ("( 2018 2018r&d 2019 2019 )", '( "r&d" )'),
        ("201cemployers 2019 accounting 201d", '"employers\' accounting"'),
        ("company 2019s and company 2019s", "company's and company's"),
    ],
)
def test_quotation_marks_come_back(before: str, after: str) -> None:
    assert repair_quotes(before, stripped=False) == (after, 0)


@pytest.mark.parametrize(
    "text",
    [
        "in 2019 sales rose",
        "2019 's sales",
        "2019s first quarter",
        "december 31 , 2018 and 2019",
        "december 31 2019s figures",
        "the fiscal 2019s close",
        "in relation to the 2019s net sales",
        "2018 2019s",
        "fiscal years 2019 and 2018",
        "12/29/2018 2018",
        "2018 2017 2016",
        "in 2018 2018a bonds",
        "2019 2019",
        "section 201c and section 201d",
        "rule 201c applies",
        "items 201c and 201d",
        "no . 201d was sold",
        "code 201cab",
        "part a201c or 201c-7",
        "form x2019s",
        "customers 2019 needs",
        "the notes due 2019 were repaid",
    ],
)
def test_years_and_identifiers_stay(text: str) -> None:
    assert repair_quotes(text, stripped=True)[0] == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("the 2019s net sales", 1),
        ("of apb no . 29 , 2019 2019 which", 1),
        ("our customers 2019 needs", 1),
        ("fiscal years 2019 and 2018", 0),
        ("sales 2019 were higher", 0),
        ("december 31 , 2019", 0),
    ],
)
def test_what_may_be_a_mark_or_a_year_is_counted(text: str, left: int) -> None:
    assert repair_quotes(text, stripped=True) == (text, left)


def test_a_closing_mark_alone_is_one_only_on_a_page_that_lost_its_marks() -> None:
    assert repair_quotes("and other 201d costs", stripped=True) == ('and other" costs', 0)
    assert repair_quotes("and other 201d costs", stripped=False) == ("and other 201d costs", 1)


def test_a_page_lost_its_marks_if_one_is_glued_to_a_word() -> None:
    assert is_stripped(["in 2019", "the company 2019s sales"])
    assert is_stripped(["the 201cplan 201d"])
    assert not is_stripped(["in 2019 sales", "section 201c", "2019s"])


@pytest.mark.parametrize(
    ("text", "dashes"),
    [
        ("notes to the statements 2014 ( continued )", 1),
        ("2022 revenue rose ; 2022 costs fell", 2),
        ("deductions 2014disposition of property", 1),
        ("in 2014 sales rose", 0),
        ("december 31 , 2014 and 2013", 0),
        ("may 2014 sales", 0),
    ],
)
def test_dashes_and_bullets_are_counted(text: str, dashes: int) -> None:
    assert count_dashes(text) == dashes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("-2 ( 2 )", "-2"),
        ("$ -5 ( 5 )", "$ -5"),
        ("-1,234.5 ( 1,234.5 )", "-1,234.5"),
        ("16.6% ( 16.6 % )", "16.6%"),
        ("-16.6% ( 16.6 % )", "-16.6%"),
        ("rose 2% ( 2 % ) and 3% ( 3 % ) .", "rose 2% and 3% ."),
        ("( 9% ( 9 % ) )", "( 9% )"),
        ("5%-7% ( 5%-7 % ) above", "5%-7% above"),
        ("% (  % ) change", "% change"),
        ("( 8 ) % (  % )", "( 8 ) %"),
        ("-2 ( 2 ) ( 2 )", "-2"),
        ('"4.5% ( "4.5 % ) notes"', '"4.5% notes"'),
    ],
)
def test_amounts_written_twice_are_written_once(before: str, after: str) -> None:
    assert drop_doubles(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "-2 ( 3 )",
        "2 ( 2 )",
        "december 31 2010 ( 2 )",
        "2010-2 ( 2 )",
        "16.6% ( 6.6 % )",
        "16.6% ( 16.6 )",
        "116.6% ( 16.6 % )",
        "5 ( 5 % )",
        "-12 ( 2 )",
        "shares ( in millions )",
        "(2)",
        "-2 ( 2",
    ],
)
def test_brackets_that_say_something_else_stay(text: str) -> None:
    assert drop_doubles(text) == text


def test_special_spaces_become_plain_and_characters_without_width_go() -> None:
    assert plain_spaces("\u00a0$53\u00a0million\u2009in\u202fQ4 ") == "$53 million in Q4"
    assert plain_spaces("in\u00adcome\u200b and\ufeff") == "income and"
    assert plain_spaces("12\u200d3") == "123"
    assert plain_spaces("می\u200cخواهم") == "می\u200cخواهم"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("−216", "-216"),
        ("– 5.2", "-5.2"),
        ("$ −5", "$ -5"),
        ("(−5)", "(-5)"),
        ("−.5%", "-.5%"),
        ("–", "–"),
        ("—", "—"),
        ("2017–2018", "2017–2018"),
        ("3 – 5 years", "3 – 5 years"),
    ],
)
def test_a_minus_in_front_of_a_number_becomes_a_hyphen(before: str, after: str) -> None:
    assert plain_minus(before) == after


YEARS = st.integers(1950, 2049).map(str)
SENTENCE = "sales rose in the of and company fell to by net , . ( ) $ for"
WORDS = st.sampled_from(SENTENCE.split())
TOKENS = st.one_of(
    WORDS,
    YEARS,
    st.builds(lambda a, b: f"{a:,}.{b}", st.integers(0, 10**7), st.integers(0, 99)),
    st.builds(lambda a, b: f"{a}.{b}%", st.integers(0, 100), st.integers(0, 9)),
    st.builds(lambda n: f"-{n}", st.integers(1, 9999)),
    st.builds(lambda d, y: f"december {d} , {y}", st.integers(1, 31), YEARS),
    st.builds(lambda m, y: f"{m}/29/{y}", st.integers(1, 12), YEARS),
    st.sampled_from(["section 201c", "rule 201d", "A2019", "2018a", "201c-4", "x201d", "fy2019"]),
)


@STABLE
@given(st.lists(TOKENS, max_size=25), st.booleans())
def test_years_amounts_percentages_dates_and_identifiers_survive(
    tokens: list[str], stripped: bool
) -> None:
    text = " ".join(tokens)
    assert repair_quotes(text, stripped=stripped)[0] == text
    assert plain_spaces(text) == text
    assert plain_minus(text) == text


@STABLE
@given(
    st.lists(
        st.one_of(TOKENS, st.sampled_from(["2019s", "201cnet", "201d", "2019 2019", "( 2 )"])),
        max_size=25,
    ),
    st.booleans(),
)
def test_repairs_add_nothing_but_marks(tokens: list[str], stripped: bool) -> None:
    def bare(text: str) -> str:
        text = re.sub(r"(?<!\w)2019 2019(?!\w)", "", text)
        for mark in ("201c", "201d", "2019s", "'s", '"', " "):
            text = text.replace(mark, "")
        return text

    text = " ".join(tokens)
    assert bare(repair_quotes(text, stripped=stripped)[0]) == bare(text)


@pytest.mark.parametrize(
    "piece", [" ", "( ", "-2 ( 2 ) ", "2019 ", "201c ", "a 2019s ", "2019 2019 ", "\u00a0−", "% ("]
)
def test_time_grows_with_the_length_of_a_text(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    drop_doubles(repair_quotes(plain_minus(plain_spaces(text)), stripped=True)[0])
    count_dashes(text)
    assert time.perf_counter() - started < 15
