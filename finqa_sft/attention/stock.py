"""An attention of transformers for padded batches and caches, whatever a model is trained with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STOCK = frozenset({"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4"})
"""Implementations of transformers 5.23 that take padded batches and a cache."""


@contextmanager
def stock_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model attend as transformers does, and as before afterwards.

    An implementation that a collator registered knows its own layout of a batch and no other; and
    flex attention is compiled anew for each length. Both give way to `sdpa`, or to `eager` in
    models that have no `sdpa`. Kernels of the Hub, whose names hold a slash, stay.
    """
    config = model.config
    before = config._attn_implementation
    if before is None or before in STOCK or "/" in before:
        yield
        return
    parts = {name: getattr(config, name) for name in config.sub_configs}
    each = {name: part._attn_implementation for name, part in parts.items() if part is not None}
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    try:
        yield
    finally:
        model.set_attn_implementation({"": before, **each})
