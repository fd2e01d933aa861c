"""Which bases can be trained on trees, as far as their config tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers (a config's `layer_types`) in which a token sees others by attention alone."""

SINKS = frozenset(
    {"deepseek_v4", "flint", "gpt_oss", "granite_swa", "granitemoe_swa", "hy_v4", "mimo_v2_flash"}
)
"""Model types whose heads have a learnt sink (transformers 5.23, the keyword `s_aux`)."""

MASKED_WINDOWS = frozenset({"phimoe", "qwen2_moe"})
"""Model types that keep a sliding window by a mask alone, without telling attention of it
(transformers 5.23)."""

DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
"""What configs call the dropout of attention weights."""

STRETCHED = frozenset({"dynamic", "longrope"})
"""Kinds of RoPE whose angles change, beyond the original length, with the longest sequence."""


def refuse_unsupported(config: PreTrainedConfig, *, longest: int) -> None:
    """Refuse a base whose tokens would not see in a tree what they see alone.

    What a config does not tell is found by comparing losses before the first step.

    Args:
        config: The base's.
        longest: Tokens of the longest sequence.

    Raises:
        ModelError: Says why, and which collator to use instead.
    """
    why = next(_obstacles(config, longest), None)
    if why:
        raise ModelError(
            f"model type {config.model_type!r} cannot be trained on shared context: {why}; set the "
            "recipe's collator to {name: padded}"
        )


def _obstacles(config: PreTrainedConfig, longest: int) -> Iterator[str]:
    text = config.get_text_config()
    # A config has the fields of its own architecture only.
    fields: dict[str, Any] = {**config.to_dict(), **text.to_dict()}
    yield from _of_class(config)
    layers = sorted(set(fields.get("layer_types") or ()) - LAYERS)
    if layers:
        yield f"it has layers of {', '.join(layers)}"
    if text.model_type in SINKS:
        yield "its attention has sinks"
    window = fields.get("sliding_window")
    windowed = "sliding_attention" in (fields.get("layer_types") or ("sliding_attention",))
    if text.model_type in MASKED_WINDOWS and window and windowed and longest > window:
        yield f"a mask alone keeps its window of {window} tokens, and there is a row of {longest}"
    if fields.get("alibi"):
        yield "ALiBi counts distances in the row, not in the tree"
    if fields.get("use_bidirectional_attention"):
        yield "its attention looks ahead"
    for name in DROPOUTS:
        if fields.get(name):
            yield f"its attention has dropout ({name} {fields[name]})"
    if fields.get("output_router_logits"):
        yield (
            "its auxiliary loss would count a shared token once for all its questions "
            "(output_router_logits)"
        )
    for rope in _ropes(fields.get("rope_parameters") or {}):
        original = rope.get("original_max_position_embeddings") or fields.get(
            "max_position_embeddings"
        )
        if rope.get("rope_type") in STRETCHED and original and longest > original:
            yield (
                f"beyond {original} tokens the angles of its {rope['rope_type']} RoPE depend on "
                f"the longest sequence of a batch, and there is one of {longest}"
            )


def _of_class(config: PreTrainedConfig) -> Iterator[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if model._is_stateful:
        yield "it has layers that carry a state from token to token"
    elif not (model._supports_attention_backend and model._can_set_attn_implementation()):
        yield "its attention cannot be replaced"


def _ropes(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters of RoPE, which some models have for each kind of layer."""
    if "rope_type" in parameters:
        yield parameters
    else:
        yield from (value for value in parameters.values() if isinstance(value, dict))
