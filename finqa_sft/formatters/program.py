"""The formatter `program`: the completion is a program that computes the answer."""

from __future__ import annotations

from finqa_sft.documents import Document, Question
from finqa_sft.errors import ProgramError
from finqa_sft.formatters.base import Message, Prediction
from finqa_sft.formatters.chat import ChatOptions, chat_prompt, generated_text, value_text
from finqa_sft.programs import parse_program

SYSTEM = (
    "You answer questions about a page of a financial report with a short program. Steps are "
    "written op(a, b) and joined by a comma and a space; #0 is the result of the first step, #1 of "
    "the second. Operators: add, subtract, multiply, divide, exp, greater; table_max, table_min, "
    "table_sum, table_average take a row label and none. Where nothing has to be computed, give "
    "the value alone."
)


class ProgramOptions(ChatOptions):
    """Options of the formatter `program`."""


class ProgramFormatter:
    """Teaches FinQA's flat program, and a bare value where a question has no program.

    Scales are not taught: a program computes in the unit of the page.
    """

    def __init__(self, options: ProgramOptions | None = None) -> None:
        """Take the options; all have defaults."""
        self._options = options or ProgramOptions()

    def prompt(self, question: Question, *, document: Document) -> list[Message]:
        """Instruction, document, question."""
        return chat_prompt(
            question,
            document=document,
            system=self._options.system or SYSTEM,
            said=lambda turn: turn.program or turn.answer,
        )

    def completion(self, question: Question) -> list[Message]:
        """The program as written, or the value."""
        text = question.program or value_text(question, value=self._options.value)
        return [{"role": "assistant", "content": text}]

    def parse(self, completion: str) -> Prediction:
        """The first line, as a program if it is one and as a value otherwise."""
        text = generated_text(completion)
        line = text.partition("\n")[0].strip()
        try:
            parse_program(line)
        except ProgramError:
            return Prediction(text=text, answer=line or None)
        return Prediction(text=text, program=line)
