"""The factories `lora` and `full`, and bases in 8 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear8bitLt
from factories import (
    CPU,
    TEXT,
    arguments,
    frozen,
    full,
    logits,
    lora,
    qlora,
    refusal,
    same,
    train,
    trained,
)
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    LlamaConfig,
    LlamaModel,
)
from transformers.integrations import deepspeed

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.devices import Device
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.full import FullFactory
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.memory import size, skeleton
from finqa_sft.models.options import (
    FullOptions,
    LoRAFactoryOptions,
    QLoRAOptions,
)
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.models.tiny import tiny_base

pytestmark = pytest.mark.usefixtures("cpu_only")


# Factory lora


def test_lora_holds_the_base_as_it_is_and_trains_the_adapter_alone(tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_base()).state_dict()
    before = lora().load_model(arguments(tmp_path, lora()))

    model = train(tmp_path, lora()).model

    held = {n.replace("base_model.model.", "").replace("base_layer.", ""): p
            for n, p in frozen(model).items()}  # fmt: skip
    assert all(torch.equal(weight, plain[name]) for name, weight in held.items())
    assert all("lora_" in name for name in trained(model))
    assert not any(torch.equal(w, trained(before)[n]) for n, w in trained(model).items())


def test_lora_is_what_stock_peft_makes_of_its_arguments(tmp_path: Path) -> None:
    factory = lora(r=4, alpha=8)
    stock = AutoModelForCausalLM.from_pretrained(tiny_base(), dtype=torch.float32)
    args = arguments(tmp_path, factory)
    torch.manual_seed(args.seed)
    expected = get_peft_model(stock, LoraConfig(**factory.lora_arguments()))

    model = factory.load_model(args)

    assert same(trained(model), trained(expected))
    assert torch.equal(logits(model), logits(expected))


def test_adapters_on_a_bfloat16_base_stay_float32(tmp_path: Path) -> None:
    factory = LoRAFactory(LoRAFactoryOptions(compute_dtype="bfloat16"))

    trainer = train(tmp_path, factory, max_steps=1)

    assert {weight.dtype for weight in trained(trainer.model).values()} == {torch.float32}
    assert {weight.dtype for weight in frozen(trainer.model).values()} == {torch.bfloat16}


def test_lora_says_what_it_is() -> None:
    factory = lora(init="gaussian")
    factory.device = CPU

    facts = factory.describe()

    assert json.loads(json.dumps(facts)) == facts
    assert facts["quantisation"] == "none"
    assert facts["adapter"] == "LoRA, r=16, alpha=32, dropout=0.0, init=gaussian"
    assert facts["trained_parameters"] == 217088
    assert factory.memory.parts == {
        "the base in float32": 1967808 * 4,
        "the adapters and their optimizer": 217088 * 16,
    }


# Factory full


def test_full_trains_every_weight(tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_base())

    model = train(tmp_path, full(), max_steps=1).model

    assert not isinstance(model, PeftModel)
    assert trained(model).keys() == dict(plain.named_parameters()).keys()
    assert not any(torch.equal(w, trained(plain)[name]) for name, w in trained(model).items())
    assert full().memory.trained_parameters == sum(w.numel() for w in trained(model).values())


def test_full_in_a_stock_trainer_is_the_stock_trainer(tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_base(), dtype=torch.float32)

    expected = train(tmp_path, full(), model=plain).model
    model = train(tmp_path, full()).model

    assert same(trained(model), trained(expected))


def test_a_fully_trained_model_loads_by_itself(tmp_path: Path) -> None:
    trainer = train(tmp_path, full(), max_steps=1)
    trainer.save_model(str(tmp_path / "model"))

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")

    assert torch.equal(logits(loaded), logits(trainer.model))


def test_full_can_hold_its_weights_in_bfloat16(tmp_path: Path) -> None:
    factory = full(weights_dtype="bfloat16", compute_dtype="bfloat16")

    trainer = train(tmp_path, factory, max_steps=1)

    assert {weight.dtype for weight in trained(trainer.model).values()} == {torch.bfloat16}
    assert sum(factory.memory.parts.values()) == 1967808 * 8


def test_bfloat16_weights_are_computed_in_bfloat16() -> None:
    factory = full(weights_dtype="bfloat16")
    factory.device = CPU
    assert factory.sft_args() == {"bf16": True, "use_cpu": True}
    assert factory.describe()["compute_dtype"] == "bfloat16"
    assert factory.describe()["compute_dtype_why"] == "the weights are held in it"
    with pytest.raises(ValidationError) as caught:
        full(weights_dtype="bfloat16", compute_dtype="float16")
    assert (
        "weights_dtype bfloat16 is computed in bfloat16, not in float16; leave compute_dtype out, "
        "or set weights_dtype to float32" in str(caught.value)
    )
    factory = full(weights_dtype="bfloat16")
    factory.device = Device("cuda", 0, "Tesla T4", 2**34, 2**34, bfloat16=False)
    with pytest.raises(HardwareError) as refused:
        factory.check()
    assert str(refused.value) == (
        "cuda:0 (Tesla T4) has no bfloat16 units; set model.weights_dtype to float32, or use a GPU "
        "of compute capability 8.0 or later"
    )


@pytest.mark.parametrize("kind", [FullFactory, LoRAFactory, QLoRAFactory])
def test_float16_without_a_gpu_is_refused_before_anything_is_read(kind: Any) -> None:
    options = {
        FullFactory: FullOptions,
        LoRAFactory: LoRAFactoryOptions,
        QLoRAFactory: QLoRAOptions,
    }
    assert refusal(kind(options[kind](compute_dtype="float16"))) == (
        "float16 training needs a GPU and this process has none; leave model.compute_dtype at "
        "auto, which is float32 on the CPU"
    )


def test_what_only_sees_images_is_frozen_under_full(tmp_path: Path) -> None:
    config = Gemma3Config(
        text_config={**TEXT, "layer_types": ["full_attention"], "head_dim": 16},
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
                       "num_attention_heads": 4, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    factory = FullFactory(FullOptions(base=str(tmp_path)))
    model = factory.load_model(arguments(tmp_path, factory))

    assert factory.skeleton.idle > 0
    assert factory.memory.trained_parameters == sum(w.numel() for w in trained(model).values())
    assert factory.skeleton.idle == sum(w.numel() for w in frozen(model).values())
    assert any("vision" in name for name in frozen(model))
    assert not any("vision" in name or "projector" in name for name in trained(model))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_base_without_its_head_is_refused(tmp_path: Path, kind: str) -> None:
    """Embedding models are saved so; a random head would be another one each time."""
    config = LlamaConfig.from_pretrained(tiny_base(), tie_word_embeddings=False)
    LlamaModel(config).save_pretrained(tmp_path)
    factory: BuiltinFactory = (
        LoRAFactory(LoRAFactoryOptions(base=str(tmp_path)))
        if kind == "lora"
        else FullFactory(FullOptions(base=str(tmp_path)))
    )
    with pytest.raises(ModelError) as caught:
        factory.load_model(arguments(tmp_path, factory))
    assert str(caught.value) == (
        f"base '{tmp_path}' lacks lm_head.weight, for which random ones would stand in; name a "
        "base that was saved with its output head"
    )


def test_full_needs_memory_for_all_that_training_keeps() -> None:
    factory = FullFactory(FullOptions(base="org/1b"))
    factory.skeleton = skeleton(LlamaConfig(vocab_size=32000, num_hidden_layers=4))

    assert {part: size(count) for part, count in factory.memory.parts.items()} == {
        "the weights in float32": "4.0 GiB",
        "gradients and AdamW's averages": "12.0 GiB",
    }
    assert refusal(factory) == (
        "base 'org/1b' needs at least 16.0 GiB (4.0 GiB for the weights in float32, 12.0 GiB for "
        "gradients and AdamW's averages), and cpu has 8.0 GiB free of 16.0 GiB; end what else runs "
        "there, take a smaller base, or train an adapter with model.factory=lora or qlora; several "
        "GPUs share the need under DeepSpeed ZeRO-3"
    )


def test_memory_that_processes_share_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the trainer's arguments are known, a launched process may hold a part only."""
    small = Device("cpu", None, "CPU", 2**34, 2**20, bfloat16=False)
    args = arguments(tmp_path, lora())
    monkeypatch.setenv("LOCAL_RANK", "0")
    for factory in (lora(), full()):
        factory.device = small
        factory.check()
        with pytest.raises(HardwareError, match="needs at least"):
            factory.load_model(args)
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        factory.load_model(args)
        monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert "needs at least" in refusal(qlora(), free=2**20)


