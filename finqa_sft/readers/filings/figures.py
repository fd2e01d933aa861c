"""The figures of a section, as table cells, as sentences, and as series to ask about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from finqa_sft.documents import Evidence, Table
from finqa_sft.readers.filings.draws import Draws
from finqa_sft.readers.filings.schema import Kind, Row, Unit, fill
from finqa_sft.readers.filings.setting import Setting

_FIGURE = re.compile(r"\{v(\d)\}")
_VERBS = {
    (False, False): "was",
    (False, True): "were",
    (True, False): "is",
    (True, True): "are",
}
_UNFIT_FOR_PROGRAMS = re.compile(r"[(),|]")


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure on the page.

    Attributes:
        literal: As programs write it.
        shown: As the page shows it, without dollar sign and scale.
        value: As it stands: "12.5%" is 12.5.
        at: How questions name its column: "in 2015".
        year: Its year, where its column is one.
        where: Its place on the page.
    """

    literal: str
    shown: str
    value: Decimal
    at: str
    year: int | None
    where: Evidence

    def __str__(self) -> str:
        return self.literal

    @property
    def number(self) -> float:
        """The figure as programs count: "12.5%" is 0.125."""
        return round(float(self.value) / (100 if self.literal.endswith("%") else 1), 5)


@dataclass(frozen=True, slots=True)
class Series:
    """The figures of one row, or of one sentence.

    Attributes:
        row: What it is made from.
        phrase: How questions name it.
        unit: How its figures count.
        cells: Its figures, oldest first.
        future: Whether it is yet to come.
        label: The row's first cell where table operators can take it, else None.
    """

    row: Row
    phrase: str
    unit: Unit
    cells: tuple[Cell, ...]
    future: bool = False
    label: str | None = None

    @property
    def verb(self) -> str:
        """The verb that goes with the phrase."""
        return _VERBS[self.future, self.row.plural]

    @property
    def adds_up(self) -> bool:
        """Whether its years make a sum."""
        return self.unit.adds_up and not self.row.stock


Section: TypeAlias = Mapping[str, Series]
"""All that can be asked about a table and the text around it, by the key of its row."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its header, its figures, and how questions name it where it is not a year."""

    header: str
    figures: Mapping[str, Decimal]
    at: str = ""
    year: int | None = None


