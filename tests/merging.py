"""What the tests of merging share: small bases of several families, random adapters, a merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from small_models import small_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.merging.plan import MergePlan
from finqa_sft.models.merging.writing import new_folder, write_model
from finqa_sft.models.options import LoRAFactoryOptions, LoraOptions, QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.models.tiny import tiny_base

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": True},
    "gpt2": {},
    "mixtral": {"num_local_experts": 2},
}
"""Families, with what of their shape matters here. GPT-2's linear layers are `Conv1D`, and its head
is tied; Mixtral's experts have other names in its files than in the model."""

IDS = torch.arange(40, 72).reshape(2, 16)

Weights = dict[str, torch.Tensor]


class Pair(NamedTuple):
    """Two folders."""

    base: Path
    adapter: Path


def save_base(folder: Path, kind: str, *, shard: str = "5GB", **changes: Any) -> Path:
    """A small base with a tokenizer."""
    model = small_model(kind, **{**FAMILIES.get(kind, {}), **changes})
    model.save_pretrained(folder, max_shard_size=shard)
    AutoTokenizer.from_pretrained(tiny_base()).save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, **config: Any) -> Path:
    """An adapter with random weights, none of which leave the base as it is."""
    arguments = {
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "v_proj", "o_proj", "c_attn", "c_proj", "c_fc", "down_proj"],
        **config,
    }
    torch.manual_seed(3)
    model = get_peft_model(load(base), LoraConfig(**arguments))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not weight.requires_grad:
                continue
            if "lora_magnitude" in name:
                weight.mul_(1 + 0.2 * torch.rand_like(weight))
            else:
                weight.add_(torch.randn_like(weight), alpha=0.1)
    model.save_pretrained(folder)
    return folder


def readdressed(adapter: Path, folder: Path, *, base: str | Path) -> Path:
    """A copy of an adapter that says it is one of another base."""
    shutil.copytree(adapter, folder)
    file = folder / "adapter_config.json"
    config = {**json.loads(file.read_text()), "base_model_name_or_path": str(base)}
    file.write_text(json.dumps(config))
    return folder


def load(folder: Path) -> PreTrainedModel:
    """A model by transformers alone, in float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def merged_by_peft(base: Path, adapter: Path) -> Weights:
    """What PEFT's own merge makes of a base that is not quantised, in float32."""
    model = PeftModel.from_pretrained(load(base), str(adapter)).merge_and_unload()
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def lora(base: Path | str, **options: Any) -> LoRAFactory:
    return LoRAFactory(LoRAFactoryOptions(base=str(base), **options))


def qlora(base: Path | str, **options: Any) -> QLoRAFactory:
    lora_options = LoraOptions.model_validate(options.pop("lora", {}))
    return QLoRAFactory(QLoRAOptions(base=str(base), lora=lora_options, **options))


def merge(
    factory: AdapterFactory, adapter: Path, out: Path, *, shard: int = 10**9, **how: Any
) -> MergePlan:
    """Merge into a folder."""
    chosen: Any = {"weights": "original", "dtype": "float32", "trained_in": "float32", **how}
    plan = MergePlan(factory, adapter, **chosen)
    with new_folder(out) as folder:
        write_model(plan, folder, max_shard_size=shard, say=lambda text: None)
    return plan


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found
