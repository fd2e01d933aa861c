"""Where a page stands: its company, years, units, and how much it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from finqa_sft.readers.filings.draws import Draws
from finqa_sft.readers.filings.options import Difficulty, FilingsOptions, Length
from finqa_sft.readers.filings.schema import Kind, Unit
from finqa_sft.readers.filings.vocabulary import YEARS, Company, company

PAGES_PER_COMPANY = 3
_FACT_YEARS = 3
"""Sentences look back this many years, however few the table shows."""

_SMALL, _LARGE = 1_000, 10_000
"""Companies that began with sales, in millions of dollars, under the first report in thousands;
those above the second report in whole millions."""


class Shape(NamedTuple):
    """What a length means: tokens to fill up to, and how much stands in them."""

    tokens: int
    tables: int
    most_years: int
    tier: int
    own_facts: int
    general_facts: int
    fillers: int


class Grade(NamedTuple):
    """What a difficulty means for a page: years, and rows that only distract."""

    years: int
    tier: int


_SHAPES: dict[Length, Shape] = {
    "short": Shape(160, 1, 3, -1, 1, 0, 0),
    "medium": Shape(450, 1, 5, 1, 2, 1, 1),
    "long": Shape(950, 2, 5, 1, 2, 2, 2),
}
_GRADES: dict[Difficulty, Grade] = {
    "easy": Grade(2, 0),
    "medium": Grade(3, 1),
    "hard": Grade(4, 2),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What all sections of a page have in common.

    Attributes:
        firm: The company.
        kinds: The kind of each section.
        shape: How long the page is.
        columns: How many years, or other columns, its tables show.
        tier: Rows up to this tier are shown.
        years: Fiscal years, oldest first; the first ones may stand outside the tables.
        sizes: The company's sales in each year, in the tables' money unit.
        units: By name; `told` is money outside tables.
        words: What labels and sentences may name.
    """

    firm: Company
    kinds: tuple[Kind, ...]
    shape: Shape
    columns: int
    tier: int
    years: tuple[int, ...]
    sizes: tuple[float, ...]
    units: Mapping[str, Unit]
    words: Mapping[str, object]


def setting_of(
    page: int, options: FilingsOptions, *, kinds: tuple[Kind, ...], draws: Draws
) -> Setting:
    """Draw the setting of a page.

    Args:
        page: Number of the page, from 0. Neighbours share a company, and every kind has its turn.
        options: The reader's options.
        kinds: All kinds of sections.
        draws: The page's draws.
    """
    shape, grade = _SHAPES[options.length], _GRADES[options.difficulty]
    firm = company(page // PAGES_PER_COMPANY, seed=options.seed)
    chosen = _kinds(page, options.seed, kinds=kinds, count=shape.tables)
    columns = min(grade.years, shape.most_years)
    span = max(columns, _FACT_YEARS)
    first = max(kind.first_year for kind in chosen)
    year = draws.pick(range(first, YEARS.stop))
    years = tuple(range(year - span + 1, year + 1))
    units = _units(firm.sales[YEARS.start])
    return Setting(
        firm=firm,
        kinds=chosen,
        shape=shape,
        columns=columns,
        tier=max(shape.tier + grade.tier, 0),
        years=years,
        sizes=tuple(firm.sales[one] * units["told"].per for one in years),
        units=units,
        words={
            "company": firm.name,
            "sector": firm.sector.name,
            "end": firm.year_end,
            "year": year,
            **{f"s{place}": name for place, name in enumerate(firm.sector.segments, start=1)},
            **{f"due{ahead}": year + ahead for ahead in range(1, 6)},
        },
    )


def _kinds(page: int, seed: int, *, kinds: tuple[Kind, ...], count: int) -> tuple[Kind, ...]:
    """Kinds in turn, in an order drawn anew each round; those of one page share no topic."""
    lap, place = divmod(page, len(kinds))
    order = Draws(seed, "kinds", lap).shuffled(kinds)
    chosen = [order[place]]
    for other in order[place + 1 :] + order[:place]:
        if len(chosen) < count and all(other.topics.isdisjoint(kind.topics) for kind in chosen):
            chosen.append(other)
    return tuple(chosen)


def _units(sales: float) -> dict[str, Unit]:
    """The units of a company's pages, by its first sales in millions of dollars."""
    small = sales < _SMALL
    told = Unit(
        "million",
        decimals=1 if sales < _LARGE else 0,
        dollars=True,
        adds_up=True,
        per=1_000 if small else 1,
    )
    return {
        "money": Unit("thousand", dollars=True, adds_up=True) if small else told,
        "told": told,
        "count": Unit("thousand", adds_up=True) if small else Unit("million", 1, adds_up=True),
        "share": Unit(decimals=2, dollars=True),
        "percent": Unit(decimals=1, percent=True),
        "index": Unit(decimals=2, dollars=True),
        "people": Unit(per=250 if small else 0.25),
    }
