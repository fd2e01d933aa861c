"""Loading what a run saved, to be asked: `load_trained` of the built-in factories."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from factories import CPU, IDS, arguments, frozen, full, logits, lora, qlora, same, train, trained
from peft import PeftModel

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.devices import Device
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.memory import size

pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.mark.parametrize("factory", [lora, qlora, full])
def test_what_a_run_saved_answers_as_what_was_trained(tmp_path: Path, factory: type) -> None:
    trainer = train(tmp_path / "run", factory(), max_steps=2)
    trainer.save_model(str(tmp_path / "saved"))

    model = factory().load_trained(tmp_path / "saved")

    assert not any(module.training for module in model.modules())
    assert isinstance(model, PeftModel) == (factory is not full)
    with torch.no_grad():
        said = model(input_ids=IDS).logits
    assert torch.equal(said, logits(trainer.model))


@pytest.mark.parametrize("factory", [lora, qlora, full])
def test_without_a_folder_the_base_is_as_before_training(tmp_path: Path, factory: type) -> None:
    before = factory().load_model(arguments(tmp_path, factory()))
    model = factory().load_trained(None)

    assert not isinstance(model, PeftModel)
    assert not model.training
    assert torch.equal(logits(model), logits(before))
    if factory is qlora:
        packed = [module for module in model.modules() if isinstance(module, Linear4bit)]
        assert packed
        assert not any(module.support_avx512bf16_for_cpu for module in packed)


def test_asking_leaves_a_packed_base_as_it_is(tmp_path: Path) -> None:
    model = qlora().load_model(arguments(tmp_path, qlora()))
    model.save_pretrained(str(tmp_path / "saved"))
    asked = qlora().load_trained(tmp_path / "saved")
    before = frozen(asked)
    logits(asked)
    assert same(frozen(asked), before)
    assert trained(asked) == {}


def test_the_folder_must_hold_what_the_factory_saves(tmp_path: Path) -> None:
    lora().load_model(arguments(tmp_path, lora())).save_pretrained(str(tmp_path / "adapter"))
    full().load_model(arguments(tmp_path, full())).save_pretrained(str(tmp_path / "model"))

    def problem(factory: BuiltinFactory, name: str) -> str:
        with pytest.raises(ModelError) as caught:
            factory.load_trained(tmp_path / name)
        return str(caught.value).replace(str(tmp_path), "")

    for factory in (lora(), qlora()):
        assert problem(factory, "gone") == (
            "/gone: no such folder; name the one that a run saved its adapter in, such as "
            "runs/NAME/adapter"
        )
        assert problem(factory, "model") == (
            "/model holds a whole model and no adapter; set model.factory to full, with which it "
            "was trained, or name it in model.base to ask it as it is"
        )
        assert problem(factory, ".") == (
            " holds no adapter_config.json; name the folder that a run saved its adapter in, such "
            "as runs/NAME/adapter"
        )
    assert problem(full(), "gone") == (
        "/gone: no such folder; name the one that a run saved its model in, such as runs/NAME/model"
    )
    assert problem(full(), "adapter") == (
        "/adapter holds an adapter, and factory full saves whole models; set model.factory to that "
        "of the adapter's run, lora or qlora"
    )
    assert problem(full(), ".") == (
        " holds no config.json; name the folder that a run saved its model in, such as "
        "runs/NAME/model"
    )
    (tmp_path / "model" / "model.safetensors").unlink()
    assert "/model' has no model.safetensors; " in problem(full(), "model")


def test_asking_needs_memory_for_the_weights_alone() -> None:
    factory = full()
    factory.device = CPU
    weights = sum(factory.held.values())
    assert size(weights) == "7.5 MiB"
    assert factory.memory.total == 4 * weights
    for kind in (lora, qlora):
        other = kind(dora=True)
        other.device = CPU
        assert sum(other.held.values()) < other.memory.total
    factory.device = Device("cpu", None, "CPU", 2**34, 2 * weights, bfloat16=False)
    assert not factory.load_trained(None).training
    with pytest.raises(HardwareError, match="gradients and AdamW's averages"):
        factory.check()
    factory.device = Device("cpu", None, "CPU", 2**34, weights - 1, bfloat16=False)
    with pytest.raises(HardwareError) as caught:
        factory.load_trained(None)
    assert str(caught.value).startswith(
        "base 'tiny' needs at least 7.5 MiB (7.5 MiB for the weights in float32), and cpu has "
    )
