"""The reader `convfinqa`: ConvFinQA's conversations, each turn a question with its history.

Source of the official layout: the data set's repository, github.com/czyssrs/ConvFinQA. The cleaned
layout is that of a third party's edition of the same conversations: keys `doc`, `dialogue` and
`features`, texts joined, the table as columns of labelled numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field

from finqa_sft.documents import Block, Document, Paragraph, Question, Table, Turn
from finqa_sft.errors import DataError
from finqa_sft.options import Options
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.context import Register
from finqa_sft.readers.files import (
    JSON_LINES,
    Files,
    RowProblem,
    as_text,
    did_you_mean,
    json_rows,
    kind,
    read_json,
    required_text,
)
from finqa_sft.readers.finqa import (
    executed_answer,
    page_blocks,
    page_table,
    program_text,
    text_list,
    written_program,
)

Row: TypeAlias = Mapping[str, object]

_PREFIX = re.compile(r"^(Single|Double)_")
_ROW_OF_PAGE = re.compile(r"-\d+$")
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
        for path in self._options.files:
            for number, row in enumerate(_rows(path, split=self._options.split), start=1):
                if number == 1:
                    _refuse_other_layouts(path, row)
                source = f"{path.name} row {number}"
                try:
                    yield from _entered(_conversation(row, source=source), register)
                except RowProblem as problem:
                    yield problem.at(source)


def _rows(path: Path, *, split: str | None) -> Iterable[object]:
    """The rows of a file, or of one split in it."""
    value = None if path.suffix.lower() in JSON_LINES else read_json(path)
    if not isinstance(value, dict):
        if split is not None:
            raise DataError(f"{path}: holds no splits; leave out 'split'")
        return json_rows(path) if value is None else _list_of_rows(path, value, what="")
    names = ", ".join(map(repr, value)) or "none"
    if split is None and len(value) != 1:
        raise DataError(
            f"{path}: an object with the keys {names} at the top level; expected a list of rows, "
            "or set 'split' to one of the keys"
        )
    name = split if split is not None else next(iter(value))
    if name not in value:
        raise DataError(f"{path}: no split {name!r}; {did_you_mean(name, value) or f'has {names}'}")
    return _list_of_rows(path, value[name], what=f"the split {name!r} is ")


def _list_of_rows(path: Path, value: object, *, what: str) -> list[object]:
    if not isinstance(value, list):
        raise DataError(f"{path}: {what}{kind(value)}; expected a list of rows")
    if not value:
        raise DataError(f"{path}: {what}an empty list; expected rows")
    return value


def _refuse_other_layouts(path: Path, row: object) -> None:
    """Refuse a first row that is another data set's, or a single turn of the official files."""
    if not isinstance(row, dict):
        return
    annotation = row.get("annotation")
    if isinstance(annotation, dict) and "cur_dial" in annotation:
        raise DataError(
            f"{path}: row 1 is a single turn; use the conversation file instead, which has the "
            "same turns (train.json in place of train_turn.json)"
        )
    if not row.keys() & {_OFFICIAL.section, _CLEANED.section}:
        remedy = "; use reader: finqa" if "qa" in row else ""
        raise DataError(
            f"{path}: row 1 has neither {_OFFICIAL.section!r} nor {_CLEANED.section!r}, so this is "
            f"not ConvFinQA{remedy}"
        )


def _entered(turns: Sequence[Question], register: Register) -> list[Question]:
    return [register.enter(turn, document_field="id", id_field="id") for turn in turns]


def _conversation(row: object, *, source: str) -> list[Question]:
    if isinstance(row, RowProblem):
        raise row
    if not isinstance(row, dict):
        raise RowProblem("row", f"{kind(row)}; expected an object with 'annotation'")
    id = required_text(row, "id")
    layout = _CLEANED if _CLEANED.section in row else _OFFICIAL
    turns, executed = _turns(row, layout)
    page = as_text(row.get("filename"), field="filename")
    page = page or _ROW_OF_PAGE.sub("", _PREFIX.sub("", id))
    company, slash, _ = page.partition("/")
    blocks = _cleaned_blocks(row) if layout is _CLEANED else _official_blocks(row)
    document = Document(id=page, blocks=blocks, company=company if slash else None)
    return [
        Question(
            id=f"{id}_{index}",
            text=turn.question,
            document=document,
            answer=turn.answer,
            program=turn.program,
            executed_answer=value,
            history=tuple(turns[:index]),
            source=source,
        )
        for index, (turn, value) in enumerate(zip(turns, executed, strict=True))
    ]


def _turns(row: Row, layout: _Layout) -> tuple[list[Turn], list[float | str]]:
    """The turns of a conversation, and what each one's program computes."""
    section = _section(row, layout.section)

    def entries(key: str, *, length: int | None = None) -> list[object]:
        field = f"{layout.section}.{key}"
        if key not in section:
            raise RowProblem(field, "missing; rows without labels cannot be used")
        values = section[key]
        if not isinstance(values, list):
            raise RowProblem(field, f"{kind(values)}; expected a list")
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
    executed: list[float | str] = []
    for index, question in enumerate(questions):

        def field(key: str, index: int = index) -> str:
            return f"{layout.section}.{key}[{index}]"

        value = _executed_answer(results[index], field=field(layout.executed))
        text = written_program(programs[index], field=field("turn_program"))
        program = program_text(text, field=field("turn_program")) if "(" in text else None
        if program is None and not _NUMBER.fullmatch(text):
            raise RowProblem(field("turn_program"), f"{text!r}; expected a program or a number")
        answer_field = field(layout.answers or layout.executed)
        answer = text if program is None else _text(answers[index], field=answer_field)
        question_text = _text(question, field=field(layout.questions))
        turns.append(Turn(question=question_text, answer=answer, program=program))
        executed.append(value)
    return turns, executed


def _section(row: Row, key: str) -> Row:
    section = row.get(key)
    if not isinstance(section, dict):
        found = kind(section) if key in row else "missing"
        raise RowProblem(key, f"{found}; expected an object")
    return section


def _text(value: object, *, field: str) -> str:
    text = as_text(value, field=field)
    if not text:
        raise RowProblem(field, "empty; expected text")
    return text


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
    doc = _section(row, "doc")
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
