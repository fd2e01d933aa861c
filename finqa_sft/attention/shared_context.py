"""The attention implementation `shared_context`, as transformers knows it.

Each branch attends to its path: the keys and values of the path are gathered, and attention is
causal, aligned at the bottom right. That is what the branch's tokens would see alone, at any depth,
so the result is the same. Keys and values stand repeated inside one layer only.

No mask function is registered with it, so that transformers makes no mask (5.23,
`masking_utils.py`, `_preprocess_mask_arguments`) and takes positions that go back for nothing.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from finqa_sft.attention.branches import Backend, Branches
from finqa_sft.errors import ModelError

NAME = "shared_context"
"""What `attn_implementation` selects it by."""

INERT = frozenset(
    {
        "cache_position",
        "logits_to_keep",
        "num_items_in_batch",
        "output_hidden_states",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)
"""Keywords that models hand through to attention and that do not concern it."""

FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_HEAD_DIM = 256
"""The widest head that FlashAttention's kernels take."""
FLASH_HEAD_MULTIPLE = 8
"""Torch's FlashAttention takes heads whose width is a multiple of this (2.13, `flash_api.cpp`)."""


def register() -> None:
    """Let transformers know the implementation; again is as good as once."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, shared_context_attention)


def shared_context_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    branches: Branches | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from each branch to its path.

    Args:
        module: The layer that asks.
        query: `[1, heads, T, d]`.
        key: `[1, key heads, T, d]`; heads are a multiple of key heads.
        value: `[1, key heads, T, e]`.
        attention_mask: None; which keys are seen follows from the branches.
        dropout: 0; there is none on shared keys.
        scaling: What scores are multiplied by, by default `d ** -0.5`.
        sliding_window: Tokens of its path that a token sees, its own included.
        softcap: Scores are bounded to ±softcap by tanh.
        is_causal: Not False.
        branches: How the tokens belong together.
        others: Keywords of the model, of which those that would change attention are refused.

    Returns:
        `[1, T, heads, e]`, and None in place of attention weights.

    Raises:
        ModelError: The batch has no branches, or the model wants of attention what is not in it.
    """
    if branches is None:
        raise ModelError(
            f"{type(module).__name__} was given no branches: attention {NAME!r} takes batches of "
            f"the collator {NAME} alone, and only from models that hand keywords on to it; for "
            "others, and to generate, call model.set_attn_implementation('sdpa') first"
        )
    _refuse(module, attention_mask, dropout=dropout, is_causal=is_causal, others=others)
    branches = branches.to(query.device)
    backend = backend_for(query, wanted=branches.backend, softcap=softcap)
    if backend == "sdpa":
        attended = _each_branch(query, key, value, branches, scaling, sliding_window, softcap)
    else:
        attended = _varlen(query, key, value, branches, scaling, sliding_window, softcap, backend)
    return attended, None


def backend_for(query: torch.Tensor, *, wanted: Backend, softcap: float | None) -> Backend:
    """What computes the attention.

    Args:
        query: `[1, heads, T, d]`.
        wanted: What the collator's options say.
        softcap: As in `shared_context_attention`.

    Raises:
        ModelError: What is wanted by name cannot compute this.
    """
    if wanted == "sdpa":
        return wanted
    why_not = (
        f"the batch is on {query.device.type}"
        if query.device.type != "cuda"
        else "this GPU has no kernels for it"
        if not _has_kernels(query.device)
        else f"the model computes in {_compute_dtype(query)}"
        if _compute_dtype(query) not in FLASH_DTYPES
        else f"its heads are {query.shape[-1]} wide"
        if query.shape[-1] > FLASH_HEAD_DIM
        else "the model caps its scores"
        if softcap is not None and wanted != "flash_attn"
        else None
    )
    if why_not is None:
        return "varlen" if wanted == "auto" else wanted
    if wanted == "auto":
        return "sdpa"
    raise ModelError(
        f"collator.attention is {wanted}, and {why_not}: it takes bfloat16 or float16 on an NVIDIA "
        f"GPU of compute capability 8.0 or later, and heads up to {FLASH_HEAD_DIM} wide"
        f"{'' if wanted == 'flash_attn' else ', without a cap on scores'}; set it to auto"
    )


