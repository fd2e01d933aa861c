"""How many tokens rows have when the beginnings that they share stand once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from finqa_sft.encoding import IGNORED, EncodedRow

_Array: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
_Row: TypeAlias = tuple[_Array, _Array]


def tokens_as_trees(rows: Iterable[EncodedRow]) -> int:
    """The tokens of all rows with the rows of a document as one tree.

    Rows share a position where they agree on all tokens up to it and at most one of them
    supervises it: two losses on one position would need two copies of it. A branch whose first
    token is supervised repeats the token before it, which predicts it.
    """
    by_document: dict[str, list[_Row]] = {}
    for row in rows:
        arrays = np.asarray(row["input_ids"]), np.asarray(row["labels"]) != IGNORED
        by_document.setdefault(row["document"], []).append(arrays)
    return sum(map(_tree, by_document.values()))


def _tree(rows: Sequence[_Row]) -> int:
    """The tokens of the tree of some rows."""
    tokens = 0
    groups: list[tuple[Sequence[_Row], int]] = [(rows, 0)]
    while groups:
        group, start = groups.pop()
        end = _shared_until(group, start)
        tokens += end - start
        branches = _branches(group, end)
        if end and len(branches) > 1:
            tokens += sum(any(learnt[end] for _, learnt in branch) for branch in branches)
        groups += [(branch, end) for branch in branches]
    return tokens


def _shared_until(group: Sequence[_Row], start: int) -> int:
    """The first position from `start` that not all rows of a group share."""
    shortest = min(len(ids) for ids, _ in group)
    if len(group) == 1:
        return shortest
    ids = np.stack([ids[start:shortest] for ids, _ in group])
    learnt = np.stack([learnt[start:shortest] for _, learnt in group])
    shared = (ids == ids[0]).all(axis=0) & (learnt.sum(axis=0) <= 1)
    return start + (int(np.argmin(shared)) if not shared.all() else len(shared))


def _branches(group: Sequence[_Row], position: int) -> list[list[_Row]]:
    """The rows that go on at a position, divided into those that can share it."""
    branches: dict[tuple[int, int], list[_Row]] = {}
    learners: dict[int, int] = {}
    for ids, learnt in group:
        if position < len(ids):
            token = int(ids[position])
            # The first that learns a token shares it with those that read it.
            copy = learners.get(token, 0) if learnt[position] else 0
            learners[token] = learners.get(token, 0) + bool(learnt[position])
            branches.setdefault((token, copy), []).append((ids, learnt))
    return list(branches.values())
