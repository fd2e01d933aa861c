"""The contract of a reader, as a check."""

from __future__ import annotations

import math
from typing import cast

from finqa_sft.documents import SCALES, Document, Paragraph, Question, Table
from finqa_sft.errors import ProgramError
from finqa_sft.programs import parse_program
from finqa_sft.readers.base import BadRow, Reader
from finqa_sft.testing.contract import Checked, Rule
from finqa_sft.testing.fields import misfits


class ReaderRule(Rule):
    """What holds for every reader."""

    ITEMS = (
        "it yields questions and bad rows, nothing else",
        "Make a Question of each row, or a BadRow of one that cannot be read.",
    )
    READS = (
        "a row that cannot be read does not end the reading",
        "Yield a BadRow for it, with what is missing or wrong; raise DataError only where the "
        "whole source cannot be read.",
    )
    FIELDS = (
        "every field is of the type of its annotation, and text is valid Unicode",
        "Convert values in the reader: numbers to text, lists to tuples, and what the data leaves "
        "out to a BadRow; decode files with their own encoding.",
    )
    SOME = (
        "it yields a question",
        "Give the check a source with a few good rows; or the reader takes all of them for bad.",
    )
    AGAIN = (
        "reading twice gives the same",
        "Open the source anew in __iter__, and draw from a generator that is seeded there.",
    )
    BAD_ROWS = (
        "a bad row says where it stands, which field is at fault and what is wrong",
        "Fill source, field and problem of the BadRow.",
    )
    TEXT = (
        "text, answer, id and document of a question are not empty",
        "Yield a BadRow for a row in which one of them is missing.",
    )
    IDS = (
        "no two questions have one id",
        "Take an id that the data has, or make one of file and row.",
    )
    DOCUMENTS = (
        "questions with one document id have equal documents",
        "Give a page with other blocks another id: splits go by the id.",
    )
    BLOCKS = (
        "paragraphs are text without white space around it, and tables are rectangular",
        "Strip paragraphs, leave empty ones out, and build tables with Table.from_cells.",
    )
    EVIDENCE = (
        "evidence points into the document",
        "Count blocks and table rows from 0, headers included, in the document that is yielded.",
    )
    VALUES = (
        "program, executed answer and scale are of the kinds that metrics can read",
        "A program is FinQA's flat program, an executed answer a finite number, 'yes' or 'no', a "
        f"scale one of {', '.join(map(repr, SCALES))}; leave out what the data does not say.",
    )


def check_reader(reader: Reader) -> None:
    """Check what `finqa_sft.readers.base.Reader` promises, on what the reader yields.

    The source is read twice, whole: take a small one, best with a bad row in it.

    Raises:
        ContractError: A rule of `ReaderRule` is broken.
    """
    checked = Checked("reader", type(reader).__name__)
    items = _items(checked, reader)
    again = _items(checked, reader)
    pairs = enumerate(zip(items, again, strict=False), start=1)
    changed = [number for number, (first, second) in pairs if first != second]
    checked.require(
        ReaderRule.AGAIN,
        items == again,
        f"{len(items)} items at first, {len(again)} then"
        if len(items) != len(again)
        else f"items {changed} are others the second time",
    )
    questions = [item for item in items if isinstance(item, Question)]
    bad = [item for item in items if isinstance(item, BadRow)]
    checked.require(
        ReaderRule.SOME,
        bool(questions),
        f"{len(bad)} bad rows and no question" + (f"; the first: {bad[0]}" if bad else ""),
    )
    for row in bad:
        _check_bad_row(checked, row)
    ids: set[str] = set()
    documents: dict[str, Document] = {}
    for question in questions:
        _check_text(checked, question)
        checked.require(
            ReaderRule.IDS, question.id not in ids, f"{_named(question)} is not the first of its id"
        )
        ids.add(question.id)
        document = documents.setdefault(question.document.id, question.document)
        checked.require(
            ReaderRule.DOCUMENTS,
            document == question.document,
            f"{_named(question)} has another document {document.id!r} than a question before it",
        )
        _check_values(checked, question)
        _check_evidence(checked, question)
    for document in documents.values():
        _check_blocks(checked, document)


