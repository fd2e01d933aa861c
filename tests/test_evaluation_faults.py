from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.documents import SCALES, Document, Evidence, Paragraph, Question, Table
from finqa_sft.evaluation.executed import ExecutedStep, executed_steps
from finqa_sft.evaluation.faults import Fault, Verdict, verdict
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.used import used_evidence
from finqa_sft.evaluation.voting import vote
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.citations import citations
from finqa_sft.metrics.base import Score

TABLE = Table.from_cells(
    [
        ["", "2017", "2016"],
        ["net sales", "$ 5,829", "5,735"],
        ["interest (expense)", "-20 ( 20 )", "n/a"],
        ["cash", "100", "90"],
    ]
)
DOCUMENT = Document(
    id="page",
    blocks=(
        Paragraph("Sales grew in 2017, mostly abroad."),
        TABLE,
        Paragraph("The company paid dividends of $ 12.5 million. It has 407 branches."),
    ),
)
GROWTH = "subtract(5829, 5735), divide(#0, 5735)"


def question(**changes: Any) -> Question:
    given: dict[str, Any] = {
        "id": "q",
        "text": "By how much did sales grow?",
        "document": DOCUMENT,
        "answer": "1.6%",
        "program": GROWTH,
        "executed_answer": 0.01639,
    }
    return Question(**{**given, **changes})


def judged(
    said: Prediction | None, asked: Question | None = None, *, right: bool = False, **of: Any
) -> Verdict:
    asked = asked or question()
    predicted = None if said is None else Predicted(id="q", prediction=said, **of)
    by_program = asked.program is not None
    return verdict(asked, predicted, [Score({"f": 0.0})], right=right, by_program=by_program)


def program(text: str) -> Prediction:
    return Prediction(text, program=text)


def answer(text: str, **of: Any) -> Prediction:
    return Prediction(text, answer=text, **of)


MILLIONS = question(
    program=None, executed_answer=12.5, answer="12.5", scale="million", answer_type="arithmetic"
)
COUNT = question(program=None, executed_answer=3.0, answer="3")
SPAN = question(program=None, executed_answer=None, answer="mostly abroad")
PERCENT = question(program=None, executed_answer=14.24, answer="14.24", scale="percent")


