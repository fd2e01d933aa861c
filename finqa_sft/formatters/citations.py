"""What a completion cites: the rows and paragraphs that an answer rests on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from finqa_sft.documents import Block, Evidence, Question, Table
from finqa_sft.errors import ProgramError
from finqa_sft.formatters.values import number_text, numbers_in
from finqa_sft.programs import parse_program

EvidenceStyle: TypeAlias = Literal["none", "short", "quote"]
"""How much of the evidence a completion cites."""

WHOLE_TABLE = "table"
"""What is cited of a table in which no row holds the numbers of the answer."""

SHORT_WORDS = 8
"""Words of a paragraph that `short` cites."""

QUOTED_WORDS = 60
"""A paragraph with more words is cited by its sentences that hold the numbers of the answer."""

_SENTENCE = re.compile(r"(?<=[.!?;])\s+")


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of where an answer comes from.

    Attributes:
        numbers: Numbers, without their signs.
        names: Row labels and other texts of cells, in lower case.
    """

    numbers: frozenset[Decimal]
    names: frozenset[str]


def citations(question: Question, *, style: EvidenceStyle) -> tuple[str, ...]:
    """What is cited for a question, from the whole page and not from what is shown of it.

    A row of a table is its cells, or its label; a paragraph is its text, or its first words. Of a
    table as a whole, those rows are cited that hold a number or a row label of the program, or of
    the derivation or the answer where there is none.
    """
    if style == "none" or not question.evidence:
        return ()
    known = _known(question)
    blocks = question.document.blocks
    found = (text for e in question.evidence for text in _cited(blocks, e, known, style))
    return tuple(dict.fromkeys(filter(None, found)))


def _cited(
    blocks: Sequence[Block], evidence: Evidence, known: _Known, style: EvidenceStyle
) -> Iterator[str]:
    """What is cited for one piece of evidence."""
    block = blocks[evidence.block]
    if not isinstance(block, Table):
        yield from _paragraph(block.text, known, style)
        return
    rows = [block.rows[evidence.row]] if evidence.row is not None else _telling(block, known)
    for row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        shown = cells if style == "quote" else [cell for cell in cells if cell][:1]
        yield " | ".join(shown).strip() if any(cells) else WHOLE_TABLE
    if not rows:
        yield WHOLE_TABLE


def _paragraph(text: str, known: _Known, style: EvidenceStyle) -> Iterator[str]:
    words = text.split()
    if style == "quote" and len(words) <= QUOTED_WORDS:
        yield " ".join(words)
        return
    sentences = [" ".join(sentence.split()) for sentence in _SENTENCE.split(text)]
    telling = [s for s in sentences if known.numbers.intersection(numbers_in(s))]
    if style == "quote" and telling:
        yield from telling
    else:
        yield " ".join(words[:SHORT_WORDS])


def _telling(table: Table, known: _Known) -> list[tuple[str, ...]]:
    """The rows below the headers that hold a name, or a number behind their label."""
    return [
        row
        for row in table.rows[table.header_rows :]
        if known.names & set(map(_folded, row))
        or known.numbers & {number for cell in row[1:] for number in numbers_in(cell)}
    ]


def _known(question: Question) -> _Known:
    """What the program works with; otherwise the derivation; otherwise the answer."""
    numbers: list[Decimal] = []
    names: list[str] = []
    try:
        for step in parse_program(question.program or "").steps:
            if step.op.startswith("table_"):
                names.append(step.args[0])
                continue
            literals = (arg for arg in step.args if not arg.startswith(("#", "const_")))
            numbers += [number for arg in literals for number in numbers_in(arg)]
    except ProgramError:
        # A program that cannot be read says nothing of where its numbers stand.
        numbers, names = [], []
    if not (numbers or names):
        executed = question.executed_answer
        derivation = question.derivation or ""
        value = "" if executed is None or isinstance(executed, str) else number_text(executed)
        numbers = numbers_in(derivation) or numbers_in(f"{question.answer} {value}")
        # As TAT-QA's reader joins the spans of an answer, and TAT-QA's derivations what they count.
        names = [*question.answer.split(" | "), *derivation.split("##")]
    return _Known(frozenset(numbers), frozenset(filter(None, map(_folded, names))))


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
