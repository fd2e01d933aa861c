"""Cleaning one document: its blocks, rows and labels, and where they stand afterwards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from finqa_sft.cleaning.account import Account
from finqa_sft.cleaning.options import CleaningOptions
from finqa_sft.cleaning.quotes import is_stripped
from finqa_sft.cleaning.tables import filled_columns, filled_rows, header_rows, unique_labels
from finqa_sft.cleaning.texts import TextRules
from finqa_sft.documents import Block, Document, Evidence, Paragraph, Table

_FILLER = re.compile(r"[\W_]*")


@dataclass(slots=True)
class Page:
    """A cleaned document.

    Attributes:
        document: The document; the same object where nothing changed.
        stripped: Whether the page surely lost its quotation marks.
        renamed: New labels by old ones: what a program that names the old one has to name now.
        originals: The labels that differ, old by new; also those that several rows shared.
        blocks: Where each block stands now; those that were left out are missing.
        rows: Where each row stands now, for the tables that lost rows, by the block's old index.
    """

    document: Document
    stripped: bool
    renamed: dict[str, str] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)
    rows: dict[int, dict[int, int]] = field(default_factory=dict)

    def moved(self, evidence: Evidence) -> Evidence | None:
        """Where evidence stands now, or None if it was left out."""
        block, row = self.blocks.get(evidence.block), evidence.row
        if block is None:
            return None
        if row is not None and evidence.block in self.rows:
            row = self.rows[evidence.block].get(row)
            if row is None:
                return None
        return Evidence(block, row)


class PageRules:
    """Cleans documents with the rules that are switched on."""

    def __init__(self, options: CleaningOptions, texts: TextRules, account: Account) -> None:
        """Take the switches, the rules for text, and the account to keep."""
        self._options = options
        self._texts = texts
        self._account = account

    def clean(self, document: Document) -> Page:
        """A document cleaned; if all its text is filler, the text stays."""
        page = Page(document, stripped=is_stripped(_texts(document)))
        names = self._names(document, stripped=page.stripped)
        page.renamed = {old: new for old, new in names.items() if old != new}
        page.originals = {new: old for old, new in page.renamed.items()}
        texts = self._paragraphs(document, stripped=page.stripped)
        blocks: list[Block] = []
        for index, block in enumerate(document.blocks):
            place = f"{document.id}, block {index}"
            if isinstance(block, Table):
                result: Block = self._table(block, names, page, index=index, place=place)
            elif index in texts:
                result = block if texts[index] == block.text else Paragraph(texts[index])
            else:
                self._account.changed("filler_sentences", place, block.text, "")
                continue
            page.blocks[index] = len(blocks)
            blocks.append(result)
        if tuple(blocks) != document.blocks:
            page.document = replace(document, blocks=tuple(blocks))
        return page

    def _paragraphs(self, document: Document, *, stripped: bool) -> dict[int, str]:
        """The cleaned texts of the paragraphs that stay, by their blocks' indices."""
        texts = {
            index: self._texts.clean(
                block.text, place=f"{document.id}, block {index}", stripped=stripped
            )
            for index, block in enumerate(document.blocks)
            if isinstance(block, Paragraph)
        }
        if not self._options.filler_sentences:
            return texts
        words = {index: text for index, text in texts.items() if not _is_filler(text)}
        return words if words or document.tables else texts

    def _names(self, document: Document, *, stripped: bool) -> dict[str, str]:
        """What the rules for text make of each label; those that would meet another one stay."""
        rows = chain.from_iterable(table.rows for table in document.tables)
        labels = dict.fromkeys(row[0] for row in rows if row)
        names = {label: self._texts.result(label, stripped=stripped) for label in labels}
        owners = Counter(names.values())
        return {
            old: old if new != old and (new in labels or owners[new] > 1) else new
            for old, new in names.items()
        }

    def _table(
        self, table: Table, names: dict[str, str], page: Page, *, index: int, place: str
    ) -> Table:
        rows = [
            self._row(row, names, place=f"{place}, row {number}", stripped=page.stripped)
            for number, row in enumerate(table.rows)
        ]
        headers = table.header_rows
        kept = filled_rows(rows) if self._options.empty_rows else list(range(len(rows)))
        if len(kept) < len(rows):
            page.rows[index] = {old: new for new, old in enumerate(kept)}
            for number in sorted({*range(len(rows))} - {*kept}):
                self._account.changed("empty_rows", f"{place}, row {number}", "", "")
            rows = [rows[number] for number in kept]
            headers = sum(number < headers for number in kept)
        if self._options.empty_columns:
            rows = self._without_empty_columns(rows, place=place)
        if self._options.header_rows:
            found = header_rows(rows, known=headers)
            for number in range(headers, found):
                row_place = f"{place}, row {kept[number]}"
                text = " | ".join(rows[number])
                self._account.changed("header_rows", row_place, text, f"header: {text}")
            headers = found
        if self._options.duplicate_labels:
            taken = names.values()
            self._rename(rows, kept, page, header_rows=headers, taken=taken, place=place)
        cleaned = Table(tuple(rows), header_rows=headers)
        return table if cleaned == table else cleaned

    def _row(
        self, row: tuple[str, ...], names: dict[str, str], *, place: str, stripped: bool
    ) -> tuple[str, ...]:
        texts = self._texts
        if row and names[row[0]] == row[0]:
            texts.look(row[0], stripped=stripped)
        return tuple(
            cell
            if not cell or (column == 0 and names[cell] == cell)
            else texts.clean(
                cell,
                place=f"{place}, column {column}",
                stripped=stripped,
                kind="cell" if column else "words",
            )
            for column, cell in enumerate(row)
        )

    def _without_empty_columns(
        self, rows: list[tuple[str, ...]], *, place: str
    ) -> list[tuple[str, ...]]:
        width = len(rows[0]) if rows else 0
        kept = filled_columns(rows)
        if len(kept) == width:
            return rows
        for column in sorted({*range(width)} - {*kept}):
            self._account.changed("empty_columns", f"{place}, column {column}", "", "")
        return [tuple(row[column] for column in kept) for row in rows]

    def _rename(
        self,
        rows: list[tuple[str, ...]],
        kept: Sequence[int],
        page: Page,
        *,
        header_rows: int,
        taken: Collection[str],
        place: str,
    ) -> None:
        """Make the labels of a table unique, in place."""
        labels = unique_labels(
            rows,
            header_rows=header_rows,
            taken=taken,
            usable=lambda label: self._texts.result(label, stripped=page.stripped) == label,
        )
        for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
            if row and label != row[0]:
                row_place = f"{place}, row {kept[number]}"
                self._account.changed("duplicate_labels", row_place, row[0], label)
                page.originals[label] = page.originals.get(row[0], row[0])
                rows[number] = (label, *row[1:])


def _is_filler(text: str) -> bool:
    return bool(_FILLER.fullmatch(text))


def _texts(document: Document) -> Iterator[str]:
    """All texts of a document."""
    for block in document.blocks:
        if isinstance(block, Paragraph):
            yield block.text
        else:
            yield from chain.from_iterable(block.rows)
