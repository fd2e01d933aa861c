"""Documents and questions: what every reader yields and every formatter takes.

Frozen dataclasses over plain values. Nothing here knows of tokens, files or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Scale: TypeAlias = Literal["", "thousand", "million", "billion", "percent"]
SCALES: tuple[str, ...] = get_args(Scale)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A run of text.

    Attributes:
        text: The text, without leading or trailing white space.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells.

    Attributes:
        rows: All rows, header rows first; every row has the same number of cells.
        header_rows: How many of the first rows are headers.
    """

    rows: tuple[tuple[str, ...], ...]
    header_rows: int = 1

    @classmethod
    def from_cells(cls, rows: Sequence[Sequence[str]], *, header_rows: int = 1) -> Table:
        """Build a table from ragged rows; short rows are filled with empty cells."""
        width = max((len(row) for row in rows), default=0)
        return cls(
            rows=tuple(tuple(row) + ("",) * (width - len(row)) for row in rows),
            header_rows=min(header_rows, len(rows)),
        )


Block: TypeAlias = Paragraph | Table


@dataclass(frozen=True, slots=True)
class Document:
    """A financial page that questions are asked about.

    Attributes:
        id: Names the document within its data set; splits and grouping go by it.
        blocks: Paragraphs and tables in reading order.
        company: The company that the page is about, where the data names one.
    """

    id: str
    blocks: tuple[Block, ...]
    company: str | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables, in reading order."""
        return tuple(block for block in self.blocks if isinstance(block, Table))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where in its document an answer comes from.

    Attributes:
        block: Index into `Document.blocks`.
        row: Index into `Table.rows`, or None for a paragraph or a whole table.
    """

    block: int
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of the same conversation, with its answer.

    Attributes:
        question: The question as asked.
        answer: The answer as a person wrote it.
        program: The program that computes the answer, where there is one.
        executed_answer: What the program computes, as in `Question`.
        scale: The unit that `answer` counts in.
    """

    question: str
    answer: str
    program: str | None = None
    executed_answer: float | str | None = None
    scale: Scale = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its document and everything known about its answer.

    Attributes:
        id: Unique within its data set.
        text: The question.
        document: The page it is asked about.
        answer: The answer as a person wrote it.
        program: FinQA's flat program, where there is one.
        executed_answer: What the program computes: a number, or "yes" / "no".
        scale: The unit that `answer` counts in.
        answer_type: The data set's own word for the kind of answer.
        evidence: Blocks and rows that the answer rests on.
        history: Earlier turns, oldest first.
        source: File and row it was read from, for messages.
        derivation: The arithmetic that the analyst wrote down, where there is any:
            "-(0.9 + 0.1) / 2".
    """

    id: str
    text: str
    document: Document
    answer: str
    program: str | None = None
    executed_answer: float | str | None = None
    scale: Scale = ""
    answer_type: str | None = None
    evidence: tuple[Evidence, ...] = ()
    history: tuple[Turn, ...] = ()
    source: str = ""
    derivation: str | None = None
