"""The branches of a batch, and for each the keys that its tokens may see.

A branch is a run of tokens in the flat row. It either begins a tree, or leaves the path of an
earlier branch at some depth and goes on by itself. Its path, from the first token of the tree to
its own last, is the sequence that it would be alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

Backend: TypeAlias = Literal["auto", "sdpa", "varlen", "flash_attn"]
"""What computes the attention; `auto`: `varlen` where it can, `sdpa` elsewhere."""


@dataclass(frozen=True, eq=False)
class Branches:
    """What attention needs to know of a batch; the same for all layers.

    N branches tile the T tokens of a row in order. Their paths have K tokens in all.

    Attributes:
        lengths: Tokens of each branch.
        path_lengths: Tokens of each path, the branch's own included.
        key_index: int64 `[K]`: for one path after the other, the places of its tokens in the row.
        cu_seq_q: int32 `[N + 1]`: where branches begin in the row, and where the last ends.
        cu_seq_k: int32 `[N + 1]`: where paths begin in `key_index`, and where the last ends.
        backend: What is to compute the attention.
    """

    lengths: tuple[int, ...]
    path_lengths: tuple[int, ...]
    key_index: torch.Tensor
    cu_seq_q: torch.Tensor
    cu_seq_k: torch.Tensor
    backend: Backend = "auto"
    _masks: dict[tuple[int | None, torch.dtype], list[torch.Tensor | None]] = field(
        default_factory=dict, repr=False
    )
    _copies: dict[torch.device | str, Branches] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        *,
        parents: Sequence[int],
        depths: Sequence[int],
        backend: Backend = "auto",
    ) -> Branches:
        """Work the paths out.

        Args:
            lengths: Tokens of each branch.
            parents: Index of the earlier branch whose path each branch leaves; -1 where it begins a
                tree.
            depths: How many tokens of its parent's path come before each branch; 0 for a tree.
            backend: What is to compute the attention.
        """
        import torch

        paths = paths_of(lengths, parents=parents, depths=depths)
        path_lengths = tuple(len(path) for path in paths)

        def bounds(of: Sequence[int]) -> torch.Tensor:
            return torch.tensor([0, *accumulate(of)], dtype=torch.int32)

        return cls(
            lengths=tuple(lengths),
            path_lengths=path_lengths,
            key_index=torch.from_numpy(np.concatenate(paths)),
            cu_seq_q=bounds(lengths),
            cu_seq_k=bounds(path_lengths),
            backend=backend,
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Branches:
        """The same on a device, copied there once a batch; itself if it is there already."""
        if device in self._copies:
            return self._copies[device]
        key_index = self.key_index.to(device, non_blocking=non_blocking)
        if key_index is self.key_index:
            return self
        self._copies[device] = replace(
            self,
            key_index=key_index,
            cu_seq_q=self.cu_seq_q.to(device, non_blocking=non_blocking),
            cu_seq_k=self.cu_seq_k.to(device, non_blocking=non_blocking),
            _masks={},
            _copies={},
        )
        return self._copies[device]

    def pin_memory(self) -> Branches:
        """The same in pinned memory, from which it is copied without waiting."""
        return replace(
            self,
            key_index=self.key_index.pin_memory(),
            cu_seq_q=self.cu_seq_q.pin_memory(),
            cu_seq_k=self.cu_seq_k.pin_memory(),
            _masks={},
            _copies={},
        )

    def masks(self, *, window: int | None, dtype: torch.dtype) -> list[torch.Tensor | None]:
        """For each branch what is added to its scores, worked out once a batch.

        Args:
            window: Tokens of a path that each token sees, its own included; None for all.
            dtype: The dtype of the scores.

        Returns:
            `[length, path length]` each, 0 where a key is seen and -inf elsewhere; None for a
            branch that is its own path and sees all of it, which needs causal attention alone.
        """
        if window is not None and window >= max(self.path_lengths):
            window = None
        known = self._masks.get((window, dtype))
        if known is None:
            known = [
                self._mask(length, path, window=window, dtype=dtype)
                for length, path in zip(self.lengths, self.path_lengths, strict=True)
            ]
            self._masks[window, dtype] = known
        return known

    def _mask(
        self, length: int, path: int, *, window: int | None, dtype: torch.dtype
    ) -> torch.Tensor | None:
        import torch

        if length == path and (window is None or window >= path):
            return None
        device = self.key_index.device
        own = torch.arange(path - length, path, device=device)[:, None]
        seen = torch.arange(path, device=device)[None]
        hidden = seen > own if window is None else (seen > own) | (seen <= own - window)
        mask = torch.zeros((length, path), dtype=dtype, device=device)
        return mask.masked_fill_(hidden, -torch.inf)


def paths_of(
    lengths: Sequence[int], *, parents: Sequence[int], depths: Sequence[int]
) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The places in the flat row of each path's tokens.

    Args:
        lengths: Tokens of each branch.
        parents: As in `Branches.of`.
        depths: As in `Branches.of`.
    """
    paths: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    start = 0
    for length, parent, depth in zip(lengths, parents, depths, strict=True):
        own = np.arange(start, start + length)
        paths.append(own if parent < 0 else np.concatenate([paths[parent][:depth], own]))
        start += length
    return paths
