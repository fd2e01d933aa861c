"""Why a prediction is wrong: one kind an error, with the steps that led to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from finqa_sft.documents import Question
from finqa_sft.errors import ProgramError
from finqa_sft.evaluation.amounts import Difference, difference
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.values import number_text, result_scale
from finqa_sft.metrics.base import Score
from finqa_sft.metrics.computed import Computed, computed_prediction, table_rows
from finqa_sft.metrics.numbers import written_number
from finqa_sft.programs import (
    Program,
    Step,
    execute_program,
    official_result,
    parse_program,
)
from finqa_sft.programs.plain import reference

_REFUSAL = re.compile(
    r"\b(?:can ?not|can[\u2019']t|could not|unable to|impossible to)\b"
    r"|\bnot (?:be )?(?:provided|determined|available|disclosed|enough information|possible)\b"
    r"|\binsufficient (?:information|data)\b|\bno information\b",
    re.IGNORECASE,
)
_SHOWN = 200


class Fault(Enum):
    """Kinds of error; a member's value is the phrase that reports use."""

    NO_PREDICTION = "no prediction"
    """The predictions have none for the question."""

    NOT_ASKED = "not asked"
    """The question did not fit into the prompt."""

    RAN_ON = "ran past its end"
    """The completion was still going on at the limit of new tokens."""

    REFUSED = "refused"
    """It says that it cannot answer, or gives neither program nor answer."""

    INVALID_PROGRAM = "invalid program"
    """The program cannot be read or executed."""

    SCALE = "scale"
    """The right number in another scale: thousands, millions, percent in place of a fraction."""

    SIGN = "sign"
    """The right number with the other sign."""

    ROUNDING = "rounding"
    """The right number but for its rounding."""

    OPERATOR = "wrong operator"
    """A program of another shape than the gold one: other operators or another order."""

    OPERAND = "wrong operand"
    """A program of the gold one's shape that works with other numbers or rows."""

    SPAN = "wrong span"
    """Text that is not the gold text."""

    NUMBER = "wrong number"
    """A number that is none of the above."""