class SectionFigures:
    """The figures of one section: a table's, and those of the sentences around it."""

    def __init__(self, kind: Kind, facts: Sequence[Row], *, setting: Setting, draws: Draws) -> None:
        """Draw all figures and labels."""
        rows = [row for row in kind.rows if row.tier <= setting.tier]
        self._kind, self._setting = kind, setting
        self._labels = {
            row.key: draws.pick(row.label.split("|")).format(**setting.words)
            for row in (*rows, *facts)
        }
        self._units = {row.key: setting.units[row.unit] for row in rows} | {
            fact.key: setting.units["told" if fact.unit == "money" else fact.unit] for fact in facts
        }
        self._rows = rows
        years = list(zip(setting.years, setting.sizes, strict=True))
        if kind.columns:
            self._columns = self._schedule(draws)
            self._told = fill(facts, years, units=self._units, draws=draws, follow=True)
        else:
            self._told = fill([*rows, *facts], years, units=self._units, draws=draws, follow=True)
            first = 0 if kind.all_columns else -setting.columns
            self._columns = [
                _Column(str(year), figures, year=year)
                for year, figures in zip(setting.years[first:], self._told[first:], strict=True)
            ]

    @property
    def note(self) -> str:
        """What the table's figures count in, as "in millions"; empty where they need no unit."""
        units = {row.unit for row in self._rows}
        if "money" not in units:
            return ""
        per_share = ", except per share data" if "share" in units else ""
        return f"in {self._setting.units['money'].scale}s{per_share}"

    def table(self, corner: str, *, captioned: bool) -> Table:
        """The table.

        Args:
            corner: The first header cell.
            captioned: Whether a line above the years says what they are.
        """
        turn = -1 if self._kind.newest_first and not self._kind.columns else 1
        caption = self._kind.caption.format(**self._setting.words)
        headers = [[corner, *(column.header for column in self._columns[::turn])]]
        if captioned and caption:
            headers.insert(0, ["", caption])
        first_money = next((row.key for row in self._rows if row.unit == "money"), "")
        body = []
        for row in self._rows:
            unit = self._units[row.key]
            signed = unit.dollars and (row.unit != "money" or row.sums or row.key == first_money)
            values = (column.figures[row.key] for column in self._columns[::turn])
            cells = (unit.cell(value, dollar_sign=signed) for value in values)
            body.append([self._labels[row.key], *cells])
        return Table.from_cells(headers + body, header_rows=len(headers))

    def table_series(self, block: int, *, header_rows: int, operators: bool) -> dict[str, Series]:
        """What can be asked about the table.

        Args:
            block: Index of the table among the document's blocks.
            header_rows: How many header rows it has.
            operators: Whether table operators may be used: they see a document's first table only.
        """
        series = {}
        for index, row in enumerate(self._rows, start=header_rows):
            if row.contra:
                continue
            label = self._labels[row.key]
            fit = (
                operators
                and not self._kind.columns
                and not _UNFIT_FOR_PROGRAMS.search(label)
                and all(column.figures[row.key] >= 0 for column in self._columns)
            )
            series[row.key] = self._series(
                row, self._columns, Evidence(block, index), label=label if fit else None
            )
        return series

    def sentence(self, fact: Row) -> str:
        """The sentence that tells a fact."""
        unit = self._units[fact.key]
        slots: dict[str, object] = dict(self._setting.words)
        for back in _years_back(fact):
            slots[f"y{back}"] = self._setting.years[-1 - back]
            slots[f"v{back}"] = unit.prose(self._told[-1 - back][fact.key])
        return fact.text.format(**slots)

    def fact_series(self, fact: Row, block: int) -> Series:
        """What can be asked about a fact whose sentence stands in the block with this index."""
        columns = [
            _Column("", self._told[-1 - back], year=self._setting.years[-1 - back])
            for back in sorted(_years_back(fact), reverse=True)
        ]
        return self._series(fact, columns, Evidence(block))

    def _schedule(self, draws: Draws) -> list[_Column]:
        """Columns that are not years, each of its own weight, with their sum where there is one."""
        kind, size = self._kind, self._setting.sizes[-1]
        whole = kind.all_columns or self._setting.columns > 2
        shown = kind.columns if whole else kind.columns[: self._setting.columns]
        weights = [
            (self._setting.years[-1], size * weight * draws.between(0.9, 1.1))
            for _, _, weight in shown
        ]
        filled = fill(self._rows, weights, units=self._units, draws=draws, follow=False)
        columns = [
            _Column(header, figures, at=at)
            for (header, at, _), figures in zip(shown, filled, strict=True)
        ]
        if whole:
            header, at = kind.sum_column
            sums = {
                row.key: sum((figures[row.key] for figures in filled), Decimal())
                for row in self._rows
            }
            columns.append(_Column(header, sums, at=at))
        return columns

    def _series(
        self,
        row: Row,
        columns: Sequence[_Column],
        where: Evidence,
        *,
        label: str | None = None,
    ) -> Series:
        unit = self._units[row.key]
        at = row.at or ("at the end of {y}" if row.stock else "in {y}")
        phrase = row.phrase.format(**self._setting.words) or _uncapitalized(self._labels[row.key])
        cells = tuple(
            Cell(
                literal=unit.literal(column.figures[row.key]),
                shown=unit.cell(column.figures[row.key], dollar_sign=False),
                value=column.figures[row.key],
                at=column.at or at.format(y=column.year),
                year=column.year,
                where=where,
            )
            for column in columns
        )
        future = bool(self._kind.columns) and not row.text
        return Series(row, phrase, unit, cells, future=future, label=label)


def _years_back(fact: Row) -> list[int]:
    """The years that a fact's sentence tells, as years before the page's own."""
    return [int(back) for back in _FIGURE.findall(fact.text)]


def _uncapitalized(label: str) -> str:
    return label[0].lower() + label[1:]
