"""The reader `tatqa`: files in TAT-QA's official layout.

Source of the layout: the data set's repository, github.com/NExTplusplus/TAT-QA.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from pydantic import Field

from finqa_sft.documents import (
    SCALES,
    Block,
    Document,
    Evidence,
    Paragraph,
    Question,
    Scale,
    Table,
)
from finqa_sft.options import Options
from finqa_sft.programs.derive import DerivationError, derived_program
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.context import Register
from finqa_sft.readers.files import Files
from finqa_sft.readers.rows import read_each, read_files
from finqa_sft.readers.values import (
    Row,
    RowProblem,
    as_text,
    kind,
    required_list,
    required_object,
    required_text,
    table_cells,
)

SPAN_SEPARATOR = " | "
"""Stands between the spans of an answer. No span holds a pipe, so `answer.split(SPAN_SEPARATOR)`
gives them back; it stays whole where white space is folded into single spaces."""

MAX_HEADER_ROWS = 4
"""Tables with more header rows than this do not occur in the data set."""

_ANSWER_TYPES = ("span", "multi-span", "arithmetic", "count")
_SOURCES = ("table", "text", "table-text")


class TatqaOptions(Options):
    """Options of the reader `tatqa`."""

    files: Annotated[Files, Field(min_length=1)]
    """TAT-QA's JSON files, or the same rows as JSON lines (`.jsonl`): one path or several."""


class TatqaReader:
    """Reads contexts of a table and paragraphs, with the questions asked about each.

    A document is one context: the table first, then the paragraphs by their `order`; its id is the
    table's. The answer's spans are joined by `SPAN_SEPARATOR`, empty ones left out. Arithmetic and
    count answers that are numbers are `executed_answer` too, in the same unit as `answer`, which
    `scale` names: -22.22 with the scale percent.

    Of an arithmetic question, the analyst's derivation is also written as a flat program, if it
    computes the answer in that unit; `finqa_sft.programs.derivation_problem` says why one does not.
    """

    def __init__(self, options: TatqaOptions) -> None:
        """Take the options; files are opened when the reader is iterated."""
        self._files = options.files

    def __iter__(self) -> Iterator[Question | BadRow]:
        """Read all files from their beginning.

        Raises:
            DataError: A file is missing, empty, not a JSON list, or in another data set's layout.
        """
        register = Register()

        def questions(row: Row, source: str) -> Iterator[Question | BadRow]:
            context = _context(row)

            def question(item: Row, source: str) -> Iterator[Question]:
                asked = _question(item, context, source=source)
                yield register.enter(asked, document_field="table.uid", id_field="uid")

            return read_each(
                required_list(row, "questions"),
                label=source,
                what="question",
                expected="an object with question and answer",
                questions=question,
            )

        return read_files(self._files, reader="tatqa", questions=questions)


def header_rows(rows: Sequence[Sequence[str]]) -> int:
    """How many of a table's first rows are headers.

    The first row is. A further one is if its first cell is empty, as no figures' label is, or if
    the rows above it have at most one filled cell each behind the first although there are
    several columns: a title, or a span such as "Years ended". At least one row remains, and
    headers are `MAX_HEADER_ROWS` at most.
    """
    count = min(len(rows), 1)
    only_titles = True
    while count < min(len(rows) - 1, MAX_HEADER_ROWS):
        above = rows[count - 1][1:]
        only_titles = only_titles and len(above) > 1 and sum(map(bool, above)) <= 1
        if rows[count][0] and not only_titles:
            break
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class _Context:
    """A context's document, and where its parts stand among the blocks.

    Attributes:
        document: The document.
        table: Index of the table's block, or None if the table is empty.
        paragraphs: Block index of each paragraph that is not empty, by its `order` as text.
    """

    document: Document
    table: int | None
    paragraphs: Mapping[str, int]


