"""A single page of a user's own: markdown, plain text, or a table of separated values."""

from __future__ import annotations

import csv
from pathlib import Path

from finqa_sft.documents import Document, Table
from finqa_sft.errors import DataError
from finqa_sft.readers.context import parse_context
from finqa_sft.readers.csv_files import DELIMITERS
from finqa_sft.readers.files import cause, text_chunks

_GUESSED = ",;\t|"
_LOOKED_AT = 4_096


def read_page(path: Path) -> Document:
    """A file as a document that is named after it.

    Files that end in .csv or .tsv are one table, its first row the header; others are text, in
    which markdown and pipe tables are recognised.

    Raises:
        DataError: The file cannot be read, is not text, or holds nothing.
    """
    text = "".join(text_chunks(path))
    if path.suffix.lower() not in DELIMITERS:
        return page_of_text(text, name=path.name)
    rows = [row for row in _cells(path, text) if any(cell.strip() for cell in row)]
    if not rows:
        raise DataError(f"{path}: only blank lines; expected a header and rows")
    cells = [[cell.strip() for cell in row] for row in rows]
    return Document(id=path.name, blocks=(Table.from_cells(cells),))


def page_of_text(text: str, *, name: str) -> Document:
    """A text as a document.

    Args:
        text: Paragraphs and tables, as `parse_context` reads them.
        name: What the document is called.

    Raises:
        DataError: The text is blank.
    """
    blocks = parse_context(text)
    if not blocks:
        raise DataError(f"{name}: no text; expected the page that the question is about")
    return Document(id=name, blocks=blocks)


def _cells(path: Path, text: str) -> list[list[str]]:
    """The rows of separated values; what separates them is what most of the first lines have."""
    delimiter = DELIMITERS[path.suffix.lower()]
    beginning = text[:_LOOKED_AT]
    if delimiter not in beginning:
        delimiter = max(_GUESSED, key=beginning.count)
    try:
        return list(csv.reader(text.splitlines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}: no table of separated values ({cause(error)}); is a quote left open?"
        ) from error
