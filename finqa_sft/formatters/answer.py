"""The formatter `answer`: the completion is the answer itself, with its scale."""

from __future__ import annotations

from finqa_sft.documents import Document, Question
from finqa_sft.formatters.base import Message, Prediction
from finqa_sft.formatters.chat import (
    ChatOptions,
    chat_prompt,
    generated_text,
    split_scale,
    value_text,
    with_scale,
)

SYSTEM = (
    "You answer questions about a page of a financial report. Give the answer alone: a number, a "
    "short phrase from the page, or yes or no. Write no explanation. Where the page gives the "
    "number in thousands, millions, billions or percent, say so on a second line, as in "
    "scale: million."
)


class AnswerOptions(ChatOptions):
    """Options of the formatter `answer`."""


class AnswerFormatter:
    """Teaches the answer as a value or a phrase."""

    def __init__(self, options: AnswerOptions | None = None) -> None:
        """Take the options; all have defaults."""
        self._options = options or AnswerOptions()

    def prompt(self, question: Question, *, document: Document) -> list[Message]:
        """Instruction, document, question."""
        return chat_prompt(
            question,
            document=document,
            system=self._options.system or SYSTEM,
            said=lambda turn: turn.answer,
        )

    def completion(self, question: Question) -> list[Message]:
        """The answer on one line, and its scale, if it has one, on the next."""
        text = with_scale(value_text(question, value=self._options.value), question.scale)
        return [{"role": "assistant", "content": text}]

    def parse(self, completion: str) -> Prediction:
        """The first line is the answer; an empty completion states none."""
        text = generated_text(completion)
        line, scale = split_scale(text)
        return Prediction(text=text, answer=line or None, scale=scale)
