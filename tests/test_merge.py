"""The verb `merge`: from a run to a model that transformers loads by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input import Shell, shell, snapshot
from merging import load
from runs import manifest, run, write_recipe
from safetensors.torch import load_file, save_file

from finqa_sft.errors import TrainingError
from finqa_sft.evaluation.trained import CARD
from finqa_sft.models.devices import Device
from finqa_sft.models.merging import writing
from finqa_sft.models.merging.verification import Verifier

__all__ = ["shell"]

QUICK = ("trainer.max_steps=2", "trainer.eval_strategy=no", "data.split.held_out=0")

PAGE = """\
Net sales grew by 4% in 2020.

| | 2020 | 2019 |
| --- | --- | --- |
| Net sales | 5.1 | 4.9 |
"""


pytestmark = pytest.mark.usefixtures("cpu_only")


def trained(folder: Path, *overrides: str) -> Path:
    """The folder of a run."""
    return run(write_recipe(folder), *QUICK, *overrides).folder


@pytest.fixture(scope="module")
def qlora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("qlora"))


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("lora"), "model.factory=lora")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("full"), "model.factory=full", "trainer.max_steps=1")


def rows(out: str) -> list[str]:
    return [" ".join(line.split()) for line in out.splitlines()]


# What it writes and says


def test_a_qlora_run_is_merged_over_the_weights_that_it_was_trained_beside(
    shell: Shell, qlora: Path
) -> None:
    before = snapshot(qlora)
    said = shell("merge", str(qlora), "--out", "merged")
    assert said.status == 0, said.err
    found = rows(said.out)
    assert found[:4] == [
        "base tiny",
        "adapter LoRA, r=16, alpha=32, dropout=0.0, in 28 layers",
        "weights dequantised (nf4, double), as the adapter was trained beside them",
        "model merged: 3.8 MiB in bfloat16, 1 weight file",
    ]
    assert found[4] == "verified 4 prompts on generated pages, 256 tokens, products in float32"
    assert found[5].startswith("base with adapter deviation 0.")
    assert "%, where rounding explains 5%; " in found[5]
    assert found[5].endswith("% of the adapter's effect")
    assert found[6].startswith("KL ")
    assert len(found) == 7
    assert said.err.splitlines()[-3:] == [
        "file 1 of 1 written",
        "verifying: loading the base with its adapter",
        "verifying: loading the merged model",
    ]
    assert snapshot(qlora) == before
    assert sorted(path.name for path in (shell.folder / "merged").iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "finqa_sft.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert {path.name for path in shell.folder.iterdir()} == {"merged", "own.csv", "r.yaml"}


def test_a_lora_run_is_merged_over_its_base(shell: Shell, lora: Path) -> None:
    said = shell("merge", str(lora), "--out", "merged", "--dtype", "float32")
    assert said.status == 0, said.err
    found = rows(said.out)
    assert found[2:4] == [
        "weights the base's own",
        "model merged: 7.5 MiB in float32, 1 weight file",
    ]
    assert found[5].endswith("%, where rounding explains 0.1%; 100.0% of the adapter's effect")


def test_over_original_weights_it_says_how_near_the_trained_model_is(
    shell: Shell, qlora: Path
) -> None:
    said = shell("merge", str(qlora), "--out", "merged", "--weights", "original")
    assert said.status == 0, said.err
    found = rows(said.out)
    assert found[2] == (
        "weights the base's own; the adapter was trained beside quantised ones (nf4, double)"
    )
    assert found[5].startswith("base with adapter deviation 0.")
    # 4-bit weights are further away than bfloat16 rounds.
    assert float(found[7].split("deviation ")[1].split("%")[0]) > 5
    assert found[7].startswith("as trained deviation ")
    assert found[8].startswith("KL ")


def test_shards_have_the_size_that_is_asked_for(shell: Shell, lora: Path) -> None:
    said = shell("merge", str(lora), "--out", "m", "--max-shard-size", "500 kb", "--no-verify")
    assert said.status == 0, said.err
    files = list((shell.folder / "m").glob("*.safetensors"))
    assert rows(said.out)[-2:] == [
        f"model m: 3.8 MiB in bfloat16, {len(files)} weight files",
        "verified no",
    ]
    assert len(files) > 5
    assert said.err.splitlines() == [
        f"file {number} of {len(files)} written" for number in range(1, len(files) + 1)
    ]
    assert "\nNot verified.\n" in (shell.folder / "m" / "README.md").read_text()


def test_the_model_card_says_what_it_is_made_of_and_what_was_found(
    shell: Shell, qlora: Path
) -> None:
    assert shell("merge", str(qlora), "--out", "merged").status == 0
    card = (shell.folder / "merged" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    for line in (
        "# small",
        "| adapter | LoRA, r=16, alpha=32, dropout=0.0 |",
        "| base's weights | dequantised (nf4, double), as the adapter was trained beside them |",
        "| stored | bfloat16, 3.8 MiB |",
        "4 prompts on generated pages, 256 tokens, products in float32.",
        "| | base with adapter |",
        "|---|---|",
    ):
        assert line in card.splitlines()
    assert "| same most likely token | " in card
    assert "{" not in card
    assert shell("merge", str(qlora), "--out", "other", "--weights", "original").status == 0
    lines = (shell.folder / "other" / "README.md").read_text().splitlines()
    place = lines.index(
        "| | base with adapter, weights as merged here | quantised base with adapter, as trained |"
    )
    assert lines[place + 1] == "|---|---|---|"
    assert [line.count("|") for line in lines[place + 2 : place + 7]] == [4] * 5
    assert lines[place + 7] == ""


# What can be done with it


PLAIN = """
import sys
sys.modules["peft"] = sys.modules["bitsandbytes"] = sys.modules["finqa_sft"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": "What was revenue?"}], add_generation_prompt=True,
    return_tensors="pt", return_dict=True,
)
print(model.dtype, len(model.generate(**ids, max_new_tokens=3, do_sample=False)[0]))
"""


def test_transformers_loads_it_without_peft_and_bitsandbytes(shell: Shell, qlora: Path) -> None:
    assert shell("merge", str(qlora), "--out", "merged", "--no-verify").status == 0
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, "merged"],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    dtype, tokens = done.stdout.split()
    assert dtype == "torch.bfloat16"
    assert int(tokens) > 4


def test_it_is_a_base_for_another_run(shell: Shell, qlora: Path) -> None:
    assert shell("merge", str(qlora), "--out", "merged", "--no-verify").status == 0
    words = ("r.yaml", "model.base=merged", "model.factory=lora", "evaluation.after=false")
    said = shell(*words)
    assert said.status == 0, said.err
    assert manifest(shell.folder / "run")["model"]["base"] == str(shell.folder / "merged")


def test_it_is_asked_as_the_run_is(shell: Shell, qlora: Path, tmp_path: Path) -> None:
    assert shell("merge", str(qlora), "--out", "m", "--dtype", "float32").status == 0
    shell.write("page.md", PAGE)
    words = ("--context", "page.md", "--json", "What were net sales?")
    of_the_run = shell("ask", str(qlora), *words)
    of_the_model = shell("ask", "--adapter", "m", *words)
    assert of_the_model.status == 0, of_the_model.err
    assert json.loads(of_the_model.out) == json.loads(of_the_run.out)
    # Moved, and told so.
    shutil.move(shell.folder / "m", shell.folder / "moved")
    again = shell("ask", "--adapter", "moved", "model.base=moved", *words)
    assert again.status == 0, again.err
    assert again.out == of_the_model.out


def test_a_checkpoint_and_an_adapter_without_its_run_are_merged(
    shell: Shell, tmp_path: Path, qlora: Path
) -> None:
    shutil.copytree(qlora / "adapter", shell.folder / "copied")
    said = shell("merge", "--adapter", "copied", "--out", "m", "--no-verify")
    assert said.status == 0, said.err
    assert rows(said.out)[3] == (
        "quantised from float32; no run.json says so: set model.compute_dtype if it was another"
    )
    said = shell(
        "merge", "--adapter", "copied", "model.compute_dtype=bfloat16", "--out", "n", "--no-verify"
    )
    assert rows(said.out)[3].startswith("quantised from bfloat16; no run.json says so")
    first, second = (load_file(shell.folder / name / "model.safetensors") for name in "mn")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(first[name], second[name])


def test_the_dtype_of_the_run_is_what_its_record_says(shell: Shell, qlora: Path) -> None:
    shutil.copytree(qlora, shell.folder / "r")
    record = manifest(shell.folder / "r")
    record["model"] |= {"compute_dtype": "bfloat16", "device": "cuda:0 (NVIDIA H100)"}
    shell.write("r/run.json", json.dumps(record))
    said = shell("merge", "r", "--out", "m")
    assert said.status == 0, said.err
    assert rows(said.out)[3] == (
        "quantised from bfloat16, here on cpu, in the run on cuda:0 (NVIDIA H100); whether both "
        "give the same codes was not measured"
    )
    assert rows(said.out)[5].endswith("products in bfloat16")


def test_a_run_in_a_dtype_that_this_device_does_not_compute_in_is_merged_all_the_same(
    shell: Shell, qlora: Path
) -> None:
    shutil.copytree(qlora, shell.folder / "r")
    record = manifest(shell.folder / "r")
    record["model"] |= {"compute_dtype": "float16", "device": "cuda:0 (Tesla T4)"}
    shell.write("r/run.json", json.dumps(record))
    words = ("merge", "r", "model.compute_dtype=float16", "--out", "m")
    assert shell.refused(*words) == (
        "the run quantised its base from float16, which cpu does not compute in, so what was "
        "trained cannot be loaded here; merge on a device that does, or leave the verification out "
        "with --no-verify"
    )
    assert shell(*words, "--no-verify").status == 0
    (shell.folder / "r" / "run.json").unlink()
    said = shell(
        "merge", "--adapter", "r/adapter", "model.compute_dtype=float16", "--out", "n",
        "--no-verify",
    )  # fmt: skip
    assert rows(said.out)[3].startswith("quantised from float16; no run.json says so")
    first, second = (load_file(shell.folder / name / "model.safetensors") for name in "mn")
    assert all(torch.equal(first[name], second[name]) for name in first)


# What is refused


def test_out_and_run_are_needed(shell: Shell, qlora: Path, capsys: Any) -> None:
    for words in (("merge", str(qlora)), ("merge", str(qlora), "--out", "x", "--dtype", "int8")):
        with pytest.raises(SystemExit) as caught:
            shell(*words)
        assert caught.value.code == 2
    assert shell.refused("merge", "--out", "x").startswith("name the folder of a run, ")


@pytest.mark.parametrize("wrong", ["5", "GB", "0GB", "5GiB", "-1GB", "five GB"])
def test_a_size_that_is_none_is_refused(
    shell: Shell, qlora: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        shell("merge", str(qlora), "--out", "x", f"--max-shard-size={wrong}")
    assert caught.value.code == 2
    assert f"expected a size such as 500MB or 5GB, not {wrong!r}" in capsys.readouterr().err


def test_a_folder_that_holds_something_is_refused(shell: Shell, lora: Path) -> None:
    shell.write("full/file", "x")
    assert shell.refused("merge", str(lora), "--out", "full") == (
        "full is not empty; name another folder with --out, or empty it"
    )
    assert shell.refused("merge", str(lora), "--out", "own.csv") == (
        "own.csv is a file; name a folder with --out"
    )
    shell.write("new.part/file", "x")
    assert shell.refused("merge", str(lora), "--out", "new") == (
        f"{shell.folder / 'new.part'} is there: another merge is filling it, or one was killed; "
        "wait for it, or remove that folder"
    )


def test_a_folder_that_cannot_be_replaced_is_refused(
    shell: Shell, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.refused("merge", str(lora), "--out", ".") == (
        ". is not empty; name another folder with --out, or empty it"
    )
    (shell.folder / "here").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_mount", lambda path: path.name == "here")
        assert shell.refused("merge", str(lora), "--out", "here") == (
            "here is where a disk is mounted; name a folder in it with --out"
        )
    monkeypatch.chdir("here")
    assert shell.refused("merge", str(lora), "--out", ".") == (
        ". is the current folder; name a folder in it with --out"
    )
    monkeypatch.chdir("..")
    (shell.folder / "link").symlink_to("here")
    assert shell("merge", str(lora), "--out", "link", "--no-verify").status == 0
    assert (shell.folder / "here" / "model.safetensors").is_file()
    assert (shell.folder / "link").is_symlink()


def test_a_disk_that_the_tokenizer_fills_is_named(
    shell: Shell, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(tokenizer: Any, folder: Path, **how: Any) -> None:
        # As tokenizers does.
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", save)
    said = shell("merge", str(lora), "--out", "m", "--no-verify")
    assert said.err.endswith(
        "cannot write m: no space left on device; make room, or name a folder on another disk with "
        "--out\n"
    )
    assert not (shell.folder / "m").exists()


@pytest.mark.parametrize(
    ("override", "asked"),
    [("model.bits=8", "int8"), ("model.factory=lora", "none"), ("model.double_quant=false", "nf4")],
)
def test_overrides_that_contradict_the_run_are_refused(
    shell: Shell, qlora: Path, override: str, asked: str
) -> None:
    assert shell.refused("merge", str(qlora), "--out", "m", override) == (
        "the adapter was trained beside a base with quantisation nf4, double, and the overrides "
        f"ask for {asked}; take them out"
    )


def test_too_little_room_is_refused_with_both_numbers(
    shell: Shell, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: usage(2**20))
    assert shell.refused("merge", str(lora), "--out", "m") == (
        "m needs 3.8 MiB and there are 1.0 MiB free; make room, or name a folder on another disk "
        "with --out"
    )


def test_too_little_memory_to_verify_is_refused_before_anything_is_written(
    shell: Shell, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Device("cpu", None, "CPU", 2**30, 2**20, bfloat16=False)
    monkeypatch.setattr("finqa_sft.models.factory.find_device", lambda: small)
    text = shell.refused("merge", str(lora), "--out", "m")
    assert text.startswith("verifying loads the base with its adapter and then the merged model, ")
    assert text.endswith("leave the verification out with --no-verify")
    assert shell("merge", str(lora), "--out", "m", "--no-verify").status == 0


def test_a_run_that_trained_all_weights_has_nothing_to_merge(shell: Shell, full: Path) -> None:
    assert shell.refused("merge", str(full), "--out", "m") == (
        f"{full / 'model'} is a whole model already: the run has trained all weights, and there is "
        "no adapter to merge; use that folder as it is"
    )


def test_dequantised_weights_need_a_base_that_was_quantised(shell: Shell, lora: Path) -> None:
    assert shell.refused("merge", str(lora), "--out", "m", "--weights", "dequantised") == (
        "--weights dequantised is for runs on a quantised base, and the base of this one was not; "
        "leave --weights out"
    )


def test_a_run_that_has_not_ended_is_refused(shell: Shell, qlora: Path) -> None:
    shutil.copytree(qlora, shell.folder / "r")
    shutil.rmtree(shell.folder / "r" / "adapter")
    assert shell.refused("merge", "r", "--out", "m") == (
        "r holds neither adapter/ nor model/: the run has not ended; name one of its checkpoints "
        "with --adapter, or resume it"
    )
    assert shell.refused("merge", "nowhere", "--out", "m").startswith("nowhere: neither the folder")
    assert shell.refused("merge", "--adapter", "nowhere", "--out", "m") == (
        "nowhere: no such folder; name the folder of a run, such as runs/NAME, or of its adapter"
    )


def test_a_record_that_is_damaged_is_refused(shell: Shell, qlora: Path) -> None:
    shutil.copytree(qlora, shell.folder / "r")
    record = manifest(shell.folder / "r")
    record["model"]["compute_dtype"] = "int3"
    shell.write("r/run.json", json.dumps(record))
    assert shell.refused("merge", "r", "--out", "m") == (
        "r/run.json is not as a run of this version wrote it (ValueError: a model in 'int3' on "
        "'cpu'); restore it, or copy the adapter with its finqa_sft.json elsewhere and name that "
        "with --adapter"
    )


def test_an_adapter_of_another_base_is_refused(shell: Shell, qlora: Path, tmp_path: Path) -> None:
    assert shell("merge", str(qlora), "--out", "base", "--no-verify").status == 0
    text = shell.refused("merge", str(qlora), "--out", "m", "model.base=base")
    assert "was trained on " in text
    assert f"and the base here is {shell.folder / 'base'}" in text


def test_a_model_that_is_merged_already_is_refused(shell: Shell, qlora: Path) -> None:
    assert shell("merge", str(qlora), "--out", "m", "--no-verify").status == 0
    assert shell.refused("merge", "--adapter", "m", "--out", "n") == (
        "m is a whole model already: the run has trained all weights, and there is no adapter to "
        "merge; use that folder as it is"
    )


def test_a_damaged_adapter_is_refused(shell: Shell, qlora: Path) -> None:
    shutil.copytree(qlora / "adapter", shell.folder / "a")
    file = shell.folder / "a" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    text = shell.refused("merge", "--adapter", "a", "--out", "m")
    assert text.startswith("a/adapter_model.safetensors cannot be read: ")


# What goes wrong later


def test_a_model_that_says_something_else_is_kept_and_named(
    shell: Shell, qlora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Verifier.measure

    def damaged(verifier: Verifier, out: Path, *rest: Any, **how: Any) -> Any:
        file = out / "model.safetensors"
        tensors = load_file(file)
        tensors["model.layers.0.self_attn.o_proj.weight"] *= -1
        save_file(tensors, file, metadata={"format": "pt"})
        return measure(verifier, out, *rest, **how)

    monkeypatch.setattr(Verifier, "measure", damaged)
    said = shell("merge", str(qlora), "--out", "m")
    assert said.status == 2
    last = said.err.splitlines()[-1]
    assert last.startswith(
        "m does not say what the base with its adapter says: its logits deviate by "
    )
    assert "%, and rounding explains 5.00%" in last
    assert last.endswith(
        ". It is kept; bfloat16 may round away what the adapter changes: merge with --dtype float32"
    )
    assert (shell.folder / "m" / "model.safetensors").is_file()
    assert "| deviation of the logits | " in (shell.folder / "m" / "README.md").read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_files_are_written_leaves_nothing(
    shell: Shell, lora: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    before = snapshot(shell.folder)

    def strike(text: str) -> None:
        assert (shell.folder / "m.part" / "model-00001-of-00009.safetensors").exists()
        os.kill(os.getpid(), number)

    monkeypatch.setattr("finqa_sft.cli.merge.tell", strike)
    said = shell(
        "merge", str(lora), "--out", "m", "--dtype", "float32", "--max-shard-size", "1MB",
        "--no-verify",
    )  # fmt: skip
    assert (said.status, said.err) == (
        status,
        "interrupted; before m was whole: nothing of it is left; start again with that command\n",
    )
    assert snapshot(shell.folder) == before


def test_a_signal_while_it_is_verified_leaves_a_whole_model(
    shell: Shell, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(verifier: Verifier, *rest: Any, **how: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Verifier, "measure", strike)
    said = shell("merge", str(lora), "--out", "m")
    assert said.status == 130
    assert said.err.endswith("interrupted; m is whole, and was not verified\n")
    assert load(shell.folder / "m").config.vocab_size == 2048
    assert "\nNot verified.\n" in (shell.folder / "m" / "README.md").read_text()


def test_an_error_while_files_are_written_leaves_nothing(
    shell: Shell, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> None:
        raise TrainingError("stop")

    monkeypatch.setattr("finqa_sft.cli.merge.tell", fail)
    before = snapshot(shell.folder)
    said = shell("merge", str(lora), "--out", "a/b/m", "--no-verify")
    assert (said.status, said.err) == (1, "stop\n")
    assert snapshot(shell.folder) == before


def test_a_whole_process_that_is_killed_leaves_no_folder_of_that_name(
    shell: Shell, lora: Path
) -> None:
    code = (
        "import os, signal, sys\n"
        "import finqa_sft.cli.merge as merge\n"
        "merge.tell = lambda text: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from finqa_sft.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    words = ["merge", str(lora), "--out", "m", "--no-verify"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=shell.folder, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL
    assert not (shell.folder / "m").exists()
    assert "m.part is there" in shell.refused(*words)
    shutil.rmtree(shell.folder / "m.part")
    assert shell(*words).status == 0


def test_how_it_is_asked_names_itself(shell: Shell, qlora: Path) -> None:
    assert shell("merge", str(qlora), "--out", "m", "--no-verify").status == 0
    card = json.loads((shell.folder / "m" / CARD).read_text())
    of_the_run = json.loads((qlora / "adapter" / CARD).read_text())
    values = {value["key"]: value["value"] for value in card["recipe"]["values"]}
    before = {value["key"]: value["value"] for value in of_the_run["recipe"]["values"]}
    assert {key: value for key, value in values.items() if key.startswith("model.")} == {
        "model.factory": "full",
        "model.base": str(shell.folder / "m"),
        "model.weights_dtype": "bfloat16",
    }
    for key in ("formatter.name", "formatter.system", "formatter.max_length"):
        assert values[key] == before[key]
    assert card["longest_answer"] == of_the_run["longest_answer"]
