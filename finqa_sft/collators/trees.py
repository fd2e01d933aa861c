"""From encoded rows to trees: what the rows of a document share stands once.

A tree is written as branches. The first row goes whole; each other adds, as a branch of its own,
what the tree does not have yet. Rows share a position where they agree on all tokens up to it and
at most one of them supervises it: the later turns of a conversation hold an earlier turn's answer
as history, where it is not learnt, and two losses on one position would need two copies of it.

In the flat row every token that is learnt stands right behind the token that foretells it. A branch
whose first token is learnt therefore begins one token earlier, with a copy of the token it branches
from. So no label is lost, and the usual shift of labels by one is the right one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from finqa_sft.encoding import IGNORED, EncodedRow

_Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One question.

    Attributes:
        ids: Token ids, `[n]`.
        learnt: Which of them are supervised, `[n]`; never the first, which nothing foretells.
    """

    ids: _Array
    learnt: _Array

    @classmethod
    def of(cls, row: EncodedRow) -> Row:
        """Take an encoded row."""
        learnt = np.asarray(row["labels"]) != IGNORED
        learnt[:1] = False
        return cls(np.asarray(row["input_ids"], dtype=np.int32), learnt)


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows of one document, T tokens in N branches.

    Attributes:
        rows: How many rows are in it.
        input_ids: `[T]`.
        labels: `[T]`; the token's id where it is supervised, -100 elsewhere.
        lengths: Tokens of each branch.
        parents: Index of the earlier branch whose path each branch leaves; -1 for one without.
        depths: How many tokens of the parent's path come before each branch.
    """

    rows: int
    input_ids: _Array
    labels: _Array
    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.input_ids)


def tree_of(rows: Sequence[Row]) -> Tree:
    """The tree of some rows, at least one.

    Rows that have not even their first token in common give a tree with several roots.
    """
    parents: list[int] = []
    depths: list[int] = []
    pieces: list[list[tuple[_Array, _Array]]] = []
    # Branches yet to be written: their rows, where they begin, and the branch that they leave.
    waiting: list[tuple[Sequence[Row], int, int]] = [(rows, 0, -1)]
    while waiting:
        group, position, parent = waiting.pop()
        start = position
        if parent >= 0 and any(row.learnt[position] for row in group):
            start -= 1
        branch = len(pieces)
        pieces.append([])
        if start < position:
            pieces[branch].append((group[0].ids[start:position], np.zeros(1, dtype=bool)))
        parents.append(parent if start else -1)
        depths.append(start)
        while group:
            end, learnt = _shared(group, position)
            pieces[branch].append((group[0].ids[position:end], learnt))
            # The first goes on in this branch.
            group, *others = _parted(group, end) or [[]]
            # Branches at the very beginning share nothing with this one.
            waiting += [(other, end, branch if end else -1) for other in others[::-1]]
            position = end
    ids = np.concatenate([ids for branch in pieces for ids, _ in branch])
    learnt = np.concatenate([learnt for branch in pieces for _, learnt in branch])
    return Tree(
        rows=len(rows),
        input_ids=ids,
        labels=np.where(learnt, ids, IGNORED),
        lengths=tuple(sum(len(ids) for ids, _ in branch) for branch in pieces),
        parents=tuple(parents),
        depths=tuple(depths),
    )


def _shared(group: Sequence[Row], start: int) -> tuple[int, _Array]:
    """The first position from `start` that not all rows share, and what is learnt before it."""
    shortest = min(len(row.ids) for row in group)
    if len(group) == 1:
        return shortest, group[0].learnt[start:]
    ids = np.stack([row.ids[start:shortest] for row in group])
    learnt = np.stack([row.learnt[start:shortest] for row in group])
    shared = (ids == ids[0]).all(axis=0) & (learnt.sum(axis=0) <= 1)
    length = len(shared) if shared.all() else int(np.argmin(shared))
    return start + length, np.asarray(learnt[:, :length].any(axis=0))


def _parted(group: Sequence[Row], position: int) -> list[list[Row]]:
    """The rows that go on at a position, divided into those that can share it."""
    parts: dict[tuple[int, int], list[Row]] = {}
    learners: dict[int, int] = {}
    for row in group:
        if position < len(row.ids):
            token = int(row.ids[position])
            # The first that learns a token shares it with those that read it.
            copy = learners.get(token, 0) if row.learnt[position] else 0
            learners[token] = learners.get(token, 0) + bool(row.learnt[position])
            parts.setdefault((token, copy), []).append(row)
    return list(parts.values())


def trees_within(rows: Sequence[Row], *, at_most: int) -> Iterator[Tree]:
    """The rows of a document in one tree, or in several where it would have too many tokens.

    Args:
        rows: Rows of one document, none longer than a tree may be.
        at_most: Most tokens of a tree.
    """
    whole = tree_of(rows)
    if len(whole) <= at_most:
        yield whole
        return
    # Rows that have much in common come next to each other.
    left = sorted(rows, key=lambda row: row.ids.tobytes())
    while left:
        count = _that_fit(left, at_most)
        yield tree_of(left[:count])
        left = left[count:]


def _that_fit(rows: Sequence[Row], at_most: int) -> int:
    """How many of the first rows have a tree of at most so many tokens."""
    # Every row adds a token, unless it teaches nothing new.
    counts = range(1, min(len(rows), at_most) + 1)
    return bisect_right(counts, at_most, key=lambda count: len(tree_of(rows[:count])))


def by_document(rows: Iterable[EncodedRow]) -> dict[str, list[Row]]:
    """The rows of each document, in order."""
    documents: dict[str, list[Row]] = {}
    for row in rows:
        documents.setdefault(row["document"], []).append(Row.of(row))
    return documents


def tokens_as_trees(rows: Iterable[EncodedRow]) -> int:
    """The tokens of all rows with the rows of a document as one tree."""
    return sum(len(tree_of(group)) for group in by_document(rows).values())