@pytest.mark.parametrize(
    ("said", "asked", "fault", "why"),
    [
        (
            program("subtract(5829, 5735), divide(#0, 5735), multiply(#1, const_100)"),
            question(),
            Fault.SCALE,
            "computed 1.63906, expected 0.01639: 100 times too large",
        ),
        (
            answer("1.639"),
            question(),
            Fault.SCALE,
            "said 1.639, expected 0.01639: 100 times too large",
        ),
        (
            answer("0.0125", scale="million"),
            MILLIONS,
            Fault.SCALE,
            "said 0.0125 million, expected 12.5 million: 1,000 times too small",
        ),
        (
            answer("12.5"),
            MILLIONS,
            Fault.SCALE,
            "said 12.5, expected 12.5 million: the right number with another scale beside it",
        ),
        (
            answer("12.5", scale="percent"),
            MILLIONS,
            Fault.SCALE,
            "said 12.5%, expected 12.5 million: the right number with another scale beside it",
        ),
        (
            answer("$12,500,000,000", scale="million"),
            MILLIONS,
            Fault.SCALE,
            "said $12,500,000,000 million, expected 12.5 million: 1,000,000,000 times too large",
        ),
        (
            program("subtract(5735, 5829), divide(#0, 5735)"),
            question(),
            Fault.SIGN,
            "computed -0.01639, expected 0.01639: the right number with the other sign",
        ),
        (
            answer("(1.6)%"),
            question(),
            Fault.SIGN,
            "said (1.6)%, expected 0.01639: the right number with the other sign",
        ),
        (
            answer("1.6%"),
            question(),
            Fault.ROUNDING,
            "said 1.6%, expected 0.01639: the right number but for its rounding",
        ),
        (
            answer("2%"),
            question(),
            Fault.ROUNDING,
            "said 2%, expected 0.01639: the right number but for its rounding",
        ),
        (
            answer("14.2", scale="percent"),
            PERCENT,
            Fault.ROUNDING,
            "said 14.2%, expected 14.24%: the right number but for its rounding",
        ),
        (
            answer("0.1424"),
            PERCENT,
            Fault.SCALE,
            "said 0.1424, expected 14.24%: the same number in another scale",
        ),
        (answer("2"), COUNT, Fault.NUMBER, "said 2, expected 3: another number"),
        (answer("0"), COUNT, Fault.NUMBER, "said 0, expected 3: another number"),
        (
            program("add(5829, 5735), divide(#0, 5735)"),
            question(),
            Fault.OPERATOR,
            "computed 2.01639, expected 0.01639: the steps are add, divide, those of the gold "
            "program subtract, divide",
        ),
        (
            program("subtract(5829, 5735), divide(5735, #0)"),
            question(),
            Fault.OPERATOR,
            "computed 61.01064, expected 0.01639: the steps subtract, divide rest on each other in "
            "another order",
        ),
        (
            program("subtract(5829, 90), divide(#0, 5735)"),
            question(),
            Fault.OPERAND,
            "computed 1.0007, expected 0.01639: 90 in place of 5735",
        ),
        (
            program("divide(1, 0)"),
            question(),
            Fault.INVALID_PROGRAM,
            "the program has no result: step 0 divide(1, 0): float division by zero; expected "
            "0.01639",
        ),
        (
            program("subtract(5829,5735), divide(#0, 5735)"),
            question(),
            Fault.INVALID_PROGRAM,
            "computed 0.01639, expected 0.01639; as it is written the program is invalid",
        ),
        (
            program("table_max(profit, none)"),
            question(),
            Fault.INVALID_PROGRAM,
            "the program has no result: step 0 table_max(profit, none): the table has no row "
            "'profit'; expected 0.01639",
        ),
        (
            Prediction("Hm."),
            question(),
            Fault.REFUSED,
            "states neither program nor answer; expected 0.01639",
        ),
        (
            answer("It cannot be determined."),
            question(),
            Fault.REFUSED,
            "says that it cannot answer; said 'It cannot be determined.', expected 0.01639",
        ),
        (
            answer("at home"),
            SPAN,
            Fault.TEXT,
            "said 'at home', expected mostly abroad: another text",
        ),
        (answer("5"), SPAN, Fault.TEXT, "said 5, expected mostly abroad: another text"),
        (
            answer("Mostly  abroad", scale="million"),
            SPAN,
            Fault.SCALE,
            "said 'Mostly abroad' million, expected mostly abroad: the same text in another scale",
        ),
        (answer("sales"), COUNT, Fault.TEXT, "said 'sales', expected 3: another text"),
        (
            program("greater(5735, 5829)"),
            question(program="greater(5829, 5735)", executed_answer="yes", answer="yes"),
            Fault.OPERAND,
            "computed no, expected yes: 5735 in place of 5829, 5829 in place of 5735",
        ),
    ],
)
def test_a_wrong_prediction_has_one_kind_of_error_and_a_sentence(
    said: Prediction, asked: Question, fault: Fault, why: str
) -> None:
    found = judged(said, asked)
    assert (found.fault, found.why) == (fault, why)


def test_what_is_right_has_no_fault() -> None:
    found = judged(program(GROWTH), right=True)
    assert found == Verdict(
        right=True,
        fault=None,
        why="computed 0.01639, as expected",
        computed="0.01639",
        expected="0.01639",
        steps=(
            ExecutedStep("subtract(5829, 5735)", "94"),
            ExecutedStep("divide(#0, 5735)", "0.01639"),
        ),
    )


