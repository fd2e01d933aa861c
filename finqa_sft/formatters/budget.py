"""Fitting a prompt into a length by leaving out parts of the document, and nothing else."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, replace

from finqa_sft.documents import Document, Paragraph, Table


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a document is shown.

    Attributes:
        document: The document that remains.
        paragraphs: How many paragraphs were left out.
        rows: How many table rows were left out.
    """

    document: Document
    paragraphs: int = 0
    rows: int = 0


def bare_document(document: Document) -> Document:
    """The least that can be shown: the headers of the tables."""
    return _without(document, set(_removal_order(document)))


def fit_document(document: Document, *, fits: Callable[[Document], bool]) -> Cut:
    """The most of a document that fits.

    Paragraphs go first, the farthest from a table before nearer ones (in a document without a
    table: the last first); then table rows from the bottom, headers never.

    Args:
        document: The whole document.
        fits: Whether a prompt with this document is short enough. Must be monotone: what fits with
            more also fits with less, and the bare document fits.
    """
    if fits(document):
        return Cut(document)
    order = _removal_order(document)

    def cut(count: int) -> Document:
        return _without(document, set(order[:count]))

    count = bisect.bisect_left(range(len(order)), True, lo=1, key=lambda n: fits(cut(n)))
    removed = order[:count]
    return Cut(
        document=cut(count),
        paragraphs=sum(row is None for _, row in removed),
        rows=sum(row is not None for _, row in removed),
    )


def _removal_order(document: Document) -> list[tuple[int, int | None]]:
    """What may go, first to last: (block, None) for a paragraph, (block, row) for a table row."""
    tables = [i for i, block in enumerate(document.blocks) if isinstance(block, Table)]
    paragraphs = [i for i, block in enumerate(document.blocks) if isinstance(block, Paragraph)]

    def distance(block: int) -> int:
        return min((abs(block - table) for table in tables), default=block)

    paragraphs.sort(key=lambda block: (distance(block), block), reverse=True)
    rows = [
        (index, row)
        for index in reversed(tables)
        for table in [document.blocks[index]]
        if isinstance(table, Table)
        for row in range(len(table.rows) - 1, table.header_rows - 1, -1)
    ]
    return [*((block, None) for block in paragraphs), *rows]


def _without(document: Document, removed: set[tuple[int, int | None]]) -> Document:
    """The document without the given paragraphs and rows."""
    blocks: list[Paragraph | Table] = []
    for index, block in enumerate(document.blocks):
        if isinstance(block, Table):
            rows = tuple(row for r, row in enumerate(block.rows) if (index, r) not in removed)
            blocks.append(replace(block, rows=rows))
        elif (index, None) not in removed:
            blocks.append(block)
    return replace(document, blocks=tuple(blocks))
