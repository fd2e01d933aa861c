"""Merged models on disk: shards, names, room, and that there is never half of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from merging import (
    Pair,
    load,
    logits,
    lora,
    merge,
    merged_by_peft,
    qlora,
    readdressed,
    save_adapter,
    save_base,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import SHAPE, small_model
from test_models_bases import write_gguf
from transformers import AutoModelForCausalLM

from finqa_sft.errors import FinqaSftError, ModelError, OutputError
from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.memory import size
from finqa_sft.models.merging.names import keys_of_parameters
from finqa_sft.models.merging.plan import MergePlan
from finqa_sft.models.merging.writing import new_folder, require_new

SHARD = 60_000
"""Bytes; the embedding of the small bases alone has 524,288 in float32."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    base = save_base(folder / "llama", "llama")
    return Pair(base, save_adapter(folder / "adapter", base))


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder."""
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found.update(load_file(file))
    return found


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


# Shards


def test_shards_hold_the_same_as_one_file(pair: Pair, tmp_path: Path) -> None:
    merge(lora(pair.base), pair.adapter, tmp_path / "one")
    plan = merge(lora(pair.base), pair.adapter, tmp_path / "many", shard=SHARD)
    assert [file.name for file in (tmp_path / "one").glob("*.safetensors*")] == [
        "model.safetensors"
    ]
    assert equal(stored(tmp_path / "one"), stored(tmp_path / "many"))

    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    files = sorted(file.name for file in (tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 5
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert sorted(set(index["weight_map"].values())) == files
    assert index["metadata"]["total_size"] == plan.size
    for file in files:
        with safe_open(tmp_path / "many" / file, "pt") as opened:
            sizes = [opened.get_tensor(name).nbytes for name in opened.keys()]  # noqa: SIM118
            assert opened.metadata() == {"format": "pt"}
        assert sum(sizes) <= SHARD or len(sizes) == 1
        mode = (tmp_path / "many" / file).stat().st_mode
        assert mode & 0o777 == (tmp_path / "many").stat().st_mode & 0o666
    assert torch.equal(logits(load(tmp_path / "one")), logits(load(tmp_path / "many")))


def test_a_base_in_shards_is_read_from_all_of_them(copied: Pair, tmp_path: Path) -> None:
    merge(lora(copied.base), copied.adapter, tmp_path / "one")
    split(copied.base)
    assert len(list(copied.base.glob("*.safetensors"))) > 5
    merge(lora(copied.base), copied.adapter, tmp_path / "other")
    assert equal(stored(tmp_path / "one"), stored(tmp_path / "other"))


def split(base: Path) -> None:
    """Save a base anew, in shards."""
    model = load(base)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="100KB")


def test_a_shard_that_is_gone_or_damaged_is_named(copied: Pair) -> None:
    base, adapter = copied
    split(base)
    factory = lora(base)
    # The factory has looked already.
    assert factory.base.config
    third = sorted(base.glob("*.safetensors"))[2]
    count = len(list(base.glob("*.safetensors")))
    third.write_bytes(third.read_bytes()[:-10])
    text = refusal(factory, adapter)
    assert text.startswith(f"{third} cannot be read: ")
    assert text.endswith("; copy or download it again")
    third.unlink()
    assert refusal(factory, adapter) == (
        f"{base} lacks 1 of its {count} weight files, {third.name} first; copy or download it again"
    )
    (base / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    assert refusal(factory, adapter) == (
        f"{base}/model.safetensors.index.json names no files in weight_map; copy or download it "
        "again"
    )
    (base / "model.safetensors.index.json").unlink()
    assert refusal(factory, adapter) == (
        f"{base} has no model.safetensors; weights in other formats are not read, as pickled files "
        "can run code: save it again with save_pretrained"
    )


@pytest.fixture
def copied(pair: Pair, tmp_path: Path) -> Pair:
    """Copies of both, which a test may change."""
    base = tmp_path / "llama"
    shutil.copytree(pair.base, base)
    return Pair(base, readdressed(pair.adapter, tmp_path / "adapter", base=base))


def refusal(factory: AdapterFactory, adapter: Path, **how: Any) -> str:
    chosen: Any = {"weights": "original", "dtype": "bfloat16", "trained_in": "float32", **how}
    with pytest.raises(ModelError) as caught:
        MergePlan(factory, adapter, **chosen)
    return str(caught.value)


# Names and dtypes


def test_a_base_that_was_saved_without_the_prefix_of_its_inner_model_keeps_its_names(
    tmp_path: Path,
) -> None:
    base = save_base(tmp_path / "base", "gpt2")
    adapter = save_adapter(tmp_path / "adapter", base)
    expected = merged_by_peft(base, adapter)
    file = base / "model.safetensors"
    tensors = load_file(file)
    save_file(
        {name.removeprefix("transformer."): value for name, value in tensors.items()},
        file,
        metadata={"format": "pt"},
    )
    merge(lora(base), adapter, tmp_path / "out")
    assert stored(tmp_path / "out").keys() == load_file(file).keys()
    found = load(tmp_path / "out").state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)


def test_experts_keep_the_names_that_the_base_has_for_them(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "mixtral", num_local_experts=2)
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=["q_proj", "v_proj"])
    merge(qlora(base), adapter, tmp_path / "out", weights="dequantised")
    own, found = stored(base), stored(tmp_path / "out")
    assert found.keys() == own.keys()
    expert = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    assert torch.equal(found[expert], own[expert])


def test_a_base_that_loading_renames_is_merged_under_its_own_names(tmp_path: Path) -> None:
    """Gemma 3 with its eyes: its files say language_model.model, the model model.language_model."""
    text = {**SHAPE, "head_dim": 16, "sliding_window": 16}
    eyes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    base = save_base(
        tmp_path / "base", "gemma3", text_config=text, vision_config=eyes, mm_tokens_per_image=4
    )
    adapter = save_adapter(
        tmp_path / "adapter", base, target_modules=r".*language_model.*\.(q_proj|down_proj)"
    )
    merge(lora(base), adapter, tmp_path / "out")
    assert stored(tmp_path / "out").keys() == stored(base).keys()
    assert "language_model.model.layers.0.mlp.down_proj.weight" in stored(base)
    expected, found = merged_by_peft(base, adapter), load(tmp_path / "out").state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)

    factory = qlora(base, compute_dtype="float32")
    merge(factory, adapter, tmp_path / "other", weights="dequantised")
    trained = logits(factory.load_trained(adapter))
    torch.testing.assert_close(logits(load(tmp_path / "other")), trained, rtol=1e-3, atol=1e-3)


def test_names_are_followed_as_loading_does() -> None:
    model = small_model("mixtral", num_local_experts=2)
    router = "model.layers.0.block_sparse_moe.gate.weight"
    expert = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    query = "model.layers.0.self_attn.q_proj.weight"
    assert keys_of_parameters([router, expert, query, "something.else"], model) == {
        "model.layers.0.mlp.gate.weight": router,
        query: query,
    }


def test_a_layer_that_the_base_holds_under_no_name_is_refused(copied: Pair) -> None:
    base, adapter = copied
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.self_attn.fused"] = tensors.pop(
        "model.layers.1.self_attn.q_proj.weight"
    )
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert refusal(lora(base), adapter) == (
        f"base {base} has no tensor model.layers.1.self_attn.q_proj.weight in its files, which "
        "transformers makes of others when it loads them; merge it with peft's merge_and_unload(), "
        "which holds the whole model in memory"
    )


def test_a_base_whose_weights_are_whole_numbers_is_refused(copied: Pair) -> None:
    base, adapter = copied
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert refusal(lora(base), adapter) == (
        f"base {base} stores {name} as I8, which nothing can be added to; name the base that it "
        "was made from"
    )


def test_what_is_no_weight_is_copied_as_it_is(copied: Pair, tmp_path: Path) -> None:
    base, adapter = copied
    tensors = load_file(base / "model.safetensors")
    tensors["model.counts"] = torch.tensor([3, 2**40])
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    merge(lora(base), adapter, tmp_path / "out", dtype="bfloat16")
    found = stored(tmp_path / "out")
    assert torch.equal(found.pop("model.counts"), torch.tensor([3, 2**40]))
    assert {weight.dtype for weight in found.values()} == {torch.bfloat16}


def test_what_transformers_holds_in_float32_stays_so(tmp_path: Path) -> None:
    base = save_base(
        tmp_path / "base", "glm4_moe", n_routed_experts=2, num_experts_per_tok=1,
        moe_intermediate_size=32, first_k_dense_replace=1, n_shared_experts=1,
    )  # fmt: skip
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=["q_proj"])
    merge(lora(base), adapter, tmp_path / "out", dtype="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    held = {name for name, value in model.state_dict().items() if value.dtype == torch.float32}
    found = {
        name for name, value in stored(tmp_path / "out").items() if value.dtype != torch.bfloat16
    }
    assert found
    assert found == {name for name in held if name in stored(tmp_path / "out")}


def test_the_config_is_the_bases_with_the_new_dtype(copied: Pair, tmp_path: Path) -> None:
    base, adapter = copied
    (base / "generation_config.json").write_text('{"top_k": 7, "a_key_of_its_own": 1}')
    merge(lora(base), adapter, tmp_path / "out", dtype="bfloat16")
    own, found = (
        json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "out")
    )
    assert own["dtype"] == "float32"
    assert found == {**own, "dtype": "bfloat16"}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    for name in ("generation_config.json",):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()

    (base / "generation_config.json").unlink()
    merge(lora(base), adapter, tmp_path / "other")
    assert (
        AutoModelForCausalLM.from_pretrained(tmp_path / "other").generation_config.eos_token_id == 1
    )


# Where bases come from


def test_the_embedded_base_and_a_gguf_file_are_merged_alike(tmp_path: Path, tiny: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    adapter = save_adapter(tmp_path / "adapter", tiny, r=2)
    merge(lora("tiny"), adapter, tmp_path / "embedded")
    factory = lora(file)
    other = readdressed(adapter, tmp_path / "other", base=factory.base.location())
    merge(factory, other, tmp_path / "gguf")
    assert equal(stored(tmp_path / "embedded"), stored(tmp_path / "gguf"))


@pytest.fixture
def hub(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with the base as org/name, and the folder of its files."""
    cache = tmp_path / "hub"
    snapshot = cache / "models--org--name" / "snapshots" / ("a" * 40)
    shutil.copytree(pair.base, snapshot)
    refs = cache / "models--org--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return snapshot


