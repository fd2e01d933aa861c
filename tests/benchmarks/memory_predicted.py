"""What `finqa-sft plan` predicts for bases of 7, 14 and 72 billion weights on eight GPUs.

    python tests/benchmarks/memory_predicted.py --out docs/results/memory_predicted.json

The shapes are those of Qwen2.5's configs; no weights are needed. QLoRA is recipe `qlora_7b` with
another base, LoRA the same with factory `lora`, full training recipe `full_1b`. Nothing here was
measured.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import commit

from finqa_sft.cli.main import main as finqa_sft

SHARED = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "max_position_embeddings": 32768,
    "dtype": "bfloat16",
}

BASES: dict[str, dict[str, int]] = {
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "14B": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
    },
    "72B": {
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}
"""Qwen2.5-7B, -14B and -72B (config.json of each)."""

RECIPES = {
    "qlora": ("qlora_7b",),
    "lora": ("qlora_7b", "model.factory=lora"),
    "full": ("full_1b",),
}
"""The recipe of each factory, and what is set in it."""

GPU, GPUS = "H100 80", 8


def main(words: Sequence[str] | None = None) -> None:
    """Plan each base with each factory, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where the JSON goes; else it is printed")
    arguments = parser.parse_args(words)
    result = {
        "what": "memory of a GPU as finqa-sft plan predicts it, in bytes; not measured",
        "gpus": GPUS,
        "plans": [planned(name, factory) for factory in RECIPES for name in BASES],
        "commit": commit(),
    }
    text = json.dumps(result, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def planned(name: str, factory: str) -> dict[str, Any]:
    """What one GPU needs, and each way of sharing a run out among several."""
    with tempfile.TemporaryDirectory() as folder:
        config = json.dumps(SHARED | BASES[name])
        (Path(folder) / "config.json").write_text(config, encoding="utf-8")
        alone, several = (plan(folder, factory, gpus=count) for count in (1, GPUS))
    needs = alone["memory"] | several["memory"]
    return {
        "base": name,
        "factory": factory,
        "recipe": RECIPES[factory][0],
        "parameters": several["parameters"],
        "tokens_per_batch": several["batch"]["tokens"],
        "total": {way: need["total"] for way, need in needs.items()},
        "loading": {way: need["loading"] for way, need in needs.items()},
    }


def plan(folder: str, factory: str, *, gpus: int) -> dict[str, Any]:
    """What `finqa-sft plan` prints."""
    words = ["plan", *RECIPES[factory], f"model.base={folder}", "--gpu", GPU, "--gpus", str(gpus)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = finqa_sft([*words, "--json"])
    if status:
        raise SystemExit(f"no plan with {factory}")
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


if __name__ == "__main__":
    main()
