"""The reader `columns`: rows of question, context and answer, from files or from the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, TypeAlias, cast

from pydantic import AfterValidator, Field, model_validator

from finqa_sft.documents import SCALES, Block, Document, Question, Scale
from finqa_sft.errors import DataError
from finqa_sft.options import Options
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.context import Register, fingerprint, parse_context
from finqa_sft.readers.csv_files import DELIMITERS, csv_rows
from finqa_sft.readers.files import Files, cause, check_file, short_names
from finqa_sft.readers.finqa import program_text
from finqa_sft.readers.json_files import JSON_LINES, json_rows
from finqa_sft.readers.layouts import layout_of
from finqa_sft.readers.parquet_files import parquet_rows
from finqa_sft.readers.rows import Questions, read_each
from finqa_sft.readers.values import Row, RowProblem, as_text, kind, required_text
from finqa_sft.wording import did_you_mean

_SUFFIXES = (*DELIMITERS, ".json", *JSON_LINES, ".parquet")
_ROLES = ("question", "context", "answer", "document", "company", "program", "scale", "id")
_ROWS_FOR_COLUMNS = 100
_CHARACTERS_FOR_COLUMNS = 4_000_000
_COLUMNS_SHOWN = 20
_AN_OBJECT = "an object with a key for each column"
_NOT_A_NUMBER = ("nan", "NaN")
_ERROR_VALUES = frozenset(
    ("#REF!", "#DIV/0!", "#N/A", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!")
)
"""What Excel writes into a cell whose formula fails."""

ColumnName: TypeAlias = Annotated[str, Field(min_length=1)]


def _delimiter(text: str) -> str:
    if len(text) != 1 or text in '"\r\n':
        raise ValueError(r'expected one character, and no quote; a tab is written "\t"')
    return text


class ColumnsOptions(Options):
    """Options of the reader `columns`."""

    files: Files = ()
    """Files to read, one path or several: .csv, .tsv, .json (a list of objects), .jsonl or
    .parquet. Give either `files` or `dataset`."""

    delimiter: Annotated[str, AfterValidator(_delimiter)] | None = None
    """The character between the cells of .csv and .tsv files, as `";"` where Excel writes decimal
    commas. Unset: what a first line `sep=;` names; else a comma in .csv files, a tab in .tsv
    files."""

    dataset: str | None = None
    """A data set on the Hugging Face hub, as `owner/name`, in place of `files`."""

    subset: str | None = None
    """The hub data set's configuration."""

    revision: str | None = None
    """Branch, tag or commit of the hub data set; a commit makes the run repeatable."""

    dataset_split: str = "train"
    """The hub data set's split."""

    question: ColumnName = "question"
    """Column of the question."""

    context: ColumnName = "context"
    """Column of the document's text, or list of paragraphs; markdown and pipe tables in it are
    recognised."""

    answer: ColumnName | None = "answer"
    """Column of the answer; numbers become text, true and false become yes and no. null: there is
    none, as in a file of questions that a trained model is to answer."""

    document: ColumnName | None = None
    """Column of the document's id. Unset: `document` if there is such a column. Without one, or
    with null, rows with equal contexts are of one document."""

    company: ColumnName | None = None
    """Column of the company that the document is about, for `data.split.by: company`; a cell may
    be empty. Unset: `company` if there is such a column. null: none."""

    program: ColumnName | None = None
    """Column of FinQA's flat program. Unset: `program` if there is such a column. null: none."""

    scale: ColumnName | None = None
    """Column of the answer's scale: thousand, million, billion, percent or empty. Unset: `scale`
    if there is such a column. null: none."""

    id: ColumnName | None = None
    """Column of the question's id. Unset: `id` if there is such a column. Without one, or with
    null, it is the document's id and a number."""

    @model_validator(mode="after")
    def _one_source(self) -> ColumnsOptions:
        if bool(self.files) == bool(self.dataset):
            given = "both are given" if self.files else "neither is given"
            raise ValueError(f"set either 'files' or 'dataset'; {given}")
        if self.delimiter and not any(path.suffix.lower() in DELIMITERS for path in self.files):
            raise ValueError("'delimiter' is for .csv and .tsv files, and none is given")
        idle = sorted({"subset", "revision", "dataset_split"} & self.model_fields_set)
        if self.files and idle:
            raise ValueError(f"{idle[0]!r} belongs to 'dataset' and does nothing for 'files'")
        return self


