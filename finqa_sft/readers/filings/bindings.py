"""Which figures of a section can be asked about together: what fills the slots of a pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, permutations
from typing import TypeAlias

from finqa_sft.readers.filings.figures import Cell, Section, Series


@dataclass(frozen=True, slots=True)
class Binding:
    """Figures to ask about together.

    Attributes:
        subject: What the question is about; the answer counts in its unit.
        cells: Figures by slot of the program; the first is of the earliest year, the last of the
            latest.
        other: What else the question names.
        total: The total that it names.
    """

    subject: Series
    cells: Mapping[str, Cell]
    other: Series | None = None
    total: Series | None = None

    def words(self) -> dict[str, object]:
        """What texts may name: rows with their verb, columns, years and the unit."""
        first, *_, last = (*self.cells.values(), *self.cells.values())
        subject = self.subject
        verb = subject.verb
        return {
            "row": subject.phrase,
            "was": verb,
            "Was": verb.capitalize(),
            "other": self.other.phrase if self.other else "",
            "total": self.total.phrase if self.total else "",
            "at": first.at,
            "at0": first.at,
            "at1": last.at,
            "y0": first.year,
            "y1": last.year,
            "next": (last.year or 0) + 1,
            "in_unit": f", in {subject.unit.scale}s" if subject.unit.scale else "",
        }


Binder: TypeAlias = Callable[[Section], Iterator[Binding]]
"""Gives every binding that a section has for a pattern."""


def told(section: Section) -> Iterator[Binding]:
    """Single figures from sentences."""
    return (Binding(series, {"a": cell}) for series, cell in _figures(section) if series.row.text)


def tabled(section: Section) -> Iterator[Binding]:
    """Single figures from the table."""
    return (
        Binding(series, {"a": cell}) for series, cell in _figures(section) if not series.row.text
    )


def changes(section: Section) -> Iterator[Binding]:
    """Two years of anything but percentages."""
    return (pair for pair in _two_years(section) if not pair.subject.unit.percent)


def points(section: Section) -> Iterator[Binding]:
    """Two years of a percentage."""
    return (pair for pair in _two_years(section) if pair.subject.unit.percent)


def growths(section: Section) -> Iterator[Binding]:
    """Two years of something positive that is no percentage."""
    return (pair for pair in changes(section) if _positive(*pair.cells.values()))


def flows(section: Section) -> Iterator[Binding]:
    """Two years of something that adds up over time."""
    return (pair for pair in growths(section) if pair.subject.adds_up)


def repeats(section: Section) -> Iterator[Binding]:
    """The latest two years of something positive that is no percentage."""
    for series in _timed(section):
        old, new = series.cells[-2:]
        if not series.unit.percent and _positive(old, new):
            yield Binding(series, {"old": old, "new": new})


def spans(section: Section) -> Iterator[Binding]:
    """Three years in a row of something positive that is no percentage."""
    for series in _timed(section):
        for first, middle, last in zip(
            series.cells, series.cells[1:], series.cells[2:], strict=False
        ):
            if not series.unit.percent and _positive(first, middle, last):
                yield Binding(series, {"a": first, "b": middle, "c": last})


def rows(section: Section) -> Iterator[Binding]:
    """Rows of three years or more, not all alike, that table operators can take."""
    for series in section.values():
        varied = len({cell.value for cell in series.cells}) > 1
        if series.label is not None and len(series.cells) > 2 and varied:
            label = replace(series.cells[0], literal=series.label)
            yield Binding(series, {"label": label, "last": series.cells[-1]})


def flow_rows(section: Section) -> Iterator[Binding]:
    """Such rows whose years add up."""
    return (row for row in rows(section) if row.subject.adds_up)


def siblings(section: Section) -> Iterator[Binding]:
    """Two parts of one total, or two indices, in one column."""
    for one, other in permutations(_parts(section), 2):
        if one.row.part_of == other.row.part_of:
            for left, right in zip(one.cells, other.cells, strict=True):
                if _positive(left, right) and left.value != right.value:
                    yield Binding(one, {"a": left, "b": right}, other=other)


def parts(section: Section) -> Iterator[Binding]:
    """Two parts of a total that the table shows, in one column."""
    for one, other in combinations(_parts(section), 2):
        whole = section.get(one.row.part_of)
        if whole and one.row.part_of == other.row.part_of:
            for left, right, total in zip(one.cells, other.cells, whole.cells, strict=True):
                if _positive(left, right, total):
                    yield Binding(
                        one,
                        {"a": left, "b": right, "whole": total},
                        other=other,
                        total=whole,
                    )


def weighty_parts(section: Section) -> Iterator[Binding]:
    """Such parts, unless they are percentages themselves."""
    return (pair for pair in parts(section) if not pair.subject.unit.percent)


def shares(section: Section) -> Iterator[Binding]:
    """A part and its total in one column of the table."""
    return (share for share in _shares(section) if not share.subject.row.text)


def told_shares(section: Section) -> Iterator[Binding]:
    """A figure from a sentence and one from the table, in one scale."""
    return (share for share, mixed in _told_shares(section) if not mixed)


def mixed_shares(section: Section) -> Iterator[Binding]:
    """A figure in millions from a sentence, and one in thousands from the table."""
    return (share for share, mixed in _told_shares(section) if mixed)


def share_changes(section: Section) -> Iterator[Binding]:
    """A part and its total in two years."""
    for old, new in combinations(shares(section), 2):
        if old.subject is new.subject and old.cells["part"].year is not None:
            cells = {
                "old": old.cells["part"],
                "old_whole": old.cells["whole"],
                "new_whole": new.cells["whole"],
                "new": new.cells["part"],
            }
            yield Binding(old.subject, cells, total=old.total)


def contributions(section: Section) -> Iterator[Binding]:
    """A part and its sum in two years between which the sum changed."""
    for share in share_changes(section):
        changed = share.cells["old_whole"].value != share.cells["new_whole"].value
        if changed and share.total and share.total.row.sums:
            yield share


def races(section: Section) -> Iterator[Binding]:
    """Two rows in two years: parts of one total, or a part and its total."""
    timed = [series for series in _timed(section) if not series.row.text]
    for one, other in permutations(timed, 2):
        related = one.row.part_of and one.row.part_of in (other.row.part_of, other.row.key)
        if related and not one.unit.percent:
            for old, new in pairwise(zip(one.cells, other.cells, strict=True)):
                if _positive(*old, *new):
                    cells = {"a0": old[0], "b0": old[1], "a1": new[0], "b1": new[1]}
                    yield Binding(one, cells, other=other)


def products(section: Section) -> Iterator[Binding]:
    """A count and its price in one column."""
    for series in section.values():
        if series.row.times:
            price = section[series.row.times]
            for count, each in zip(series.cells, price.cells, strict=True):
                yield Binding(series, {"a": count, "b": each}, other=price)


def _figures(section: Section) -> Iterator[tuple[Series, Cell]]:
    """Single figures; negative ones stand in parentheses, which no two people copy alike."""
    for series in section.values():
        for cell in series.cells:
            if cell.value >= 0:
                yield series, cell


def _timed(section: Section) -> Iterator[Series]:
    """Series of two years or more."""
    for series in section.values():
        if len(series.cells) > 1 and series.cells[0].year is not None:
            yield series


def _two_years(section: Section) -> Iterator[Binding]:
    for series in _timed(section):
        for old, new in combinations(series.cells, 2):
            if old.value != new.value:
                yield Binding(series, {"old": old, "new": new})


def _parts(section: Section) -> list[Series]:
    """Rows of the table that are parts of something and not themselves sums."""
    return [
        series
        for series in section.values()
        if series.row.part_of and not series.row.sums and not series.row.text
    ]


def _shares(section: Section) -> Iterator[Binding]:
    """Parts with their totals, in each column that has both."""
    for series in section.values():
        whole = section.get(series.row.part_of)
        if whole is None or series.unit.percent:
            continue
        totals = {total.year or total.at: total for total in whole.cells}
        for part in series.cells:
            total = totals.get(part.year or part.at)
            if total is not None and _positive(part, total):
                yield Binding(series, {"part": part, "whole": total}, total=whole)


def _told_shares(section: Section) -> Iterator[tuple[Binding, bool]]:
    """Shares that a sentence has of the table, and whether the two count in different scales."""
    for share in _shares(section):
        if share.subject.row.text and share.total:
            yield share, share.subject.unit.scale != share.total.unit.scale


def _positive(*cells: Cell) -> bool:
    return all(cell.value > 0 for cell in cells)