def test_a_base_of_the_hub_is_read_from_its_cache(pair: Pair, hub: Path, tmp_path: Path) -> None:
    adapter = readdressed(pair.adapter, tmp_path / "adapter", base="org/name")
    merge(lora("org/name"), adapter, tmp_path / "out")
    merge(lora(pair.base), pair.adapter, tmp_path / "other")
    assert equal(stored(tmp_path / "out"), stored(tmp_path / "other"))


def test_a_base_of_the_hub_whose_weights_were_not_downloaded_is_refused(
    pair: Pair, hub: Path, tmp_path: Path
) -> None:
    adapter = readdressed(pair.adapter, tmp_path / "adapter", base="org/name")
    (hub / "model.safetensors").unlink()
    assert refusal(lora("org/name"), adapter) == (
        f"{hub} has no model.safetensors; weights in other formats are not read, as pickled files "
        "can run code: save it again with save_pretrained"
    )


# Room, and what is in the way


def problem(out: Path, needed: int = 0) -> str:
    before = sorted(out.parent.rglob("*")) if out.parent.is_dir() else []
    with pytest.raises(OutputError) as caught:
        require_new(out, needed=needed)
    assert (sorted(out.parent.rglob("*")) if out.parent.is_dir() else []) == before
    return str(caught.value)


