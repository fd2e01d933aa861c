r"""Tables as text, in several styles, and back.

A cell is written on one line: every run of white space in it is one space. But for that, and for
the style `sentences`, nothing is lost: `read_table(table_text(table, style), style)` is the table,
cells with pipes, quotes or markup and any number of header rows included. A table without cells is
an empty text.

Where the format itself has no way to say something, a mark of ours does, and a backslash tells a
cell apart that looks like the mark:

- `markdown`: the rule `---` stands below the last header row, as in MultiMarkdown, where plain
  markdown has one header row. Without a header row, or with only empty ones, an empty row more
  stands above the rule.
- `pipe` and `tsv`: the first row is the header; where it is otherwise, a line `---` ends the
  headers. No table begins with white space, which chat templates take away from a message: an empty
  first cell is written as a backslash in `tsv`, as is an empty row of a table with one column.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Literal, TypeAlias

from finqa_sft.documents import Table
from finqa_sft.errors import DataError

TableStyle: TypeAlias = Literal["markdown", "pipe", "tsv", "json", "html", "sentences"]
"""The ways in which a table is written."""

Rows: TypeAlias = Sequence[Sequence[str]]

_PIPE = re.compile(r"(?<!\\)\|")
_RULE = "---"
_LIKE_A_RULE = re.compile(r"\\*---")
_LIKE_NOTHING = re.compile(r"\\*")
_LIKE_A_MARK = re.compile(r"\\*(---)?")


def table_text(table: Table, style: TableStyle = "markdown") -> str:
    """A table as text; empty if the table has no cell."""
    rows = [[" ".join(cell.split()) for cell in row] for row in table.rows]
    if not any(rows):
        return ""
    return _WRITERS[style](rows, min(table.header_rows, len(rows)))


def read_table(text: str, style: TableStyle) -> Table:
    """The table that `table_text` wrote.

    Raises:
        DataError: The text is no table in that style, or the style is `sentences`.
    """
    if style not in _READERS:
        readable = ", ".join(_READERS)
        raise DataError(f"tables in the style {style!r} cannot be read back; {readable} can")
    if not text.strip():
        return Table(rows=(), header_rows=0)
    rows, headers = _READERS[style](text.strip("\n"))
    return Table.from_cells(rows, header_rows=headers)


def _markdown(rows: Rows, headers: int) -> str:
    head = [[_marked(cell, _LIKE_A_RULE) for cell in row] for row in rows[:headers]]
    if not any(map(any, head)):
        head.insert(0, [""] * len(rows[0]))
    lines = [*head, [_RULE] * len(rows[0]), *rows[headers:]]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _read_markdown(text: str) -> tuple[Rows, int]:
    lines = [_PIPE.split(line.strip()) for line in text.split("\n")]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines]
    rule = next((n for n, row in enumerate(cells) if row and set(row) == {_RULE}), 0)
    if not rule:
        raise DataError(f"no markdown table: {text[:40]!r} has no row of --- below its header")
    head = [[_unmarked(cell, _LIKE_A_RULE) for cell in row] for row in cells[:rule]]
    if not any(map(any, head)):
        head = head[1:]
    rows = [*head, *cells[rule + 1 :]]
    return [[cell.replace("\\|", "|") for cell in row] for row in rows], len(head)


def _pipe(rows: Rows, headers: int) -> str:
    lines = [" | ".join(map(_escaped, row)).strip() for row in rows]
    if len(rows[0]) == 1:
        lines = [_marked(line, _LIKE_A_MARK) for line in lines]
    return _with_mark(lines, headers)


def _read_pipe(text: str) -> tuple[Rows, int]:
    lines, headers = _without_mark(text)
    if all(_PIPE.search(line) is None for line in lines):
        lines = [_unmarked(line, _LIKE_A_MARK) for line in lines]
    rows = [[cell.strip().replace("\\|", "|") for cell in _PIPE.split(line)] for line in lines]
    return rows, headers


def _tsv(rows: Rows, headers: int) -> str:
    if len(rows[0]) == 1:
        lines = [_marked(row[0], _LIKE_A_MARK) for row in rows]
    else:
        first = [_marked(rows[0][0], _LIKE_NOTHING), *rows[0][1:]]
        lines = ["\t".join(row) for row in (first, *rows[1:])]
    return _with_mark(lines, headers)


def _read_tsv(text: str) -> tuple[Rows, int]:
    lines, headers = _without_mark(text)
    rows = [line.split("\t") for line in lines]
    if max(map(len, rows), default=0) == 1:
        rows = [[_unmarked(row[0], _LIKE_A_MARK)] for row in rows]
    elif rows:
        rows[0][0] = _unmarked(rows[0][0], _LIKE_NOTHING)
    return rows, headers


def _json(rows: Rows, headers: int) -> str:
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    head, body = ",\n".join(lines[:headers]), ",\n".join(lines[headers:])
    return f'{{"header":[{head}],\n"rows":[{body}]}}'


def _read_json(text: str) -> tuple[Rows, int]:
    try:
        match json.loads(text):
            case {"header": list(head), "rows": list(body)}:
                rows = [*head, *body]
            case _:
                raise DataError(f"no table in JSON: {text[:40]!r} has no header and rows")
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"no table in JSON: {error}") from error
    for row in rows:
        if not isinstance(row, list) or not all(isinstance(cell, str) for cell in row):
            raise DataError(f"no table in JSON: {row!r} is no list of texts")
    return rows, len(head)


def _html(rows: Rows, headers: int) -> str:
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if number < headers else "td"
        cells = (f"<{tag}>{html.escape(cell, quote=False)}</{tag}>" for cell in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join(["<table>", *lines, "</table>"])


def _read_html(text: str) -> tuple[Rows, int]:
    reader = _HtmlTable()
    reader.feed(text)
    reader.close()
    if not reader.rows:
        raise DataError(f"no table in HTML: {text[:40]!r} has no rows")
    return reader.rows, reader.headers


class _HtmlTable(HTMLParser):
    """Collects the cells of a table.

    Attributes:
        rows: The rows so far.
        headers: How many of them have header cells.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.headers = 0
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td") and self.rows:
            self.headers += tag == "th" and not self.rows[-1]
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("th", "td", "tr", "table")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def _sentences(rows: Rows, headers: int) -> str:
    """A line with the headers, then a sentence a row, in which each cell has its header again."""
    names = [" ".join(filter(None, column)) for column in zip(*rows[:headers], strict=True)]
    lines = [f"Columns: {'; '.join(filter(None, names))}."] if any(names) else []
    for label, *cells in rows[headers:]:
        values = [
            f"{name} is {cell}" if name else cell
            for name, cell in zip(names[1:] or [""] * len(cells), cells, strict=True)
            if cell
        ]
        said = "; ".join(values) + "." if values else ""
        if label or said:
            lines.append(f"{label.removesuffix(':')}: {said}".rstrip() if label else said)
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _marked(cell: str, looks: re.Pattern[str]) -> str:
    """The cell, with a backslash before it if it looks like what it is not."""
    return f"\\{cell}" if looks.fullmatch(cell) else cell


def _unmarked(cell: str, looks: re.Pattern[str]) -> str:
    """The cell that `_marked` was given."""
    return cell[1:] if cell.startswith("\\") and looks.fullmatch(cell) else cell


def _with_mark(lines: list[str], headers: int) -> str:
    if headers != 1:
        lines = [*lines[:headers], _RULE, *lines[headers:]]
    return "\n".join(lines)


def _without_mark(text: str) -> tuple[list[str], int]:
    lines = text.split("\n")
    if _RULE not in lines:
        return lines, 1
    headers = lines.index(_RULE)
    return lines[:headers] + lines[headers + 1 :], headers


_WRITERS: Mapping[TableStyle, Callable[[Rows, int], str]] = MappingProxyType(
    {
        "markdown": _markdown,
        "pipe": _pipe,
        "tsv": _tsv,
        "json": _json,
        "html": _html,
        "sentences": _sentences,
    }
)
_READERS: Mapping[TableStyle, Callable[[str], tuple[Rows, int]]] = MappingProxyType(
    {
        "markdown": _read_markdown,
        "pipe": _read_pipe,
        "tsv": _read_tsv,
        "json": _read_json,
        "html": _read_html,
    }
)
