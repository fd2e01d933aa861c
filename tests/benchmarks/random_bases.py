"""Bases with random weights and a real architecture, written into a folder: nothing is downloaded.

Time and memory of a step depend on the shapes alone, not on what a model has learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    # 28.2 million parameters with the vocabulary of the embedded base.
    "llama_28m": {
        "model_type": "llama",
        "hidden_size": 512,
        "intermediate_size": 1344,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        # So that logits depend on what stands far before.
        "initializer_range": 512**-0.5,
    },
    # As config.json of Qwen/Qwen2.5-7B has it.
    "qwen2.5_7b": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
    },
}
"""What is given to `AutoConfig.for_model`; without a vocabulary, the tokenizer's own is taken."""

FACTORIES = {"llama_28m": "lora", "qwen2.5_7b": "qlora"}
"""How each is trained: float32 with LoRA, or NF4 with LoRA."""

SEED = 2024


def write_base(name: str, folder: Path, *, tokenizer: str) -> None:
    """Write config, random weights and a tokenizer as `save_pretrained` does.

    Args:
        name: One of `SHAPES`.
        folder: Where to.
        tokenizer: A base whose tokenizer it gets: `tiny`, a folder or a GGUF file.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from finqa_sft.models.bases import resolve_base

    read = AutoTokenizer.from_pretrained(resolve_base(tokenizer).location())
    shape = dict(SHAPES[name])
    kind = shape.pop("model_type")
    shape.setdefault("vocab_size", -(-len(read) // 64) * 64)
    config = AutoConfig.for_model(
        kind,
        bos_token_id=None,
        eos_token_id=read.eos_token_id,
        pad_token_id=read.pad_token_id,
        **shape,
    )
    is_large = FACTORIES[name] == "qlora"
    torch.manual_seed(SEED)
    # Weights of this size are drawn in a moment on a GPU, and in minutes elsewhere.
    with torch.device("cuda" if is_large and torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if is_large else torch.float32
        )
    model.save_pretrained(folder)
    read.save_pretrained(folder)
