"""The account of cleaning: what each rule changed, and what was seen and left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

CHANGES_KEPT = 100
"""How many changes of each rule are kept to be shown."""

_SHOWN_WHOLE = 400
_SHOWN_AROUND = 60
_TOLD_WHOLE = 40
_TOLD_AROUND = 20
_STEP = 4096


@dataclass(frozen=True, slots=True)
class Change:
    """One change to one text, row or column.

    Attributes:
        rule: The rule that made it: the name of its option.
        place: Where: the question's or the document's id, and the block, row and column in it,
            counted from 0 and as they stood before rows, columns and blocks were left out.
        before: What stood there; of a long text the part around the first difference. Empty for
            an empty row or column.
        after: What stands there now; empty where it was left out.
    """

    rule: str
    place: str
    before: str
    after: str

    def told(self) -> str:
        """Where it is, and what became of what; of long texts the words at the first difference."""
        at = _first_difference(self.before, self.after)
        if self.after:
            what = f": {_words(self.before, at)!r} became {_words(self.after, at)!r}"
        else:
            what = f": {_words(self.before, at)!r} left out" if self.before else " left out"
        return self.place + what


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
    start = max(0, _first_difference(before, after) - _SHOWN_AROUND)
    end = start + 2 * _SHOWN_AROUND
    return _part(before, start, end), _part(after, start, end)


def _first_difference(before: str, after: str) -> int:
    shorter = min(len(before), len(after))
    steps = range(0, shorter, _STEP)
    position = next((i for i in steps if before[i : i + _STEP] != after[i : i + _STEP]), shorter)
    while position < shorter and before[position] == after[position]:
        position += 1
    return position


def _words(text: str, at: int) -> str:
    """The words around a position of a text, all of a short one; very long words are cut."""
    if len(text) <= _TOLD_WHOLE:
        return text
    start, end = max(0, at - _TOLD_AROUND), at + _TOLD_AROUND
    if start:
        start = text.find(" ", start - 1, at) + 1 or start
    if end < len(text):
        space = text.rfind(" ", at + 1, end + 1)
        end = end if space < 0 else space
    return _part(text, start, end)


def _part(text: str, start: int, end: int) -> str:
    return f"{'…' * (start > 0)}{text[start:end]}{'…' * (end < len(text))}"