def _named(question: Question) -> str:
    """A question as errors name it."""
    return f"question {question.id!r}" + (f" ({question.source})" if question.source else "")


def _items(checked: Checked, reader: Reader) -> list[Question | BadRow]:
    """All that a reader yields, each of the right type down to its last field."""
    items: list[Question | BadRow] = []
    with checked.unraised(ReaderRule.READS, "beginning to read"):
        source = iter(reader)
    end = object()
    while True:
        number = len(items) + 1
        with checked.unraised(ReaderRule.READS, f"reading item {number}"):
            item: object = next(source, end)
        if item is end:
            return items
        kept = isinstance(item, Question | BadRow)
        checked.require(ReaderRule.ITEMS, kept, f"item {number} is a {type(item).__name__}")
        wrong = "; ".join(misfits(item, type(item)))
        checked.require(ReaderRule.FIELDS, not wrong, f"in item {number} {wrong}")
        items.append(cast("Question | BadRow", item))


def _check_bad_row(checked: Checked, row: BadRow) -> None:
    empty = [name for name in ("source", "field", "problem") if not getattr(row, name).strip()]
    checked.require(ReaderRule.BAD_ROWS, not empty, f"{row!r} leaves {' and '.join(empty)} empty")


def _check_text(checked: Checked, question: Question) -> None:
    fields = {
        "id": question.id,
        "text": question.text,
        "answer": question.answer,
        "document.id": question.document.id,
    }
    empty = [name for name, value in fields.items() if not value.strip()]
    if not question.document.blocks:
        empty.append("document.blocks")
    checked.require(
        ReaderRule.TEXT, not empty, f"{_named(question)} has nothing in {' and '.join(empty)}"
    )


def _check_values(checked: Checked, question: Question) -> None:
    executed, name = question.executed_answer, _named(question)
    if question.program is not None:
        try:
            parse_program(question.program)
        except ProgramError as error:
            checked.require(
                ReaderRule.VALUES, False, f"{name} has program {question.program!r}: {error}"
            )
    is_number = (
        isinstance(executed, int | float)
        and not isinstance(executed, bool)
        and abs(executed) < math.inf
    )
    checked.require(
        ReaderRule.VALUES,
        executed in (None, "yes", "no") or is_number,
        f"{name} has executed answer {executed!r}",
    )
    checked.require(
        ReaderRule.VALUES, question.scale in SCALES, f"{name} has scale {question.scale!r}"
    )


def _check_evidence(checked: Checked, question: Question) -> None:
    blocks = question.document.blocks
    for evidence in question.evidence:
        there = 0 <= evidence.block < len(blocks)
        if there and evidence.row is not None:
            block = blocks[evidence.block]
            there = isinstance(block, Table) and 0 <= evidence.row < len(block.rows)
        checked.require(
            ReaderRule.EVIDENCE,
            there,
            f"{_named(question)} points to {evidence}, its document has {len(blocks)} blocks",
        )


def _check_blocks(checked: Checked, document: Document) -> None:
    for number, block in enumerate(document.blocks):
        place = f"block {number} of document {document.id!r}"
        if isinstance(block, Paragraph):
            kept = bool(block.text) and block.text == block.text.strip()
            checked.require(ReaderRule.BLOCKS, kept, f"{place} is {block!r}")
            continue
        widths = sorted({len(row) for row in block.rows})
        checked.require(ReaderRule.BLOCKS, len(widths) < 2, f"{place} has rows of {widths} cells")
        checked.require(
            ReaderRule.BLOCKS,
            0 <= block.header_rows <= len(block.rows),
            f"{place} has {block.header_rows} header rows and {len(block.rows)} rows",
        )
