"""What a prediction comes to: the result of its program, else the answer that it states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from finqa_sft.documents import Document, Question, Scale
from finqa_sft.errors import ProgramError
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.values import decimal_text, number_text, result_scale
from finqa_sft.metrics.numbers import written_number
from finqa_sft.programs import execute_program, parse_program
from finqa_sft.programs.plain import literal_value


@dataclass(frozen=True, slots=True)
class Computed:
    """What a prediction comes to.

    Attributes:
        text: A number in plain digits, "yes" or "no", or the stated answer; empty if there is none.
        scale: What it counts in, as the prediction says.
        problem: Why its program has no result; empty if it has one or there is no program.
        result: What its program computes, as it stands there; empty if it has none. `text` is the
            same but where a fraction is meant in percent.
    """

    text: str
    scale: Scale
    problem: str = ""
    result: str = ""


def stated_program(prediction: Prediction) -> str | None:
    """The program that a prediction states; None where it states none, or a blank one."""
    program = prediction.program
    return program if program is not None and program.strip() else None


def table_rows(document: Document) -> list[Sequence[str]]:
    """The rows of all tables of a document, among which programs look up labels."""
    return [row for table in document.tables for row in table.rows]


def computed_prediction(prediction: Prediction, question: Question) -> Computed:
    """Execute a prediction's program, read leniently; where that fails, take the stated answer.

    A program that is a lone number, as ConvFinQA has them, is its result. A program may compute a
    fraction where the answer beside it is in percent: 0.142 beside 14.2 with the scale percent. Its
    result is then 14.2 too, since it is the stated scale that says what numbers count in.

    Args:
        prediction: Its program names rows as the question's document does.
        question: The question that was asked; its gold labels are not looked at.
    """
    stated = (prediction.answer or "").strip()
    program = stated_program(prediction)
    if program is None:
        return Computed(stated, prediction.scale)
    try:
        value = _value(program, question.document)
    except ProgramError as error:
        return Computed(stated, prediction.scale, problem=str(error))
    if isinstance(value, str):
        return Computed(value, prediction.scale, result=value)
    is_fraction = False
    if prediction.scale == "percent" and written_number(stated):
        said = replace(question, answer=stated, executed_answer=value, scale=prediction.scale)
        is_fraction = result_scale(said) != prediction.scale
    text = decimal_text(Decimal(repr(value)).scaleb(2)) if is_fraction else number_text(value)
    return Computed(text, prediction.scale, result=number_text(value))


def _value(program: str, document: Document) -> float | str:
    """What a program computes.

    Raises:
        ProgramError: It cannot be read or executed.
    """
    if "(" not in program:
        return literal_value(program.strip())
    return execute_program(parse_program(program, strictness="lenient"), table_rows(document))