# 8 bits


@pytest.mark.parametrize("evaluated", [False, True], ids=["alone", "with evaluations"])
def test_an_8_bit_base_stays_as_it_is(tmp_path: Path, evaluated: bool) -> None:
    before = qlora(bits=8).load_model(arguments(tmp_path, qlora()))
    options = {"eval_strategy": "steps", "eval_steps": 1} if evaluated else {}

    model = train(tmp_path, qlora(bits=8), **options).model

    layers = [module for module in model.modules() if isinstance(module, Linear8bitLt)]
    assert len(layers) == 28
    assert {layer.weight.dtype for layer in layers} == {torch.int8}
    assert same(frozen(model), frozen(before))
    assert not any(torch.equal(w, trained(before)[n]) for n, w in trained(model).items())


def test_the_estimate_counts_what_8_bits_take(tmp_path: Path) -> None:
    factory = qlora(bits=8)
    model = factory.load_model(arguments(tmp_path, factory))
    layers = [module.weight for module in model.modules() if isinstance(module, Linear8bitLt)]

    assert factory.memory.parts["the base in 8 bits"] == sum(
        weight.nbytes + weight.SCB.nbytes for weight in layers
    )
    assert factory.describe()["quantisation"] == "int8"


def test_an_8_bit_base_cannot_be_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed, "is_deepspeed_zero3_enabled", lambda: True)

    with pytest.raises(ModelError) as caught:
        qlora(bits=8).load_model(arguments(tmp_path, qlora()))

    assert str(caught.value) == (
        "model.bits 8 does not work under FSDP and DeepSpeed ZeRO-3, which shard weights of "
        "floating-point types only; set model.bits to 4, or use ZeRO-2"
    )


@pytest.mark.parametrize(
    ("name", "value"), [("double_quant", False), ("storage_dtype", "bfloat16")]
)
def test_options_of_4_bits_are_refused_with_8(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"{name} is for bits: 4; leave it out"):
        QLoRAOptions.model_validate({"bits": 8, name: value})


def test_dora_on_8_bits_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        qlora(bits=8, dora=True)
    assert "lora.dora does not work on an 8-bit base; set bits to 4, or take factory lora" in str(
        caught.value
    )