@dataclass(frozen=True, slots=True)
class _Source:
    """A file or hub data set that has been opened.

    Attributes:
        name: Path or data set as given, for errors of the whole.
        label: What to call it in errors of rows.
        columns: All columns.
        rows: Rows, which may lack columns that are not wanted; a row that cannot be read comes as
            a problem.
    """

    name: str
    label: str
    columns: tuple[str, ...]
    rows: Iterator[object]


class ColumnsReader:
    """Reads rows that have a column each for question, context and answer.

    Rows of equal `document` are of one document and must have equal contexts; without that column,
    rows of equal contexts are, and the document's id is made from its content.
    """

    def __init__(self, options: ColumnsOptions) -> None:
        """Take the options; files are opened when the reader is iterated."""
        self._options = options

    def __iter__(self) -> Iterator[Question | BadRow]:
        """Read all files from their beginning, or the hub data set.

        Raises:
            DataError: A file is missing, empty, in no known format, not decodable, or lacks a
                column; or the hub data set cannot be loaded.
        """
        register = Register()
        asked: Counter[str] = Counter()
        for source in self._sources():
            columns = self._columns(source)
            yield from read_each(
                _some(source),
                label=source.label,
                expected=_AN_OBJECT,
                questions=self._questions(columns, register=register, asked=asked),
            )

    def _sources(self) -> Iterator[_Source]:
        options = self._options
        wanted = {name or role for role, name in self._names().items()}
        if options.dataset:
            yield _hub(options, options.dataset, wanted)
        for path, label in short_names(options.files):
            columns, rows = _open(path, wanted=wanted, delimiter=options.delimiter)
            yield _Source(name=str(path), label=label, columns=tuple(columns), rows=rows)

    def _names(self) -> dict[str, str | None]:
        """The column that is set for each role: none if it is unset; roles set to null are out."""
        given = self._options.model_fields_set
        names = self._options.model_dump(include=set(_ROLES))
        return {role: name for role, name in names.items() if name or role not in given}

    def _columns(self, source: _Source) -> dict[str, str]:
        """The column of every role that the source has.

        A column serves by its own name only where no other role claims it.
        """
        names = self._names()
        columns: dict[str, str] = {role: name for role, name in names.items() if name}
        for role, name in columns.items():
            if name not in source.columns:
                there = ", ".join(map(repr, source.columns[:_COLUMNS_SHOWN]))
                raise DataError(
                    f"{source.name}: no column {name!r}; there are {there}; "
                    f"{_remedy(role, name, source.columns)}"
                )
        free = set(source.columns).difference(columns.values())
        return columns | {role: role for role in names if role not in columns and role in free}

    def _questions(
        self, columns: Mapping[str, str], *, register: Register, asked: Counter[str]
    ) -> Questions:
        """What makes the question of a row.

        Problems with a column that serves by its name alone, unasked, say how to leave it out.
        """
        names = self._names()
        unasked = {column for role, column in columns.items() if not names[role]}

        def questions(row: Row, source: str) -> list[Question]:
            try:
                return [_question(row, source, columns=columns, register=register, asked=asked)]
            except RowProblem as problem:
                if problem.field not in unasked:
                    raise
                remedy = f"or set {problem.field} to null to leave the column out"
                raise RowProblem(problem.field, f"{problem.problem}; {remedy}") from problem

        return questions


def _remedy(role: str, name: str, columns: Collection[str]) -> str:
    """What to do where a role's column is not there."""
    unknown = (
        ", or to null where the answers are not known (answer: null; --option answer=null)"
        if role == "answer"
        else ""
    )
    remedy = did_you_mean(name, columns) or f"set {role!r} to the column to use{unknown}"
    layout = layout_of(columns)
    if layout is None or layout.reader == "columns":
        return remedy
    return f"{remedy}; for {layout.name} use reader: {layout.reader}"


def _some(source: _Source) -> Iterator[object]:
    """The rows of a source, of which there must be some."""
    empty = True
    for row in source.rows:
        empty = False
        yield row
    if empty:
        raise DataError(f"{source.name}: no rows; expected at least one")


