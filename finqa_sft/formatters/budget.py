"""Fitting a prompt into a length by leaving out parts of the document, and nothing else."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from finqa_sft.documents import Document, Paragraph, Table

_SENTENCE = re.compile(r".+?(?:[.!?;]+\s+|\n+|$)", re.DOTALL)
_WORDS = re.compile(r"(?:\S+\s*){1,40}")

Part: TypeAlias = tuple[int, int]
"""What can be left out: block, and sentence of a paragraph or row of a table."""

Sentences: TypeAlias = dict[int, list[str]]
"""The sentences of each paragraph, by block."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a document is shown.

    Attributes:
        document: The document that remains.
        paragraphs: How many paragraphs were left out.
        shortened: How many paragraphs lost their end.
        rows: How many table rows were left out.
    """

    document: Document
    paragraphs: int = 0
    shortened: int = 0
    rows: int = 0


def bare_document(document: Document) -> Document:
    """The least that can be shown: the headers of the tables."""
    sentences = _all_sentences(document)
    return _without(document, _removal_order(document, sentences), sentences)


def fit_document(document: Document, *, fits: Callable[[Document], bool]) -> Cut:
    """The most of a document that fits.

    Paragraphs go first, the farthest from a table before nearer ones (in a document without a
    table: the last first), each from its end, sentence by sentence; then table rows from the
    bottom, headers never.

    Args:
        document: The whole document.
        fits: Whether a prompt with this document is short enough. Must be monotone: what fits with
            more also fits with less, and the bare document fits.
    """
    if fits(document):
        return Cut(document)
    sentences = _all_sentences(document)
    order = _removal_order(document, sentences)

    def cut(count: int) -> Document:
        return _without(document, order[:count], sentences)

    count = bisect.bisect_left(range(len(order)), True, lo=1, key=lambda n: fits(cut(n)))
    removed = order[:count]
    ends = dict(removed)
    gone = {block for block in sentences if ends.get(block) == 0}
    return Cut(
        document=cut(count),
        paragraphs=len(gone),
        shortened=len(ends.keys() & sentences.keys()) - len(gone),
        rows=sum(block not in sentences for block, _ in removed),
    )


def _removal_order(document: Document, sentences: Sentences) -> list[Part]:
    """What may go, first to last; of a block, its end before its beginning."""
    tables = [i for i, block in enumerate(document.blocks) if isinstance(block, Table)]

    def distance(block: int) -> int:
        return min((abs(block - table) for table in tables), default=block)

    paragraphs = [
        (distance(index), index, sentence)
        for index, pieces in sentences.items()
        for sentence in range(max(len(pieces), 1))
    ]
    rows = [
        (index, row)
        for index in reversed(tables)
        for table in [document.blocks[index]]
        if isinstance(table, Table)
        for row in range(len(table.rows) - 1, table.header_rows - 1, -1)
    ]
    return [*((block, part) for _, block, part in sorted(paragraphs, reverse=True)), *rows]


def _all_sentences(document: Document) -> Sentences:
    return {
        index: _sentences(block.text)
        for index, block in enumerate(document.blocks)
        if isinstance(block, Paragraph)
    }


def _sentences(text: str) -> list[str]:
    """The text in pieces that can be left out; a sentence that is long beyond measure in several.

    Joined, the pieces are the text.
    """
    pieces = []
    for sentence in _SENTENCE.findall(text):
        pieces += _WORDS.findall(sentence) if len(sentence) > 400 else [sentence]
    return pieces


def _without(document: Document, removed: Sequence[Part], sentences: Sentences) -> Document:
    """The document without the given parts, the first ones of `_removal_order`."""
    # Of several parts of a block, the last one counts: everything behind it is removed too.
    ends = dict(removed)
    blocks: list[Paragraph | Table] = []
    for index, block in enumerate(document.blocks):
        if index not in ends:
            blocks.append(block)
        elif isinstance(block, Table):
            blocks.append(replace(block, rows=block.rows[: ends[index]]))
        elif ends[index]:
            blocks.append(Paragraph("".join(sentences[index][: ends[index]]).rstrip()))
    return replace(document, blocks=tuple(blocks))
