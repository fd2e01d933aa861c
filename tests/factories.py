"""What tests of the model factories share: factories, rows, and a few steps in a stock trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes.nn.modules as bnb
import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.devices import Device
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.full import FullFactory
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.options import FullOptions, LoRAFactoryOptions, LoraOptions, QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory

CPU = Device("cpu", None, "CPU", 2**34, 2**33, bfloat16=False)

ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Revenue was $ {n}. What was revenue?"}],
        "completion": [{"role": "assistant", "content": f"{n}"}],
    }
    for n in range(100, 116)
]

TEXT: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

IDS = torch.arange(40, 72).reshape(2, 16)

Weights = dict[str, torch.Tensor]


def arguments(folder: Path, factory: BuiltinFactory, **changes: Any) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        **factory.sft_args(),
        **{
            "per_device_train_batch_size": 4,
            "max_steps": 3,
            "learning_rate": 1e-2,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "seed": 7,
            **changes,
        },
    )


def train(
    folder: Path,
    factory: BuiltinFactory,
    *,
    model: torch.nn.Module | None = None,
    rows: list[dict[str, Any]] = ROWS,
    **changes: Any,
) -> SFTTrainer:
    """A few steps in a stock trainer, as the factories' docstrings say."""
    tokenizer = factory.load_tokenizer()
    args = arguments(folder, factory, **changes)
    data = Dataset.from_list(rows)
    trainer = SFTTrainer(
        model or factory.load_model(args),
        args,
        train_dataset=data,
        eval_dataset=data if args.eval_strategy != "no" else None,
        processing_class=tokenizer,
    )
    factory.settle(trainer)
    trainer.train()
    return trainer


def trained(model: torch.nn.Module) -> Weights:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def frozen(model: torch.nn.Module) -> Weights:
    """Everything that is not trained, the packed weights and their scales included."""
    state = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    for name, module in model.named_modules():
        if isinstance(module, bnb.Linear4bit):
            state[name + ".absmax"] = module.weight.quant_state.absmax.clone()
        if isinstance(module, bnb.Linear8bitLt):
            # The first forward pass moves the scales.
            scales = module.state.SCB if module.weight.SCB is None else module.weight.SCB
            state[name + ".SCB"] = scales.clone()
    return state


def same(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def lora(**options: Any) -> LoRAFactory:
    return LoRAFactory(LoRAFactoryOptions(lora=LoraOptions.model_validate(options)))


def qlora(bits: int = 4, **options: Any) -> QLoRAFactory:
    return QLoRAFactory(QLoRAOptions(bits=bits, lora=LoraOptions.model_validate(options)))


def full(**options: Any) -> FullFactory:
    return FullFactory(FullOptions.model_validate(options))


def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def refusal(factory: BuiltinFactory, *, free: int = 2**33) -> str:
    factory.device = Device("cpu", None, "CPU", 2**34, free, bfloat16=False)
    with pytest.raises((ModelError, HardwareError)) as caught:
        factory.check()
    return str(caught.value)
