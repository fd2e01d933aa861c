"""A document as text: paragraphs as they are, tables in one of several styles."""

from __future__ import annotations

from itertools import groupby

from finqa_sft.documents import Document, Paragraph, Table
from finqa_sft.formatters.tables import TableStyle, table_text


def document_text(document: Document, *, table_style: TableStyle = "markdown") -> str:
    """The document's blocks in order; paragraphs a line each, tables between blank lines.

    Args:
        document: The document, whole or cut.
        table_style: How tables are written; see `finqa_sft.formatters.tables`.
    """
    parts = []
    for is_text, blocks in groupby(document.blocks, key=lambda b: isinstance(b, Paragraph)):
        texts = [block_text(block, table_style=table_style) for block in blocks]
        parts.append(("\n" if is_text else "\n\n").join(filter(None, texts)))
    return "\n\n".join(filter(None, parts))


def block_text(block: Paragraph | Table, *, table_style: TableStyle = "markdown") -> str:
    """One block as text."""
    return block.text if isinstance(block, Paragraph) else table_text(block, table_style)
