"""What a process is given at a time, and what its tokens are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow.compute as pc

from finqa_sft.collators.padded import PaddedOptions
from finqa_sft.collators.shared_context import SharedContextOptions
from finqa_sft.encoding import IGNORED
from finqa_sft.models.activations import Batch
from finqa_sft.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

_Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Kind: TypeAlias = Literal["shared_context", "padded", "flattened"]

SIZE_KEYS: Mapping[Kind, str] = {
    "shared_context": "collator.tokens_per_batch",
    "padded": "trainer.per_device_train_batch_size",
    "flattened": "trainer.per_device_train_batch_size",
}
"""The key that says how much a process is given at a time."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What the tokens of a batch are.

    Attributes:
        supervised: Share of them that is learnt.
        paths: How many times as many the paths of shared context have.
        source: `data` for the most in a row of the recipe's data.
    """

    supervised: float
    paths: float
    source: Literal["data", "assumed"]


ASSUMED = Shares(supervised=0.1, paths=6.0, source="assumed")
"""Without data: a tenth is learnt, and each token is read by six questions, as in TAT-QA."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a process is given at a time.

    Attributes:
        kind: How rows are laid out; rows of an unknown collator are taken for padded ones.
        size: Tokens of shared context; rows of the other kinds.
        longest: Most tokens of a row.
    """

    kind: Kind
    size: int
    longest: int

    def batch(self, shares: Shares) -> Batch:
        """The largest batch."""
        if self.kind == "shared_context":
            return Batch(
                self.size,
                min(self.longest, self.size),
                ceil(self.size * shares.supervised),
                paths=ceil(self.size * max(1.0, shares.paths)),
            )
        tokens = self.size * self.longest
        # A row alone needs no mask.
        squared = self.longest**2 * self.size if self.kind == "padded" else tokens**2
        return Batch(
            tokens,
            self.longest,
            ceil(tokens * shares.supervised),
            mask=squared if self.size > 1 else 0,
        )

    def tokens(self, size: int) -> int:
        """Tokens of a batch of that size."""
        return size if self.kind == "shared_context" else size * self.longest


def rows_of(recipe: Recipe, *, per_device: int) -> Rows:
    """What a recipe gives a process at a time.

    Args:
        recipe: The recipe.
        per_device: The trainer's `per_device_train_batch_size`.
    """
    options, longest = recipe.collator.options, recipe.max_length
    if isinstance(options, SharedContextOptions):
        return Rows("shared_context", options.tokens_per_batch, longest)
    if isinstance(options, PaddedOptions) and options.pad_to_multiple_of:
        longest = ceil(longest / options.pad_to_multiple_of) * options.pad_to_multiple_of
    flattened = recipe.collator.record.name == "flattened"
    kind: Kind = "flattened" if flattened else "padded"
    return Rows(kind, per_device, longest)


def shares_of(arranged: Dataset) -> Shares:
    """What the tokens of rows are: the most in any.

    Args:
        arranged: What the collator made of the rows. Those of another package's collator may have
            no labels, and are taken for what is assumed of any.
    """
    if "labels" not in arranged.column_names:
        return ASSUMED
    tokens = _sums(arranged, "labels", lambda ids: np.ones_like(ids))
    learnt = _sums(arranged, "labels", lambda ids: ids != IGNORED)
    paths = tokens
    if "depths" in arranged.column_names:
        paths = tokens + _sums(arranged, "depths", lambda depths: depths)
    return Shares(
        supervised=float((learnt / tokens).max()),
        paths=float((paths / tokens).max()),
        source="data",
    )


def largest_batch(recipe: Recipe, arranged: Dataset, *, per_device: int) -> Batch:
    """The largest batch of a run.

    Args:
        recipe: Its recipe.
        arranged: The rows that are trained on, as the collator arranged them.
        per_device: Rows a process and forward.
    """
    rows = rows_of(recipe, per_device=per_device)
    longest = longest_of(arranged)
    if rows.kind != "shared_context":
        return replace(rows, longest=longest).batch(shares_of(arranged))
    return replace(rows, size=longest).batch(shares_of(arranged))


def longest_of(arranged: Dataset) -> int:
    """Tokens of the longest row."""
    return int(_sums(arranged, "input_ids", lambda ids: np.ones_like(ids)).max())


def _sums(arranged: Dataset, column: str, of: Callable[[_Array], _Array]) -> _Array:
    """For each row the sum of what is made of a list's numbers; no list is empty."""
    found = []
    for table in arranged.select_columns(column).with_format("arrow").iter(batch_size=1000):
        lists = table[column].combine_chunks()
        lengths = np.asarray(pc.list_value_length(lists))
        values = of(np.asarray(pc.list_flatten(lists)))
        found.append(np.add.reduceat(values.astype(np.int64), np.cumsum(lengths) - lengths))
    return np.concatenate(found)