def test_a_program_that_only_the_official_script_can_read_comes_to_what_was_expected() -> None:
    found = judged(program("add(1, 2), add(#0, #5"), question(executed_answer=3.0), right=True)
    assert (found.computed, found.why) == ("3", "computed 3, as expected")


def test_without_a_prediction_or_unasked_nothing_was_said() -> None:
    found = judged(None)
    assert (found.fault, found.computed, found.expected) == (Fault.NO_PREDICTION, "", "0.01639")
    assert found.why == "there is no prediction for this question; expected 0.01639"
    found = judged(Prediction(""), problem="longer than 512 tokens")
    assert (found.fault, found.why) == (
        Fault.NOT_ASKED,
        "the question was not asked: longer than 512 tokens; expected 0.01639",
    )


def test_running_on_goes_before_other_faults_but_not_before_right() -> None:
    found = judged(answer("5"), finished=False)
    assert found.fault is Fault.RAN_ON
    assert found.why == ("still writing at the limit of new tokens; said 5, expected 0.01639")
    assert judged(program(GROWTH), right=True, finished=False).fault is None


def test_where_no_metric_applies_nothing_is_at_fault() -> None:
    predicted = Predicted(id="q", prediction=answer("5"))
    found = verdict(question(), predicted, [], right=False, by_program=False)
    assert (found.fault, found.why) == (None, "said 5; no metric applies to this question")


def test_the_note_of_a_score_is_passed_on() -> None:
    predicted = Predicted(id="q", prediction=answer("7"))
    found = verdict(
        COUNT,
        predicted,
        [Score({}), Score({}, "the script ends here")],
        right=False,
        by_program=False,
    )
    assert found.why == "said 7, expected 3: another number; the script ends here"


def test_long_answers_are_cut_in_the_sentence_alone() -> None:
    found = judged(answer("word " * 100), SPAN)
    assert len(found.why) < 300
    assert found.computed == ("word " * 100).strip()


def test_each_step_has_its_result_or_why_it_has_none() -> None:
    text = (
        "table_sum(cash, none), divide(#0, 0), add(#0, 1), add(#1, 1), "
        "table_max(interest (expense), none), greater(#2, #0), add(#5, 1)"
    )
    assert [step.result for step in executed_steps(program(text), question())] == [
        "190",
        "float division by zero",
        "191",
        "not computed: #1 has no result",
        "'n/a' is not a number",
        "yes",
        "#5 is 'yes', not a number",
    ]
    (step,) = executed_steps(program("table_sum(sales: net, none)"), question())
    assert step.result == "the table has no row 'sales: net'"
    assert executed_steps(program("nonsense"), question()) == ()
    assert executed_steps(answer("5"), question()) == ()


ANY = st.text(max_size=30) | st.sampled_from(
    [
        "",
        "5",
        "-0",
        "1e999",
        "9" * 400,
        "0.5%",
        GROWTH,
        "add(1, 2), add(#0",
        "exp(9, 9), exp(#0, #0)",
    ]
)


@given(
    said=st.none()
    | st.builds(
        Prediction,
        text=ANY,
        answer=st.none() | ANY,
        program=st.none() | ANY,
        scale=st.sampled_from(SCALES),
    ),
    asked=st.builds(
        question,
        answer=ANY.filter(bool),
        program=st.none() | ANY.filter(bool),
        executed_answer=st.none()
        | st.sampled_from(["yes", "no"])
        | st.floats(allow_nan=False, allow_infinity=False),
        scale=st.sampled_from(SCALES),
    ),
    right=st.booleans(),
    finished=st.booleans(),
)
def test_whatever_was_said_there_is_a_verdict(
    said: Prediction | None, asked: Question, right: bool, finished: bool
) -> None:
    right = right and said is not None
    found = judged(said, asked, right=right, finished=finished) if said else judged(None, asked)
    assert (found.fault is None) == right
    assert found.why


