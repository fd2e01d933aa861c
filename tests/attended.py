"""Branches and random tensors to attend with, and what attention makes of them path by path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finqa_sft.attention.branches import Branches
from finqa_sft.attention.shared_context import shared_context_attention

# A page of 7 tokens with three questions, one of them with two answers; and a page of 4.
LENGTHS, PARENTS, DEPTHS = [9, 4, 5, 2, 4, 3], [-1, 0, 0, 2, -1, 4], [0, 7, 6, 9, 0, 2]
TOKENS = sum(LENGTHS)


def forest(**changes: Any) -> Branches:
    return Branches.of(LENGTHS, parents=PARENTS, depths=DEPTHS, **changes)


@dataclass
class Attended:
    """What attention is to do, and random tensors for it."""

    heads: int = 4
    key_heads: int = 2
    width: int = 16
    value_width: int = 16
    window: int | None = None
    softcap: float | None = None
    scaling: float | None = None
    tokens: int = TOKENS
    seed: int = 0

    def tensors(self, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        draws = torch.Generator().manual_seed(self.seed)
        shapes = (
            (self.heads, self.width),
            (self.key_heads, self.width),
            (self.key_heads, self.value_width),
        )
        return [
            torch.randn(1, heads, self.tokens, width, generator=draws).to(dtype).requires_grad_()
            for heads, width in shapes
        ]


def naive(
    tensors: list[torch.Tensor], paths: list[np.ndarray[Any, Any]], of: Attended
) -> torch.Tensor:
    """Each token of each path by itself, `[1, T, heads, e]`."""
    query, key, value = tensors
    groups = of.heads // of.key_heads
    found: dict[int, torch.Tensor] = {}
    for path in paths:
        for n, place in enumerate(path.tolist()):
            if place in found:
                continue
            first = 0 if of.window is None else max(0, n + 1 - of.window)
            seen = path[first : n + 1].tolist()
            heads = []
            for head in range(of.heads):
                scores = key[0, head // groups, seen] @ query[0, head, place]
                scores = scores * (of.width**-0.5 if of.scaling is None else of.scaling)
                if of.softcap is not None:
                    scores = of.softcap * torch.tanh(scores / of.softcap)
                heads.append(torch.softmax(scores, 0) @ value[0, head // groups, seen])
            found[place] = torch.stack(heads)
    return torch.stack([found[place] for place in sorted(found)])[None]


def attend(tensors: list[torch.Tensor], branches: Branches, of: Attended) -> torch.Tensor:
    attended, weights = shared_context_attention(
        torch.nn.Module(),
        *tensors,
        None,
        scaling=of.scaling,
        sliding_window=of.window,
        softcap=of.softcap,
        branches=branches,
    )
    assert weights is None
    return attended


def gradients(attended: torch.Tensor, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(9)
    weights = torch.randn(attended.shape, generator=draws)
    return list(torch.autograd.grad((attended * weights).sum(), tensors))


KINDS = {
    "grouped heads": Attended(),
    "as many key heads": Attended(key_heads=4),
    "one key head": Attended(key_heads=1),
    "a window": Attended(window=3),
    "a window of one": Attended(window=1),
    "a window as long as the longest path": Attended(window=11),
    "a cap": Attended(softcap=0.7),
    "a cap and a window": Attended(softcap=0.7, window=3),
    "a scale": Attended(scaling=0.11),
    "narrow values": Attended(value_width=12),
    "wide values": Attended(value_width=20),
    "an odd width": Attended(width=12, value_width=12),
    "narrow values, a window and a scale": Attended(value_width=4, window=4, scaling=1.0),
}