def _refuse(
    module: torch.nn.Module,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float,
    is_causal: bool | None,
    others: dict[str, Any],
) -> None:
    unknown = sorted(
        k for k, v in others.items() if k not in INERT and v is not None and v is not False
    )
    # Layers without the attribute are causal, as in transformers' own implementations.
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    why = (
        f"it asks attention for {', '.join(unknown)}"
        if unknown
        else "it brings an attention mask of its own"
        if attention_mask is not None
        else f"its attention has dropout {dropout}"
        if dropout
        else "its attention looks ahead"
        if not causal
        else None
    )
    if why:
        raise ModelError(
            f"{type(module).__name__} cannot be trained on shared context: {why}; set the recipe's "
            "collator to {name: padded}"
        )


def _each_branch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    branches: Branches,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """One call of torch's attention a branch."""
    # One gather for all, and one sum backwards.
    keys, values = (
        torch.split(x.index_select(2, branches.key_index), list(branches.path_lengths), dim=2)
        for x in (key, value)
    )
    queries = torch.split(query, list(branches.lengths), dim=2)
    masks = branches.masks(window=window, dtype=query.dtype)
    grouped = query.shape[1] != key.shape[1]
    attended = [
        scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        if softcap is None
        else _capped(q, k, v, mask, scaling=scaling, softcap=softcap)
        for q, k, v, mask in zip(queries, keys, values, masks, strict=True)
    ]
    # Torch's attention lays tokens out before heads, so that they are put together as they lie.
    return torch.cat([one.transpose(1, 2) for one in attended], dim=1)


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attention with bounded scores, which torch's own lacks."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = softcap * torch.tanh(query @ key.mT * scale / softcap)
    if mask is None:
        mask = torch.full(scores.shape[-2:], -torch.inf, dtype=scores.dtype, device=scores.device)
        mask = mask.triu(1)
    weights = torch.softmax(scores + mask, dim=-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    branches: Branches,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
    backend: Backend,
) -> torch.Tensor:
    """One call of FlashAttention for all branches, each with fewer queries than keys."""
    width, dtype = value.shape[-1], _compute_dtype(query)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    # The kernel wants values as wide as keys; zeros change neither scores nor sums.
    widest = -(-max(width, query.shape[-1]) // FLASH_HEAD_MULTIPLE) * FLASH_HEAD_MULTIPLE
    q, k, v = (_widened(x[0].transpose(0, 1).to(dtype), widest) for x in (query, key, value))
    k, v = k.index_select(0, branches.key_index), v.index_select(0, branches.key_index)
    bounds = branches.cu_seq_q, branches.cu_seq_k, max(branches.lengths), max(branches.path_lengths)
    # A token sees itself and window - 1 before it.
    seen = (-1 if window is None else window - 1, 0)
    if backend == "flash_attn":
        from flash_attn import flash_attn_varlen_func

        attended = flash_attn_varlen_func(
            q,
            k,
            v,
            *bounds,
            softmax_scale=scaling,
            causal=True,
            window_size=seen,
            softcap=softcap or 0.0,
        )
    else:
        from torch.nn.attention.varlen import varlen_attn

        if _takes_grouped_heads():
            attended = varlen_attn(
                q, k, v, *bounds, scale=scaling, window_size=seen, enable_gqa=True
            )
        else:
            groups = q.shape[1] // k.shape[1]
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
            attended = varlen_attn(q, k, v, *bounds, scale=scaling, window_size=seen)
    result: torch.Tensor = attended[None, ..., :width].to(query.dtype)
    return result


def _widened(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """With zeros at the end of the last dimension; itself if it is wide enough."""
    missing = width - tensor.shape[-1]
    # Torch would copy for nothing.
    return pad(tensor, (0, missing)) if missing else tensor


@cache
def _has_kernels(device: torch.device) -> bool:
    """Whether FlashAttention's kernels run on a CUDA device: one of NVIDIA, Ampere or later.

    Those of ROCm, which torch calls CUDA too, are others, and nobody has tried them here.
    """
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _takes_grouped_heads() -> bool:
    """Whether torch's kernel takes fewer key heads than heads; that of torch 2.11 does not."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def _compute_dtype(query: torch.Tensor) -> torch.dtype:
    """The dtype that torch's own attention would compute in."""
    if torch.is_autocast_enabled(query.device.type):
        return torch.get_autocast_dtype(query.device.type)
    return query.dtype
