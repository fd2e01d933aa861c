"""Whether written answers, executed answers and programs agree, and what is done where not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.cleaning.targets import (
    Agreement,
    agreement,
    computed_answer,
    labels_told,
    settle,
)
from finqa_sft.cleaning.written import plain_number, written_number
from finqa_sft.documents import SCALES, Document, Question, Scale, Table
from finqa_sft.errors import DataError
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "finqa"
STABLE = settings(deadline=None, derandomize=True, max_examples=300)
PAGE = Document("d", (Table((("", "2019", "2018"), ("sales", "5", "4"))),))


def asked(
    answer: str,
    executed: float | str | None,
    program: str | None = None,
    scale: Scale = "",
) -> Question:
    """A question with these labels."""
    return Question(
        id="q-1",
        text="how much?",
        document=PAGE,
        answer=answer,
        program=program,
        executed_answer=executed,
        scale=scale,
        source="train.json row 7",
    )


@pytest.mark.parametrize(
    ("answer", "executed", "expected"),
    [
        ("14.2", 14.2, Agreement.SAME),
        ("14.2", 14.24, Agreement.SAME),
        ("$ 1,234", 1234.0, Agreement.SAME),
        ("(5.2)", -5.2, Agreement.SAME),
        ("$ -5.2 million", -5.2, Agreement.SAME),
        ("-$5", -5.0, Agreement.SAME),
        ("−5", -5.0, Agreement.SAME),
        ("$ 1.2 billion", 1.2e9, Agreement.SAME),
        ("12 stores a year", 12.0, Agreement.SAME),
        ("yes", "yes", Agreement.SAME),
        ("14.2%", 0.14212, Agreement.PERCENT),
        ("14.2 percent", 0.142, Agreement.PERCENT),
        ("(14.2%)", -0.142, Agreement.PERCENT),
        ("(14.2)%", -0.142, Agreement.PERCENT),
        ("14.2", 0.142, Agreement.UNMARKED_PERCENT),
        ("14.2%", 14.2, Agreement.EXECUTED_PERCENT),
        ("34.83%", 0.34824, Agreement.ROUNDING),
        ("1.14", 1.13451, Agreement.ROUNDING),
        ("10861", 10863.0, Agreement.ROUNDING),
        ("19.4%", -0.19355, Agreement.SIGN),
        ("-5", 5.0, Agreement.SIGN),
        ("5.2", 5200.0, Agreement.SCALE),
        ("5200000", 5.2, Agreement.SCALE),
        ("$ 5 million", 5000.0, Agreement.SCALE),
        ("0.1", 0.01, Agreement.DIFFERENT),
        ("1.2%", 1.3, Agreement.DIFFERENT),
        ("28%", 36003776400000.0, Agreement.DIFFERENT),
        ("yes", "no", Agreement.DIFFERENT),
        ("yes", 0.5, Agreement.DIFFERENT),
        ("5", "no", Agreement.DIFFERENT),
        ("the bank", 5.0, Agreement.NO_NUMBER),
        ("from 5 to 7", 5.0, Agreement.NO_NUMBER),
        ("5", None, Agreement.NOTHING_TO_COMPARE),
    ],
)
def test_answers_are_compared(
    answer: str, executed: float | str | None, expected: Agreement
) -> None:
    assert agreement(asked(answer, executed)) is expected


def test_an_answer_with_a_scale_counts_in_it() -> None:
    assert agreement(asked("-22.22", -22.22, scale="percent")) is Agreement.SAME
    assert agreement(asked("22.22%", 22.22, scale="percent")) is Agreement.SAME
    assert agreement(asked("22.22", 0.2222, scale="percent")) is Agreement.PERCENT
    assert agreement(asked("5.2", 5.2, scale="million")) is Agreement.SAME
    assert agreement(asked("14.2", 0.142, scale="million")) is Agreement.DIFFERENT


def test_the_program_is_executed_on_the_table() -> None:
    assert computed_answer(asked("9", 9.0, "table_sum(sales, none)")) == 9.0
    assert agreement(asked("9", 9.0, "table_sum(sales, none)")) is Agreement.SAME
    assert agreement(asked("8", 8.0, "table_sum(sales, none)")) is Agreement.PROGRAM
    assert agreement(asked("yes", "yes", "greater(4, 5)")) is Agreement.PROGRAM


def test_an_executed_answer_may_be_what_the_program_computes_rounded() -> None:
    assert agreement(asked("0.33", 0.33, "divide(1, 3)")) is Agreement.SAME
    assert agreement(asked("33.33", 33.33, "divide(100, 3)", "percent")) is Agreement.SAME
    assert agreement(asked("0.3333", 0.3333, "divide(1, 3)")) is Agreement.SAME
    assert agreement(asked("0.3334", 0.3334, "divide(1, 3)")) is Agreement.PROGRAM
    assert agreement(asked("0.34", 0.34, "divide(1, 3)")) is Agreement.PROGRAM
    assert agreement(asked("0.01", 0.01, "divide(1, 70)")) is Agreement.SAME
    assert agreement(asked("0", 0.0, "divide(1, 300)")) is Agreement.PROGRAM


def test_tatqas_labels_agree_with_the_programs_of_their_derivations() -> None:
    path = DATA.parent / "tatqa" / "dev.json"
    if not path.exists():
        pytest.skip("needs shared/data/tatqa beside the checkout")
    for question in TatqaReader(TatqaOptions(files=(path,))):
        assert not isinstance(question, BadRow)
        assert not agreement(question).disagrees, question


def test_a_program_that_cannot_be_executed_is_left_out_of_account() -> None:
    assert agreement(asked("9", 9.0, "table_sum(profit, none)")) is Agreement.SAME
    assert agreement(asked("9", 9.0, "no program")) is Agreement.SAME


def test_without_an_executed_answer_the_program_is_compared() -> None:
    assert agreement(asked("25%", None, "divide(1, 4)")) is Agreement.PERCENT
    assert agreement(asked("35%", None, "divide(1, 4)")) is Agreement.DIFFERENT


def test_disagreements_have_phrases_for_reports() -> None:
    assert {found.value for found in Agreement if found.disagrees} == {
        "answer and executed answer differ in sign",
        "answer and executed answer differ by thousands, millions or billions",
        "answer and executed answer disagree",
        "executed answer is not what the program computes",
    }


@pytest.mark.parametrize(
    ("answer", "executed", "program", "corrected"),
    [
        ("19.4%", -0.19355, "divide(-6, 31)", ("-19.4%", -0.19355)),
        ("$ 1,234.50 million", -1234.5, "subtract(0, 1234.5)", ("$ -1,234.50 million", -1234.5)),
        ("(5.2)", 5.2, "add(5, 0.2)", ("5.2", 5.2)),
        ("-$5 a share", 5.0, "add(2, 3)", ("$5 a share", 5.0)),
        ("20.0", -0.2, "divide(-20, 100)", ("-20.0%", -0.2)),
        ("5.2%", None, "divide(-52, 1000)", ("-5.2%", None)),
        ("9", 8.0, "table_sum(sales, none)", ("9", 9.0)),
        ("25.0", 0.3, "divide(1, 4)", ("25.0%", 0.25)),
        ("no", "yes", "greater(4, 5)", ("no", "no")),
        ("73.22", 0.73215, "divide(2400, 3278)", ("73.22%", 0.73215)),
    ],
)
def test_labels_are_corrected_where_two_of_three_agree(
    answer: str,
    executed: float | str | None,
    program: str,
    corrected: tuple[str, float | str | None],
) -> None:
    question = settle(asked(answer, executed, program), "correct")
    assert question is not None
    assert (question.answer, question.executed_answer) == corrected
    assert not agreement(question).disagrees


@pytest.mark.parametrize(
    ("answer", "executed", "program"),
    [
        ("-3.2%", -16.0, "subtract(484, 500)"),
        ("28%", 3.6e13, "multiply(6000000, 6000000)"),
        ("318", 478.0, "add(953, 3), divide(#0, 2)"),
        ("78.4", 68.4, "add(34.7, 33.7)"),
        ("$ 5 million", 5000.0, "multiply(5, const_1000)"),
        ("yes", "no", "greater(4, 5)"),
        ("no", 1.0, "divide(1, 4)"),
        ("5", 5.0, "table_sum(sales, none)"),
        ("5", 8.0, "table_sum(sales, none)"),
        ("the bank", 8.0, "table_sum(sales, none)"),
        ("19.4%", -0.19355, None),
        ("5.2", 5200.0, "table_sum(profit, none)"),
        ("yes", 5.0, None),
    ],
)
def test_labels_stay_where_nothing_tells_which_is_wrong(
    answer: str, executed: float | str, program: str | None
) -> None:
    question = asked(answer, executed, program)
    assert settle(question, "correct") is question


@pytest.mark.parametrize("answer", ["14.2%", "14.21%", "14.3%"])
def test_labels_that_agree_are_the_same_object_after_correction(answer: str) -> None:
    question = asked(answer, 0.1421)
    assert settle(question, "correct") is question


def test_keep_changes_nothing_and_drop_leaves_out_what_disagrees() -> None:
    wrong, right, unmarked = asked("5", -5.0), asked("14.2%", 0.142), asked("14.2", 0.142)
    assert settle(wrong, "keep") is wrong
    assert settle(wrong, "drop") is None
    assert settle(right, "drop") is right
    assert settle(unmarked, "drop") is unmarked


def test_error_names_the_row_and_the_labels() -> None:
    right = asked("5", 5.0)
    assert settle(right, "error") is right
    with pytest.raises(DataError) as caught:
        settle(asked("5", -5.0, "add(-3, -2)"), "error")
    assert str(caught.value) == (
        "train.json row 7: answer and executed answer differ in sign: answer '5', executed answer "
        "-5.0, program 'add(-3, -2)'; mend the row, or let such rows be dropped or corrected"
    )


def test_an_error_names_only_the_labels_that_there_are_and_what_is_computed() -> None:
    with pytest.raises(DataError) as caught:
        settle(asked("5", None, "table_sum(sales, none)"), "error")
    assert str(caught.value) == (
        "train.json row 7: answer and executed answer disagree: answer '5', program "
        "'table_sum(sales, none)' computes 9; mend the row, or let such rows be dropped or "
        "corrected"
    )


@pytest.mark.parametrize(
    ("answer", "executed", "program", "told"),
    [
        ("5", None, None, "answer '5'"),
        ("5", 6.0, None, "answer '5', executed answer 6.0"),
        ("5", None, "table_max(Other, none)", "answer '5', program 'table_max(Other, none)'"),
        ("5", None, "add(2.5, 4)", "answer '5', program 'add(2.5, 4)' computes 6.5"),
        ("no", None, "greater(5, 4)", "answer 'no', program 'greater(5, 4)' computes yes"),
        (
            "-3.2%",
            -16.0,
            "subtract(484, 500)",
            "answer '-3.2%', executed answer -16.0, program 'subtract(484, 500)'",
        ),
        (
            "5",
            6.0,
            "add(3, 4)",
            "answer '5', executed answer 6.0, program 'add(3, 4)' computes 7",
        ),
    ],
)
def test_labels_are_told_side_by_side(
    answer: str, executed: float | str | None, program: str | None, told: str
) -> None:
    assert labels_told(asked(answer, executed, program)) == told


def test_a_long_answer_is_text() -> None:
    assert written_number("5" * 2000) is None
    assert written_number("5 " * 2000) is None


def test_numbers_are_written_without_an_exponent() -> None:
    assert plain_number(1e-05) == "0.00001"
    assert plain_number(1e21) == "1000000000000000000000"
    assert plain_number(-5.0) == "-5"


NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9).map(float),
    st.floats(-1e6, 1e6).map(lambda value: round(value, 5)),
    st.sampled_from([0.0, 0.00001, -0.5, 1e15, -3e-5]),
)
WRITTEN = st.builds(
    lambda money, number, mark: f"{money}{number}{mark}",
    st.sampled_from(["", "$ ", "$", "about ", "( "]),
    st.one_of(
        st.integers(-(10**7), 10**7).map(str),
        st.integers(0, 10**9).map(lambda value: f"{value:,}"),
        st.tuples(st.integers(-999, 999), st.integers(0, 9999)).map(lambda x: f"{x[0]}.{x[1]}"),
        st.integers(0, 99).map(lambda value: f"({value}.5)"),
    ),
    st.sampled_from(["", "%", " %", " percent", " million", " thousand", " stores", " )", "."]),
)
LABELS = st.builds(
    asked,
    st.one_of(WRITTEN, WRITTEN, st.sampled_from(["yes", "no", "the bank", "", "5 to 7"])),
    st.one_of(NUMBERS, NUMBERS, st.sampled_from(["yes", "no", None])),
    st.one_of(
        st.none(),
        NUMBERS.map(lambda value: f"add({value:.5f}, 0)"),
        st.sampled_from(["greater(4, 5)", "table_sum(sales, none)", "table_sum(profit, none)"]),
    ),
    st.sampled_from(SCALES),
)


@STABLE
@given(LABELS)
def test_what_is_corrected_agrees_and_stays(question: Question) -> None:
    corrected = settle(question, "correct")
    assert corrected is not None
    found = agreement(corrected)
    assert corrected is question or not found.disagrees
    assert found is not Agreement.UNMARKED_PERCENT
    assert settle(corrected, "correct") is corrected


@STABLE
@given(LABELS)
def test_only_what_disagrees_is_dropped_or_refused(question: Question) -> None:
    assert (settle(question, "drop") is None) is agreement(question).disagrees
    assert settle(question, "keep") is question


@STABLE
@given(LABELS)
def test_correction_leaves_everything_but_the_labels(question: Question) -> None:
    corrected = settle(question, "correct")
    assert corrected is not None
    assert corrected.program == question.program
    assert corrected.document is question.document
    assert corrected.executed_answer in (question.executed_answer, computed_answer(question))


def test_most_of_finqas_labels_agree() -> None:
    path = DATA / "dev_200.json"
    if not path.exists():
        pytest.skip("needs shared/data/finqa beside the checkout")
    questions = list(FinqaReader(FinqaOptions(files=(path,))))
    found = [agreement(question) for question in questions if not isinstance(question, BadRow)]
    assert sum(item.disagrees for item in found) == 11
    assert found.count(Agreement.PERCENT) == 94
    assert found.count(Agreement.EXECUTED_PERCENT) == 9
