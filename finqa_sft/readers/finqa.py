"""The reader `finqa`: files in FinQA's official layout.

Source of the layout: the data set's repository, github.com/czyssrs/FinQA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from finqa_sft.documents import Block, Document, Evidence, Paragraph, Question, Table
from finqa_sft.errors import ProgramError
from finqa_sft.options import Options
from finqa_sft.programs.flat import parse_program
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.context import Register
from finqa_sft.readers.files import Files
from finqa_sft.readers.rows import read_files
from finqa_sft.readers.values import (
    Row,
    RowProblem,
    as_text,
    kind,
    required_object,
    required_text,
    table_cells,
    text_list,
)

_GOLD = re.compile(r"(table|text)_(\d{1,9})")
_ROW_OF_PAGE = re.compile(r"-\d+$")


class FinqaOptions(Options):
    """Options of the reader `finqa`."""

    files: Annotated[Files, Field(min_length=1)]
    """FinQA's JSON files, or the same rows as JSON lines (`.jsonl`): one path or several."""


class FinqaReader:
    """Reads FinQA's rows: one question each, with its page, program and evidence.

    A page's texts and table become blocks as they are; only empty texts are left out. Where the
    `answer` is blank, as in a few official rows, the executed answer stands in for it.
    """

    def __init__(self, options: FinqaOptions) -> None:
        """Take the options; files are opened when the reader is iterated."""
        self._files = options.files

    def __iter__(self) -> Iterator[Question | BadRow]:
        """Read all files from their beginning.

        Raises:
            DataError: A file is missing, empty, not a JSON list, or in another data set's layout.
        """
        register = Register()

        def questions(row: Row, source: str) -> Iterator[Question]:
            question = _question(row, source=source)
            yield register.enter(question, document_field="filename", id_field="id")

        return read_files(self._files, reader="finqa", questions=questions)


def program_text(value: object, *, field: str) -> str | None:
    """A program as text, from text or from FinQA's list of tokens; None if it is empty.

    Args:
        value: `"subtract(5, 4)"`, or `["subtract(", "5", "4", ")", "EOF"]`.
        field: The field it stands in.

    Raises:
        RowProblem: It is neither, or no program.
    """
    text = written_program(value, field=field)
    if not text:
        return None
    try:
        parse_program(text)
    except ProgramError as error:
        raise RowProblem(field, f"no program: {error}") from error
    return text


def written_program(value: object, *, field: str) -> str:
    """What stands where a program is expected, as text; FinQA's list of tokens is joined.

    Raises:
        RowProblem: It is no text and no list of text.
    """
    if not isinstance(value, list):
        return as_text(value, field=field)
    text = ""
    for token in value:
        if not isinstance(token, str):
            raise RowProblem(field, f"{kind(token)} in the list of tokens; expected text")
        if token == "EOF":
            break
        # The parts of a row label such as "income (loss) of 2019" carry their own spaces.
        if text and not text.endswith("(") and token != ")" and not token.startswith(" "):
            text += ", "
        text += token
    return text


def _question(row: Row, *, source: str) -> Question:
    qa = required_object(row, "qa", expected="an object with question and answer")
    id = required_text(row, "id")
    before, after = text_list(row, "pre_text"), text_list(row, "post_text")
    blocks, places = page_blocks(before, page_table(row), after)
    executed = executed_answer(qa.get("exe_ans"), field="qa.exe_ans")
    return Question(
        id=id,
        text=required_text(qa, "question", field="qa.question"),
        document=page_document(row, blocks, question_id=id),
        answer=_answer(qa, executed),
        program=program_text(qa.get("program"), field="qa.program"),
        executed_answer=executed,
        evidence=_evidence(qa.get("gold_inds"), places),
        source=source,
    )


def page_document(row: Row, blocks: tuple[Block, ...], *, question_id: str) -> Document:
    """The page as a document, named by `filename`, or else after the question's id.

    The company is the ticker in front of the name's first slash.
    """
    page = as_text(row.get("filename"), field="filename")
    page = page or _ROW_OF_PAGE.sub("", question_id) or question_id
    company, slash, _ = page.partition("/")
    return Document(id=page, blocks=blocks, company=(company.strip() or None) if slash else None)


def page_table(row: Row) -> Table:
    """The table of a page, its first row the header."""
    return Table.from_cells(table_cells(row, "table"))


def page_blocks(
    before: Sequence[str], table: Table, after: Sequence[str]
) -> tuple[tuple[Block, ...], dict[str, Evidence]]:
    """The page's blocks, and where each of FinQA's evidence keys points among them."""
    blocks: list[Block] = []
    places: dict[str, Evidence] = {}

    def add(texts: Sequence[str], *, start: int) -> None:
        for index, text in enumerate(texts, start):
            if text:
                places[f"text_{index}"] = Evidence(len(blocks))
                blocks.append(Paragraph(text))

    add(before, start=0)
    if any(table.rows):
        places |= {f"table_{i}": Evidence(len(blocks), row=i) for i in range(len(table.rows))}
        blocks.append(table)
    add(after, start=len(before))
    return tuple(blocks), places


def executed_answer(value: object, *, field: str) -> float | str | None:
    """What a program computes, as these data sets write it; None where nothing is written.

    Raises:
        RowProblem: It is neither a finite number nor yes or no.
    """
    text = as_text(value, field=field).lower()
    if text in ("", "yes", "no"):
        return text or None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RowProblem(field, f"{text!r}; expected a number, yes or no")
    return number


def _answer(qa: Row, executed: float | str | None) -> str:
    if "answer" not in qa:
        raise RowProblem("qa.answer", "missing; rows without labels cannot be used")
    answer = as_text(qa["answer"], field="qa.answer") or as_text(executed, field="qa.exe_ans")
    if not answer:
        raise RowProblem("qa.answer", "empty, and there is no exe_ans to stand in for it")
    return answer


def _evidence(gold: object, places: Mapping[str, Evidence]) -> tuple[Evidence, ...]:
    if gold is None:
        return ()
    if not isinstance(gold, dict):
        raise RowProblem("qa.gold_inds", f"{kind(gold)}; expected an object")
    for key in gold:
        if not _GOLD.fullmatch(key):
            raise RowProblem("qa.gold_inds", f"{key!r}; expected keys as 'table_3' or 'text_12'")
        if key not in places:
            raise RowProblem("qa.gold_inds", f"{key!r}; the page has no such text or table row")
    return tuple(places[key] for key in gold)
