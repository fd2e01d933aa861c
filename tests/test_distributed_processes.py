"""Two processes under FSDP train as one does and share the base out; a scheduler's signal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bad_input import Shell, shell
from conftest import ROOT
from evaluated import wild, write_recipe
from processes import SECONDS, together
from runs import losses, manifest
from safetensors.torch import load_file
from test_shared_context_run import RECIPE

__all__ = ["shell", "wild"]

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

ONE = ("output.dir=one", "trainer.gradient_accumulation_steps=2")
TWO = ("output.dir=two", "trainer.gradient_accumulation_steps=1")
"""Two processes have the batches of one that accumulates two."""


@pytest.mark.parametrize("factory", ["qlora", "lora", "full"])
def test_fsdp_shares_the_base_out_and_has_the_losses_of_one_process(
    shell: Shell, wild: Path, factory: str
) -> None:
    folder = shell.folder
    write_recipe(folder, wild, RECIPE)
    words = [f"model.factory={factory}", "trainer.max_grad_norm=0"]
    assert shell("train", "small.yaml", *words, *ONE).status == 0
    said = together("train", "small.yaml", *words, *TWO, folder=folder, way="fsdp")
    assert said.count(
        "FSDP; 2 processes; shared out: optimizer states, gradients, weights; no mixed precision"
    ) == 1  # fmt: skip
    assert "under FSDP the run asks no questions" in said
    assert losses(folder / "two") == pytest.approx(losses(folder / "one"), rel=1e-4)
    found, alone = (manifest(folder / name)["distributed"] for name in ("two", "one"))
    assert (found["type"], found["kind"], found["processes"]) == ("FSDP", "fsdp", 2)
    assert (alone["type"], alone["kind"], alone["shared"]) == ("NO", "none", [])
    for kind in ("frozen_elements", "trained_elements"):
        # Both processes have the same number of a layer's rows, or one row more.
        assert found[kind]["here"] == pytest.approx(found[kind]["whole"] / 2, rel=0.01)
    # AdamW's two averages, of which each process has half.
    assert found["optimizer_elements"] == 2 * found["trained_elements"]["here"]
    assert alone["optimizer_elements"] == 2 * alone["trained_elements"]["whole"]
    result, file = ("model", "model") if factory == "full" else ("adapter", "adapter_model")
    two, one = (load_file(folder / n / result / f"{file}.safetensors") for n in ("two", "one"))
    # Under FSDP the head that shares its weights with the embedding is saved beside it.
    assert one.keys() <= two.keys()
    for name, weight in one.items():
        assert (two[name] - weight).abs().max() < 1e-4, name


@pytest.mark.parametrize("adapter", ["model.lora.dora=false", "model.lora.dora=true"])
def test_fsdp_trains_adapters_in_float32_and_resumes_as_if_it_had_not_stopped(
    shell: Shell, wild: Path, adapter: str
) -> None:
    folder = shell.folder
    write_recipe(folder, wild, RECIPE)
    words = ["train", "small.yaml", adapter, "trainer.lr_scheduler_type=constant"]
    words += ["trainer.save_steps=2", "trainer.save_total_limit=2"]

    def train(*more: str) -> str:
        return together(*words, *more, folder=folder, way="fsdp in bfloat16")

    said = train("trainer.max_steps=4", "output.dir=whole")
    assert "FSDP; 2 processes" in said
    assert "mixed precision bf16" in said
    saved = load_file(folder / "whole" / "adapter" / "adapter_model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    train("trainer.max_steps=2", "output.dir=part")
    train("trainer.max_steps=4", "output.dir=part", "trainer.resume_from_checkpoint=true")
    assert losses(folder / "part") == losses(folder / "whole")
    again = load_file(folder / "part" / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(weight, again[name]) for name, weight in saved.items())


CLUSTER = {
    "scontrol": "echo localhost",
    # One machine, and the step's processes apart from the batch script's, as slurmstepd has them.
    "srun": 'SLURM_NODEID=0 exec setsid --wait "$@"',
    "accelerate": f'exec {sys.executable} -m accelerate.commands.accelerate_cli "$@"',
}
"""What stands in for SLURM's commands. With its own, 22.05, the script was tried by hand."""


@pytest.fixture
def batch(tmp_path: Path, wild: Path) -> Iterator[subprocess.Popen[str]]:
    """The shipped batch script, training with two processes."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in CLUSTER.items():
        (commands / name).write_text(f"#!/bin/bash\n{line}\n", encoding="utf-8")
        (commands / name).chmod(0o755)
    write_recipe(tmp_path, wild, RECIPE)
    script = ROOT / "recipes" / "accelerate" / "multi_node.sbatch"
    words = ["small.yaml", "output.dir=two", "trainer.max_steps=400", "trainer.save_steps=1000"]
    process = subprocess.Popen(
        ["bash", str(script), *words, "trainer.eval_strategy=no"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "CUDA_VISIBLE_DEVICES": "",
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_NNODES": "1",
            "SLURM_GPUS_ON_NODE": "2",
            "SLURM_JOB_ID": "1",
        },
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.mark.skipif(shutil.which("pkill") is None, reason="needs pkill (procps)")
def test_the_batch_script_passes_sigterm_on_and_waits_for_the_checkpoint(
    batch: subprocess.Popen[str], tmp_path: Path
) -> None:
    log = tmp_path / "two" / "metrics.jsonl"
    deadline = time.monotonic() + SECONDS
    while not (log.is_file() and log.read_text(encoding="utf-8").count('"loss"') >= 2):
        assert batch.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    # To the script alone, as `--signal=B:TERM@300` does.
    batch.send_signal(signal.SIGTERM)
    out, _ = batch.communicate(timeout=SECONDS)
    assert out.count("SIGTERM: saving a checkpoint after this step") == 1, out
    written = manifest(tmp_path / "two")
    assert written["status"] == "interrupted by SIGTERM"
    assert (tmp_path / "two" / f"checkpoint-{written['result']['steps']}").is_dir()
    assert (tmp_path / "two" / "adapter" / "adapter_model.safetensors").is_file()
    assert written["distributed"]["processes"] == 2
    # What `accelerate launch` makes of processes that ended by a signal.
    assert batch.returncode == 1
