"""The reader `convfinqa`: ConvFinQA's conversations, each turn a question with its history.

Source of the official layout: the data set's repository, github.com/czyssrs/ConvFinQA. The cleaned
layout is that of a third party's edition of the same conversations: keys `doc`, `dialogue` and
`features`, texts joined, the table as columns of labelled numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from finqa_sft.documents import Block, Paragraph, Question, Table, Turn
from finqa_sft.errors import DataError
from finqa_sft.options import Options
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.context import Register
from finqa_sft.readers.files import Files
from finqa_sft.readers.finqa import (
    executed_answer,
    page_blocks,
    page_document,
    page_table,
    program_text,
    written_program,
)
from finqa_sft.readers.json_files import JSON_LINES, JsonText, json_lines, list_rows, opened_json
from finqa_sft.readers.layouts import is_conversation
from finqa_sft.readers.rows import read_files
from finqa_sft.readers.values import (
    Row,
    RowProblem,
    as_text,
    filled_text,
    kind,
    required_list,
    required_object,
    required_text,
    text_list,
)
from finqa_sft.wording import did_you_mean

_PREFIX = re.compile(r"^(Single|Double)_")
_NUMBER = re.compile(r"(const_m?)?-?\s?[\d.,]*\d[\d.,]*\s?%?")


class ConvfinqaOptions(Options):
    """Options of the reader `convfinqa`."""

    files: Annotated[Files, Field(min_length=1)]
    """ConvFinQA's conversation files (`train.json`, not `train_turn.json`), or the same rows as
    JSON lines (`.jsonl`), or files of the cleaned layout: one path or several."""

    split: str | None = None
    """Which split to read from files that hold several under names, as `{"train": [...], "dev":
    [...]}`."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a layout keeps the parts of a conversation.

    Attributes:
        section: The key of the object that the lists stand in.
        questions: The list of questions in it.
        executed: The list of executed answers.
        answers: The list of written answers, where the layout has one.
    """

    section: str
    questions: str
    executed: str
    answers: str | None = None


_OFFICIAL = _Layout("annotation", "dialogue_break", "exe_ans_list")
_CLEANED = _Layout("dialogue", "conv_questions", "executed_answers", "conv_answers")


class ConvfinqaReader:
    """Reads conversations: one question a turn, with the earlier turns as its history.

    A turn that only picks a number from the page has a bare number in place of a program. It gets
    no `program`; the number as it stands there is the `answer`, which is what the official script
    compares, and its value the `executed_answer`. Elsewhere the answer is the written one of the
    cleaned layout, or, as the official layout has none, the executed answer.

    A question's id is the conversation's and the turn's index from 0, as in the official turn
    files. The document is the page, which several conversations may share; the company is its
    ticker. A conversation with one bad turn is one bad row, since later turns build on it.
    """

    def __init__(self, options: ConvfinqaOptions) -> None:
        """Take the options; files are opened when the reader is iterated."""
        self._options = options

    def __iter__(self) -> Iterator[Question | BadRow]:
        """Read all files from their beginning.

        Raises:
            DataError: A file is missing, empty, no JSON of rows, in another data set's layout, or
                lacks the split.
        """
        register = Register()

        def questions(row: Row, source: str) -> list[Question]:
            turns = _conversation(row, source=source)
            return [register.enter(turn, document_field="id", id_field="id") for turn in turns]

        rows = partial(_rows, split=self._options.split)
        return read_files(self._options.files, reader="convfinqa", questions=questions, rows=rows)


def _rows(path: Path, *, split: str | None) -> Iterator[object]:
    """The rows of a file, or of one split in it, which are no single turns."""
    for number, row in enumerate(_rows_of_split(path, split), start=1):
        annotation = row.get("annotation") if number == 1 and isinstance(row, dict) else None
        if isinstance(annotation, dict) and "cur_dial" in annotation:
            raise DataError(
                f"{path}: row 1 is a single turn; use the conversation file instead, which has the "
                "same turns (train.json in place of train_turn.json)"
            )
        yield row


def _rows_of_split(path: Path, split: str | None) -> Iterator[object]:
    """The rows of a file that is a list or lines, or of a split in a file that is an object."""
    is_lines = path.suffix.lower() in JSON_LINES
    text = None if is_lines else opened_json(path)
    if text and text.peek() == "{":
        yield from _named_rows(path, text, split)
    elif split is not None:
        raise DataError(f"{path}: holds no splits; leave out 'split'")
    else:
        yield from list_rows(path, text) if text else json_lines(path)


def _named_rows(path: Path, text: JsonText, split: str | None) -> Iterator[object]:
    """The rows of the split, or of the only one; the other values are passed over."""
    names: list[str] = []
    splits: list[str] = []
    found = "an empty list"
    for name in text.names():
        names.append(name)
        first: object = None
        if name != (names[0] if split is None else split):
            first = text.skip()
        elif text.peek() == "[":
            for row in text.items():
                if found:
                    first, found = row, ""
                yield row
        else:
            found = kind(text.value())
        if is_conversation(first):
            splits.append(name)
    text.end()
    known = ", ".join(map(repr, names)) or "none"
    if split is None and len(names) != 1:
        choice = " or ".join(map(repr, splits))
        remedy = f"or set 'split' to {choice}" if splits else "and no key holds conversations"
        raise DataError(
            f"{path}: an object with the keys {known} at the top level; expected a list of rows, "
            f"{remedy}"
        )
    if split is not None and split not in names:
        remedy = did_you_mean(split, names) or f"has {known}"
        raise DataError(f"{path}: no split {split!r}; {remedy}")
    if found:
        name = split or names[0]
        raise DataError(f"{path}: the split {name!r} is {found}; expected a list of rows")


def _conversation(row: Row, *, source: str) -> list[Question]:
    id = required_text(row, "id")
    layout = _CLEANED if _CLEANED.section in row else _OFFICIAL
    turns = _turns(row, layout)
    blocks = _cleaned_blocks(row) if layout is _CLEANED else _official_blocks(row)
    document = page_document(row, blocks, question_id=_PREFIX.sub("", id) or id)
    return [
        Question(
            id=f"{id}_{index}",
            text=turn.question,
            document=document,
            answer=turn.answer,
            program=turn.program,
            executed_answer=turn.executed_answer,
            history=tuple(turns[:index]),
            source=source,
        )
        for index, turn in enumerate(turns)
    ]


def _turns(row: Row, layout: _Layout) -> list[Turn]:
    """The turns of a conversation."""
    section = required_object(row, layout.section)

    def entries(key: str, *, length: int | None = None) -> list[object]:
        field = f"{layout.section}.{key}"
        if key not in section:
            raise RowProblem(field, "missing; rows without labels cannot be used")
        values = required_list(section, key, field=field)
        if length is not None and len(values) != length:
            raise RowProblem(
                field, f"{len(values)} entries; expected {length}, as in {layout.questions}"
            )
        return values

    questions = entries(layout.questions)
    if not questions:
        raise RowProblem(f"{layout.section}.{layout.questions}", "an empty list; expected turns")
    programs = entries("turn_program", length=len(questions))
    results = entries(layout.executed, length=len(questions))
    answers = entries(layout.answers, length=len(questions)) if layout.answers else results
    turns: list[Turn] = []
    for index, question in enumerate(questions):

        def field(key: str, index: int = index) -> str:
            return f"{layout.section}.{key}[{index}]"

        value = _executed_answer(results[index], field=field(layout.executed))
        text = written_program(programs[index], field=field("turn_program"))
        program = program_text(text, field=field("turn_program")) if "(" in text else None
        if program is None and not _NUMBER.fullmatch(text):
            raise RowProblem(field("turn_program"), f"{text!r}; expected a program or a number")
        answer_field = field(layout.answers or layout.executed)
        answer = text if program is None else filled_text(answers[index], field=answer_field)
        question_text = filled_text(question, field=field(layout.questions))
        turns.append(
            Turn(question=question_text, answer=answer, program=program, executed_answer=value)
        )
    return turns


def _executed_answer(value: object, *, field: str) -> float | str:
    """An executed answer; every turn has one."""
    answer = executed_answer(value, field=field)
    if answer is None:
        raise RowProblem(field, "''; expected a number, yes or no")
    return answer


def _official_blocks(row: Row) -> tuple[Block, ...]:
    blocks, _ = page_blocks(
        text_list(row, "pre_text"), page_table(row), text_list(row, "post_text")
    )
    return blocks


def _cleaned_blocks(row: Row) -> tuple[Block, ...]:
    doc = required_object(row, "doc")
    table = _cleaned_table(doc.get("table"))
    before, after = (as_text(doc.get(key), field=f"doc.{key}") for key in ("pre_text", "post_text"))
    blocks = (Paragraph(before), table, Paragraph(after))
    return tuple(
        block for block in blocks if (block.rows if isinstance(block, Table) else block.text)
    )


def _cleaned_table(columns: object) -> Table:
    """A table from `{column: {row: value}}`; rows come in the order in which columns name them."""
    field = "doc.table"
    if not isinstance(columns, dict):
        raise RowProblem(field, f"{kind(columns)}; expected an object of columns")
    labels: dict[str, None] = {}
    for name, column in columns.items():
        if not isinstance(column, dict):
            raise RowProblem(field, f"column {name!r} is {kind(column)}; expected an object")
        labels.update(dict.fromkeys(column))
    if not labels:
        return Table(rows=(), header_rows=0)
    header = ["", *(as_text(name, field=field) for name in columns)]
    body = [
        [
            as_text(value, field=field)
            for value in (label, *(c.get(label) for c in columns.values()))
        ]
        for label in labels
    ]
    return Table.from_cells([header, *body])
