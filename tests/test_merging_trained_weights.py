"""Dequantised weights are, bit for bit, those that the loaded quantised model computes with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from merging import load, logits, merge, qlora, save_adapter, save_base
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from finqa_sft.errors import ModelError
from finqa_sft.models.merging.plan import MergePlan

pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / request.param, request.param)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of some layers only, so that others are quantised and nothing else."""
    return save_adapter(
        tmp_path_factory.mktemp("adapter") / "adapter", base, target_modules=["q_proj", "c_attn"]
    )


HOW = [
    {"bits": 4, "double_quant": True, "compute_dtype": "float32"},
    {"bits": 4, "double_quant": False, "compute_dtype": "float32"},
    {"bits": 4, "double_quant": True, "compute_dtype": "bfloat16"},
    {"bits": 8, "compute_dtype": "float32"},
]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_layer_without_adapter_has_what_the_loaded_model_unpacks(
    base: Path, adapter: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    factory = qlora(base, **how)
    dtype = how["compute_dtype"]
    merge(factory, adapter, tmp_path / "out", weights="dequantised", trained_in=dtype)
    stored, plain = load_file(tmp_path / "out" / "model.safetensors"), load(base)
    loaded = factory.load_base()
    compared = 0
    for name, module in loaded.named_modules():
        if isinstance(module, Linear4bit):
            unpacked = dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, Linear8bitLt):
            unpacked = int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
        else:
            continue
        if isinstance(plain.get_submodule(name), Conv1D):
            unpacked = unpacked.T
        if any(part in name for part in ("q_proj", "c_attn")):
            assert not torch.equal(stored[f"{name}.weight"], unpacked.float()), name
            continue
        assert torch.equal(stored[f"{name}.weight"], unpacked.float()), name
        original = plain.get_submodule(name).weight
        assert not torch.equal(stored[f"{name}.weight"], original), name
        compared += 1
    assert compared == {"llama": 12, "gpt2": 6}[base.name]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_what_is_not_quantised_is_rounded_to_the_dtype_of_the_run(
    base: Path, adapter: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    dtype = how["compute_dtype"]
    merge(qlora(base, **how), adapter, tmp_path / "out", weights="dequantised", trained_in=dtype)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    own = load_file(base / "model.safetensors")
    embedding = "model.embed_tokens.weight" if base.name == "llama" else "transformer.wte.weight"
    expected = own[embedding].to(getattr(torch, dtype)).float()
    assert torch.equal(stored[embedding], expected)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "norm"])
def test_a_merged_model_says_what_the_quantised_one_with_its_adapter_says(
    base: Path, tmp_path: Path, kind: str
) -> None:
    config: dict[str, Any] = {
        "lora": {},
        "rslora": {"use_rslora": True},
        "dora": {"use_dora": True},
        "norm": {"modules_to_save": ["norm", "ln_f"]},
    }[kind]
    adapter = save_adapter(tmp_path / "adapter", base, **config)
    factory = qlora(base, compute_dtype="float32")
    merge(factory, adapter, tmp_path / "out", weights="dequantised")
    merge(factory, adapter, tmp_path / "other", weights="original")
    trained = logits(factory.load_trained(adapter))
    torch.testing.assert_close(logits(load(tmp_path / "out")), trained, rtol=1e-3, atol=1e-3)
    nearer = (logits(load(tmp_path / "out")) - trained).norm()
    assert nearer < 1e-3 * (logits(load(tmp_path / "other")) - trained).norm()


def test_a_dtype_that_the_device_does_not_train_in_is_quantised_from_all_the_same(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    factory = qlora(base, compute_dtype="float32")
    merge(factory, adapter, tmp_path / "half", weights="dequantised", trained_in="float16")
    merge(factory, adapter, tmp_path / "whole", weights="dequantised")
    half, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "whole"))
    for name, weight in half.items():
        assert torch.equal(weight, weight.half().float()) or "q_proj" in name or "c_attn" in name
        assert (weight - whole[name]).norm() <= 0.02 * whole[name].norm(), name


def test_a_layer_that_the_files_do_not_hold_by_name_cannot_be_quantised(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(tmp_path / "adapter", base)
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.fused"] = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})

    def plan(weights: Any) -> MergePlan:
        return MergePlan(
            qlora(base), adapter, weights=weights, dtype="bfloat16", trained_in="float32"
        )

    assert plan("original").size
    with pytest.raises(ModelError) as caught:
        plan("dequantised")
    assert str(caught.value) == (
        f"base {base} has no tensor model.layers.0.mlp.up_proj.weight in its files, which "
        "transformers makes of others when it loads them; merge with --weights original"
    )
