"""Whether a prompt shows a document whole, in whatever style it writes it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from finqa_sft.documents import Block, Document, Paragraph, Table
from finqa_sft.testing.contract import Checked
from finqa_sft.testing.formatter_rules import FormatterRule


def check_shown(
    checked: Checked, document: Document, *, prompt: Callable[[Document], str], named: str
) -> None:
    """Take parts of a document away and change others: each time the prompt must change too.

    Args:
        checked: The formatter.
        document: The document.
        prompt: The text of the prompt with a document.
        named: Whose prompt it is.
    """
    whole = prompt(document)
    for number, block in enumerate(document.blocks):
        kind = "the table" if isinstance(block, Table) else "the paragraph"
        place = f"{kind} in block {number} of document {document.id!r}"
        if not _has_text(block):
            continue
        rest = prompt(_with(document, number))
        checked.require(
            FormatterRule.COMPLETE,
            rest != whole and len(rest) < len(whole),
            f"the prompt of {named} has {len(whole)} characters with {place}, {len(rest)} without",
        )
        for part, other in _changed(block):
            checked.require(
                FormatterRule.COMPLETE,
                prompt(_with(document, number, other)) != whole,
                f"the prompt of {named} does not show {part} of {place}",
            )


def _with(document: Document, number: int, *block: Block) -> Document:
    """The document with another block in a place, or with none there."""
    blocks = document.blocks
    return replace(document, blocks=(*blocks[:number], *block, *blocks[number + 1 :]))


def _has_text(block: Block) -> bool:
    rows = ((block.text,),) if isinstance(block, Paragraph) else block.rows
    return any(_says(cell) for row in rows for cell in row)


def _says(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _changed(block: Block) -> Iterator[tuple[str, Block]]:
    """The block with a part changed that every style shows, and that part."""
    if isinstance(block, Paragraph):
        words = block.text.split()
        last = len(words) - 1
        for place in sorted({0, last // 4, last // 2, last * 3 // 4, last}):
            if last and _says(words[place]):
                rest = " ".join(words[:place] + words[place + 1 :])
                yield f"word {place + 1}, {words[place]!r},", Paragraph(rest)
        return
    for row, column in _telling(block):
        cells = [list(cells) for cells in block.rows]
        text = cells[row][column]
        cells[row][column] = f"{text} 73"
        rows = tuple(tuple(cells) for cells in cells)
        yield f"{text!r} (row {row}, column {column})", replace(block, rows=rows)


def _telling(table: Table) -> Iterator[tuple[int, int]]:
    """Cells that no style leaves out: values, and the headers and labels over and beside them.

    Titles of sections, and what stands over the labels, some styles do without.
    """
    values = {
        (row, column)
        for row, cells in enumerate(table.rows)
        for column, cell in enumerate(cells)
        if row >= table.header_rows and column and any(map(str.isdigit, cell))
    }
    rows, columns = {row for row, _ in values}, {column for _, column in values}
    for row, cells in enumerate(table.rows):
        for column, cell in enumerate(cells):
            is_label = not column and row in rows
            is_header = row < table.header_rows and column in columns
            if _says(cell) and ((row, column) in values or is_label or is_header):
                yield row, column
