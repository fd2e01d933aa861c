"""From the context of a question to the document it is asked about."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain, groupby
from sys import getsizeof

from finqa_sft.documents import Block, Document, Paragraph, Question, Table
from finqa_sft.readers.values import RowProblem

_PIPE = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r":?-+:?")
_LONG_RULE = re.compile(r":?-{3,}:?")


def parse_context(text: str) -> tuple[Block, ...]:
    r"""Split free text into paragraphs and the tables that stand in it.

    Paragraphs end at blank lines; line breaks within one are kept. Lines in a row that have pipes
    are a table if a markdown rule (`|---|---|`) stands below its header, or if they are two or more
    and have two or more cells. Lines above the rule are header rows; without a rule the first line
    is. A header of empty cells means that the table has none, and further rules are dropped.
    `\|` in a cell is a pipe.
    """
    blocks: list[Block] = []
    paragraph: list[str] = []

    def end_paragraph() -> None:
        if paragraph:
            blocks.append(Paragraph("\n".join(paragraph).strip()))
            paragraph.clear()

    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for has_pipes, group in groupby(lines, key=lambda line: bool(_PIPE.search(line))):
        run = list(group)
        table = _table(run) if has_pipes else None
        if table:
            end_paragraph()
            blocks.append(table)
            continue
        for line in run:
            if line.strip():
                paragraph.append(line)
            else:
                end_paragraph()
    end_paragraph()
    return tuple(blocks)


def _table(lines: Sequence[str]) -> Table | None:
    """The table that a run of lines with pipes is, or None if they are text."""
    rows = _without_border([[cell.strip() for cell in _PIPE.split(line.strip())] for line in lines])
    rule = next((i for i, row in enumerate(rows) if i > 0 and _is_rule(row, position=i)), None)
    if rule is None:
        if len(rows) < 2 or max(map(len, rows)) < 2:
            return None
        header, body = rows[:1], rows[1:]
    else:
        header, body = rows[:rule], rows[rule + 1 :]
        body = [row for row in body if not _all_match(_LONG_RULE, row)]
        if not any(map(any, header)):
            header = []
    cells = [[cell.replace("\\|", "|") for cell in row] for row in [*header, *body]]
    return Table.from_cells(cells, header_rows=len(header)) if cells else None


def _without_border(rows: list[list[str]]) -> list[list[str]]:
    """Drop the empty cells that outer pipes make.

    A pipe in front is a border only if all lines have one: in unbordered tables it follows the
    empty corner above the row labels.
    """
    if all(not row[0] for row in rows):
        inner = [row[1:] for row in rows]
        return [row[:-1] if len(row) > 1 and not row[-1] else row for row in inner]
    return [row[:-1] for row in rows] if all(not row[-1] for row in rows) else rows


def _is_rule(row: Sequence[str], *, position: int) -> bool:
    """Whether a line is the rule below the header.

    Right below the first line any number of dashes will do, as in markdown; further down a row of
    single dashes is a row of nil amounts.
    """
    return _all_match(_RULE if position == 1 else _LONG_RULE, row)


def _all_match(pattern: re.Pattern[str], row: Sequence[str]) -> bool:
    return all(map(pattern.fullmatch, row))


def fingerprint(blocks: Sequence[Block]) -> str:
    """64 hexadecimal digits that are equal for equal blocks, in every run and on every machine."""
    content = json.dumps([asdict(block) for block in blocks])
    return hashlib.sha256(content.encode("ascii")).hexdigest()


class Register:
    """What a reader has met since it began: question ids, and the content of every document.

    Questions of one document share one object while it is among the recent ones; of older documents
    only a fingerprint is kept. So memory grows with the number of questions and documents, by an id
    and a source for each, and not with their text.
    """

    def __init__(self, *, recent: int = 16 * 2**20) -> None:
        """Hold the last documents, up to `recent` bytes of text, and always the very last."""
        self._limit = recent
        self._held = 0
        self._recent: dict[str, Document] = {}
        self._known: dict[str, tuple[str, str | None, str]] = {}
        self._ids: dict[str, str] = {}

    def enter(
        self,
        question: Question,
        *,
        document_field: str,
        id_field: str,
        company_field: str = "company",
    ) -> Question:
        """Enter a question that has nothing else wrong with it, and share its document.

        Args:
            question: The question; its `source` is what later problems refer to.
            document_field: The field that a document's id comes from.
            id_field: The field that the question's id comes from.
            company_field: The field that a document's company comes from.

        Raises:
            RowProblem: The question's id was met before, or the document's with other content or
                another company.
        """
        if question.id in self._ids:
            raise RowProblem(
                id_field,
                f"{question.id!r} is also the id of {self._ids[question.id]}; give each question "
                "an id of its own",
            )
        document = self._shared(
            question.document,
            field=document_field,
            company_field=company_field,
            source=question.source,
        )
        self._ids[question.id] = question.source
        return replace(question, document=document)

    def _shared(
        self, document: Document, *, field: str, company_field: str, source: str
    ) -> Document:
        recent = self._recent.get(document.id)
        if recent == document:
            return recent
        content = fingerprint(document.blocks)
        known = self._known.setdefault(document.id, (content, document.company, source))
        if known[0] != content:
            raise RowProblem(
                field,
                f"document {document.id!r} has another context in {known[2]}; give each context a "
                "document id of its own",
            )
        if known[1] != document.company:
            raise RowProblem(
                company_field,
                f"{document.company!r}, but {known[1]!r} for the same document in {known[2]}; "
                "write one of them in both",
            )
        self._hold(document)
        return document

    def _hold(self, document: Document) -> None:
        """Put a document among the recent ones, and forget the oldest where they are too many."""
        self._recent[document.id] = document
        self._held += _text_bytes(document)
        while self._held > self._limit and len(self._recent) > 1:
            self._held -= _text_bytes(self._recent.pop(next(iter(self._recent))))


def _text_bytes(document: Document) -> int:
    """Bytes of memory that a document's texts and cells take."""
    texts = (
        (block.text,) if isinstance(block, Paragraph) else chain.from_iterable(block.rows)
        for block in document.blocks
    )
    return sum(map(getsizeof, chain.from_iterable(texts)))
