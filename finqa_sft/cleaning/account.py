"""The account of cleaning: what each rule changed, and what was seen and left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

CHANGES_KEPT = 100
"""How many changes of each rule are kept to be shown."""

_SHOWN_WHOLE = 400
_SHOWN_AROUND = 60
_STEP = 4096


@dataclass(frozen=True, slots=True)
class Change:
    """One change to one text, row or column.

    Attributes:
        rule: The rule that made it: the name of its option.
        place: Where: the question's or the document's id, and the block, row and column in it,
            counted from 0 and as they stood before rows, columns and blocks were left out.
        before: What stood there; of a long text the part around the first difference.
        after: What stands there now; empty where it was left out.
    """

    rule: str
    place: str
    before: str
    after: str


@dataclass(slots=True)
class Account:
    """What was changed and seen so far.

    Attributes:
        counts: How many texts, rows and columns each rule changed.
        noticed: What was seen and left, by what it is.
        changes: The first `CHANGES_KEPT` changes of each rule.
    """

    counts: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)

    def changed(self, rule: str, place: str, before: str, after: str) -> None:
        """Enter a change."""
        self.counts[rule] += 1
        if self.counts[rule] <= CHANGES_KEPT:
            self.changes.append(Change(rule, place, *excerpts(before, after)))

    def saw(self, what: str, times: int = 1) -> None:
        """Enter what was seen and left."""
        if times:
            self.noticed[what] += times


def excerpts(before: str, after: str) -> tuple[str, str]:
    """Two texts, or, where they are long, what stands around their first difference."""
    if max(len(before), len(after)) <= _SHOWN_WHOLE:
        return before, after
    shorter = min(len(before), len(after))
    steps = range(0, shorter, _STEP)
    start = next((i for i in steps if before[i : i + _STEP] != after[i : i + _STEP]), 0)
    while start < shorter and before[start] == after[start]:
        start += 1
    start = max(0, start - _SHOWN_AROUND)
    return _part(before, start), _part(after, start)


def _part(text: str, start: int) -> str:
    end = start + 2 * _SHOWN_AROUND
    return f"{'…' * (start > 0)}{text[start:end]}{'…' * (end < len(text))}"
