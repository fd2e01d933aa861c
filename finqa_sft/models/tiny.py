"""The embedded base `tiny`: a small Llama with random weights, and a tokenizer of its own.

It knows nothing; it is there so that every part of a run can be tried in seconds without a
download: 4-bit weights, adapters, grouped-query attention, tied embeddings and a chat template are
all as in a real base. It is built on first use and kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import finqa_sft
from finqa_sft.documents import Paragraph
from finqa_sft.models.cache import cached
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.filings import FilingsOptions, FilingsReader

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD = "<|pad|>"
END = "<|end|>"
"""Ends a turn and stops generation: the EOS token."""

ROLES = ("system", "user", "assistant")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('unknown role ' + message['role']) -}}
{%- endif -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""
"""A token for the role, the text as it is, and the token that ends the turn."""

VOCABULARY = 2048
"""At most; the generated text has fewer different words."""

PAGES = 200
SEED = 2024

SHAPE: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""All widths are multiples of 64, NF4's block."""

EMBEDDING_STD = 0.12
"""Large enough for the logits to become certain of a token; small enough beside the layers' outputs
that, with tied embeddings, the model does not begin by repeating its input."""


def tiny_base() -> Path:
    """The folder of the embedded base, built on first use (some seconds on one core)."""
    return cached(
        f"tiny-{finqa_sft.__version__}-{_key()}",
        lambda folder: build_tiny(folder, training_text()),
    )


@cache
def _key() -> str:
    """A digest of all that the embedded base depends on."""
    spec = [VOCABULARY, SEED, SHAPE, EMBEDDING_STD, CHAT_TEMPLATE, *training_text()]
    return hashlib.sha256(json.dumps(spec).encode()).hexdigest()[:16]


def build_tiny(folder: Path, text: Iterable[str]) -> None:
    """Write config, weights and tokenizer; the same bytes each time with the same libraries.

    Args:
        folder: An empty folder.
        text: What the tokenizer is trained on.
    """
    tokenizer = build_tokenizer(text)
    tokenizer.save_pretrained(folder)
    build_model(tokenizer).save_pretrained(folder)


def training_text() -> Iterator[str]:
    """Text of the generated filings, with everything that a question comes with."""
    for question in FilingsReader(FilingsOptions(pages=PAGES, seed=SEED)):
        if isinstance(question, BadRow):
            continue
        yield question.text
        yield question.answer
        yield question.program or ""
        for block in question.document.blocks:
            if isinstance(block, Paragraph):
                yield block.text
            else:
                yield from (" | ".join(row) for row in block.rows)


def build_tokenizer(text: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer in which every digit is a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    roles = [f"<|{role}|>" for role in ROLES]
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, END, *roles],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=roles,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=SHAPE["max_position_embeddings"],
        model_input_names=["input_ids", "attention_mask"],
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The shape of the model."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
        **SHAPE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A model whose random weights depend on the seed alone."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(build_config(tokenizer))
    draws = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
                continue
            std = EMBEDDING_STD if "embed" in name else weight.shape[1] ** -0.5
            weight.normal_(0.0, std, generator=draws)
    return model
