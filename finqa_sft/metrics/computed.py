"""What a prediction comes to: the result of its program, else the answer that it states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finqa_sft.documents import Document, Question, Scale
from finqa_sft.errors import ProgramError
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.values import number_text
from finqa_sft.programs import execute_program, parse_program
from finqa_sft.programs.plain import literal_value


@dataclass(frozen=True, slots=True)
class Computed:
    """What a prediction comes to.

    Attributes:
        text: A number in plain digits, "yes" or "no", or the stated answer; empty if there is none.
        scale: What it counts in, as the prediction says.
        problem: Why its program has no result; empty if it has one or there is no program.
    """

    text: str
    scale: Scale
    problem: str = ""


def table_rows(document: Document) -> list[Sequence[str]]:
    """The rows of all tables of a document, among which programs look up labels."""
    return [row for table in document.tables for row in table.rows]


def computed_prediction(prediction: Prediction, question: Question) -> Computed:
    """Execute a prediction's program, read leniently; where that fails, take the stated answer.

    A program that is a lone number, as ConvFinQA has them, is its result.

    Args:
        prediction: Its program names rows as the question's document does.
        question: The question that was asked; its gold labels are not looked at.
    """
    stated = (prediction.answer or "").strip()
    if not (prediction.program or "").strip():
        return Computed(stated, prediction.scale)
    try:
        return Computed(_result(prediction.program or "", question), prediction.scale)
    except ProgramError as error:
        return Computed(stated, prediction.scale, problem=str(error))


def _result(program: str, question: Question) -> str:
    """A program's result as text.

    Raises:
        ProgramError: It cannot be read or executed.
    """
    if "(" not in program:
        return number_text(literal_value(program.strip()))
    value = execute_program(
        parse_program(program, strictness="lenient"), table_rows(question.document)
    )
    return value if isinstance(value, str) else number_text(value)
