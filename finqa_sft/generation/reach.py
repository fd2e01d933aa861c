"""How far a model reads, and whether rows of a batch can continue from a common cache."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Kinds of RoPE whose frequencies change with the longest row of a batch."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What the length of a row does to a model.

    Attributes:
        positions: Tokens that the model has positions for; None where there is no end.
        steady: Tokens up to which a row's result does not depend on the other rows' lengths; None
            where it never does.
        room: Tokens that the model's cache holds in full, padding included; None without an end.
    """

    positions: int | None
    steady: int | None
    room: int | None


def reach(model: PreTrainedModel) -> Reach:
    """How far a model reads."""
    config: Any = model.config.get_text_config(decoder=True)
    fields = config.to_dict()
    rope = fields.get("rope_parameters")
    # Embedded positions, and rotary ones from a table of fixed size, have an end; others have none,
    # and the field then only says how long the rows of pretraining were. Its name differs by
    # family, and configs map them all to this one.
    positions = None if rope else getattr(config, "max_position_embeddings", None)
    steady = _steady(rope or {}, config)
    windows = [
        layer.sliding_window
        for layer in DynamicCache(config=model.config).layers
        if isinstance(layer, DynamicSlidingWindowLayer)
    ]
    ends = [end for end in (steady, *windows) if end is not None]
    return Reach(positions, steady, min(ends, default=None))


def _steady(rope: dict[str, Any], config: Any) -> int | None:
    """The shortest length from which RoPE changes; layers of two kinds may have one each."""
    each = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    lengths = [
        part.get("original_max_position_embeddings") or config.max_position_embeddings
        for part in each
        if part.get("rope_type") in _LENGTH_DEPENDENT
    ]
    return min(lengths, default=None)


def cache_argument(model: PreTrainedModel) -> str:
    """What a model calls the cache that it is given: until transformers 5.23, `past_key_values`."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def why_apart(model: PreTrainedModel) -> str:
    """Why rows cannot continue from a common beginning in the cache; empty where they can.

    That needs a cache that holds keys and values by token and nothing else, positions that are
    told and not counted, and a mask that hides the padding between beginning and rest.
    """
    if model._is_stateful:
        return f"{model.config.model_type} keeps states that are not by token"
    parameters = inspect.signature(model.forward).parameters
    if not {cache_argument(model), "position_ids", "attention_mask"} <= parameters.keys():
        return f"{model.config.model_type} takes no position ids, or no cache"
    if not model._supports_attention_backend:
        return f"{model.config.model_type} has an attention of its own, which may count positions"
    others = {
        type(layer).__name__
        for layer in DynamicCache(config=model.config).layers
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)
    }
    if others:
        return f"{model.config.model_type} has {', '.join(sorted(others))} in its cache"
    return ""