@pytest.mark.parametrize("style", ["short", "quote"])
@pytest.mark.parametrize(
    "evidence", [(Evidence(1, 1),), (Evidence(0), Evidence(1, 3)), (Evidence(2),), (Evidence(1),)]
)
def test_what_is_cited_is_found_again(style: Any, evidence: tuple[Evidence, ...]) -> None:
    asked = question(evidence=evidence)
    said = Prediction("", evidence=citations(asked, style=style))
    expected = (Evidence(1, 1),) if evidence == (Evidence(1),) else evidence
    assert used_evidence(DOCUMENT, said) == expected


def test_a_prediction_that_cites_nothing_of_the_page_uses_what_holds_its_numbers() -> None:
    elsewhere = Prediction("", program=GROWTH, evidence=("Another page",))
    assert used_evidence(DOCUMENT, elsewhere) == (Evidence(1, 1),)
    assert used_evidence(DOCUMENT, program("table_sum(cash, none)")) == (Evidence(1, 3),)
    assert used_evidence(DOCUMENT, answer("407")) == (Evidence(2),)
    assert used_evidence(DOCUMENT, Prediction("", program="no program", answer="407")) == (
        Evidence(2),
    )
    assert used_evidence(DOCUMENT, answer("nowhere")) == ()
    assert used_evidence(DOCUMENT, answer("407 " * 10_000)) == ()
    assert used_evidence(DOCUMENT, Prediction("")) == ()


def test_a_table_cited_as_such_is_used_as_a_whole() -> None:
    assert used_evidence(DOCUMENT, Prediction("", evidence=("table",))) == (Evidence(1),)


@given(
    said=st.builds(
        Prediction,
        text=ANY,
        answer=st.none() | ANY,
        program=st.none() | ANY,
        evidence=st.lists(ANY | st.sampled_from(["cash", "net sales"]), max_size=3).map(tuple),
    )
)
def test_what_is_used_stands_in_the_document_once_and_in_reading_order(said: Prediction) -> None:
    used = used_evidence(DOCUMENT, said)
    places = [(evidence.block, evidence.row or 0) for evidence in used]
    assert places == sorted(set(places))
    for evidence in used:
        block = DOCUMENT.blocks[evidence.block]
        if isinstance(block, Table) and evidence.row is not None:
            assert block.header_rows <= evidence.row < len(block.rows)


@pytest.mark.parametrize(
    ("said", "winner", "votes"),
    [
        ([answer("5"), answer("6"), answer("6.000001")], 1, 2),
        ([answer("5"), program("add(1, 1)"), answer("2.0"), answer("5")], 0, 2),
        ([answer("Net  Sales"), answer("cash"), answer("cash"), answer("net sales")], 0, 2),
        ([answer("5"), answer("5", scale="million"), answer("5", scale="million")], 1, 2),
        ([program("divide(1, 0)"), program("divide(1, 0)"), answer("5")], 2, 1),
        ([program("divide(1, 0)"), Prediction("?"), program("add(")], 0, 3),
        ([Prediction("?"), answer("7")], 1, 1),
        ([answer("1,234"), answer("$ 1234")], 0, 2),
    ],
)
def test_values_vote_and_not_texts(said: list[Prediction], winner: int, votes: int) -> None:
    chosen, count = vote(said, question())
    assert chosen is said[winner]
    assert count == votes


@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_the_most_frequent_value_wins_and_the_earliest_of_equals(values: list[int]) -> None:
    said = [answer(str(value)) for value in values]
    chosen, votes = vote(said, question())
    best = max(values.count(value) for value in values)
    first = next(i for i, value in enumerate(values) if values.count(value) == best)
    assert (chosen, votes) == (said[first], best)


@given(
    said=st.lists(
        st.builds(Prediction, text=ANY, answer=st.none() | ANY, program=st.none() | ANY),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_was_said_one_of_them_wins(said: list[Prediction]) -> None:
    chosen, votes = vote(said, question())
    assert any(chosen is one for one in said)
    assert 1 <= votes <= len(said)
