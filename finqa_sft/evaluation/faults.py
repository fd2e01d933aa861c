"""Why a prediction is wrong: one kind an error, and a sentence that says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from finqa_sft.documents import Question, Scale
from finqa_sft.errors import ProgramError
from finqa_sft.evaluation.amounts import Difference, are_roundings, difference
from finqa_sft.evaluation.executed import ExecutedStep, executed_steps
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.values import number_text, result_scale, with_scale
from finqa_sft.metrics.base import Score
from finqa_sft.metrics.computed import (
    Computed,
    computed_prediction,
    stated_program,
    table_rows,
)
from finqa_sft.metrics.numbers import written_number
from finqa_sft.programs import Step, official_result, parse_program
from finqa_sft.programs.plain import reference
from finqa_sft.readers.tatqa import SPAN_SEPARATOR

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
    """The right number but for its rounding, or that of the numbers that its program works with."""

    OPERATOR = "wrong operator"
    """A program of another shape than the gold one: other operators or another order."""

    OPERAND = "wrong operand"
    """A program of the gold one's shape that works with other numbers or rows."""

    TEXT = "wrong text"
    """Words that are not the gold ones: another span of the page, no in place of yes."""

    NUMBER = "wrong number"
    """A number that is none of the above."""

    FORM = "form"
    """The right answer in a form that does not count: a number where a program is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a question.

    Attributes:
        right: Whether the first figure of the first metric that applies is 1.
        fault: The kind of error, or None where it is right.
        why: One sentence for a person: what came out and what was expected.
        computed: What the prediction comes to, as text: the program's result, else the answer.
        expected: What the gold labels come to, as text. Both are with the scale that they count in,
            but where it is the results of programs that are compared: no scale is looked at then,
            and both are the numbers alone.
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
    by_program: bool,
) -> Verdict:
    """Say what became of a question, and why.

    Args:
        question: The question as it was read.
        predicted: What was predicted, or None.
        scores: What the metrics that apply make of it; without any, it is neither right nor at
            fault.
        right: Whether it counts as right.
        by_program: Whether that goes by the result of a program, as in FinQA, and not by the answer
            as a person wrote it.
    """
    if predicted is None or predicted.problem:
        expected = _with_scale(*_expected(question, by_program=by_program))
        fault, why = Fault.NO_PREDICTION, "there is no prediction for this question"
        if predicted is not None:
            fault, why = Fault.NOT_ASKED, f"the question was not asked: {predicted.problem}"
        why = f"{why}; expected {_short(expected)}"
        return Verdict(right=False, fault=fault, why=why, computed="", expected=expected)
    outcome = _outcome(question, predicted.prediction, by_program=by_program)
    computed, why = outcome.computed, f"{outcome.came_to or 'says nothing'}, as expected"
    found_fault: Fault | None = None
    if right and (outcome.alone or not outcome.found.text):
        # The official reading of a program can give a result where no other one does, or another.
        computed, why = outcome.expected, f"computed {outcome.expected}, as expected"
    elif not scores:
        why = f"{outcome.came_to or 'says nothing'}; no metric applies to this question"
    elif not right:
        found_fault, why = _fault(question, predicted, outcome)
        note = next((score.note for score in scores if score.note), "")
        why = f"{why}; {note}" if note else why
    return Verdict(
        right=right,
        fault=found_fault,
        why=why,
        computed=computed,
        expected=outcome.expected,
        steps=executed_steps(predicted.prediction, question),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What a prediction comes to, beside what was expected.

    Attributes:
        found: What it comes to.
        text: The number, word or text of it that is compared.
        wanted: What it is compared with.
        wanted_scale: What that counts in.
        by_program: Whether what is right goes by the result of a program.
        alone: Whether two programs' results are compared, and no scales.
    """

    found: Computed
    text: str
    wanted: str
    wanted_scale: Scale
    by_program: bool
    alone: bool

    @property
    def computed(self) -> str:
        """What it comes to, with its scale where that is compared."""
        return self.text if self.alone else _with_scale(self.text, self.found.scale)

    @property
    def expected(self) -> str:
        """What was expected, with its scale where that is compared."""
        return self.wanted if self.alone else _with_scale(self.wanted, self.wanted_scale)

    @property
    def came_to(self) -> str:
        """What came out, as the beginning of a sentence; empty where nothing did."""
        if not self.text:
            return ""
        if self.found.result:
            return f"computed {_short(self.computed)}"
        shown = _short(self.text)
        shown = shown if written_number(shown) else repr(shown)
        return f"said {_with_scale(shown, self.found.scale)}"


