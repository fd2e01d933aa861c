"""What the forward pass keeps for the backward pass, from a model's shapes and a batch.

The formula counts the tensors that autograd keeps in a decoder layer of transformers 5.24, under
PEFT 0.21, bitsandbytes 0.50 and autocast of torch 2.13, each once. With `c` bytes an element of the
compute dtype and `s` of the hidden states, a token costs in a layer:

- each norm: its input in float32, and where the norm is trained what it gives, in float32 too;
- each block, attention or feed-forward: what its linear layers give but for the last (`c` each):
  queries, keys and values after rotation; gate and up. Then what attention gives, with a float32
  a head of FlashAttention; or the activated gate, where there is one;
- the input of each linear layer that is trained or has an adapter (`c`). Under autocast each has
  a copy of its own, as adapters take their input in float32 and autocast casts it back; else
  layers with the same input share it, and what attention gives is kept already. Dropout adds a
  byte an element for its mask on a GPU;
- what each adapter has between its factors, `r` elements (`c`);
- of each expert that a token is sent to, what goes in and comes out (`c`).

Keys and values of shared context are gathered once for each path (`finqa_sft.attention`): as many
tokens as all paths have. A mask, which padded and flattened rows need, is kept as numbers beside
each layer's attention. Capped scores are kept whole.

With gradient checkpointing a layer keeps its input alone, and one layer at a time is computed again
in the backward pass. On top comes what a backward pass has in hand in the widest linear layer: two
gradients in the compute dtype, one in float32 where an adapter's input was cast, and four tensors
as wide as the hidden states. A quantised weight is unpacked for its duration: the largest one is
counted.

TRL 1.16 scores the supervised tokens in tiles (`kernels/chunked_logprob.py`), on CUDA these alone:
a tile of at most 4,096 tokens by 32,768 logits, in the compute dtype, their hidden states with a
gradient in float32, and seven float32 numbers a token. It is counted beside the backward pass of a
layer, which comes later: an upper bound.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from finqa_sft.models.memory import Layer, Skeleton

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TILE_TOKENS = 4096
"""Tokens of a tile of logits (TRL 1.16, `TOKEN_CHUNK_SIZE`)."""

TILE_WIDTH = 32768
"""Logits of a tile, however few the vocabulary has (TRL 1.16, `_CHUNKED_LOGPROB_CHUNK_SIZE`)."""

_STATISTICS = 7 * 4
"""Bytes of what is added up of each scored token."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a process is given in one forward pass.

    Attributes:
        tokens: All tokens, padding included.
        longest: Tokens of the longest sequence.
        supervised: Tokens that are learnt.
        paths: Tokens of all paths of shared context; None for other rows.
        mask: Elements of the attention mask; 0 where none is needed.
    """

    tokens: int
    longest: int
    supervised: int
    paths: int | None = None
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of an element, by what it belongs to.

    Attributes:
        compute: The dtype of products.
        stream: The hidden states.
        autocast: Whether what is trained is float32 and cast for each product.
    """

    compute: int
    stream: int
    autocast: bool


