"""Which prompts are completed together, and what of them is read once; lists of ids, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finqa_sft.generation.decoding import Prompt

LOOKED_AHEAD = 64
"""Groups among which those are sought that fill up a batch; farther ones are much shorter."""


@dataclass(frozen=True, slots=True)
class Row:
    """One completion to be made.

    Attributes:
        prompt: Index of its prompt.
        sample: Which of the prompt's samples it is.
        ids: The prompt's tokens.
        new: Most tokens to generate.
        alone: Whether its result would change with other rows in the batch.
    """

    prompt: int
    sample: int
    ids: Sequence[int]
    new: int
    alone: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """A batch whose groups' common beginnings are read once each.

    Attributes:
        prefixes: The beginning of each group, at least one token.
        owners: Of each row, the group.
        suffixes: Of each row, what follows the beginning, at least one token.
    """

    prefixes: list[Sequence[int]]
    owners: list[int]
    suffixes: list[Sequence[int]]


def grouped(prompts: Sequence[Prompt], rows: Sequence[Row], *, share: bool) -> list[list[Row]]:
    """Rows that belong together, those with the longest prompt first.

    Prompts of a document belong together if at least half of their tokens are common: a document
    that was cut in two ways gives two groups. The order depends on the prompts alone.

    Args:
        prompts: All prompts.
        rows: Their rows, in order; those of one prompt follow each other.
        share: Whether common beginnings are of use; else each prompt is a group.
    """
    groups: list[list[Row]] = []
    of_document: dict[str, list[list[Row]]] = {}
    for row in rows:
        # The samples of a prompt have the same tokens, so they meet here in any case.
        known = of_document.setdefault(prompts[row.prompt].document, [])
        group = next((group for group in known if _belongs(row, group[0], share=share)), None)
        if group is None:
            group = []
            known.append(group)
            groups.append(group)
        group.append(row)
    return sorted(groups, key=lambda group: -max(len(row.ids) for row in group))


def _belongs(row: Row, first: Row, *, share: bool) -> bool:
    if row.alone or first.alone:
        return False
    if row.prompt == first.prompt or not share:
        return row.prompt == first.prompt
    return 2 * _common(row.ids, first.ids) >= max(len(row.ids), len(first.ids))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts have in common from their beginning."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)


def take(pending: list[list[Row]], *, most: int) -> list[list[Row]]:
    """Take the next batch of groups, which stay whole unless one alone is too large.

    Args:
        pending: Groups that are not done; what is taken is removed.
        most: Rows of a batch.
    """
    first = pending[0]
    if len(first) > most:
        pending[0] = first[most:]
        return [first[:most]]
    batch = [pending.pop(0)]
    if first[0].alone:
        return batch
    room = most - len(first)
    place = 0
    while room and place < min(len(pending), LOOKED_AHEAD):
        if pending[place][0].alone or len(pending[place]) > room:
            place += 1
            continue
        room -= len(pending[place])
        batch.append(pending.pop(place))
    return batch


def shared_layout(groups: Sequence[Sequence[Row]], *, room: int | None) -> Layout | None:
    """How the groups of a batch share their beginnings, or None where that saves nothing.

    Args:
        groups: The batch.
        room: Most tokens, padding and new ones included, that the model's cache holds in full.
    """
    layout = Layout([], [], [])
    for number, group in enumerate(groups):
        # One token at least is left to be read, as its logits give the first new one.
        end = min(len(row.ids) for row in group) - 1
        end = min(end, *(_common(row.ids, group[0].ids) for row in group))
        if end < 1:
            return None
        layout.prefixes.append(group[0].ids[:end])
        for row in group:
            layout.owners.append(number)
            layout.suffixes.append(row.ids[end:])
    before = max(map(len, layout.prefixes))
    after = max(map(len, layout.suffixes))
    rows = [row for group in groups for row in group]
    apart = len(rows) * max(len(row.ids) for row in rows)
    together = len(groups) * before + len(rows) * after
    if together >= apart or (room is not None and before + after + rows[0].new > room):
        return None
    return layout