def test_what_stands_where_the_model_is_to_go_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "begun.part").mkdir()
    full, file, link, begun = (tmp_path / name for name in ("full", "file", "link", "begun"))
    assert problem(full) == f"{full} is not empty; name another folder with --out, or empty it"
    assert problem(file) == f"{file} is a file; name a folder with --out"
    assert problem(link) == f"{link} is a file; name a folder with --out"
    assert problem(file / "below") == f"{file} is a file; name a folder with --out"
    assert problem(begun) == (
        f"{begun}.part is there: another merge is filling it, or one was killed; wait for it, or "
        "remove that folder"
    )
    long = tmp_path / ("x" * 300)
    assert problem(long) == (
        f"cannot look at {long}: File name too long; name another folder with --out"
    )
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new", "several/new/ones"):
        require_new(tmp_path / name, needed=1)


def test_room_is_looked_for_where_the_folder_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=3 * 2**20)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    out = tmp_path / "a" / "b"
    assert problem(out, needed=5 * 2**30) == (
        f"{out} needs 5.0 GiB and there are 3.0 MiB free; make room, or name a folder on another "
        "disk with --out"
    )
    require_new(out, needed=3 * 2**20)
    assert asked == [tmp_path, tmp_path]


def test_the_size_is_known_beforehand_to_the_byte(pair: Pair, tmp_path: Path) -> None:
    for dtype in ("bfloat16", "float32"):
        plan = merge(lora(pair.base), pair.adapter, tmp_path / dtype, shard=SHARD, dtype=dtype)
        assert plan.size == sum(weight.nbytes for weight in stored(tmp_path / dtype).values())


