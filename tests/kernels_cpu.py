"""What stands on a CPU in the place of FlashAttention's kernels, which need a GPU.

Each function takes what its kernel is documented to take, refuses what that refuses, and computes
what that is documented to compute.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch


def require_what_kernels_take(
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    bounds: tuple[torch.Tensor, torch.Tensor],
    longest: tuple[int, int],
) -> None:
    """What torch's kernel checks of its input (2.13, `flash_api.cpp`, `mha_varlen_fwd`), and that
    the longest sequences are counted right, which it believes.
    """
    query, key, value = tensors
    assert query.dtype == key.dtype == value.dtype
    assert query.shape[-1] == key.shape[-1] == value.shape[-1] <= 256
    assert query.shape[-1] % 8 == 0
    assert key.shape[:2] == value.shape[:2]
    assert len(query.shape) == len(key.shape) == 3
    assert query.shape[1] % key.shape[1] == 0
    assert all(one.stride(-1) == 1 for one in tensors)
    for bound, most, of in zip(bounds, longest, (query, key), strict=True):
        assert bound.dtype == torch.int32
        assert bound.is_contiguous()
        assert (int(bound[0]), int(bound[-1])) == (0, len(of))
        # A tensor would be waited for.
        assert type(most) is int
        assert most == int(bound.diff().max())
    assert len(bounds[0]) == len(bounds[1])


def sequences(
    query: torch.Tensor,
    key: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    window_size: tuple[int, int],
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """For each sequence its queries, its keys, and what is hidden, as the kernels document it.

    Query i of Tq sees key j of Tk where i + Tk - Tq - left <= j <= i + Tk - Tq + right; a negative
    left or right is without bound.
    """
    left, right = window_size
    bounds_q, bounds_k = cu_seq_q.tolist(), cu_seq_k.tolist()
    for n in range(len(bounds_q) - 1):
        of_q = slice(bounds_q[n], bounds_q[n + 1])
        of_k = slice(bounds_k[n], bounds_k[n + 1])
        queries, keys = len(query[of_q]), len(key[of_k])
        middle = torch.arange(queries)[:, None] + keys - queries
        away = torch.arange(keys)[None] - middle
        hidden = torch.zeros(away.shape, dtype=torch.bool)
        if left >= 0:
            hidden |= away < -left
        if right >= 0:
            hidden |= away > right
        yield of_q, of_k, hidden


def bottom_right(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    softcap: float = 0.0,
) -> torch.Tensor:
    """What the kernels compute: `[T, heads, d]`, sequence by sequence."""
    require_what_kernels_take((query, key, value), (cu_seq_q, cu_seq_k), (max_q, max_k))
    groups = query.shape[1] // key.shape[1]
    found = []
    for of_q, of_k, hidden in sequences(query, key, cu_seq_q, cu_seq_k, window_size):
        q = query[of_q].transpose(0, 1)
        k, v = (x[of_k].transpose(0, 1).repeat_interleave(groups, 0) for x in (key, value))
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        found.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(found)


def of_torch_2_12(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    assert enable_gqa or query.shape[1] == key.shape[1]
    bounds = cu_seq_q, cu_seq_k, max_q, max_k
    return bottom_right(query, key, value, *bounds, scale=scale, window_size=window_size)


def of_torch_2_11(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    assert query.shape[1] == key.shape[1]
    bounds = cu_seq_q, cu_seq_k, max_q, max_k
    return bottom_right(query, key, value, *bounds, scale=scale, window_size=window_size)


def of_flash_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor:
    """With the parameters of flash-attn 2.6 to 2.8, in their order."""
    assert dropout_p == 0
    assert not return_attn_probs
    left, right = window_size
    return bottom_right(
        q,
        k,
        v,
        *(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k),
        scale=softmax_scale,
        window_size=(left, 0 if causal else right),
        softcap=softcap,
    )


def forward_of_aten(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    dropout: float,
    is_causal: bool,
    return_debug_mask: bool,
    *,
    scale: float,
    window_size_left: int = -1,
    window_size_right: int = -1,
) -> tuple[torch.Tensor, ...]:
    """In the place of `aten::_flash_attention_forward`; other options are not taken."""
    require_what_kernels_take((query, key, value), (cu_seq_q, cu_seq_k), (max_q, max_k))
    assert not dropout
    assert not return_debug_mask
    window = window_size_left, 0 if is_causal else window_size_right
    groups = query.shape[1] // key.shape[1]
    out, sums = torch.empty_like(query), query.new_empty((query.shape[1], len(query)))
    for of_q, of_k, hidden in sequences(query, key, cu_seq_q, cu_seq_k, window):
        k, v = (x[of_k].transpose(0, 1).repeat_interleave(groups, 0) for x in (key, value))
        scores = (query[of_q].transpose(0, 1) @ k.mT * scale).masked_fill(hidden, -torch.inf)
        out[of_q] = (scores.softmax(-1) @ v).transpose(0, 1)
        sums[:, of_q] = scores.logsumexp(-1)
    unused = query.new_empty(0)
    return out, sums, torch.zeros(2, dtype=torch.uint64), unused, unused.clone()


def backward_of_aten(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    sums: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    dropout: float,
    is_causal: bool,
    rng_state: torch.Tensor,
    unused: torch.Tensor,
    *,
    scale: float,
    window_size_left: int = -1,
    window_size_right: int = -1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In the place of `aten::_flash_attention_backward`, from what the forward pass has kept."""
    require_what_kernels_take((query, key, value), (cu_seq_q, cu_seq_k), (max_q, max_k))
    window = window_size_left, 0 if is_causal else window_size_right
    groups = query.shape[1] // key.shape[1]
    found = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for of_q, of_k, hidden in sequences(query, key, cu_seq_q, cu_seq_k, window):
        q, down, result = (x[of_q].transpose(0, 1) for x in (query, gradient, out))
        k, v = (x[of_k].transpose(0, 1).repeat_interleave(groups, 0) for x in (key, value))
        scores = (q @ k.mT * scale).masked_fill(hidden, -torch.inf)
        weights = (scores - sums[:, of_q, None]).exp()
        moved = weights * (down @ v.mT - (down * result).sum(-1, keepdim=True)) * scale
        found[0][of_q] = (moved @ k).transpose(0, 1)
        for into, each in ((found[1], moved.mT @ q), (found[2], weights.mT @ down)):
            # What the queries of a group send back to their one key head.
            into[of_k] = each.unflatten(0, (-1, groups)).sum(1).transpose(0, 1)
    return found
