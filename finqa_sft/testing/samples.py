"""What metrics are tried on: questions of all kinds with gold labels, predictions of all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from finqa_sft.documents import SCALES, Document, Evidence, Paragraph, Question, Scale, Table, Turn
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.values import result_scale
from finqa_sft.testing.completions import GARBLED
from finqa_sft.testing.golds import other_answers

_PAGE = Document(
    id="northwind/2023/page_41",
    blocks=(
        Paragraph("Freight rose in 2023, in paper and in board."),
        Table.from_cells(
            [
                ["(in millions)", "2023", "2022"],
                ["Revenue", "$ 412.6", "$ 398.1"],
                ["Freight", "(51.3)", "(47.9)"],
            ]
        ),
    ),
    company="Northwind",
)
_REVENUE = (Evidence(1, 1),)

_ANSWERS = (
    "14.5",
    "yes",
    "paper | board",
    "board | paper | board",
    " | ",
    "cannot be determined",
    "1,000,000,000,000",
)
"""Said to every question, and right for some."""

SUBMITTED: tuple[object, ...] = (
    None,
    True,
    0,
    10**5000,
    -0.5,
    "",
    "subtract(412.6, 398.1)",
    "9" * 5000,
    [],
    ["subtract(", "412.6", "398.1", ")", "EOF"],
    ["14.5", "million"],
    [["paper", "board"], ""],
    [["paper", 5, None], None],
    [{"answer": []}, 7],
    {"program": ["EOF"]},
)
"""What may stand in a prediction file for a question, whatever its benchmark."""


def sample_questions() -> list[Question]:
    """One question of each kind that readers yield."""
    grown = Question(
        id="program",
        text="By how much did revenue grow in 2023?",
        document=_PAGE,
        answer="14.5",
        program="subtract(412.6, 398.1)",
        executed_answer=14.5,
        scale="million",
        evidence=_REVENUE,
        source="sample program",
    )
    lower = replace(
        grown,
        id="yes or no",
        text="Was revenue lower in 2022?",
        answer="yes",
        program="greater(412.6, 398.1)",
        executed_answer="yes",
        scale="",
    )
    share = replace(
        grown,
        id="percent",
        text="What was the growth of revenue?",
        answer="3.6%",
        program="subtract(412.6, 398.1), divide(#0, 398.1)",
        executed_answer=0.03642,
        scale="",
    )
    mean = replace(
        grown,
        id="table",
        text="What was mean revenue?",
        answer="405.35",
        program="table_average(Revenue, none)",
        executed_answer=405.35,
    )
    turn = Turn(
        question="What was revenue in 2023?", answer="412.6", executed_answer=412.6, scale="million"
    )
    number = replace(
        grown,
        id="turn with a number",
        text="And in 2022?",
        answer="398.1",
        program=None,
        executed_answer=398.1,
        scale="",
        history=(turn,),
    )
    words = replace(
        grown,
        id="span",
        text="When did freight rise?",
        answer="in 2023",
        program=None,
        executed_answer=None,
        scale="",
        answer_type="span",
        evidence=(Evidence(0),),
    )
    spans = replace(
        words,
        id="spans",
        text="In what did freight rise?",
        answer="paper | board",
        answer_type="multi-span",
    )
    count = replace(
        words,
        id="count",
        text="In how many lines did freight rise?",
        answer="2",
        executed_answer=2.0,
        answer_type="count",
    )
    derived = replace(
        grown,
        id="derivation",
        answer="3.64",
        program="subtract(412.6, 398.1), divide(#0, 398.1), multiply(#1, 100)",
        executed_answer=3.64,
        scale="percent",
        answer_type="arithmetic",
        derivation="(412.6 - 398.1) / 398.1",
    )
    plain = Question(id="plain", text=words.text, document=_PAGE, answer=words.answer)
    return [grown, lower, share, mean, number, words, spans, count, derived, plain]


def gold_prediction(question: Question) -> Prediction:
    """What is predicted where the gold labels are."""
    program = question.program
    return Prediction(
        text=program or question.answer,
        answer=question.answer,
        program=program,
        scale=result_scale(question) if program else question.scale,
    )


def sample_predictions(question: Question) -> Iterator[Prediction]:
    """Right and wrong predictions, partial ones, and garbage, the gold labels first."""
    gold = gold_prediction(question)
    yield gold
    yield replace(gold, program=None, scale=question.scale)
    yield replace(gold, answer=None)
    yield replace(gold, program="add(1, 2), divide(#0, 3)")
    yield replace(gold, answer=None, program="add(Revenue, #7")
    for scale in SCALES:
        yield replace(gold, scale=cast("Scale", scale))
    for other in other_answers(question):
        yield gold_prediction(other)
    for answer in _ANSWERS:
        yield Prediction(text=answer, answer=answer)
    for text in GARBLED:
        yield Prediction(text=text, answer=text)
        yield Prediction(text=text, answer=text, program=text, evidence=(text,))
    yield Prediction(text="")