def _context(row: Row) -> _Context:
    paragraphs = sorted(map(_paragraph, required_list(row, "paragraphs")))
    table = required_object(row, "table", expected="an object with 'uid' and 'table'")
    cells = table_cells(table, "table", field="table.table")
    blocks: list[Block] = []
    if any(cells):
        rows = Table.from_cells(cells).rows
        blocks.append(Table(rows=rows, header_rows=header_rows(rows)))
    places: dict[str, int] = {}
    for order, text in paragraphs:
        if str(order) in places:
            raise RowProblem("paragraphs", f"two have the order {order}; expected one of each")
        if text:
            places[str(order)] = len(blocks)
            blocks.append(Paragraph(text))
    return _Context(
        document=Document(id=required_text(table, "uid", field="table.uid"), blocks=tuple(blocks)),
        table=0 if any(cells) else None,
        paragraphs=places,
    )


def _paragraph(value: object) -> tuple[int, str]:
    if not isinstance(value, dict):
        raise RowProblem("paragraphs", f"{kind(value)} in the list; expected an object")
    order = value.get("order")
    if not isinstance(order, int) or isinstance(order, bool):
        raise RowProblem("paragraphs.order", f"{kind(order)}; expected a whole number")
    return order, as_text(value.get("text"), field="paragraphs.text")


def _question(item: Row, context: _Context, *, source: str) -> Question:
    text = required_text(item, "question")
    if "answer" not in item:
        raise RowProblem("answer", "missing; questions without labels cannot be used")
    answer_type = _one_of(_ANSWER_TYPES, item.get("answer_type"), field="answer_type")
    answer = _answer(item["answer"])
    scale = cast("Scale", _one_of(SCALES, item.get("scale"), field="scale"))
    executed = _number(answer) if answer_type in ("arithmetic", "count") else None
    derivation = as_text(item.get("derivation"), field="derivation") or None
    return Question(
        id=required_text(item, "uid"),
        text=text,
        document=context.document,
        answer=answer,
        program=_program(derivation, executed, scale) if answer_type == "arithmetic" else None,
        derivation=derivation,
        executed_answer=executed,
        scale=scale,
        answer_type=answer_type,
        evidence=_evidence(item, context),
        source=source,
    )


def _program(derivation: str | None, answer: float | None, scale: Scale) -> str | None:
    """The program that a derivation stands for, if it computes the answer."""
    if derivation is None or answer is None:
        return None
    try:
        return str(derived_program(derivation, answer=answer, scale=scale))
    except DerivationError:
        return None


def _one_of(known: Sequence[str], value: object, *, field: str) -> str:
    text = as_text(value, field=field)
    if text not in known:
        words = ", ".join(filter(None, known)) + (" or empty" if "" in known else "")
        raise RowProblem(field, f"{text!r}; expected {words}")
    return text


def _answer(value: object) -> str:
    spans = [
        as_text(span, field="answer") for span in (value if isinstance(value, list) else [value])
    ]
    for span in spans:
        if "|" in span:
            raise RowProblem("answer", f"{span!r} holds '|', which separates spans; write it out")
    answer = SPAN_SEPARATOR.join(filter(None, spans))
    if not answer:
        raise RowProblem("answer", "empty; expected text, a number or a list of spans")
    return answer


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _evidence(item: Row, context: _Context) -> tuple[Evidence, ...]:
    """The table if the answer comes from it, then the related paragraphs as they are listed."""
    places: list[int] = []
    if _one_of(_SOURCES, item.get("answer_from"), field="answer_from") != "text":
        if context.table is None:
            raise RowProblem("answer_from", "the context has no table")
        places.append(context.table)
    for value in required_list(item, "rel_paragraphs"):
        order = as_text(value, field="rel_paragraphs")
        if order not in context.paragraphs:
            raise RowProblem("rel_paragraphs", f"{order!r}; the context has no such paragraph")
        places.append(context.paragraphs[order])
    return tuple(map(Evidence, dict.fromkeys(places)))
