"""Whether the answer as written, the executed answer and the program say the same.

FinQA's written answers are in percent where the executed ones are fractions, some have lost a sign,
and some were typed for another question. Taught side by side, they teach that anything goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from typing import Literal, TypeAlias

from finqa_sft.cleaning.written import Written, plain_number, written_number
from finqa_sft.documents import Question
from finqa_sft.errors import DataError, ProgramError
from finqa_sft.programs import execute_program, parse_program

Disagreements: TypeAlias = Literal["keep", "drop", "correct", "error"]
"""What happens to questions whose written and executed answers disagree; see `settle`."""

_COMPUTED = 0.5e-5
"""Executed answers are rounded to 5 digits behind the point."""

_CLOSE = 0.01
_CLOSE_DIGIT = 0.05


class Agreement(Enum):
    """How the written answer and the executed answer of a question agree.

    A member's value is the phrase that reports use.
    """

    SAME = "answer and executed answer agree"
    """Equal at the precision of the written answer, a word such as million taken or not; yes and
    no alike."""

    PERCENT = "answer in percent, executed answer a fraction"
    """The same number: "14.2%" and 0.142."""

    UNMARKED_PERCENT = "answer in percent without saying so, executed answer a fraction"
    """The same number, but the answer does not say that it is in percent: "14.2" and 0.142."""

    EXECUTED_PERCENT = "answer and executed answer both in percent"
    """The program computes in percent: "14.2%" and 14.2."""

    ROUNDING = "answer and executed answer differ by rounding"
    """Within 1%, or within one unit of the last written digit and 5%."""

    SIGN = "answer and executed answer differ in sign"
    """The same number but for its sign: "5.2%" and -0.052."""

    SCALE = "answer and executed answer differ by thousands, millions or billions"
    """The same number but for some thousands: "5.2" and 5200."""

    DIFFERENT = "answer and executed answer disagree"
    """Different numbers, or yes and no."""

    PROGRAM = "executed answer is not what the program computes"
    """The program was executed on the document's table and gave something else."""

    NO_NUMBER = "answer names no number, executed answer is one"
    """The written answer is text, so the two cannot be compared."""

    NOTHING_TO_COMPARE = "no executed answer, and no program that can be executed"
    """There is the written answer alone."""

    @property
    def disagrees(self) -> bool:
        """Whether one of them must be wrong."""
        return self in _DISAGREEING


_DISAGREEING = frozenset((Agreement.SIGN, Agreement.SCALE, Agreement.DIFFERENT, Agreement.PROGRAM))


def agreement(question: Question) -> Agreement:
    """Compare the written answer with the executed one, and that with its program.

    A program that cannot be executed on the document's table is left out of account. Without an
    executed answer, what the program computes stands for it.
    """
    executed, computed = question.executed_answer, computed_answer(question)
    if executed is None:
        executed = computed
    elif computed is not None and not _is_computed(executed, computed):
        return Agreement.PROGRAM
    return _compare(question, executed)


def computed_answer(question: Question) -> float | str | None:
    """What the program computes on the rows of the document's tables; None where it cannot."""
    if question.program is None:
        return None
    rows = [row for table in question.document.tables for row in table.rows]
    try:
        return execute_program(parse_program(question.program), rows)
    except ProgramError:
        return None


def settle(question: Question, policy: Disagreements) -> Question | None:
    """Apply the policy for labels that disagree; see `Agreement.disagrees`.

    The policies:

    - `keep`: every question stays as it is.
    - `drop`: a question whose labels disagree is left out.
    - `correct`: what two of the three labels say is taken over by the third. A written answer gets
      the sign of the executed one if a program computes that; an executed answer becomes what the
      program computes if the written one says so too. A percentage without its sign gets one
      ("14.2" beside 0.142 becomes "14.2%"). Where nothing tells which label is wrong, as with
      two different numbers, both stay: of FinQA's, as often the program is the wrong one.
    - `error`: the first question whose labels disagree ends the run.

    Returns:
        The question, the same object where nothing changed, or None where it is left out.

    Raises:
        DataError: The policy is `error`, and the labels disagree.
    """
    if policy == "keep":
        return question
    found = agreement(question)
    if policy == "correct":
        return _corrected(question, found)
    if not found.disagrees:
        return question
    if policy == "drop":
        return None
    raise DataError(
        f"{question.source or question.id}: {found.value}: {labels_told(question)}; mend the row, "
        "or let such rows be dropped or corrected"
    )


