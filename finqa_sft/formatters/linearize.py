"""A document as text: paragraphs as they are, tables as markdown."""

from __future__ import annotations

from itertools import groupby

from finqa_sft.documents import Document, Paragraph, Table


def document_text(document: Document) -> str:
    """The document's blocks in order; paragraphs a line each, tables between blank lines."""
    parts = []
    for is_text, blocks in groupby(document.blocks, key=lambda b: isinstance(b, Paragraph)):
        parts.append(("\n" if is_text else "\n\n").join(block_text(block) for block in blocks))
    return "\n\n".join(parts)


def block_text(block: Paragraph | Table) -> str:
    """One block as text."""
    return block.text if isinstance(block, Paragraph) else markdown_table(block)


def markdown_table(table: Table) -> str:
    """A GitHub-flavoured markdown table.

    Markdown has exactly one header row: of several, the others become body rows; without one, the
    header stays empty.
    """
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    if not rows:
        return ""
    width = len(rows[0])
    header, body = (rows[0], rows[1:]) if table.header_rows else ([""] * width, rows)
    lines = [header, ["---"] * width, *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """A cell on one line, its pipes escaped."""
    return " ".join(text.split()).replace("|", "\\|")
