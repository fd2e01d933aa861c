"""What the formatters share: the layout of the chat, and the options of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from finqa_sft.documents import Document, Question, Turn
from finqa_sft.formatters.base import Message, Prediction
from finqa_sft.formatters.citations import EvidenceStyle, citations
from finqa_sft.formatters.linearize import document_text
from finqa_sft.formatters.tables import TableStyle
from finqa_sft.formatters.templates import Templates
from finqa_sft.formatters.values import ScalePlace, Value
from finqa_sft.options import Options


class ChatOptions(Options):
    """Options of every formatter that lays out a chat."""

    system: str | None = Field(default=None, min_length=1)
    """The system message, in place of the formatter's own."""

    templates: Templates = Templates()
    """How the page and a question are put together."""

    table_style: TableStyle = "markdown"
    """How tables are written. `tsv` and `pipe` take the fewest tokens, `sentences` and `html` the
    most; `sentences` writes a sentence a row, all others can be read back."""

    value: Value = "executed"
    """Where an answer is taught as a value: what its program computes ("0.14212"), or what the
    analyst wrote ("14.2%"). Without an executed answer, what was written is taught. A fraction is
    taught in percent where that is the question's scale."""

    evidence: EvidenceStyle = "none"
    """What is cited before the answer: nothing; of each table row its label and of each paragraph
    its first words (`short`); or rows and paragraphs as they stand (`quote`). Of a table as a
    whole and of a long paragraph, the rows and sentences with the numbers of the answer are
    cited."""

    scale: ScalePlace = "separate"
    """Where the scale of a value stands: on a line of its own (`scale: million`), or in the answer
    ("12.5 million", "-22.22%"). In the second case `scale: none` stands under an answer that ends
    in a scale which is not its own."""


class ChatFormatter(ABC):
    """Instruction, page and questions as a chat; what is completed is the subclass's."""

    def __init__(self, options: ChatOptions) -> None:
        """Take the options."""
        self._options = options

    @abstractmethod
    def _instruction(self) -> str:
        """The system message, where the options have none."""

    @abstractmethod
    def _written(self, question: Question) -> str:
        """What the model is taught to write."""

    @abstractmethod
    def parse(self, completion: str) -> Prediction:
        """Read a completion; never raises."""

    def prompt(self, question: Question, *, document: Document) -> list[Message]:
        """Instruction, document, earlier turns, question.

        The document stands in the first user message, before the question, so that all questions of
        a document begin with the same tokens. An earlier turn is answered as `completion` answers
        it.
        """
        options = self._options
        asked = [turn.question for turn in question.history] + [question.text]
        opening = options.templates.opening_text(
            document=document_text(document, table_style=options.table_style),
            question=asked[0],
            company=document.company,
        )
        messages: list[Message] = [
            {"role": "system", "content": options.system or self._instruction()},
            {"role": "user", "content": opening},
        ]
        for turn, following in zip(question.history, asked[1:], strict=True):
            messages += self.completion(asked_before(question, turn))
            text = options.templates.follow_up_text(following)
            messages.append({"role": "user", "content": text})
        return messages

    def completion(self, question: Question) -> list[Message]:
        """One message with what the model is taught to write."""
        return [{"role": "assistant", "content": self._written(question)}]

    def _cited_above(self, question: Question, lines: Sequence[str]) -> str:
        """Some lines of a completion, under those that cite."""
        cited = citations(question, style=self._options.evidence)
        return "\n".join([*(f"evidence: {text}" for text in cited), *lines])


def asked_before(question: Question, turn: Turn) -> Question:
    """An earlier turn as the question that it was, with all that the turn holds of its answer.

    So a turn is answered in a later prompt as it is taught, as far as the turn tells of it.
    """
    return replace(
        question,
        text=turn.question,
        answer=turn.answer,
        program=turn.program,
        derivation=None,
        executed_answer=turn.executed_answer,
        scale=turn.scale,
        answer_type=None,
        evidence=(),
        history=(),
    )