def labels_told(question: Question) -> str:
    """The labels that a question has, side by side, for a person who looks which one is wrong.

    What the program computes stands there too, unless the executed answer says it already.
    """
    executed, computed = question.executed_answer, computed_answer(question)
    told = f"answer {question.answer!r}"
    if executed is not None:
        told += f", executed answer {executed!r}"
    if question.program is not None:
        told += f", program {question.program!r}"
    if computed is not None and (executed is None or not _is_computed(executed, computed)):
        told += f" computes {computed if isinstance(computed, str) else plain_number(computed)}"
    return told


def _corrected(question: Question, found: Agreement) -> Question:
    written, computed = written_number(question.answer), computed_answer(question)
    if found is Agreement.UNMARKED_PERCENT and written is not None:
        marked = f"{question.answer[: written.end]}%{question.answer[written.end :]}"
        return replace(question, answer=marked)
    if found is Agreement.SIGN and written is not None and computed is not None:
        mended = replace(question, answer=written.negated())
    elif found is Agreement.PROGRAM:
        mended = replace(question, executed_answer=computed)
    else:
        return question
    settled = agreement(mended)
    if settled.disagrees or settled is Agreement.NO_NUMBER:
        return question
    return _corrected(mended, settled)


def _compare(question: Question, executed: float | str | None) -> Agreement:
    if executed is None:
        return Agreement.NOTHING_TO_COMPARE
    word = question.answer.strip().lower().removesuffix(".")
    if isinstance(executed, str) or word in ("yes", "no"):
        return Agreement.SAME if word == executed else Agreement.DIFFERENT
    written = written_number(question.answer)
    if written is None:
        return Agreement.NO_NUMBER
    readings = dict(_readings(written, scale=question.scale))
    for agreement, factor in readings.items():
        if _equal(written, factor, executed):
            return agreement
    if written.factor != 1.0 and _equal(written, written.factor, executed):
        return Agreement.SAME
    factors = {*readings.values(), written.factor} - {readings.get(Agreement.UNMARKED_PERCENT, 0.0)}
    if any(_close(written, factor, executed) for factor in factors):
        return Agreement.ROUNDING
    if any(_close(written, factor, -executed) for factor in readings.values()):
        return Agreement.SIGN
    thousands = [factor * 1000.0**k for factor in factors for k in (-3, -2, -1, 1, 2, 3)]
    if any(_equal(written, factor, executed) for factor in thousands):
        return Agreement.SCALE
    return Agreement.DIFFERENT


def _readings(written: Written, *, scale: str) -> Iterator[tuple[Agreement, float]]:
    """What the written number may be multiplied with to give the executed one, likeliest first."""
    if scale == "percent":
        yield Agreement.SAME, 1.0
        yield Agreement.PERCENT, 0.01
    elif written.is_percent:
        yield Agreement.PERCENT, 0.01
        yield Agreement.EXECUTED_PERCENT, 1.0
    else:
        yield Agreement.SAME, 1.0
        if not scale and written.factor == 1.0:
            yield Agreement.UNMARKED_PERCENT, 0.01


def _equal(written: Written, factor: float, executed: float) -> bool:
    """Whether the executed answer rounds to the written number."""
    tolerance = written.unit * factor * 0.500001 + _COMPUTED + 1e-9 * abs(executed)
    return abs(written.value * factor - executed) <= tolerance


def _close(written: Written, factor: float, executed: float) -> bool:
    """Whether the two are equal, or differ as little as sloppy rounding makes them."""
    off = abs(written.value * factor - executed)
    return (
        _equal(written, factor, executed)
        or off <= _CLOSE * abs(executed)
        or (off <= written.unit * factor * 1.000001 and off <= _CLOSE_DIGIT * abs(executed))
    )


def _is_computed(executed: float | str, computed: float | str) -> bool:
    """Whether an executed answer is what the program computes, or is that rounded.

    TAT-QA's are rounded to two digits behind the point, FinQA's to five; 0 is not taken for a
    rounded number.
    """
    if isinstance(executed, str) or isinstance(computed, str):
        return executed == computed
    off = abs(executed - computed)
    if off <= 2 * _COMPUTED + 1e-6 * abs(computed):
        return True
    decimals = max(2, len(plain_number(executed).partition(".")[2]))
    return executed != 0 and off <= 0.5001 * 10.0**-decimals
