"""The documents of a report: each stands in it once, shortened where the report is too large."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby

from finqa_sft.documents import Document, Evidence, Table
from finqa_sft.evaluation.report.texts import clipped, visible

# Bytes of markup around each, somewhat more than there are.
_DOCUMENT = 600
_PARAGRAPH = 28
_TABLE = 80
_ROW = 40
_CELL = 9

_NUMERIC = 0.5
"""A table of more cells with numbers than this share of all is one of figures."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is shown or left out as a whole: a paragraph, or a row of a table.

    Attributes:
        block: Index into the document's blocks.
        row: Index of the row; None for a paragraph.
        cells: The row's cells, or the paragraph's text alone.
        header: Whether it is one of the table's header rows.
    """

    block: int
    row: int | None
    cells: tuple[str, ...]
    header: bool = False

    @property
    def size(self) -> int:
        """Bytes that it takes at most, its markup included."""
        text = sum(len(escape(visible(cell)).encode()) for cell in self.cells)
        if self.row is None:
            return text + _PARAGRAPH
        return text + _ROW + _CELL * len(self.cells)


@dataclass(frozen=True, slots=True)
class ShownBlock:
    """A block, or what is shown of it.

    Attributes:
        index: Into the document's blocks.
        units: Its paragraph or its rows.
        table: Whether it is a table.
        figures: Whether most of the table's cells are numbers, which stand to the right.
    """

    index: int
    units: tuple[Unit, ...]
    table: bool
    figures: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A document as the report shows it.

    Attributes:
        title: Its id.
        company: The company, where the data names one.
        blocks: What is shown, in reading order.
        left_out: How many paragraphs and rows are not shown for want of space.
    """

    title: str
    company: str | None
    blocks: tuple[ShownBlock, ...]
    left_out: int


def pages(
    documents: Sequence[tuple[Document, Collection[Evidence]]], *, most_bytes: int
) -> list[Page]:
    """Fit documents into a number of bytes.

    If they are too large together, the largest are shortened to a common size; what is nearest to
    the places that matter stays.

    Args:
        documents: Documents, each with the places in it that questions rest on or work with.
        most_bytes: What all of them may take, markup included.
    """
    taken_apart = [tuple(_units(document)) for document, _ in documents]
    sizes = [sum(unit.size for unit in units) for units in taken_apart]
    markup = sum(_DOCUMENT + _TABLE * len(document.tables) for document, _ in documents)
    most = _common_size(sizes, most_bytes - markup)
    return [
        _page(document, units, units if size <= most else _nearest(units, places, most))
        for (document, places), units, size in zip(documents, taken_apart, sizes, strict=True)
    ]


def places(evidence: Iterable[Evidence]) -> str:
    """Places as the page's script reads them: `4` is a block, `4.2` one of its rows."""
    found = {
        str(place.block) if place.row is None else f"{place.block}.{place.row}"
        for place in evidence
    }
    return " ".join(sorted(found))


def _units(document: Document) -> Iterable[Unit]:
    for index, block in enumerate(document.blocks):
        if isinstance(block, Table):
            for row, cells in enumerate(block.rows):
                yield Unit(index, row, cells, row < block.header_rows)
        else:
            yield Unit(index, None, (block.text,))


def _common_size(sizes: Sequence[int], most_bytes: int) -> int:
    """The size to which the largest are cut, so that all sizes come to no more than the bytes."""
    left = most_bytes
    for number, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - number)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def _nearest(units: Sequence[Unit], marked: Collection[Evidence], most: int) -> list[Unit]:
    """The units next to marked ones, in reading order, of no more bytes than allowed."""
    rows = {(place.block, place.row) for place in marked if place.row is not None}
    blocks = {place.block for place in marked if place.row is None}
    centres = [
        number
        for number, unit in enumerate(units)
        if (unit.block, unit.row) in rows or unit.block in blocks
    ] or [0]

    def distance(number: int) -> int:
        # The header of a table goes with its rows.
        if units[number].header:
            return min(0 if units[c].block == units[number].block else 9 for c in centres)
        return min(abs(number - centre) for centre in centres)

    kept: dict[int, Unit] = {}
    for number in sorted(range(len(units)), key=distance):
        unit = units[number]
        if number in centres and unit.row is None:
            unit = _cut(unit, most)
        if unit.size <= most:
            kept[number] = unit
            most -= unit.size
    return [kept[number] for number in sorted(kept)]


def _cut(paragraph: Unit, most: int) -> Unit:
    """A paragraph of no more bytes than allowed, where that leaves anything of it."""
    (text,) = paragraph.cells
    cut, length = paragraph, len(text)
    while cut.size > most and length > 1:
        length //= 2
        cut = replace(paragraph, cells=(clipped(text, length),))
    return cut


def _page(document: Document, units: Sequence[Unit], shown: Sequence[Unit]) -> Page:
    blocks = []
    for index, of_block in groupby(shown, key=lambda unit: unit.block):
        block = document.blocks[index]
        table = isinstance(block, Table)
        figures = isinstance(block, Table) and _holds_figures(block)
        blocks.append(ShownBlock(index, tuple(of_block), table, figures))
    return Page(document.id, document.company, tuple(blocks), len(units) - len(shown))


def _holds_figures(table: Table) -> bool:
    """Whether most cells that say something, labels and headers aside, hold digits and no words."""
    cells = [cell for row in table.rows[table.header_rows :] for cell in row[1:] if cell.strip()]
    numeric = sum(sum(map(str.isalpha, cell)) <= 2 for cell in cells)
    return numeric > _NUMERIC * len(cells)