def test_a_folder_gets_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"

    class Stop(Exception):
        pass

    def fill(error: BaseException | None) -> None:
        with new_folder(out) as folder:
            assert folder == out.with_name("out.part")
            (folder / "file").write_text("x")
            assert not out.exists()
            if error:
                raise error

    for error in (Stop(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            fill(error)
        assert list(tmp_path.iterdir()) == []
    fill(None)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "file").read_text() == "x"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_is_named_and_nothing_is_left(pair: Pair, tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(FinqaSftError) as caught:
            merge(lora(pair.base), pair.adapter, tmp_path / "out", shard=SHARD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = str(caught.value)
    assert text.startswith(f"cannot write {tmp_path / 'out.part' / 'model-0000'}")
    assert text.endswith("make room, or name a folder on another disk with --out")
    assert "File too large" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user whom a folder can be closed to")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError) as caught, new_folder(tmp_path / "out"):
        pass
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'out.part'}: Permission denied; name a folder that can be "
        "written with --out"
    )


# Memory

MEASURE = """
import ctypes, gc, json, sys, threading, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from merging import lora, qlora
from finqa_sft.models.merging.plan import MergePlan
from finqa_sft.models.merging.writing import new_folder, write_model

def held():
    "Bytes of this process that are no file's: what is mapped from a file can be dropped."
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

class Peak(threading.Thread):
    most, going = 0, True
    def run(self):
        while self.going:
            self.most = max(self.most, held())
            time.sleep(0.0005)

def grown(name, weights, factory):
    how = {{"weights": weights, "dtype": "bfloat16", "trained_in": "float32"}}
    plan = MergePlan(factory, Path({adapter!r}), **how)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before, peak = held(), Peak(daemon=True)
    peak.start()
    with new_folder(Path({out!r}) / name) as folder:
        write_model(plan, folder, max_shard_size={shard}, say=lambda text: None)
    peak.going = False
    peak.join()
    return plan.size, peak.most - before

# The first merges import and warm up.
for name in ("warm", "measured"):
    found = {{
        "original": grown(name + "-original", "original", lora({base!r})),
        "dequantised": grown(name + "-dequantised", "dequantised", qlora({base!r})),
    }}
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/status")
def test_no_more_than_a_shard_and_one_tensor_is_in_memory(tmp_path: Path) -> None:
    base = save_base(
        tmp_path / "base", "llama", hidden_size=256, intermediate_size=768, num_hidden_layers=16,
        shard="8MB",
    )  # fmt: skip
    adapter = save_adapter(tmp_path / "adapter", base)
    shard = 3 * 10**6
    code = MEASURE.format(
        tests=str(Path(__file__).parent), base=str(base), adapter=str(adapter),
        out=str(tmp_path), shard=shard,
    )  # fmt: skip
    # Without these the allocator keeps what was freed, some tens of megabytes.
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **allocator, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    largest = 256 * 768
    assert len(list((tmp_path / "measured-original").glob("*.safetensors"))) >= 8
    for whole, grown in json.loads(done.stdout.splitlines()[-1]).values():
        # What is around one tensor, and Python's own, on top.
        assert grown < shard + 12 * largest + 4 * 2**20, size(grown)
        assert grown < whole / 2, (size(grown), size(whole))
