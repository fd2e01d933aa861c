"""What a formatter is: both directions of one contract, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypedDict

from finqa_sft.documents import Document, Question, Scale


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a completion says.

    Attributes:
        text: The completion as generated, without white space around it and reasoning before it.
        answer: The answer it states, or None where it states none.
        program: The program it states, or None where it states none.
        scale: The scale it states.
        evidence: What it cites from the document, as it writes it.
    """

    text: str
    answer: str | None = None
    program: str | None = None
    scale: Scale = ""
    evidence: tuple[str, ...] = ()


class Formatter(Protocol):
    """Turns a question into messages, and a completion into a prediction.

    `parse` is the inverse of `completion`: for every question,
    `parse(completion(question)[0]["content"])` gives back the answer or program that was written,
    and its scale where the completion states one.
    """

    def prompt(self, question: Question, *, document: Document) -> list[Message]:
        """Messages up to the answer.

        Args:
            question: The question to ask.
            document: What to show of `question.document`: all of it, or what the budget left.
        """
        ...

    def completion(self, question: Question) -> list[Message]:
        """The one assistant message that the model is taught."""
        ...

    def parse(self, completion: str) -> Prediction:
        """Read a completion; never raises."""
        ...