@dataclass(frozen=True, slots=True)
class ExecutedStep:
    """A step of the predicted program with its result.

    Attributes:
        text: The step as written: `subtract(5829, 5735)`.
        result: Its result as text, or why there is none.
    """

    text: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a question.

    Attributes:
        right: Whether the first figure of the first metric that applies is 1.
        fault: The kind of error, or None where it is right.
        why: One sentence for a person: what came out and what was expected.
        computed: What the prediction comes to, as text: the program's result, else the answer.
        expected: What the gold labels come to, as text.
        steps: The predicted program's steps with their results.
    """

    right: bool
    fault: Fault | None
    why: str
    computed: str
    expected: str
    steps: tuple[ExecutedStep, ...] = ()


def verdict(
    question: Question,
    predicted: Predicted | None,
    scores: Sequence[Score],
    *,
    right: bool,
) -> Verdict:
    """Say what became of a question, and why.

    Args:
        question: The question as it was read.
        predicted: What was predicted, or None.
        scores: What the metrics that apply make of it; without any, it is neither right nor at
            fault.
        right: Whether it counts as right.
    """
    expected = _with_scale(*_expected(question))
    if predicted is None:
        why = f"there is no prediction for this question; expected {expected}"
        return Verdict(
            right=False, fault=Fault.NO_PREDICTION, why=why, computed="", expected=expected
        )
    if predicted.problem:
        why = f"the question was not asked: {predicted.problem}"
        return Verdict(right=False, fault=Fault.NOT_ASKED, why=why, computed="", expected=expected)
    said = predicted.prediction
    found = computed_prediction(said, question)
    computed = _with_scale(found.text, found.scale)
    came_to = _came_to(said, found) or "says nothing"
    fault, why = None, f"{came_to}, as expected"
    if right and not found.text:
        # The official reading of a program can give a result where no other one does.
        computed, why = expected, f"computed {expected}, as expected"
    elif not scores:
        why = f"{came_to}; no metric applies to this question"
    elif not right:
        fault, why = _fault(question, predicted, found)
        note = next((score.note for score in scores if score.note), "")
        why = f"{why}; {note}" if note else why
    return Verdict(
        right=right,
        fault=fault,
        why=why,
        computed=computed,
        expected=expected,
        steps=executed_steps(said, question),
    )


def executed_steps(prediction: Prediction, question: Question) -> tuple[ExecutedStep, ...]:
    """The steps of a predicted program, read leniently, each with its result or why it has none.

    A prediction without a program that can be read has no steps.
    """
    try:
        program = parse_program(prediction.program or "", strictness="lenient")
    except ProgramError:
        return ()
    table = table_rows(question.document)
    steps: list[ExecutedStep] = []
    failed: set[int] = set()
    for index, step in enumerate(program.steps):
        missing = sorted(failed.intersection(_references(step)))
        if missing:
            result = f"not computed: #{missing[0]} has no result"
            failed.add(index)
        else:
            try:
                value = execute_program(_alone(program, index), table)
                result = value if isinstance(value, str) else number_text(value)
            except ProgramError as error:
                # What fails here is this step: those that it rests on have results.
                result = str(error).removeprefix(f"step {index} {str(step)[:100]}: ")
                failed.add(index)
        steps.append(ExecutedStep(str(step), result))
    return tuple(steps)


def _references(step: Step) -> list[int]:
    found = map(reference, step.args)
    return [index for index in found if index is not None]


def _alone(program: Program, index: int) -> Program:
    """A program that ends with one step of another; steps that it does not rest on compute 0."""
    needed = {index}
    for earlier in range(index, -1, -1):
        if earlier in needed:
            needed.update(_references(program.steps[earlier]))
    nothing = Step("add", ("0", "0"))
    return Program(
        tuple(
            step if place in needed else nothing
            for place, step in enumerate(program.steps[: index + 1])
        )
    )


def _expected(question: Question) -> tuple[str, str]:
    """What the gold labels come to, and the scale that it counts in."""
    match question.executed_answer:
        case None:
            return question.answer, question.scale
        case str() as word:
            return word, ""
        case number:
            return number_text(number), result_scale(question)


def _with_scale(text: str, scale: str) -> str:
    return f"{text} {scale}".strip()


def _came_to(prediction: Prediction, found: Computed) -> str:
    """What came out, as the beginning of a sentence; empty where nothing did."""
    if not found.text:
        return ""
    if prediction.program and not found.problem:
        return f"computed {_with_scale(found.text, found.scale)}"
    shown = _short(found.text)
    return f"said {_with_scale(shown if written_number(shown) else repr(shown), found.scale)}"


def _short(text: str) -> str:
    """The text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _fault(question: Question, predicted: Predicted, found: Computed) -> tuple[Fault, str]:
    """The kind of error of a prediction that is wrong, and the sentence that says so."""
    said = predicted.prediction
    text, scale = _expected(question)
    came_to, expected = _came_to(said, found), f"expected {_with_scale(_short(text), scale)}"
    outcome = f"{came_to}, {expected}" if came_to else expected
    if not predicted.finished:
        return Fault.RAN_ON, f"still writing at the limit of new tokens; {outcome}"
    if said.program:
        if found.problem:
            return Fault.INVALID_PROGRAM, f"the program has no result: {found.problem}; {outcome}"
    elif not found.text:
        return Fault.REFUSED, f"states neither program nor answer; {outcome}"
    elif _REFUSAL.search(found.text) and not _REFUSAL.search(text):
        return Fault.REFUSED, f"says that it cannot answer; {outcome}"
    kind, power = difference(
        found.text, text, found_scale=found.scale, expected_scale=result_scale(question)
    )
    if said.program and kind is Difference.NONE:
        official = official_result(said.program, table_rows(question.document))
        if not official.valid:
            return Fault.INVALID_PROGRAM, f"{outcome}; as it is written the program is invalid"
    if kind in _FAULTS:
        factor = f"{10**power:,} " if power else ""
        return _FAULTS[kind], f"{outcome}: {factor}{kind.value}"
    if said.program and question.program:
        return _compared(said.program, question.program, outcome)
    if kind is Difference.OTHER:
        return Fault.NUMBER, f"{outcome}: another number"
    same = found.text.casefold().split() == text.casefold().split()
    return Fault.SPAN, f"{outcome}: {_SAME_TEXT if same else 'another text'}"


_SAME_TEXT = "the same text, in a form or scale that the metric does not accept"
_FAULTS = {
    Difference.NONE: Fault.ROUNDING,
    Difference.STATED_SCALE: Fault.SCALE,
    Difference.TOO_LARGE: Fault.SCALE,
    Difference.TOO_SMALL: Fault.SCALE,
    Difference.SIGN: Fault.SIGN,
    Difference.ROUNDING: Fault.ROUNDING,
}
"""The faults that are seen from the numbers alone."""


def _compared(predicted: str, gold: str, outcome: str) -> tuple[Fault, str]:
    """What sets a predicted program apart from the gold one."""
    try:
        steps = parse_program(predicted, strictness="lenient").steps
        gold_steps = parse_program(gold, strictness="lenient").steps
    except ProgramError:
        return Fault.OPERATOR, f"{outcome}: the program is not like the gold one"
    if list(map(_shape, steps)) != list(map(_shape, gold_steps)):
        ops, gold_ops = (", ".join(step.op for step in every) for every in (steps, gold_steps))
        if ops == gold_ops:
            return Fault.OPERATOR, f"{outcome}: the steps {ops} rest on each other in another order"
        return (
            Fault.OPERATOR,
            f"{outcome}: the steps are {ops}, those of the gold program {gold_ops}",
        )
    pairs = [
        (arg, gold_arg)
        for step, gold_step in zip(steps, gold_steps, strict=True)
        for arg, gold_arg in zip(step.args, gold_step.args, strict=True)
        if arg != gold_arg
    ]
    shown = ", ".join(f"{arg} in place of {gold_arg}" for arg, gold_arg in pairs)
    return Fault.OPERAND, f"{outcome}: {shown or 'the same program'}"


def _shape(step: Step) -> tuple[str, tuple[int | None, ...]]:
    """A step without its numbers and rows."""
    return step.op, tuple(map(reference, step.args))
