"""The parts of a document that can be left out, and the document without some of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from finqa_sft.documents import Block, Document, Evidence, Paragraph, Table

MARKER = "[…]"
"""Stands where something was left out."""

LONG_PARAGRAPH = 400
"""Characters; a longer paragraph is left out sentence by sentence."""

# Not after a lone capital, as in "U.S. Treasury".
_SENTENCE = re.compile(r".+?(?:(?<!\b[A-Z])[.!?;]+\s+|[。！？；]+\s*|\n+|$)", re.DOTALL)
_PIECE = re.compile(rf".{{1,{LONG_PARAGRAPH}}}(?:\s+|$)|.{{1,{LONG_PARAGRAPH}}}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """What is left out as one: a paragraph, a sentence of a long one, or a row of a table.

    Attributes:
        block: Index into `Document.blocks`.
        text: The text as it stands in the document; the cells of a row with " | " between them.
        sentence: Which sentence of the paragraph it is; None for a whole paragraph and for a row.
        row: Index into `Table.rows`; None for text.
    """

    block: int
    text: str
    sentence: int | None = None
    row: int | None = None


def document_parts(document: Document) -> tuple[Part, ...]:
    """All that can be left out of a document, in reading order: everything but header rows."""
    parts: list[Part] = []
    for index, block in enumerate(document.blocks):
        if isinstance(block, Table):
            # A row without a cell shows nothing, and has no place for a marker.
            parts += [
                Part(index, " | ".join(cells), row=row)
                for row, cells in enumerate(block.rows)
                if row >= block.header_rows and cells
            ]
        elif len(block.text) > LONG_PARAGRAPH:
            parts += [Part(index, text, sentence=n) for n, text in enumerate(sentences(block.text))]
        else:
            parts.append(Part(index, block.text))
    return tuple(parts)


def sentences(text: str) -> list[str]:
    """The text in pieces, which joined are the text; a very long sentence in several."""
    pieces: list[str] = []
    for sentence in _SENTENCE.findall(text):
        pieces += _PIECE.findall(sentence) if len(sentence) > LONG_PARAGRAPH else [sentence]
    return pieces


def is_evidence(part: Part, evidence: Collection[Evidence]) -> bool:
    """Whether a part is among the evidence: by its row, its whole table or its paragraph."""
    return any(
        part.block == place.block and (part.row is None or place.row in (None, part.row))
        for place in evidence
    )


def bare_document(document: Document) -> Document:
    """The least that can be shown: the headers of the tables."""
    return replace(
        document,
        blocks=tuple(
            replace(block, rows=block.rows[: block.header_rows])
            for block in document.blocks
            if isinstance(block, Table)
        ),
    )


def has_text(document: Document) -> bool:
    """Whether a document says anything, markers aside."""
    return any(
        any(cell.strip() not in ("", MARKER) for row in block.rows for cell in row)
        if isinstance(block, Table)
        else block.text.strip() not in ("", MARKER)
        for block in document.blocks
    )


def without(document: Document, parts: Sequence[Part], *, left_out: Collection[Part]) -> Document:
    """The document without some of its parts; each run of them leaves one marker.

    In a paragraph the marker stands in the text, in a table it is the first cell of a row, and
    between blocks it is a paragraph of its own. A run over several paragraphs has its marker in the
    paragraph that it begins or ends within, where there is one.

    Args:
        document: The whole document.
        parts: Its `document_parts`.
        left_out: Those that are not shown.
    """
    gone = set(left_out)
    by_block = {index: list(run) for index, run in groupby(parts, key=lambda part: part.block)}
    blocks: list[Block] = []
    # A run of left-out text that reaches the next block: without a marker yet, or with one.
    waits = is_marked = False
    for index, block in enumerate(document.blocks):
        own = by_block.get(index, [])
        is_text = isinstance(block, Paragraph)
        if is_text and all(part in gone for part in own):
            waits = not is_marked
            continue
        if waits and not (is_text and own[0] in gone):
            blocks.append(Paragraph(MARKER))
        if not any(part in gone for part in own):
            blocks.append(block)
        elif isinstance(block, Table):
            blocks.append(_table_without(block, {part.row for part in own if part in gone}))
        else:
            blocks.append(Paragraph(_text_without(own, gone, is_marked=is_marked)))
        waits = False
        is_marked = is_text and own[-1] in gone
    if waits:
        blocks.append(Paragraph(MARKER))
    return replace(document, blocks=tuple(blocks))


def _text_without(parts: Sequence[Part], gone: Collection[Part], *, is_marked: bool) -> str:
    """A paragraph's text without some sentences.

    Args:
        parts: Its sentences.
        gone: What is left out.
        is_marked: Whether a run that comes to its beginning has its marker before it.
    """
    text = ""
    for is_gone, run in groupby(parts, key=lambda part: part in gone):
        written = "".join(part.text for part in run)
        if not is_gone:
            text += written
        elif text or not is_marked:
            # The white space at its end may be a line break, which is kept.
            text += MARKER + written[len(written.rstrip()) :]
    return text.rstrip() if parts[-1] in gone else text


def _table_without(table: Table, gone: Collection[int | None]) -> Table:
    """A table without some rows."""
    rows: list[tuple[str, ...]] = []
    for is_gone, run in groupby(range(len(table.rows)), key=lambda row: row in gone):
        kept: Iterable[tuple[str, ...]] = (table.rows[row] for row in run)
        rows += [(MARKER, *[""] * (len(table.rows[0]) - 1))] if is_gone else kept
    return replace(table, rows=tuple(rows))


def joined(parts: Sequence[Part], *, left_out: Collection[Part]) -> tuple[Part, ...]:
    """What is left out, in reading order; a paragraph of which no sentence stays is one part."""
    found: list[Part] = []
    for block, run in groupby(parts, key=lambda part: part.block):
        own = list(run)
        gone = [part for part in own if part in left_out]
        if own[0].sentence is not None and len(gone) == len(own):
            gone = [Part(block, "".join(part.text for part in own))]
        found += gone
    return tuple(found)
