"""Known mistakes in otherwise right predictions: each is called what a person would call it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from finqa_sft.documents import Document, Question, Table
from finqa_sft.evaluation.amounts import Difference, are_roundings, difference
from finqa_sft.evaluation.faults import Fault, Verdict
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.scoring import score_predictions
from finqa_sft.evaluation.submissions import Submission
from finqa_sft.formatters.answer import AnswerFormatter
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.program import ProgramFormatter
from finqa_sft.formatters.steps import StepsFormatter
from finqa_sft.metrics.base import Metric
from finqa_sft.metrics.components import (
    AnswerMetric,
    ConvfinqaMetric,
    FinqaMetric,
    TatqaMetric,
)
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.filings.options import FilingsOptions
from finqa_sft.readers.filings.reader import FilingsReader
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

DOCUMENT = Document(
    id="page",
    blocks=(
        Table(
            (
                ("", "2017", "2016"),
                ("net sales", "5,829", "5,735"),
                ("costs", "5,611", "4,020"),
            )
        ),
    ),
)
FINQA: Mapping[str, Metric] = {"finqa": FinqaMetric()}
CONVFINQA: Mapping[str, Metric] = {"convfinqa": ConvfinqaMetric()}
TATQA: Mapping[str, Metric] = {"tatqa": TatqaMetric()}
ANSWER: Mapping[str, Metric] = {"answer": AnswerMetric()}


def question(answer: str, **labels: Any) -> Question:
    return Question(id="q", text="?", document=DOCUMENT, answer=answer, **labels)


GROWTH = question("1.6%", program="subtract(5829, 5735), divide(#0, 5735)", executed_answer=0.01639)
SALES = question("5829", executed_answer=5829.0)
MARGIN = question("3.74", scale="percent")
MILLIONS = question("12.6", scale="million", answer_type="arithmetic", executed_answer=12.6)
SPANS = question("net sales | costs", answer_type="multi-span")
ROSE = question("yes", program="greater(5829, 5735)", executed_answer="yes")
YES = question("yes")
YEAR = question("2017")


def judged(said: Prediction, asked: Question, metrics: Mapping[str, Metric]) -> Verdict:
    predictions = {asked.id: Predicted(id=asked.id, prediction=said)}
    return score_predictions([asked], predictions, metrics).scored[0].verdict


def program(text: str, **parts: Any) -> Prediction:
    return Prediction(text, program=text, **parts)


def answer(text: str, **parts: Any) -> Prediction:
    return Prediction(text, answer=text, **parts)


@pytest.mark.parametrize(
    ("said", "asked", "metrics", "fault"),
    [
        (program("subtract(5735, 5829), divide(#0, 5735)"), GROWTH, FINQA, Fault.SIGN),
        (program("subtract(5829, 5735), divide(5735, #0)"), GROWTH, FINQA, Fault.OPERATOR),
        (program("add(5829, 5735), divide(#0, 5735)"), GROWTH, FINQA, Fault.OPERATOR),
        (program("subtract(5829, 5735)"), GROWTH, FINQA, Fault.OPERATOR),
        (program("subtract(5829, 5735), divide(#0, "), GROWTH, FINQA, Fault.INVALID_PROGRAM),
        (program("subtract(5611, 5735), divide(#0, 5735)"), GROWTH, FINQA, Fault.OPERAND),
        # Within 1% of the right result, but with another year's number.
        (program("subtract(5829, 5735), divide(#0, 5729)"), GROWTH, FINQA, Fault.OPERAND),
        (program("subtract(5829, 5735), divide(#0, 5740)"), GROWTH, FINQA, Fault.ROUNDING),
        (program(f"{GROWTH.program}, multiply(#1, const_100)"), GROWTH, FINQA, Fault.SCALE),
        (program(f"{GROWTH.program}, divide(#1, const_1000)"), GROWTH, FINQA, Fault.SCALE),
        (program(f"{GROWTH.program}, multiply(#1, const_m1)"), GROWTH, FINQA, Fault.SIGN),
        (program("greater(5735, 5829)"), ROSE, FINQA, Fault.OPERAND),
        (answer("0.01639"), GROWTH, FINQA, Fault.FORM),
        (answer("yes"), ROSE, FINQA, Fault.FORM),
        (answer("0.3"), GROWTH, FINQA, Fault.NUMBER),
        (Prediction(""), GROWTH, FINQA, Fault.REFUSED),
        (program(""), GROWTH, FINQA, Fault.REFUSED),
        (answer("Cannot be determined."), GROWTH, FINQA, Fault.REFUSED),
        (answer("-5829"), SALES, CONVFINQA, Fault.SIGN),
        (answer("5.829"), SALES, CONVFINQA, Fault.SCALE),
        (answer("5830"), SALES, CONVFINQA, Fault.ROUNDING),
        (answer("5735"), SALES, CONVFINQA, Fault.NUMBER),
        (answer("374", scale="percent"), MARGIN, ANSWER, Fault.SCALE),
        (answer("3.74"), MARGIN, ANSWER, Fault.SCALE),
        (answer("3.7", scale="percent"), MARGIN, ANSWER, Fault.ROUNDING),
        (answer("-3.74", scale="percent"), MARGIN, ANSWER, Fault.SIGN),
        (answer("12.6", scale="thousand"), MILLIONS, TATQA, Fault.SCALE),
        (answer("12600", scale="million"), MILLIONS, TATQA, Fault.SCALE),
        (answer("13", scale="million"), MILLIONS, TATQA, Fault.ROUNDING),
        (answer("costs"), SPANS, TATQA, Fault.TEXT),
        (answer("net sales | costs | tax"), SPANS, TATQA, Fault.TEXT),
        (answer("sales | costs"), SPANS, TATQA, Fault.TEXT),
        (answer("no"), YES, ANSWER, Fault.TEXT),
        (answer("2016"), YEAR, ANSWER, Fault.NUMBER),
    ],
)
def test_a_mistake_is_called_by_its_name(
    said: Prediction, asked: Question, metrics: Mapping[str, Metric], fault: Fault
) -> None:
    assert judged(said, asked, metrics).fault is fault


@pytest.mark.parametrize(
    ("said", "metrics", "computed", "expected"),
    [
        (program(str(GROWTH.program), scale="percent"), FINQA, "0.01639", "0.01639"),
        (program(str(GROWTH.program), answer="1.6", scale="percent"), FINQA, "0.01639", "0.01639"),
        (program(str(GROWTH.program), answer="1.6", scale="percent"), ANSWER, "1.639%", "1.6%"),
        (answer("1.6", scale="percent"), ANSWER, "1.6%", "1.6%"),
    ],
)
def test_a_scale_is_shown_where_it_counts(
    said: Prediction, metrics: Mapping[str, Metric], computed: str, expected: str
) -> None:
    found = judged(said, GROWTH, metrics)
    assert (found.right, found.computed, found.expected) == (True, computed, expected)


def test_what_is_missing_among_spans_is_said() -> None:
    said = answer("net sales | tax")
    assert judged(said, SPANS, TATQA).why == (
        "said 'net sales | tax', expected net sales | costs: without 'costs' and with 'tax'"
    )


def test_an_empty_program_is_no_program() -> None:
    said = Prediction("", program="", answer="5829")
    assert judged(said, SALES, CONVFINQA).right


def test_the_number_0_that_tatqas_script_does_not_see_is_a_matter_of_form() -> None:
    asked = question("0", answer_type="arithmetic", executed_answer=0.0)
    handed_in = Predicted(id="q", prediction=answer("0"), submission=Submission("answers", [0, ""]))
    (scored,) = score_predictions([asked], {"q": handed_in}, TATQA).scored
    assert scored.verdict.fault is Fault.FORM
    assert scored.verdict.why == (
        "said 0, expected 0: the same number, in a form that the metric does not accept; the "
        "official script takes the number 0 for no answer"
    )


@pytest.mark.parametrize(
    ("found", "expected", "kind"),
    [
        ("2018", "2019", Difference.OTHER),
        ("5830", "5829", Difference.ROUNDING),
        ("5800", "5829", Difference.ROUNDING),
        ("12.4", "12.5", Difference.ROUNDING),
        ("0.26", "0.2", Difference.OTHER),
        ("0.25", "0.3", Difference.ROUNDING),
        ("0", "0.0", Difference.NONE),
        ("0", "5", Difference.OTHER),
        ("many", "5", Difference.NOT_NUMBERS),
    ],
)
def test_a_rounding_is_told_from_another_number(
    found: str, expected: str, kind: Difference
) -> None:
    assert difference(found, expected, found_scale="", expected_scale="")[0] is kind


def test_numbers_of_a_program_are_roundings_only_if_one_is_the_other_to_fewer_digits() -> None:
    assert are_roundings("5829", "5800")
    assert are_roundings("12.57", "12.6")
    assert not are_roundings("12.5", "12.6")
    assert not are_roundings("5829", "sales")


FILINGS = [
    item
    for item in FilingsReader(FilingsOptions(pages=12, difficulty="hard"))
    if isinstance(item, Question)
]


@pytest.mark.parametrize("formatter", [StepsFormatter(), ProgramFormatter()])
def test_what_is_taught_of_generated_filings_is_right_by_every_metric(formatter: Any) -> None:
    said = {
        asked.id: Predicted(
            id=asked.id, prediction=formatter.parse(formatter.completion(asked)[0]["content"])
        )
        for asked in FILINGS
    }
    scored = score_predictions(FILINGS, said, {**FINQA, **ANSWER}).scored
    assert [one.question.id for one in scored if not one.verdict.right] == []
    wrong = [one for one in scored if one.scores["answer"].figures["correct"] != 1]
    assert [one.question.id for one in wrong] == []


def real_questions(folder: Path) -> dict[str, tuple[Sequence[Question], Mapping[str, Metric]]]:
    sets: dict[str, tuple[Any, Mapping[str, Metric]]] = {
        "finqa": (FinqaReader(FinqaOptions(files=(folder / "finqa" / "dev_200.json",))), FINQA),
        "convfinqa": (
            ConvfinqaReader(
                ConvfinqaOptions(files=(folder / "convfinqa" / "dev_421_cleaned.json",))
            ),
            CONVFINQA,
        ),
        "tatqa": (TatqaReader(TatqaOptions(files=(folder / "tatqa" / "dev.json",))), TATQA),
    }
    return {
        name: ([item for item in reader if isinstance(item, Question)], metrics)
        for name, (reader, metrics) in sets.items()
    }


def share(
    data: tuple[Sequence[Question], Mapping[str, Metric]],
    mistake: Callable[[Question], Prediction | None],
    *faults: Fault | None,
) -> float:
    """The share of these faults among the predictions that a mistake can be made in."""
    questions, metrics = data
    said = {asked.id: said for asked in questions if (said := mistake(asked)) is not None}
    predictions = {id: Predicted(id=id, prediction=one) for id, one in said.items()}
    asked = [one for one in questions if one.id in said]
    found = Counter(
        one.verdict.fault for one in score_predictions(asked, predictions, metrics).scored
    )
    assert found.total() > 50
    return sum(found[fault] for fault in faults) / found.total()


def followed_by(step: str) -> Callable[[Question], Prediction | None]:
    def mistake(asked: Question) -> Prediction | None:
        if not asked.program or asked.executed_answer in (0, "yes", "no"):
            return None
        last = asked.program.count("),")
        return program(f"{asked.program}, {step.format(last)}", scale=asked.scale)

    return mistake


def times(factor: str) -> Callable[[Question], Prediction | None]:
    def mistake(asked: Question) -> Prediction | None:
        value = asked.executed_answer
        if not isinstance(value, float) or not value or asked.program:
            return None
        return answer(f"{Decimal(repr(value)) * Decimal(factor):f}", scale=asked.scale)

    return mistake


def test_on_real_data_gold_has_no_fault_and_mistakes_have_theirs(real_data: Path) -> None:
    for name, data in real_questions(real_data).items():
        formatter = AnswerFormatter() if name == "tatqa" else ProgramFormatter()

        def gold(asked: Question, formatter: Any = formatter) -> Prediction:
            said: Prediction = formatter.parse(formatter.completion(asked)[0]["content"])
            return said

        assert share(data, gold, None) == 1, name
        assert share(data, lambda asked: Prediction(""), Fault.REFUSED) == 1
        assert share(data, followed_by("multiply(#{}, const_m1)"), Fault.SIGN) > 0.98
        assert share(data, followed_by("multiply(#{}, const_100)"), Fault.SCALE) > 0.98
        assert share(data, followed_by("divide(#{}, const_1000)"), Fault.SCALE) > 0.97
        wrong_step = followed_by("multiply(#{}, 1.37)")
        assert share(data, wrong_step, Fault.OPERATOR) > 0.95
        if name == "convfinqa":
            assert share(data, times("-1"), Fault.SIGN) == 1
            assert share(data, times("1000"), Fault.SCALE) == 1
            assert share(data, times("1.37"), Fault.NUMBER) > 0.97
