"""The reader `columns`: rows of question, context and answer, from files or from the hub."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, TypeAlias, cast

from pydantic import Field, model_validator

from finqa_sft.documents import SCALES, Block, Document, Question, Scale
from finqa_sft.errors import DataError
from finqa_sft.options import Options
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.context import Register, fingerprint, parse_context
from finqa_sft.readers.files import CHUNK, Files, check_file, did_you_mean, text_lines
from finqa_sft.readers.finqa import program_text
from finqa_sft.readers.json_files import JSON_LINES, json_rows
from finqa_sft.readers.rows import layout_of, read_each
from finqa_sft.readers.values import Row, RowProblem, as_text, kind, required_text

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (*_DELIMITERS, ".json", *JSON_LINES, ".parquet")
_ROLES = ("question", "context", "answer", "document", "program", "scale", "id")
_ROWS_FOR_COLUMNS = 100
_CHARACTERS_FOR_COLUMNS = 4_000_000
_BYTES_AT_ONCE = 4 * 2**20
_COLUMNS_SHOWN = 20
_LONGEST_CELL = 2**25
_AN_OBJECT = "an object with a key for each column"

ColumnName: TypeAlias = Annotated[str, Field(min_length=1)]


class ColumnsOptions(Options):
    """Options of the reader `columns`."""

    files: Files = ()
    """Files to read, one path or several: .csv, .tsv, .json (a list of objects), .jsonl or
    .parquet. Give either `files` or `dataset`."""

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

    answer: ColumnName = "answer"
    """Column of the answer; numbers become text, true and false become yes and no."""

    document: ColumnName | None = None
    """Column of the document's id. Unset: `document` if there is such a column; else rows with
    equal contexts are of one document."""

    program: ColumnName | None = None
    """Column of FinQA's flat program. Unset: `program` if there is such a column."""

    scale: ColumnName | None = None
    """Column of the answer's scale: thousand, million, billion, percent or empty. Unset: `scale`
    if there is such a column."""

    id: ColumnName | None = None
    """Column of the question's id. Unset: `id` if there is such a column; else the document's id
    and a number."""

    @model_validator(mode="after")
    def _one_source(self) -> ColumnsOptions:
        if bool(self.files) == bool(self.dataset):
            given = "both are given" if self.files else "neither is given"
            raise ValueError(f"set either 'files' or 'dataset'; {given}")
        idle = sorted({"subset", "revision", "dataset_split"} & self.model_fields_set)
        if self.files and idle:
            raise ValueError(f"{idle[0]!r} belongs to 'dataset' and does nothing for 'files'")
        return self


@dataclass(frozen=True, slots=True)
class _Source:
    """A file or hub data set that has been opened.

    Attributes:
        name: Path or data set as given, for errors of the whole.
        label: Its short name, for errors of rows.
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
                questions=partial(_questions, columns=columns, register=register, asked=asked),
            )

    def _sources(self) -> Iterator[_Source]:
        options = self._options
        names = options.model_dump(include=set(_ROLES))
        wanted = {name or role for role, name in names.items()}
        if options.dataset:
            yield _hub(options, options.dataset, wanted)
        for path in options.files:
            yield _open(path, wanted)

    def _columns(self, source: _Source) -> dict[str, str]:
        """The column of every role that the source has.

        A column serves by its own name only where no other role claims it.
        """
        names = self._options.model_dump(include=set(_ROLES))
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


def _remedy(role: str, name: str, columns: Collection[str]) -> str:
    """What to do where a role's column is not there."""
    remedy = did_you_mean(name, columns) or f"set {role!r} to the column to use"
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


def _questions(
    row: Row, source: str, *, columns: Mapping[str, str], register: Register, asked: Counter[str]
) -> Iterator[Question]:
    """The question of a row; `asked` counts those of each document."""
    text = required_text(row, columns["question"])
    answer = required_text(row, columns["answer"])
    blocks = _blocks(row, columns["context"])
    program = _program(row, columns.get("program"))
    scale = _scale(row, columns.get("scale"))
    given_id = required_text(row, columns["id"]) if "id" in columns else None
    document = columns.get("document")
    name = required_text(row, document) if document else f"context-{fingerprint(blocks)[:16]}"
    question = Question(
        id=given_id or f"{name}-{asked[name] + 1}",
        text=text,
        document=Document(id=name, blocks=blocks),
        answer=answer,
        program=program,
        scale=scale,
        source=source,
    )
    asked[name] += 1
    yield register.enter(
        question, document_field=document or columns["context"], id_field=columns.get("id", "row")
    )


