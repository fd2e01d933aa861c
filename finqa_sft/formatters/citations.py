"""What a completion cites: the rows and paragraphs that an answer rests on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from finqa_sft.documents import Block, Evidence, Question, Table
from finqa_sft.traces import Traces, numbers_in, traces

EvidenceStyle: TypeAlias = Literal["none", "short", "quote"]
"""How much of the evidence a completion cites."""

WHOLE_TABLE = "table"
"""What is cited of a table in which no row holds the numbers of the answer."""

SHORT_WORDS = 8
"""Words of a paragraph that `short` cites."""

QUOTED_WORDS = 60
"""A paragraph with more words is cited by its sentences that hold the numbers of the answer."""

_SENTENCE = re.compile(r"(?<=[.!?;])\s+")


def citations(question: Question, *, style: EvidenceStyle) -> tuple[str, ...]:
    """What is cited for a question, from the whole page and not from what is shown of it.

    A row of a table is its cells, or its label; a paragraph is its text, or its first words. Of a
    table as a whole, those rows are cited that hold a number or a row label of the program, or of
    the derivation or the answer where there is none.
    """
    if style == "none" or not question.evidence:
        return ()
    known = traces(question)
    blocks = question.document.blocks
    found = (text for e in question.evidence for text in _cited(blocks, e, known, style))
    return tuple(dict.fromkeys(filter(None, found)))


def _cited(
    blocks: Sequence[Block], evidence: Evidence, known: Traces, style: EvidenceStyle
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


def _paragraph(text: str, known: Traces, style: EvidenceStyle) -> Iterator[str]:
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


def _telling(table: Table, known: Traces) -> list[tuple[str, ...]]:
    """The rows below the headers that hold a name, or a number behind their label."""
    return [row for row in table.rows[table.header_rows :] if known.show_in_row(row)]
