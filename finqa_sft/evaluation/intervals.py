"""How sure a mean is: bootstrap intervals that draw whole documents.

Questions about one page stand or fall together, so that an interval which draws single questions is
too narrow. Here documents are drawn, with all their questions: the cluster bootstrap of A. C.
Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1_000
CONFIDENCE = 0.95
SEED = 0
METHOD = f"{CONFIDENCE:.0%} bootstrap over documents, {RESAMPLES:,} resamples, seed {SEED}"

_AT_ONCE = 2**22
"""Numbers that are drawn at once, so that memory stays small whatever the number of documents."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        value: The mean.
        low: Lower end of the interval.
        high: Upper end. Of one document, both are equal to the value unless that is 0 or 1.
        n: How many values the mean is of.
    """

    value: float
    low: float
    high: float
    n: int


def estimate(
    values: Sequence[float], documents: Sequence[str], *, is_share: bool = True
) -> Estimate:
    """The mean of some values, and between what bounds it lies.

    The same values always give the same interval. Where all values are 0, or all are 1, every draw
    gives the same; the other bound is then the share of which so many documents would show no
    trace in one of 40 cases (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934): of 20 documents
    without a right answer, 0 to 16.8%.

    Args:
        values: One a question, at least one.
        documents: The document of each.
        is_share: Whether the mean is a share, from 0 to 1; else it may be any number.
    """
    numbers = np.asarray(values, dtype=np.float64)
    index: dict[str, int] = {}
    places = [index.setdefault(document, len(index)) for document in documents]
    counts = np.bincount(places)
    sums = np.bincount(places, weights=numbers)
    generator = np.random.default_rng(SEED)
    means = np.empty(RESAMPLES)
    at_once = max(1, _AT_ONCE // len(index))
    for begin in range(0, RESAMPLES, at_once):
        part = means[begin : begin + at_once]
        drawn = generator.integers(len(index), size=(len(part), len(index)))
        part[:] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    unseen = tail ** (1 / len(index))
    if is_share and not numbers.any():
        high = 1 - unseen
    elif is_share and (numbers == 1).all():
        low = unseen
    return Estimate(float(numbers.mean()), float(low), float(high), len(numbers))