@dataclass(frozen=True, slots=True)
class Trained:
    """Which linear layers learn.

    Attributes:
        adapted: Full names of those with an adapter.
        rank: The adapter's rank.
        dropout: Whether the adapter has dropout.
        whole: Whether all weights of the base are trained.
    """

    adapted: Collection[str] = ()
    rank: int = 0
    dropout: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Widths:
    """What a config tells of a layer, beside its linear layers.

    Attributes:
        hidden: Elements of the hidden states of a token.
        heads: Heads of queries.
        head: Elements of a head.
        keys: Elements of keys and values of a token.
        capped: Whether scores are capped, and so kept whole.
        experts: Experts that a token is sent to.
    """

    hidden: int
    heads: int
    head: int
    keys: int
    capped: bool
    experts: int

    @classmethod
    def of(cls, config: PreTrainedConfig, bones: Skeleton) -> Widths:
        """Take the widths from a config.

        Args:
            config: Of a causal language model, or of one that sees images too.
            bones: The shapes that it describes.
        """
        text = config.get_text_config()
        fields = text.to_dict()
        # A config has the fields of its own architecture only, some under names of their own.
        fields |= {k: fields[v] for k, v in text.attribute_map.items() if v in fields}
        # Some have a number for each layer.
        fields = {name: value for name, value in fields.items() if isinstance(value, int | float)}
        hidden = fields.get("hidden_size") or bones.weights[f"{bones.embedding}.weight"][1]
        heads = fields.get("num_attention_heads") or 1
        head = fields.get("head_dim") or hidden // heads
        key_heads = fields.get("num_key_value_heads") or heads
        return cls(
            hidden=hidden,
            heads=heads,
            head=head,
            keys=2 * key_heads * head,
            capped=bool(fields.get("attn_logit_softcapping")),
            experts=fields.get("num_experts_per_tok") or 0,
        )


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes of what a pass keeps.

    Attributes:
        kept: From the forward pass to the backward pass.
        layer: What one layer keeps that is computed again; 0 without checkpointing.
        working: What the backward pass has in hand.
        unpacked: The largest weight that is unpacked or cast for a product.
        logits: The tile of logits, and what belongs to it.
    """

    kept: int
    layer: int
    working: int
    unpacked: int
    logits: int


def activations(
    bones: Skeleton,
    batch: Batch,
    *,
    widths: Widths,
    precision: Precision,
    trained: Trained,
    checkpointing: bool,
    quantised: bool,
) -> Activations:
    """Bytes of activations, by the formula of this module.

    Args:
        bones: The base's shapes.
        batch: What is computed at a time.
        widths: What the config tells.
        precision: Bytes of an element.
        trained: Which layers learn.
        checkpointing: Whether layers are computed again in the backward pass.
        quantised: Whether weights have to be unpacked.
    """
    compute, stream, hidden = precision.compute, precision.stream, widths.hidden
    layers = [
        _layer_bytes(layer, bones, batch, widths, precision, trained) for layer in bones.layers
    ]
    # The last norm, what it gives, and the sines and cosines of positions.
    ends = batch.tokens * (hidden * (4 + 2 * stream) + 2 * stream * widths.head)
    inputs = [bones.linears[name][0] for layer in bones.layers for b in layer.blocks for name in b]
    widest = max(inputs, default=hidden)
    largest = max(map(prod, bones.linears.values()), default=0)
    scored = batch.supervised * (hidden * (stream + 4) + _STATISTICS)
    tile = min(batch.supervised, TILE_TOKENS) * TILE_WIDTH * compute
    cast_head = TILE_WIDTH * hidden * compute if precision.autocast and trained.whole else 0
    cast_input = 4 if precision.autocast and trained.adapted else 0
    return Activations(
        kept=ends
        + (len(layers) * stream * hidden * batch.tokens if checkpointing else sum(layers)),
        layer=max(layers, default=0) if checkpointing else 0,
        working=batch.tokens * ((2 * compute + cast_input) * widest + 4 * stream * hidden),
        unpacked=largest * compute if quantised else 0,
        logits=scored + tile + cast_head,
    )


def _layer_bytes(
    layer: Layer,
    bones: Skeleton,
    batch: Batch,
    widths: Widths,
    precision: Precision,
    trained: Trained,
) -> int:
    """What one decoder layer keeps."""
    compute = precision.compute
    token = sum(layer.norms) * (8 if trained.whole else 4)
    token += 4 * widths.heads + layer.experts * widths.experts * compute
    for block in layer.blocks:
        *first, last = (bones.linears[name] for name in block)
        token += compute * sum(high for _, high in first)
        # Attention gives, and an activated gate is, what the last layer is as wide as.
        gate = len(first) > 1 or sum(high for _, high in first) == 2 * last[0]
        token += compute * last[0] if _is_attention(block) or gate else 0
        token += _input_bytes(block, bones, precision, trained)
    more = batch.mask * compute
    if batch.paths is not None:
        more += compute * widths.keys * (batch.paths - batch.tokens)
    if widths.capped:
        # Scores, what the cap makes of them, and weights of each token for each it may see.
        more += widths.heads * batch.tokens * batch.longest * (4 + 2 * compute)
    return batch.tokens * token + more


def _input_bytes(
    block: tuple[str, ...], bones: Skeleton, precision: Precision, trained: Trained
) -> int:
    """What the linear layers of a block keep of their inputs, a token."""
    learning = [name for name in block if trained.whole or name in trained.adapted]
    wide = {name: bones.linears[name][0] for name in learning}
    adapted = [] if trained.whole else learning
    between = len(adapted) * trained.rank * precision.compute
    if trained.dropout and adapted:
        # Each drops elements of its own.
        return between + sum(wide[name] for name in adapted) * (1 + precision.compute)
    if precision.autocast:
        if trained.whole and _is_attention(block):
            # What attention gives is of the compute dtype already.
            wide.pop(block[-1])
        return between + sum(wide.values()) * precision.compute
    shared = {name == block[-1]: width for name, width in wide.items()}
    if _is_attention(block):
        shared.pop(True, None)
    return between + sum(shared.values()) * precision.compute


def _is_attention(block: tuple[str, ...]) -> bool:
    """Whether a block's linear layers belong to attention, as their names tell."""
    return any(word in block[-1] for word in ("attn", "attention"))
