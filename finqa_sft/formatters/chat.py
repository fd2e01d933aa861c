"""What the formatters share: the layout of the prompt, and how values are written."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Literal, cast

from pydantic import Field

from finqa_sft.documents import SCALES, Document, Question, Scale, Turn
from finqa_sft.formatters.base import Message
from finqa_sft.formatters.linearize import document_text
from finqa_sft.options import Options

_SCALE_LINE = re.compile(rf"scale: ({'|'.join(filter(None, SCALES))})\b")
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


class ChatOptions(Options):
    """Options of every formatter that lays out a chat."""

    system: str | None = Field(default=None, min_length=1)
    """The system message, in place of the formatter's own."""

    value: Literal["executed", "written"] = "executed"
    """Where an answer is taught as a value: what its program computes ("0.14212"), or what the
    analyst wrote ("14.2%"). Without an executed answer, what was written is taught."""


def chat_prompt(
    question: Question, *, document: Document, system: str, said: Callable[[Turn], str]
) -> list[Message]:
    """The prompt: instruction, document, earlier turns, question; the document comes first.

    The document stands in the first user message, before the question, so that all questions of a
    document begin with the same tokens.

    Args:
        question: The question to ask.
        document: What to show of its document.
        system: The instruction.
        said: What stands as the answer to an earlier turn: of the kind that is taught.
    """
    asked = [turn.question for turn in question.history] + [question.text]
    answers = [said(turn) for turn in question.history]
    opening = f"{document_text(document)}\n\nQuestion: {asked[0]}".strip()
    messages: list[Message] = [
        {"role": "system", "content": system},
        {"role": "user", "content": opening},
    ]
    for answer, following in zip(answers, asked[1:], strict=True):
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": f"Question: {following}"})
    return messages


def value_text(question: Question, *, value: Literal["executed", "written"]) -> str:
    """The answer as a value, on one line."""
    executed = question.executed_answer
    if value == "written" or executed is None:
        return " ".join(question.answer.split())
    return executed if isinstance(executed, str) else number_text(executed)


def with_scale(text: str, scale: Scale) -> str:
    """A one-line answer, and under it the scale that it is in, if it is in one."""
    return f"{text}\nscale: {scale}" if scale else text


def split_scale(text: str) -> tuple[str, Scale]:
    """The first line of a completion, and the scale that the line under it states."""
    line, _, rest = text.partition("\n")
    found = _SCALE_LINE.match(rest.strip())
    return line.strip(), cast(Scale, found[1]) if found else ""


def number_text(number: float) -> str:
    """A number in plain decimal notation, as few digits as give it back: 407, 0.34719, -2.4."""
    text = f"{Decimal(repr(number)):f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def generated_text(completion: str) -> str:
    """The completion without surrounding white space and without a reasoning block."""
    return _THINKING.sub("", completion).strip()
