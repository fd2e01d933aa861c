"""`finqa-sft plan`: what a recipe needs, before anything large is read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from bad_input import Shell, edited, shell
from runs import RECIPE, manifest, run
from transformers import LlamaConfig

from finqa_sft.planning.gpus import GPUS, find_gpu
from finqa_sft.planning.plan import Plan

__all__ = ["shell"]

BIG = LlamaConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8,
)  # fmt: skip
"""A model of 6 billion parameters, of which the tests have the config alone."""

AGAIN = "trainer.gradient_checkpointing=true"


@pytest.fixture
def big(shell: Shell) -> str:
    BIG.save_pretrained(shell.folder / "big")
    return "model.base=./big"


def planned(shell: Shell, *words: str) -> dict[str, Any]:
    said = shell("plan", "r.yaml", "--json", *words)
    assert said.status == 0, said
    found: dict[str, Any] = json.loads(said.out)
    return found


def lines(shell: Shell, *words: str) -> list[str]:
    """What is printed, with single spaces."""
    said = shell("plan", "r.yaml", *words)
    assert said.status == 0, said
    return [" ".join(line.split()) for line in said.out.splitlines()]


def test_a_plan_says_what_is_needed_and_where_it_fits(shell: Shell) -> None:
    found = lines(shell, AGAIN)
    assert found[0] == "base tiny: 1,967,808 parameters, 217,088 trained"
    assert "batch 8 rows (4,096 tokens), rows of at most 512 tokens" in found
    assert "training adamw_torch_fused, with gradient checkpointing" in found
    text = "\n".join(found)
    without = re.search(r"\nactivations without gradient checkpointing ([\d.]+) MiB", text)
    kept = re.search(r"\nactivations ([\d.]+) MiB", text)
    assert without
    assert kept
    assert float(without[1]) > 2 * float(kept[1])
    assert "memory of a GPU one process" in found
    assert "gradients 0.8 MiB" in found
    assert "accuracy on GPUs not measured" in found
    assert "not counted the cache of answers that are generated in between" in found
    beginning = "what fits, with the largest trainer.per_device_train_batch_size that does in"
    assert f"{beginning} brackets" in found
    gpus = found[found.index("GPU memory one process") + 1 :]
    for gpu, line in zip(GPUS, gpus, strict=False):
        assert line.startswith(f"{gpu.name} {gpu.memory / 2**30:.1f} GiB yes (")
        assert line.endswith("fits only with compute_dtype float16") is not gpu.bfloat16
    assert "epoch 2 questions, 253 tokens" in found
    assert "2 rows, longest 127; 8 a step, 1 steps" in found
    assert "run 1 steps, 253 tokens" in found
    assert found[-1] == "time state --tokens-per-second, or --like RUN"


def test_several_gpus_are_planned_for_each_stage(shell: Shell) -> None:
    found = lines(shell, "--gpus", "2", "--gpu", "h100")
    names = "ddp zero1 zero2 zero3 zero3_offload fsdp"
    assert f"memory of a GPU {names}" in found
    assert f"GPU memory {names}" in found
    assert [line for line in found if line.startswith("H100 80 ")]
    assert not [line for line in found if line.startswith("H200")]


def test_json_is_one_object_with_everything(shell: Shell) -> None:
    found = planned(shell, "--gpus", "2")
    assert found["accuracy_on_gpus"] == "not measured"
    assert found["gpus"] == 2
    assert found["parameters"] == 1967808
    assert found["trained_parameters"] == 217088
    ddp, zero2 = found["memory"]["ddp"], found["memory"]["zero2"]
    assert ddp["kept"]["gradients"] == 2 * zero2["kept"]["gradients"] * 2
    assert ddp["peak"] == max(ddp["loading"], ddp["training"])
    assert found["fits"].keys() == {gpu.name for gpu in GPUS}
    assert found["fits"]["T4"]["ddp"]["only_with"] == "compute_dtype float16"
    assert found["fits"]["L4"]["ddp"]["only_with"] is None
    assert found["usable"]["T4"] == find_gpu("t4").memory
    assert found["epoch"]["questions"] == 2
    assert found["epoch"]["processes"] == 2
    assert found["batch"]["source"] == "data"
    assert found["seconds"] is None


def test_the_recipes_deepspeed_comes_first(shell: Shell) -> None:
    zero = {"stage": 2, "reduce_bucket_size": 1000}
    config = {"zero_optimization": zero, "train_batch_size": "auto"}
    shell.write("mine.json", json.dumps(config))
    found = planned(shell, "--gpus", "2", "trainer.deepspeed=mine.json")
    assert next(iter(found["memory"])) == "mine"
    assert found["memory"]["mine"]["kept"]["buffers to send gradients"] == 1000 * 2


def test_a_gpu_that_is_not_known_is_refused_with_the_nearest(shell: Shell) -> None:
    assert shell.refused("plan", "r.yaml", "--gpu", "RTX 4091") == (
        "no GPU 'RTX 4091' is known; did you mean 'RTX 4090'?"
    )
    assert (
        shell.refused("plan", "r.yaml", "--gpu", "a100") == "GPU 'a100' may be A100 40 or A100 80"
    )
    assert shell.refused("plan", "r.yaml", "--gpu", "abacus") == (
        "no GPU 'abacus' is known; there are T4, L4, A10, RTX 3090, RTX 4090, RTX 5090, V100 32, "
        "A100 40, A100 80, L40S, RTX 6000 Ada, H100 80, H200"
    )


@pytest.mark.parametrize("name", ["rtx4090", "RTX-4090", "rtx 4090", "RTX 4090 GB"])
def test_a_gpu_is_found_however_it_is_written(name: str) -> None:
    assert find_gpu(name).name == "RTX 4090"


def test_a_number_of_gpus_starts_at_one(shell: Shell, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        shell("plan", "r.yaml", "--gpus", "0")
    assert ended.value.code == 2
    assert "--gpus: expected a whole number from 1, not '0'" in capsys.readouterr().err


def test_a_base_that_is_not_at_hand_is_refused(shell: Shell) -> None:
    assert shell.refused("plan", "r.yaml", "model.base=./none") == (
        f"base '{shell.folder / 'none'}': no such folder; correct the path in model.base"
    )


def test_memory_is_planned_where_data_is_not_at_hand(shell: Shell) -> None:
    found = lines(shell, "data.sources.0.files=none.csv")
    assert "= in all" in " ".join(found)
    assert "10.0% supervised (assumed)" in found
    assert "epoch not counted: none.csv: no such file; did you mean 'own.csv'?" in found


def test_a_config_is_enough_of_a_base(shell: Shell, big: str) -> None:
    found = planned(shell, big, AGAIN)
    assert found["parameters"] == 5_933_109_248
    assert found["epoch"] is None
    assert found["epoch_not_known"].startswith(
        f"base '{shell.folder / 'big'}' has no tokenizer that can be loaded"
    )
    kept = found["memory"]["one process"]["kept"]
    assert kept["packed weights of the base"] == 5_670_699_008 // 2
    assert found["fits"]["T4"]["one process"]["fits"]


def test_what_does_not_fit_says_what_to_change(shell: Shell, big: str) -> None:
    words = ["model.factory=lora", "model.lora.r=64", "trainer.gradient_checkpointing=false"]
    found = planned(shell, big, "--gpu", "L4", *words)
    assert not found["fits"]["L4"]["one process"]["fits"]
    changes = {change["keys"]: change for change in found["changes"]}
    assert set(changes) >= {
        AGAIN, "model.factory=qlora", "trainer.optim=adamw_8bit", "model.lora.r=8",
        "--gpus 8 trainer.deepspeed=zero3",
    }  # fmt: skip
    before = found["memory"]["one process"]["total"]
    usable = find_gpu("L4").memory
    for change in changes.values():
        assert change["total"] < before
        assert change["fits"] == (change["total"] <= usable)
    together = f"{AGAIN} model.factory=qlora trainer.optim=adamw_8bit model.lora.r=8"
    assert changes[together]["fits"]
    # What is told to be set is what the plan says when it is.
    words = [AGAIN, "model.factory=qlora", "trainer.optim=adamw_8bit", "model.lora.r=8"]
    again = planned(shell, big, "--gpu", "L4", *words)
    assert again["memory"]["one process"]["total"] == changes[together]["total"]
    assert again["fits"]["L4"]["one process"]["fits"]
    assert again["changes"] == []


def test_a_base_that_no_gpu_holds_is_divided_by_fsdp(shell: Shell) -> None:
    config = BIG.to_dict() | {"hidden_size": 12288, "intermediate_size": 36864}
    shell.write("huge/config.json", json.dumps(config))
    words = ["model.base=./huge", "model.factory=qlora", AGAIN]
    found = planned(shell, *words, "--gpus", "4", "--gpu", "L4")
    fits = found["fits"]["L4"]
    # Only FSDP does not hold the whole base on each GPU while it is loaded.
    assert {name for name, verdict in fits.items() if verdict["longest"]} == {"fsdp"}
    fsdp, zero3 = found["memory"]["fsdp"], found["memory"]["zero3"]
    assert fsdp["loading"] < zero3["loading"] / 2
    whole = "the whole base, until it is shared out"
    assert fsdp["host"][whole] == zero3["loading"]
    packed = "packed weights of the base"
    assert fsdp["kept"][packed] == zero3["kept"][packed]
    keys = "--config_file recipes/accelerate/fsdp_qlora.yaml"
    helping = {one["keys"]: one for one in found["changes"] if one["fits"]}
    assert helping
    assert all(name.startswith(keys) for name in helping)
    # Which trains with torch's optimizers alone.
    assert not any("8bit" in name for name in helping)
    eight = planned(shell, *words, "--gpus", "4", "trainer.optim=adamw_8bit")
    assert "does not work under FSDP" in eight["memory"]["fsdp"]["why_not"]
    own = "trainer.fsdp=true trainer.fsdp_config={cpu_offload: true}"
    offloaded = planned(shell, *words, "--gpus", "4", *own.split(" ", 1))
    assert next(iter(offloaded["memory"])) == "fsdp"
    assert offloaded["memory"]["fsdp"]["steady"] < fsdp["steady"]


def test_the_size_of_a_batch_that_fits_is_named(shell: Shell, big: str) -> None:
    size = ["collator={name: shared_context, tokens_per_batch: 65536}", AGAIN]
    found = planned(shell, big, "--gpu", "L4", *size)
    longest = found["fits"]["L4"]["one process"]["longest"]
    assert found["changes"][0]["keys"] == f"collator.tokens_per_batch={longest}"
    assert found["changes"][0]["fits"]
    smaller = f"collator={{name: shared_context, tokens_per_batch: {longest}}}"
    assert planned(shell, big, "--gpu", "L4", smaller, AGAIN)["fits"]["L4"]["one process"]["fits"]


def test_weights_in_bfloat16_have_no_way_onto_a_t4(shell: Shell) -> None:
    words = ["model.factory=full", "model.weights_dtype=bfloat16"]
    found = lines(shell, "--gpu", "T4", *words)
    why = (
        "cuda has no bfloat16 units; set model.weights_dtype to float32, or use a GPU of compute "
        "capability 8.0 or later"
    )
    assert f"not on T4 {why}" in found


def test_an_8_bit_base_cannot_be_divided(shell: Shell) -> None:
    found = lines(shell, "--gpus", "2", "model.bits=8")
    why = (
        "model.bits 8 does not work under FSDP and DeepSpeed ZeRO-3, which shard weights of "
        "floating-point types only; set model.bits to 4, or use ZeRO-2"
    )
    assert f"not zero3 {why}" in found


def test_an_optimizer_that_is_not_known_is_said_to_be(shell: Shell) -> None:
    found = lines(shell, "trainer.optim=galore_adamw", "trainer.optim_target_modules=all-linear")
    assert "not counted the state of optimizer galore_adamw" in found


def test_what_is_not_in_the_plan_is_said(shell: Shell) -> None:
    found = planned(
        shell,
        "trainer.optim=paged_adamw_8bit",
        "trainer.gradient_checkpointing_kwargs={every_n_layers: 2}",
        "evaluation={before: false, every: 0, after: false}",
    )
    assert found["not_counted"] == [
        "that the driver can move the state of a paged optimizer to the host",
        "the effect of trainer.gradient_checkpointing_kwargs.every_n_layers",
    ]


def test_time_follows_from_a_stated_throughput(shell: Shell) -> None:
    words = ["--tokens-per-second", "2", "trainer.max_steps=-1", "trainer.num_train_epochs=3"]
    found = lines(shell, *words)
    assert found[-1] == "time 0:02:06 an epoch, 0:06:20 in all, at 2 tokens a second, stated"
    assert planned(shell, *words)["seconds"] == {"epoch": 126.5, "run": 379.5}
    unknown = lines(shell, *words, "data.sources.0.files=none.csv")
    assert unknown[-1] == "time not known, as the tokens are not; 2 tokens a second, stated"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    run(recipe, "trainer.max_steps=2", "trainer.eval_strategy=no", "trainer.save_strategy=no")
    return folder / "run"


def test_time_follows_from_an_earlier_run(shell: Shell, earlier: Path) -> None:
    record = manifest(earlier)
    seconds = record["timings"]["training_s"]
    tokens = record["layout"]["tokens"] * 2 / record["batches"]["steps_an_epoch"]
    found = planned(shell, "--like", str(earlier))
    assert found["throughput"] == {
        "tokens_per_second": pytest.approx(tokens / seconds),
        "source": f"measured in {earlier} on 1 × cpu",
    }
    assert found["seconds"]["epoch"] == pytest.approx(253 * seconds / tokens)


@pytest.mark.parametrize(
    "record", ["{}", "[]", '{"status": "finished", "batches": {}, "result": 7}']
)
def test_a_record_that_is_damaged_is_no_run_to_be_like(shell: Shell, record: str) -> None:
    shell.write("damaged/run.json", record)
    said = shell.refused("plan", "r.yaml", "--like", "damaged")
    assert said.startswith(
        "--like damaged: damaged/run.json is not as a run of this version wrote it ("
    )


def test_data_is_counted_where_weights_are_not_at_hand(shell: Shell) -> None:
    from finqa_sft.models.tiny import tiny_base

    shutil.copytree(tiny_base(), shell.folder / "config", ignore=shutil.ignore_patterns("*.safe*"))
    found = planned(shell, "model.base=./config")
    assert found["epoch"] == planned(shell)["epoch"]
    assert found["epoch"]["questions"] == 2


def test_the_longest_batch_that_is_looked_for_is_not_said_to_be_the_longest(shell: Shell) -> None:
    found = lines(shell, "--gpu", "H200", "collator={name: shared_context}")
    assert any("(at least 1,048,576)" in line for line in found)
    assert shell.refused("plan", "r.yaml", "--gpu", "").startswith("no GPU '' is known")


def test_a_run_holds_what_was_predicted(earlier: Path) -> None:
    found = manifest(earlier)["memory"]
    parts = ("weights", "gradients", "optimizer")
    assert {part: found["measured"][part] for part in parts} == {
        part: found["predicted"][part] for part in parts
    }
    assert found["measured"]["peak"] is None
    assert found["not_known"] == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"status": "failed"}, "its status is 'failed'; name a run that has finished its training"),
        (
            {"recipe": {"values": [{"key": "trainer.resume_from_checkpoint", "value": True}]}},
            "it was resumed, and its time is that of the last part alone; name a run that was not "
            "interrupted",
        ),
    ],
)
def test_a_run_that_tells_no_speed_is_refused(
    shell: Shell, earlier: Path, changes: dict[str, Any], problem: str
) -> None:
    shell.write("other/run.json", json.dumps(manifest(earlier) | changes))
    assert shell.refused("plan", "r.yaml", "--like", "other") == f"--like other: {problem}"


def test_a_folder_without_a_run_is_refused(shell: Shell) -> None:
    assert shell.refused("plan", "r.yaml", "--like", "nothing") == (
        "--like nothing: nothing/run.json cannot be read: [Errno 2] No such file or directory: "
        "'nothing/run.json'; name the folder of a run"
    )


FACTORY = '''\
from finqa_sft import hookimpl
from finqa_sft.models.options import QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.plugins import ModelFactoryRecord


class Other:
    """Does what another does, and is none of the package's own."""

    def __init__(self, options):
        self._other = QLoRAFactory(options)

    def __getattr__(self, name):
        return getattr(self._other, name)


@hookimpl
def finqa_sft_model_factories():
    return [ModelFactoryRecord(name="other", summary="", config=QLoRAOptions, build=Other)]
'''


def test_a_model_factory_of_another_package_is_refused(shell: Shell) -> None:
    shell.write("other.py", FACTORY)
    text = edited("  base: tiny\n", "  factory: other\n  base: tiny\n")
    shell.write("r.yaml", f"plugins: [other.py]\n{text}")
    assert re.fullmatch(
        r"the model factory 'other' of \S*other\.py cannot be planned for: only qlora, lora and "
        r"full say what they hold in memory",
        shell.refused("plan", "r.yaml"),
    )


def test_a_plan_has_plain_values_alone(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(Plan, "record", lambda plan: kept.append(plan) or {})
    shell("plan", "r.yaml", "--json")
    monkeypatch.undo()
    record = kept[0].record()
    assert json.loads(json.dumps(record)) == record
