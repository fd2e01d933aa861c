"""Random draws that are the same on every machine and Python version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """A stream of random draws, given by its seed alone.

    Of `random.Random`, only seeding with a string and `random()` are used: these are what Python
    promises to keep; `choice`, `sample` and `shuffle` may change with its version.
    """

    def __init__(self, *seed: object) -> None:
        """Seed the stream with the text of all arguments."""
        self._random = random.Random("/".join(map(str, seed))).random

    def between(self, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        return low + (high - low) * self._random()

    def below(self, count: int) -> int:
        """A whole number from 0 to `count - 1`."""
        return int(count * self._random())

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All items in random order."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
