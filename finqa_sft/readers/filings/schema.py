"""What page kinds are made of: rows, and the rules that fill them column by column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from finqa_sft.documents import Scale
from finqa_sft.readers.filings.draws import Draws

UnitName: TypeAlias = Literal["money", "count", "share", "percent", "index", "people"]


@dataclass(frozen=True, slots=True)
class Unit:
    """How the figures of a row count and are written.

    Attributes:
        scale: What they count in.
        decimals: Digits after the point.
        dollars: Whether they are amounts of money.
        percent: Whether they are percentages; no percentage of these is ever asked for.
        adds_up: Whether figures of several years make a sum.
        per: How many of the table's money units one of these is, for figures outside tables.
    """

    scale: Scale = ""
    decimals: int = 0
    dollars: bool = False
    percent: bool = False
    adds_up: bool = False
    per: float = 1.0

    def literal(self, value: Decimal) -> str:
        """The figure as FinQA's programs write it."""
        return f"{value:f}" + "%" * self.percent

    def cell(self, value: Decimal, *, dollar_sign: bool) -> str:
        """The figure as a table cell: negative ones in parentheses."""
        body = f"{abs(value):,f}"
        body = f"({body})" if value < 0 else body
        return "$ " * dollar_sign + body + "%" * self.percent

    def prose(self, value: Decimal) -> str:
        """The figure as it stands in a sentence."""
        return (
            "$" * self.dollars
            + f"{value:,f}"
            + "%" * self.percent
            + (f" {self.scale}" if self.scale else "")
        )


@dataclass(slots=True)
class Pass:
    """One column while it is filled, from top to bottom.

    Attributes:
        draws: Where random numbers come from.
        levels: What a row was drawn at in the first column; later ones stay near it.
        size: The company's sales in this column, in the table's unit.
        year: The column's fiscal year.
        now: Figures of this column so far.
        before: Figures of the year before; empty in the first column.
    """

    draws: Draws
    levels: dict[str, float]
    size: float
    year: int
    now: dict[str, Decimal]
    before: Mapping[str, Decimal]

    def level(self, key: str, low: float, high: float) -> float:
        """The level of a row, drawn once for all columns."""
        if key not in self.levels:
            self.levels[key] = self.draws.between(low, high)
        return self.levels[key]

    def sum(self, terms: str) -> Decimal:
        """The sum of rows of this column, as `sales -costs`; rows left out count nothing."""
        result = Decimal()
        for term in terms.split():
            value = self.now.get(term.removeprefix("-"), Decimal())
            result += -value if term.startswith("-") else value
        return result


Rule: TypeAlias = Callable[[Pass, str], float | Decimal]
"""Gives a row's figure in one column; a `Decimal` is exact, a `float` is yet to be rounded."""


def drawn(low: float, high: float, *, of: str = "", swing: float = 0.06, sign: int = 1) -> Rule:
    """A fraction of other rows' sum, or of the company's sales; `sign=0` draws the sign too."""

    def rule(column: Pass, key: str) -> float:
        base = float(column.sum(of)) if of else column.size
        level = column.level(key, low, high) * (1 + column.draws.between(-swing, swing))
        return base * level * (sign or column.draws.pick((1, -1)))

    return rule


def total(terms: str) -> Rule:
    """The exact sum of rows above, as `sales -costs`."""
    return lambda column, key: column.sum(terms)


def quotient(part: str, whole: str) -> Rule:
    """One row of this column divided by another."""
    return lambda column, key: float(column.now[part]) / float(column.now[whole])


def opening(closing: str, low: float, high: float) -> Rule:
    """What the year before closed with; in the first column a fraction of sales."""

    def rule(column: Pass, key: str) -> float | Decimal:
        drawn_once = column.size * column.level(key, low, high)
        return column.before[closing] if column.before else drawn_once

    return rule


