"""A merged model is compared with what it was made of: what is measured, and what is found out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import CPU
from merging import Pair, load, lora, merge, qlora, save_adapter, save_base
from peft import PeftModel
from safetensors.torch import load_file, save_file

from finqa_sft.errors import HardwareError
from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.devices import Device
from finqa_sft.models.merging.plan import MergePlan
from finqa_sft.models.merging.verification import (
    LAST_TOKENS,
    TOLERANCES,
    Measured,
    Said,
    Verifier,
    nearness,
    said,
)

PROMPTS = [list(range(40, 140)), list(range(300, 330))]


pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    base = save_base(folder / "llama", "llama")
    return Pair(base, save_adapter(folder / "adapter", base))


def verified(factory: AdapterFactory, adapter: Path, out: Path, **how: Any) -> Measured:
    chosen: Any = {"weights": "original", "dtype": "float32", "trained_in": "float32", **how}
    verifier = Verifier(MergePlan(factory, adapter, **chosen))
    verifier.check()
    return verifier.measure(out, PROMPTS, say=lambda text: None)


def complaint(measured: Measured) -> str:
    return measured.merged.complaint(measured.tolerance)


# What is measured


def test_the_measures_of_two_models_are_as_defined() -> None:
    wanted = torch.tensor([[2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    mine = torch.tensor([[2.0, 0.0, -2.0], [0.0, 1.0, -1.0]])
    base = torch.tensor([[2.0, 0.0, -2.0], [-1.0, 0.0, 1.0]])
    found = nearness(Said([mine], []), Said([wanted], [base]))
    likely = wanted[1].softmax(0)
    divergence = float((likely * (likely.log() - mine[1].log_softmax(0))).sum()) / 2
    assert found.tokens == 2
    assert found.agreement == 0.5
    assert found.largest == 1.0
    assert found.deviation == pytest.approx(math.sqrt(2 / 10))
    assert found.divergence == pytest.approx(divergence)
    assert found.effect == pytest.approx(math.sqrt(8 / 10))
    # The adapter moves the second token by (2, 0, -2), the merged model by (1, 1, -2).
    assert found.kept == pytest.approx(6 / 8)


def test_a_constant_on_all_logits_of_a_token_is_no_difference(pair: Pair) -> None:
    model = load(pair.base)
    before = said(model, PROMPTS)
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    head.register_forward_hook(lambda module, given, logits: logits + 3.0)
    found = nearness(said(model, PROMPTS), before)
    assert found.deviation < 1e-5
    assert (found.effect, found.kept) == (None, None)


def test_the_last_tokens_of_each_prompt_are_looked_at(pair: Pair) -> None:
    beside = PeftModel.from_pretrained(load(pair.base), str(pair.adapter)).eval()
    found = said(beside, PROMPTS)
    assert [len(logits) for logits in found.logits] == [LAST_TOKENS, 30]
    whole = load(pair.base)(torch.tensor(PROMPTS[:1])).logits[0, -LAST_TOKENS:]
    torch.testing.assert_close(found.without[0], whole - whole.mean(-1, keepdim=True))


# What a right merge comes to


def test_a_right_merge_in_float32_is_exact(pair: Pair, tmp_path: Path) -> None:
    merge(lora(pair.base), pair.adapter, tmp_path / "out")
    found = verified(lora(pair.base), pair.adapter, tmp_path / "out")
    assert complaint(found) == ""
    assert found.tolerance == TOLERANCES["float32"]
    assert found.merged.deviation < 1e-5
    assert found.merged.kept == pytest.approx(1, abs=1e-5)
    assert (found.merged.agreement, found.trained) == (1.0, None)
    assert (found.prompts, found.merged.tokens, found.computed_in) == (2, 94, "float32")


def test_a_right_merge_in_bfloat16_is_as_near_as_its_rounding(pair: Pair, tmp_path: Path) -> None:
    merge(lora(pair.base), pair.adapter, tmp_path / "out", dtype="bfloat16")
    found = verified(lora(pair.base), pair.adapter, tmp_path / "out", dtype="bfloat16")
    assert complaint(found) == ""
    assert found.tolerance == TOLERANCES["16-bit weights"]
    assert 1e-4 < found.merged.deviation < 0.02
    assert found.merged.kept == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("bits", "within"), [(4, "float32"), (8, "int8")])
def test_over_dequantised_weights_the_trained_model_is_the_measure(
    pair: Pair, tmp_path: Path, bits: int, within: Any
) -> None:
    factory = qlora(pair.base, bits=bits)
    merge(factory, pair.adapter, tmp_path / "out", weights="dequantised")
    found = verified(factory, pair.adapter, tmp_path / "out", weights="dequantised")
    assert complaint(found) == ""
    assert found.tolerance == TOLERANCES[within]
    assert found.merged.deviation < (1e-5 if bits == 4 else 0.1)
    assert found.trained is None


def test_over_original_weights_the_trained_model_is_measured_too(
    pair: Pair, tmp_path: Path
) -> None:
    factory = qlora(pair.base)
    merge(factory, pair.adapter, tmp_path / "out")
    found = verified(factory, pair.adapter, tmp_path / "out")
    assert complaint(found) == ""
    assert found.merged.deviation < 1e-5
    assert found.trained is not None
    assert found.trained.deviation > 100 * found.merged.deviation


def test_products_are_computed_in_the_dtype_of_the_run(pair: Pair, tmp_path: Path) -> None:
    factory = qlora(pair.base)
    how = {"weights": "dequantised", "trained_in": "bfloat16", "dtype": "bfloat16"}
    merge(factory, pair.adapter, tmp_path / "out", **how)
    found = verified(factory, pair.adapter, tmp_path / "out", **how)
    assert complaint(found) == ""
    assert (found.computed_in, found.tolerance) == ("bfloat16", TOLERANCES["16-bit products"])


def test_a_base_quantised_from_a_dtype_that_is_not_computed_in_here_cannot_be_the_measure(
    pair: Pair, tmp_path: Path
) -> None:
    factory = qlora(pair.base)
    how = {"weights": "dequantised", "trained_in": "float16", "dtype": "bfloat16"}
    with pytest.raises(HardwareError) as caught:
        verified(factory, pair.adapter, tmp_path / "out", **how)
    assert str(caught.value) == (
        "the run quantised its base from float16, which cpu does not compute in, so what was "
        "trained cannot be loaded here; merge on a device that does, or leave the verification out "
        "with --no-verify"
    )
    how["weights"] = "original"
    merge(factory, pair.adapter, tmp_path / "out", **how)
    found = verified(factory, pair.adapter, tmp_path / "out", **how)
    assert complaint(found) == ""
    assert (found.computed_in, found.trained) == ("float32", None)


# What is found out


def test_a_model_without_the_adapter_is_found_out(pair: Pair) -> None:
    found = verified(lora(pair.base), pair.adapter, pair.base)
    assert found.merged.kept == pytest.approx(0, abs=1e-5)
    deviation = f"{found.merged.deviation:.2%}"
    assert complaint(found) == (
        f"its logits deviate by {deviation}, and rounding explains 0.10%; it has 0.0% of what the "
        "adapter changes, and rounding explains 99% to 101%"
    ).replace(" 0.0%", f" {found.merged.kept:.1%}")


def test_an_adapter_of_half_the_strength_is_found_out(pair: Pair, tmp_path: Path) -> None:
    merge(lora(pair.base), pair.adapter, tmp_path / "out", dtype="bfloat16")
    file = tmp_path / "out" / "model.safetensors"
    base = load_file(pair.base / "model.safetensors")
    half = {n: ((w.float() + base[n]) / 2).to(w.dtype) for n, w in load_file(file).items()}
    save_file(half, file, metadata={"format": "pt"})
    found = verified(lora(pair.base), pair.adapter, tmp_path / "out", dtype="bfloat16")
    assert "of what the adapter changes, and rounding explains 90% to 110%" in complaint(found)


def test_an_adapter_that_bfloat16_rounds_away_is_found_out(tmp_path: Path) -> None:
    """In a base of 16 bits, small changes are gone: a weight is rounded back to what it was."""
    base = save_base(tmp_path / "base", "llama")
    load(base).to(torch.bfloat16).save_pretrained(base)
    adapter = save_adapter(tmp_path / "adapter", base)
    file = adapter / "adapter_model.safetensors"
    faint = {n: w * (3e-3 if "lora_B" in n else 1) for n, w in load_file(file).items()}
    save_file(faint, file, metadata={"format": "pt"})
    for dtype in ("bfloat16", "float32"):
        merge(lora(base), adapter, tmp_path / dtype, dtype=dtype)
        found = verified(lora(base), adapter, tmp_path / dtype, dtype=dtype)
        assert found.merged.deviation < TOLERANCES["16-bit weights"].deviation
        assert (complaint(found) == "") == (dtype == "float32"), found
    assert complaint(verified(lora(base), adapter, base, dtype="bfloat16")).startswith(
        "it has 0.0% of what the adapter changes"
    )


def test_an_adapter_that_changes_nothing_has_no_effect_to_keep(pair: Pair, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", pair.base)
    file = adapter / "adapter_model.safetensors"
    nothing = {n: w * (0 if "lora_B" in n else 1) for n, w in load_file(file).items()}
    save_file(nothing, file, metadata={"format": "pt"})
    found = verified(lora(pair.base), adapter, pair.base)
    assert (found.merged.kept, complaint(found)) == (None, "")


def test_a_model_that_says_nothing_is_found_out(pair: Pair, tmp_path: Path) -> None:
    merge(lora(pair.base), pair.adapter, tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    found = verified(lora(pair.base), pair.adapter, tmp_path / "out")
    assert complaint(found).startswith("its logits deviate by nan%, and rounding explains 0.10%")


# Memory


def test_too_little_memory_is_refused_before_anything_is_loaded(pair: Pair) -> None:
    factory = qlora(pair.base)
    factory.device = Device("cpu", None, "CPU", 2**34, 2**20, bfloat16=False)
    plan = MergePlan(
        factory, pair.adapter, weights="dequantised", dtype="bfloat16", trained_in="float32"
    )
    verifier = Verifier(plan)
    with pytest.raises(HardwareError) as caught:
        verifier.check()
    assert str(caught.value) == (
        "verifying loads the base with its adapter and then the merged model, which takes 1.3 MiB, "
        "and cpu has 1.0 MiB free; merge on a larger machine, or leave the verification out with "
        "--no-verify"
    )
    factory.device = CPU
    assert factory.device.free_memory > 2**20


def test_one_model_is_in_memory_at_a_time(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc

    from transformers import PreTrainedModel

    factory = qlora(pair.base)
    plan = merge(factory, pair.adapter, tmp_path / "out")
    counted: list[int] = []

    def alive() -> int:
        return sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects())

    gc.collect()
    before = alive()
    verifier = Verifier(plan)
    texts: list[str] = []

    def say(text: str) -> None:
        texts.append(text)
        counted.append(alive() - before)

    verifier.measure(tmp_path / "out", PROMPTS, say=say)
    assert texts == [
        "verifying: loading the base with its adapter",
        "verifying: loading the quantised base with its adapter",
        "verifying: loading the merged model",
    ]
    assert counted == [0, 0, 0]
