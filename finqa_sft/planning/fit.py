"""Whether training fits on a GPU, and the largest batch with which it does.

What is allowed for beside the tensors is assumed, and stated: on no GPU was it measured.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from finqa_sft.models.memory import FRAGMENTS
from finqa_sft.models.needs import Need, Setting, need
from finqa_sft.models.sharding import Sharding
from finqa_sft.planning.gpus import GIB
from finqa_sft.preparation.rows import Rows, Shares

CONTEXT = 3 * GIB // 4
"""Bytes assumed for the CUDA context, kernels and the workspaces of libraries."""

SENDING = GIB // 4
"""Bytes assumed for what processes talk through, where there are several."""

MOST = 2**20
"""Tokens beyond which no longer batch is looked for."""


class Fit:
    """What a process needs with batches of any size.

    Attributes:
        processes: How many there are.
    """

    def __init__(
        self, setting: Setting, rows: Rows, shares: Shares, *, sharding: Sharding, processes: int
    ) -> None:
        """Take what is trained, on what, and how it is divided."""
        self.processes = processes
        self._setting = setting
        self._rows = rows
        self._shares = shares
        self._sharding = sharding
        self._totals: dict[int, int] = {}

    def need(self, size: int) -> Need:
        """What a process needs with batches of a size.

        Args:
            size: Tokens of shared context, or rows.
        """
        batch = replace(self._rows, size=size).batch(self._shares)
        return need(self._setting, batch, sharding=self._sharding, processes=self.processes)

    def total(self, size: int) -> int:
        """Bytes of a GPU with what is allowed for, with batches of a size."""
        if size not in self._totals:
            peak = self.need(size).peak
            self._totals[size] = peak + allowance(peak, processes=self.processes)
        return self._totals[size]

    def longest(self, memory: int) -> int:
        """The largest size of a batch with which it fits; 0 where it never does.

        A longer batch never needs less, so that the sizes between one that fits and one that does
        not are halved until they stand side by side.

        Args:
            memory: Bytes of a GPU.
        """
        most = MOST if self._rows.kind == "shared_context" else MOST // self._rows.longest
        if self.total(1) > memory:
            return 0
        fits, beyond = 1, 2
        while beyond <= most and self.total(beyond) <= memory:
            fits, beyond = beyond, 2 * beyond
        beyond = min(beyond, most + 1)
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            if self.total(middle) <= memory:
                fits = middle
            else:
                beyond = middle
        return fits


def allowance(peak: int, *, processes: int) -> int:
    """Bytes assumed beside the tensors of a process.

    Args:
        peak: The most that its tensors take.
        processes: Processes that train together.
    """
    return CONTEXT + (SENDING if processes > 1 else 0) + ceil(FRAGMENTS * peak)