def walk(start: tuple[float, float], change: tuple[float, float], *, sized: bool = False) -> Rule:
    """A figure that changes by some fraction a year; `sized` if it starts as one of sales."""

    def rule(column: Pass, key: str) -> float:
        if not column.before:
            return column.draws.between(*start) * (column.size if sized else 1)
        return float(column.before[key]) * (1 + column.draws.between(*change))

    return rule


def around(low: float, high: float, *, swing: float = 0.3) -> Rule:
    """A figure of its own that stays near one level."""
    return lambda column, key: (
        column.level(key, low, high) * (1 + column.draws.between(-swing, swing))
    )


def constant_until(year: int, before: str, after: str) -> Rule:
    """A figure fixed by law, which changed in a given year."""
    return lambda column, key: Decimal(before if column.year < year else after)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table, or with `text` a sentence that gives the same kind of figures.

    Attributes:
        key: Its name among the rules.
        label: Its first cell.
        rule: Where its figures come from.
        phrase: What questions call it; unset, the label in lower case.
        plural: Whether the phrase is plural.
        unit: How its figures count.
        part_of: Key of the row that it is a part of, or that a sentence is set against; rows of
            equal `part_of` are compared.
        sums: Whether it is itself a sum.
        contra: Whether it is shown as a deduction; never asked about.
        stock: Whether it stands at a year's end rather than over a year.
        at: What follows the phrase to name a column, where that is not "in 2015".
        times: Key of a price; its product with this count is asked for.
        tier: The pages it shows on: 0 on all, 3 on the longest and hardest.
        text: The sentence; `{v0}` is the figure of the year `{y0}`, `{v1}` that before it.
    """

    key: str
    label: str
    rule: Rule
    _: KW_ONLY
    phrase: str = ""
    plural: bool = False
    unit: UnitName = "money"
    part_of: str = ""
    sums: bool = False
    contra: bool = False
    stock: bool = False
    at: str = ""
    times: str = ""
    tier: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of page section.

    Attributes:
        topics: What it reports; two sections of one page share no topic.
        headings: Headings to choose from.
        intros: Sentences before the table, to choose from; `{note}` is the table's unit.
        rows: Rows of the table.
        facts: Rows told as sentences.
        columns: Header, "at" phrase and weight of each column; empty where columns are years.
        sum_column: Header and "at" phrase of a last column that sums the others.
        all_columns: Whether a page shows all columns or years, even a short or easy one.
        caption: Header above the years, on some pages.
        first_year: First fiscal year in which such a page can stand.
        newest_first: Whether years run from right to left.
    """

    topics: frozenset[str]
    headings: tuple[str, ...]
    intros: tuple[str, ...]
    rows: tuple[Row, ...]
    facts: tuple[Row, ...]
    columns: tuple[tuple[str, str, float], ...] = ()
    sum_column: tuple[str, str] = ("", "")
    all_columns: bool = False
    caption: str = ""
    first_year: int = 2009
    newest_first: bool = True


def fill(
    rows: Sequence[Row],
    columns: Iterable[tuple[int, float]],
    *,
    units: Mapping[str, Unit],
    draws: Draws,
    follow: bool,
) -> list[dict[str, Decimal]]:
    """Fill all columns.

    Args:
        rows: What to fill; a rule sees the rows before its own.
        columns: Fiscal year and size of each column, oldest first.
        units: Unit of each row, by its key.
        draws: Where random numbers come from.
        follow: Whether a column is the year after the one before it.
    """
    levels: dict[str, float] = {}
    filled: list[dict[str, Decimal]] = []
    for year, size in columns:
        before = filled[-1] if follow and filled else {}
        column = Pass(draws, levels, size, year, {}, before)
        for row in rows:
            column.now[row.key] = _rounded(row.rule(column, row.key), units[row.key])
        filled.append(column.now)
    return filled


def _rounded(value: float | Decimal, unit: Unit) -> Decimal:
    """Round to the unit; a drawn figure is never so small that its changes mean nothing."""
    if isinstance(value, Decimal):
        return value
    steps = max(round(abs(value) / unit.per * 10**unit.decimals), 5)
    return Decimal(steps if value > 0 else -steps).scaleb(-unit.decimals)