def _outcome(question: Question, said: Prediction, *, by_program: bool) -> _Outcome:
    """Set a prediction beside the gold labels."""
    found = computed_prediction(said, question)
    wanted, wanted_scale = _expected(question, by_program=by_program)
    alone = by_program and bool(found.result)
    return _Outcome(
        found=found,
        text=found.result if alone else found.text,
        wanted=wanted,
        wanted_scale=wanted_scale,
        by_program=by_program,
        alone=alone,
    )


def _expected(question: Question, *, by_program: bool) -> tuple[str, Scale]:
    """What the gold labels come to, and the scale that it counts in."""
    match question.executed_answer if by_program else None:
        case None:
            return question.answer, question.scale
        case str() as word:
            return word, ""
        case number:
            return number_text(number), result_scale(question)


def _with_scale(text: str, scale: Scale) -> str:
    """A number as a person would write it: "14.2%", "12.5 million", each scale once."""
    line, beside = with_scale(text, scale, place="inside")
    return f"{line} {beside}" if scale and beside else line


def _short(text: str) -> str:
    """The text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _fault(question: Question, predicted: Predicted, outcome: _Outcome) -> tuple[Fault, str]:
    """The kind of error of a prediction that is wrong, and the sentence that says so."""
    found, program = outcome.found, stated_program(predicted.prediction)
    expected = f"expected {_short(outcome.expected)}"
    sentence = f"{outcome.came_to}, {expected}" if outcome.came_to else expected
    if not predicted.finished:
        return Fault.RAN_ON, f"still writing at the limit of new tokens; {sentence}"
    if program and found.problem:
        return Fault.INVALID_PROGRAM, f"the program has no result: {found.problem}; {sentence}"
    if not program and not found.text:
        return Fault.REFUSED, f"states neither program nor answer; {sentence}"
    if not program and _REFUSAL.search(found.text) and not _REFUSAL.search(outcome.wanted):
        return Fault.REFUSED, f"says that it cannot answer; {sentence}"
    scale = outcome.wanted_scale if outcome.alone else found.scale
    kind, power = difference(
        outcome.text, outcome.wanted, found_scale=scale, expected_scale=outcome.wanted_scale
    )
    if kind is Difference.NONE:
        return _form(question, program, outcome, sentence, of="number")
    programs = (program, question.program) if program and question.program else None
    if kind is Difference.ROUNDING and programs and not _is_rounding(*programs):
        # A result can be near the right one by chance, as that of the year before.
        return _compared(*programs, sentence)
    if kind in _FAULTS:
        factor = f"{10**power:,} " if power else ""
        return _FAULTS[kind], f"{sentence}: {factor}{kind.value}"
    if programs:
        return _compared(*programs, sentence)
    if kind is Difference.OTHER:
        return Fault.NUMBER, f"{sentence}: another number"
    return _text_fault(question, outcome, sentence)


_FAULTS = {
    Difference.STATED_SCALE: Fault.SCALE,
    Difference.TOO_LARGE: Fault.SCALE,
    Difference.TOO_SMALL: Fault.SCALE,
    Difference.SIGN: Fault.SIGN,
    Difference.ROUNDING: Fault.ROUNDING,
}
"""The faults that are seen from the numbers alone."""


def _form(
    question: Question, program: str | None, outcome: _Outcome, sentence: str, *, of: str
) -> tuple[Fault, str]:
    """Why a prediction is wrong that comes to the right number or text."""
    if program and not official_result(program, table_rows(question.document)).valid:
        return Fault.INVALID_PROGRAM, f"{sentence}; as it is written the program is invalid"
    if not outcome.by_program and outcome.found.scale != outcome.wanted_scale:
        return Fault.SCALE, f"{sentence}: the same {of} in another scale"
    if outcome.by_program and not program and question.program:
        return Fault.FORM, f"{sentence}: the same {of}, but no program that computes it"
    return Fault.FORM, f"{sentence}: the same {of}, in a form that the metric does not accept"


def _is_rounding(predicted: str, gold: str) -> bool:
    """Whether a program is the gold one but for the rounding of the numbers in it."""
    try:
        steps, gold_steps = _steps(predicted), _steps(gold)
    except ProgramError:
        return False
    return list(map(_shape, steps)) == list(map(_shape, gold_steps)) and all(
        arg == gold_arg or are_roundings(arg, gold_arg)
        for step, gold_step in zip(steps, gold_steps, strict=True)
        for arg, gold_arg in zip(step.args, gold_step.args, strict=True)
    )


def _compared(predicted: str, gold: str, sentence: str) -> tuple[Fault, str]:
    """What sets a predicted program apart from the gold one."""
    try:
        steps, gold_steps = _steps(predicted), _steps(gold)
    except ProgramError:
        return Fault.OPERATOR, f"{sentence}: the program is not like the gold one"
    if list(map(_shape, steps)) != list(map(_shape, gold_steps)):
        ops, gold_ops = (", ".join(step.op for step in every) for every in (steps, gold_steps))
        if ops == gold_ops:
            return (
                Fault.OPERATOR,
                f"{sentence}: the steps {ops} rest on each other in another order",
            )
        return (
            Fault.OPERATOR,
            f"{sentence}: the steps are {ops}, those of the gold program {gold_ops}",
        )
    pairs = [
        (arg, gold_arg)
        for step, gold_step in zip(steps, gold_steps, strict=True)
        for arg, gold_arg in zip(step.args, gold_step.args, strict=True)
        if arg != gold_arg
    ]
    if not pairs:
        return Fault.FORM, f"{sentence}: the same program with another result"
    shown = ", ".join(f"{arg} in place of {gold_arg}" for arg, gold_arg in pairs)
    return Fault.OPERAND, f"{sentence}: {shown}"


def _steps(program: str) -> tuple[Step, ...]:
    """The steps of a program.

    Raises:
        ProgramError: It cannot be read.
    """
    return parse_program(program, strictness="lenient").steps


def _shape(step: Step) -> tuple[str, tuple[int | None, ...]]:
    """A step without its numbers and rows."""
    return step.op, tuple(map(reference, step.args))


def _text_fault(question: Question, outcome: _Outcome, sentence: str) -> tuple[Fault, str]:
    """What sets a text apart from the expected one."""
    spans, wanted = _folded_spans(outcome.text), _folded_spans(outcome.wanted)
    missing, more = wanted - spans, spans - wanted
    if not missing and not more:
        return _form(question, outcome.found.result or None, outcome, sentence, of="text")
    if wanted.total() == 1 and spans.total() == 1:
        return Fault.TEXT, f"{sentence}: another text"
    parts = [
        f"{what} {_short(', '.join(map(repr, found.elements())))}"
        for what, found in (("without", missing), ("with", more))
        if found
    ]
    return Fault.TEXT, f"{sentence}: {' and '.join(parts)}"


def _folded_spans(text: str) -> Counter[str]:
    """The spans of an answer, whatever their case and white space."""
    spans = (" ".join(span.split()).casefold() for span in text.split(SPAN_SEPARATOR))
    return Counter(filter(None, spans))
