"""The formatter `boxed`."""

from __future__ import annotations

import re

from finqa_sft.documents import Document, Question
from finqa_sft.formatters.base import Message, Prediction
from finqa_sft.formatters.linearize import document_text
from finqa_sft.options import Options


class BoxedOptions(Options):
    """Options of the formatter `boxed`."""

    instruction: str = r"Answer with \boxed{...}."
    """What the model is told first."""


class BoxedFormatter:
    r"""Teaches `\boxed{answer}`."""

    def __init__(self, options: BoxedOptions) -> None:
        self._instruction = options.instruction

    def prompt(self, question: Question, *, document: Document) -> list[Message]:
        return [
            {"role": "system", "content": self._instruction},
            {"role": "user", "content": f"{document_text(document)}\n\n{question.text}"},
        ]

    def completion(self, question: Question) -> list[Message]:
        return [{"role": "assistant", "content": rf"\boxed{{{question.answer}}}"}]

    def parse(self, completion: str) -> Prediction:
        text = completion.strip()
        found = re.search(r"\\boxed\{(.*)\}", text, re.DOTALL)
        return Prediction(text=text, answer=found[1] if found else None)
