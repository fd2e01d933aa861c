"""Why a prediction is wrong: one kind an error, with the steps that led to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
