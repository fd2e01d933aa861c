"""Small models of several families with random weights, and prompts to complete with them."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from finqa_sft.generation.decoding import Prompt

SHAPE: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


def small_model(kind: str, **changes: Any) -> PreTrainedModel:
    """A model whose logits are far enough apart for its completions to differ."""
    config = AutoConfig.for_model(kind, **{**SHAPE, **changes})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15, generator=draws)
    return model


def some_prompts(
    *, documents: int = 4, questions: int = 3, longest: int = 60, seed: int = 0
) -> list[Prompt]:
    """Prompts of pages of 20 tokens and more, in no order; the first page has one question."""
    draws = random.Random(seed)

    def text(least: int, most: int) -> list[int]:
        return [draws.randrange(5, 2000) for _ in range(draws.randint(least, most))]

    prompts = []
    for number in range(documents):
        page = text(20, longest)
        for _ in range(questions if number else 1):
            prompts.append(Prompt(page + text(2, 9), f"page {number}"))
    draws.shuffle(prompts)
    return prompts
