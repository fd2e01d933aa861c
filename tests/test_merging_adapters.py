"""An adapter in its base: the weights that PEFT's own merge gives, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from merging import (
    FAMILIES,
    Pair,
    load,
    logits,
    lora,
    merge,
    merged_by_peft,
    save_adapter,
    save_base,
)
from peft import PeftModel
from safetensors.torch import load_file, save_file

from finqa_sft.errors import ModelError
from finqa_sft.models.merging.plan import MergePlan

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora with rslora": {"use_dora": True, "use_rslora": True},
    "ranks of their own": {
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "h.1.attn.c_attn": 2},
        "alpha_pattern": {"v_proj": 11, "c_fc": 11},
    },
    "a norm trained whole": {"modules_to_save": ["norm", "ln_f"]},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {kind: save_base(folder / kind, kind) for kind in FAMILIES}


@pytest.fixture
def pair(bases: dict[str, Path], tmp_path: Path) -> Pair:
    """A base and an adapter of it, which a test may damage."""
    return Pair(bases["llama"], save_adapter(tmp_path / "adapter", bases["llama"]))


def same_as_peft(base: Path, adapter: Path, out: Path) -> None:
    """The merged folder has PEFT's weights, up to float32's rounding, and says the same."""
    mine, expected = load(out), merged_by_peft(base, adapter)
    found = mine.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6, msg=name)
    beside = PeftModel.from_pretrained(load(base), str(adapter)).eval()
    torch.testing.assert_close(logits(mine), logits(beside), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(mine), logits(load(base)), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_has_the_weights_that_peft_gives(
    bases: dict[str, Path], tmp_path: Path, family: str, kind: str
) -> None:
    base = bases[family]
    adapter = save_adapter(tmp_path / "adapter", base, **KINDS[kind])
    merge(lora(base), adapter, tmp_path / "out")
    same_as_peft(base, adapter, tmp_path / "out")


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_an_embedding_trained_whole_takes_the_place_of_the_bases(
    bases: dict[str, Path], tmp_path: Path, family: str
) -> None:
    base = bases[family]
    tied = family == "qwen2"
    adapter = save_adapter(
        tmp_path / "adapter",
        base,
        modules_to_save=["embed_tokens"] if tied else ["embed_tokens", "lm_head"],
        ensure_weight_tying=tied,
    )
    merge(lora(base), adapter, tmp_path / "out")
    same_as_peft(base, adapter, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert ("lm_head.weight" in stored) is not tied
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is tied


@pytest.mark.parametrize("init", ["orthogonal", "mica", "gaussian"])
def test_whatever_an_adapter_began_with_it_is_merged_alike(
    bases: dict[str, Path], tmp_path: Path, init: str
) -> None:
    base = bases["llama"]
    adapter = save_adapter(tmp_path / "adapter", base, init_lora_weights=init)
    merge(lora(base), adapter, tmp_path / "out")
    same_as_peft(base, adapter, tmp_path / "out")


def test_weights_are_computed_in_float32_and_rounded_once(pair: Pair, tmp_path: Path) -> None:
    merge(lora(pair.base), pair.adapter, tmp_path / "exact")
    merge(lora(pair.base), pair.adapter, tmp_path / "rounded", dtype="bfloat16")
    exact = load_file(tmp_path / "exact" / "model.safetensors")
    rounded = load_file(tmp_path / "rounded" / "model.safetensors")
    assert exact.keys() == rounded.keys()
    for name, weight in exact.items():
        assert torch.equal(rounded[name], weight.to(torch.bfloat16)), name


def test_a_base_of_16_bits_is_not_rounded_before_the_adapter_is_added(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    load(base).to(torch.bfloat16).save_pretrained(base)
    adapter = save_adapter(tmp_path / "adapter", base)
    merge(lora(base), adapter, tmp_path / "out", dtype="float32")
    same_as_peft(base, adapter, tmp_path / "out")


def test_the_base_and_the_adapter_stay_as_they_are(pair: Pair, tmp_path: Path) -> None:
    def content() -> dict[Path, bytes]:
        folders = (pair.base, pair.adapter)
        return {file: file.read_bytes() for folder in folders for file in folder.iterdir()}

    before = content()
    merge(lora(pair.base), pair.adapter, tmp_path / "out")
    assert content() == before


# What is refused


def refusal(pair: Pair) -> str:
    with pytest.raises(ModelError) as caught:
        MergePlan(
            lora(pair.base),
            pair.adapter,
            weights="original",
            dtype="float32",
            trained_in="float32",
        )
    text = str(caught.value)
    return text.replace(str(pair.adapter), "ADAPTER").replace(str(pair.base), "BASE")


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lora_bias", True),
        ("bias", "all"),
        ("layer_replication", [[0, 1]]),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("a_field_of_the_future", 3),
    ],
)
def test_what_merging_does_not_know_is_refused(pair: Pair, field: str, value: object) -> None:
    edit(pair.adapter, **{field: value})
    assert refusal(pair) == (
        f"adapter ADAPTER sets {field} to {value!r}, which merging does not know; merge it with "
        "peft's merge_and_unload(), which holds the whole model in memory, or train without it"
    )


def test_an_adapter_whose_beginning_changed_the_base_is_refused(pair: Pair) -> None:
    edit(pair.adapter, init_lora_weights="pissa")
    assert "sets init_lora_weights to 'pissa', which merging does not know" in refusal(pair)


def test_an_adapter_of_an_embedding_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["llama"]
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=["embed_tokens"])
    assert refusal(Pair(base, adapter)).startswith(
        "adapter ADAPTER holds base_model.model.model.embed_tokens.lora_embedding_A, which merging "
        "does not know; merge it with peft's merge_and_unload()"
    )


def test_an_adapter_of_a_tied_head_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["qwen2"]
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=["lm_head"])
    file = adapter / "adapter_model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if "lora_" in name}
    save_file(kept, file)
    assert refusal(Pair(base, adapter)) == (
        "adapter ADAPTER adapts lm_head, whose weights base BASE shares with another module; merge "
        "it with peft's merge_and_unload(), which holds the whole model in memory"
    )


def test_an_embedding_that_was_trained_apart_from_its_head_is_refused(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    base = bases["qwen2"]
    adapter = save_adapter(tmp_path / "adapter", base, modules_to_save=["embed_tokens"])
    assert refusal(Pair(base, adapter)) == (
        "adapter ADAPTER trained model.embed_tokens.weight apart from lm_head.weight, which shares "
        "its weights in base BASE; merge it with peft's merge_and_unload(), which holds the whole "
        "model in memory"
    )


def test_an_adapter_of_a_larger_base_is_refused_with_both_shapes(
    pair: Pair, tmp_path: Path
) -> None:
    other = save_base(tmp_path / pair.base.name, "llama", hidden_size=32)
    edit(pair.adapter, base_model_name_or_path=str(other))
    assert refusal(Pair(other, pair.adapter)) == (
        "adapter ADAPTER is made for weights of shape [64, 128] in model.layers.0.mlp.down_proj, "
        "and in base BASE they have [32, 128]; merge it into the base that it was trained on"
    )


def test_an_adapter_with_more_layers_than_the_base_is_refused(pair: Pair, tmp_path: Path) -> None:
    other = save_base(tmp_path / pair.base.name, "llama", num_hidden_layers=1)
    edit(pair.adapter, base_model_name_or_path=str(other))
    assert refusal(Pair(other, pair.adapter)) == (
        "adapter ADAPTER has model.layers.1.mlp.down_proj.weight, and base BASE does not; merge it "
        "into the base that it was trained on"
    )


def test_an_adapter_of_another_name_is_refused(pair: Pair) -> None:
    edit(pair.adapter, base_model_name_or_path="org/other")
    assert refusal(pair).startswith(
        "adapter ADAPTER was trained on org/other, and the base here is"
    )


def test_factors_that_do_not_have_the_rank_of_the_config_are_refused(pair: Pair) -> None:
    edit(pair.adapter, r=8)
    assert refusal(pair) == (
        "adapter ADAPTER has factors of shapes [4, 128] and [64, 4] and magnitudes of shape [] for "
        "model.layers.0.mlp.down_proj, where its config says rank 8 without DoRA; copy it again"
    )
    edit(pair.adapter, r=4, use_dora=True)
    assert refusal(pair).endswith("where its config says rank 4 with DoRA; copy it again")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"r": None}, "r or rank_pattern in its adapter_config.json cannot be read ("),
        ({"lora_alpha": "six"}, "lora_alpha or alpha_pattern in its adapter_config.json cannot be"),
        ({"lora_alpha": 0}, "(0 is no number above 0); copy it again"),
        ({"rank_pattern": [4]}, "r or rank_pattern in its adapter_config.json cannot be read ("),
        ({"alpha_pattern": {"(": 1}}, "lora_alpha or alpha_pattern in its adapter_config.json"),
    ],
    ids=str,
)
def test_a_config_that_is_damaged_is_refused(pair: Pair, changes: dict[str, Any], why: str) -> None:
    edit(pair.adapter, **changes)
    text = refusal(pair)
    assert text.startswith("adapter ADAPTER: ")
    assert why in text
    assert text.endswith("); copy it again")


def test_a_factor_that_is_gone_is_refused(pair: Pair) -> None:
    def drop(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]

    rewrite(pair.adapter, drop)
    assert refusal(pair).startswith(
        "adapter ADAPTER has factors of shapes [4, 64] and [] and magnitudes of shape [] for "
        "model.layers.0.self_attn.q_proj, where its config says rank 4"
    )


def test_a_damaged_adapter_is_refused(pair: Pair) -> None:
    file = pair.adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    text = refusal(pair)
    assert text.startswith("ADAPTER/adapter_model.safetensors cannot be read: ")
    assert text.endswith("; copy or download it again")
    file.unlink()
    assert refusal(pair).startswith("ADAPTER has no adapter_model.safetensors; ")
    shutil.rmtree(pair.adapter)
    assert refusal(pair).startswith("ADAPTER: no such folder; ")


def test_an_adapter_of_whole_numbers_is_refused(pair: Pair) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: value.to(torch.int32) for name, value in tensors.items()})

    rewrite(pair.adapter, change)
    text = refusal(pair)
    assert text.startswith("adapter ADAPTER stores base_model.model.model.layers.0.")
    assert text.endswith(" as I32; save it again with save_pretrained, in float32")


def test_an_adapter_that_is_not_finite_is_refused_and_leaves_nothing(
    pair: Pair, tmp_path: Path
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
        tensors[name][0, 0] = float("nan")

    rewrite(pair.adapter, change)
    with pytest.raises(ModelError) as caught:
        merge(lora(pair.base), pair.adapter, tmp_path / "out")
    assert str(caught.value).replace(str(pair.adapter), "ADAPTER") == (
        "adapter ADAPTER makes weights of model.layers.1.self_attn.v_proj that are not finite; its "
        "training went wrong, or the file is damaged: merge an earlier checkpoint with --adapter"
    )
    assert not list(tmp_path.glob("out*"))
