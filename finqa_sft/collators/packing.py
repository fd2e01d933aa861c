"""Filling rows of a given size with things of several sizes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit_decreasing(sizes: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Put things into as few bins as that well-known rule finds.

    The largest comes first; each goes where the least room is left over.

    Args:
        sizes: Of each thing; none above the capacity.
        capacity: Of a bin.

    Returns:
        For each bin the indices of what is in it.
    """
    bins: list[list[int]] = []
    # Room and number of each bin that is not full, by room.
    open_bins: list[tuple[int, int]] = []
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        place = bisect_left(open_bins, (sizes[index], -1))
        if place < len(open_bins):
            room, number = open_bins.pop(place)
        else:
            room, number = capacity, len(bins)
            bins.append([])
        bins[number].append(index)
        if room > sizes[index]:
            insort(open_bins, (room - sizes[index], number))
    return bins