def _question(
    row: Row, source: str, *, columns: Mapping[str, str], register: Register, asked: Counter[str]
) -> Question:
    """The question of a row; `asked` counts those of each document."""
    text = _filled(row, columns["question"])
    answer = _filled(row, columns["answer"]) if "answer" in columns else ""
    blocks = _blocks(row, columns["context"])
    program = _program(row, columns.get("program"))
    scale = _scale(row, columns.get("scale"))
    given_id = _filled(row, columns["id"]) if "id" in columns else None
    document = columns.get("document")
    name = _filled(row, document) if document else f"context-{fingerprint(blocks)[:16]}"
    question = Question(
        id=given_id or f"{name}-{asked[name] + 1}",
        text=text,
        document=Document(id=name, blocks=blocks, company=_company(row, columns.get("company"))),
        answer=answer,
        program=program,
        scale=scale,
        source=source,
    )
    asked[name] += 1
    return register.enter(
        question,
        document_field=document or columns["context"],
        id_field=columns.get("id", "row"),
        company_field=columns.get("company", "company"),
    )


def _filled(row: Row, column: str) -> str:
    """The text of a cell that must not be empty, nor say that a program had nothing to write."""
    text = required_text(row, column)
    if text in _NOT_A_NUMBER:
        raise RowProblem(column, f"{text}, which data frames write for empty; expected text")
    if text in _ERROR_VALUES:
        raise RowProblem(column, f"{text}, an error value of a spreadsheet; expected text")
    return text


def _blocks(row: Row, column: str) -> tuple[Block, ...]:
    value = row.get(column)
    if not isinstance(value, list):
        return parse_context(_filled(row, column))
    blocks = [block for text in value for block in parse_context(as_text(text, field=column))]
    if not blocks:
        raise RowProblem(column, "empty; expected text")
    return tuple(blocks)


def _company(row: Row, column: str | None) -> str | None:
    if column is None or not as_text(row.get(column), field=column):
        return None
    return _filled(row, column)


def _program(row: Row, column: str | None) -> str | None:
    return program_text(row.get(column), field=column) if column else None


def _scale(row: Row, column: str | None) -> Scale:
    if column is None:
        return ""
    text = as_text(row.get(column), field=column)
    scale = text.lower().removesuffix("s")
    if scale not in SCALES:
        known = ", ".join(filter(None, SCALES))
        raise RowProblem(column, f"{text!r}; expected {known}, or an empty cell")
    return cast("Scale", scale)


def _open(
    path: Path, *, wanted: Collection[str], delimiter: str | None
) -> tuple[list[str], Iterator[object]]:
    """The names of a file's columns, and its rows."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        check_file(path)
        raise DataError(
            f"{path}: the suffix {suffix!r} names no known format; save the file as one of "
            f"{', '.join(_SUFFIXES)}"
        )
    if suffix in DELIMITERS:
        return csv_rows(path, delimiter=delimiter)
    if suffix == ".parquet":
        return parquet_rows(path, wanted=wanted)
    return _json(path)


def _json(path: Path) -> tuple[list[str], Iterator[object]]:
    values = json_rows(path)
    first = list(_first(values))
    columns = list(dict.fromkeys(key for row in first if isinstance(row, dict) for key in row))
    if not columns:
        raise DataError(f"{path}: row 1 is {kind(first[0])}; expected {_AN_OBJECT}")
    return columns, chain(first, values)


def _first(values: Iterator[object]) -> Iterator[object]:
    """The rows that columns are looked for in: not many, and not much text."""
    characters = 0
    for row in islice(values, _ROWS_FOR_COLUMNS):
        yield row
        if isinstance(row, dict):
            characters += sum(len(cell) for cell in row.values() if isinstance(cell, str))
        if characters > _CHARACTERS_FOR_COLUMNS:
            return


def _hub(options: ColumnsOptions, name: str, wanted: Collection[str]) -> _Source:
    import datasets

    split = options.dataset_split
    try:
        data = datasets.load_dataset(name, options.subset, revision=options.revision, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{name}: the data set cannot be loaded ({cause(error)}); check its name, subset "
            f"and split, and the network; 'files' ({', '.join(_SUFFIXES)}) need none"
        ) from error
    columns: list[str] = data.column_names
    rows = data.select_columns([column for column in columns if column in wanted])
    return _Source(
        name=f"{name} ({split})", label=f"{name} {split}", columns=tuple(columns), rows=iter(rows)
    )