def _blocks(row: Row, column: str) -> tuple[Block, ...]:
    value = row.get(column)
    if not isinstance(value, list):
        return parse_context(required_text(row, column))
    blocks = [block for text in value for block in parse_context(as_text(text, field=column))]
    if not blocks:
        raise RowProblem(column, "empty; expected text")
    return tuple(blocks)


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


def _open(path: Path, wanted: Collection[str]) -> _Source:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        check_file(path)
        raise DataError(
            f"{path}: the suffix {suffix!r} names no known format; save the file as one of "
            f"{', '.join(_SUFFIXES)}"
        )
    if suffix in _DELIMITERS:
        columns, rows = _csv(path, _DELIMITERS[suffix])
    elif suffix == ".parquet":
        columns, rows = _parquet(path, wanted)
    else:
        columns, rows = _json(path)
    return _Source(name=str(path), label=path.name, columns=tuple(columns), rows=rows)


def _csv(path: Path, delimiter: str) -> tuple[list[str], Iterator[object]]:
    lines = _cells(path, delimiter)
    header = [name.strip() for name in next(lines, [])]
    if not header:
        raise DataError(f"{path}: only blank lines; expected a header and rows")
    if len(header) < 2:
        raise DataError(
            f"{path}: the header {''.join(header)!r} is one column; columns are separated by a "
            "comma in .csv files and by a tab in .tsv files"
        )
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} stands twice; rename one of them")

    def rows() -> Iterator[object]:
        for cells in lines:
            if len(cells) == len(header):
                yield dict(zip(header, cells, strict=True))
            else:
                yield RowProblem(
                    "row",
                    f"{len(cells)} cells, expected {len(header)} as in the header; a cell with "
                    f"{delimiter!r} or a line break in it needs quotes",
                )

    return header, rows()


def _cells(path: Path, delimiter: str) -> Iterator[list[str]]:
    # The module's own limit of 128 KiB a cell is too low for contexts. Without any, a quote left
    # open would take the rest of the file into memory.
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(text_lines(path), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            remedy = "is a quote left open?"
            if "new-line character" in str(error):
                remedy = "save the file with line feeds at the ends of its lines"
            raise DataError(
                f"{path}: the row that begins in line {line} cannot be read ({_cause(error)}); "
                f"{remedy}"
            ) from error
        if cells is None:
            return
        if cells:
            yield cells


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


def _parquet(path: Path, wanted: Collection[str]) -> tuple[list[str], Iterator[object]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    check_file(path)

    def damaged(error: Exception) -> DataError:
        return DataError(
            f"{path}: no Parquet file, or a damaged one ({_cause(error)}); write it again"
        )

    try:
        # Without a buffer a group of rows is read as a whole, and a file may be one group.
        file = pyarrow.parquet.ParquetFile(path, buffer_size=CHUNK, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(error) from error
    columns: list[str] = file.schema_arrow.names
    columns_read = [name for name in columns if name in wanted]
    at_once = max(1, min(256, _BYTES_AT_ONCE * file.metadata.num_rows // path.stat().st_size))

    def rows() -> Iterator[object]:
        try:
            with file:
                for batch in file.iter_batches(batch_size=at_once, columns=columns_read):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise damaged(error) from error

    return columns, rows()


def _hub(options: ColumnsOptions, name: str, wanted: Collection[str]) -> _Source:
    import datasets

    split = options.dataset_split
    try:
        data = datasets.load_dataset(name, options.subset, revision=options.revision, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{name}: the data set cannot be loaded ({_cause(error)}); check its name, subset "
            f"and split, and the network; 'files' ({', '.join(_SUFFIXES)}) need none"
        ) from error
    columns: list[str] = data.column_names
    rows = data.select_columns([column for column in columns if column in wanted])
    return _Source(
        name=f"{name} ({split})", label=f"{name} {split}", columns=tuple(columns), rows=iter(rows)
    )


def _cause(error: Exception) -> str:
    """The first line of another library's message, without characters that do not print."""
    line = str(error).strip().partition("\n")[0]
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
