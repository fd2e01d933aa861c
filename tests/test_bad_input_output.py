"""An output folder that cannot be used, a full disk, full memory, a checkpoint that is damaged."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input import Shell, edited, snapshot
from filelock import FileLock
from runs import losses, manifest

pytest_plugins = ["bad_input"]

STEPS = edited(
    "  max_steps: 1\n",
    "  max_steps: 4\n  save_steps: 1\n  logging_steps: 1\n  per_device_train_batch_size: 1\n",
)
RESUME = "trainer.resume_from_checkpoint=true"


@pytest.fixture
def striking(shell: Shell) -> Shell:
    """A shell whose recipe saves after each of its four steps, and names `striking.py`."""
    shell.write("r.yaml", STEPS + "plugins: [striking.py]\n")
    shutil.copy(Path(__file__).with_name("striking.py"), shell.folder)
    return shell


def test_an_output_folder_that_is_a_file(shell: Shell) -> None:
    shell.write("run", "mine")
    assert shell.refused("r.yaml") == "run is a file; set output.dir to a folder"
    assert shell.refused("r.yaml", "output.dir=run/deeper") == (
        "cannot write to run/deeper: Not a directory; set output.dir to a folder that can be "
        "written"
    )


def test_an_output_folder_that_cannot_be_written(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *rest: Any, **named: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert shell.refused("r.yaml") == (
        "cannot write to run: Read-only file system; set output.dir to a folder that can be written"
    )


def test_an_output_folder_with_files_of_ones_own(shell: Shell) -> None:
    shell.write("run/README.md", "mine")
    assert shell.refused("r.yaml", "output.overwrite=true") == (
        "run holds README.md, which no run of finqa_sft wrote; set output.dir to another folder"
    )


def test_an_output_folder_with_a_run(shell: Shell) -> None:
    assert shell("r.yaml").status == 0
    assert shell.refused("r.yaml") == (
        "run already holds a run; continue it with trainer.resume_from_checkpoint=true, replace it "
        "with output.overwrite=true, or set output.dir to another folder"
    )
    assert shell.refused("r.yaml", "output.overwrite=true", "model.base=./gone").endswith(
        "no such folder; correct the path in model.base"
    )


def test_an_empty_output_folder_is_still_there_after_a_refusal(shell: Shell) -> None:
    (shell.folder / "run").mkdir()
    shell.refused("r.yaml", "model.base=./gone")
    shell.refused("r.yaml", "model.base=./gone", "output.dir=new/deeper/run")
    assert (shell.folder / "run").is_dir()
    assert not (shell.folder / "new").exists()


def test_two_runs_in_one_folder(shell: Shell) -> None:
    shell.write("run/.lock", "")
    with FileLock(shell.folder / "run" / ".lock"):
        assert shell.refused("r.yaml") == (
            "another run is writing to run; wait for it, or set output.dir to another folder"
        )
    assert shell("r.yaml").status == 0
    assert not (shell.folder / "run" / ".lock").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("file", ["chat_template.jinja", "optimizer.pt"])
def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(
    striking: Shell, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    if file == "optimizer.pt":
        # torch does not say why it could not write; how much is free does.
        usage = shutil.disk_usage(striking.folder)._replace(free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    said = striking("r.yaml", f"callbacks=[{{name: striking, phase: full, file: {file}}}]")
    assert said.status == 1
    takes = sum(
        path.stat().st_size
        for path in (striking.folder / "run" / "checkpoint-2").iterdir()
        if path.name != "manifest.json"
    )
    assert said.err.startswith("the disk of run is full (")
    assert said.err.endswith(
        f" left, and a checkpoint takes {takes / 2**20:.1f} MiB): run/checkpoint-2 is kept. Free "
        "some space and go on from there with trainer.resume_from_checkpoint=true; "
        "trainer.save_total_limit keeps fewer checkpoints\n"
    )
    run = striking.folder / "run"
    assert sorted(path.name for path in run.iterdir()) == [
        "README.md", "checkpoint-1", "checkpoint-2", "metrics.jsonl", "run.json"
    ]  # fmt: skip
    assert manifest(run)["status"] == "failed"
    assert striking("r.yaml", RESUME).status == 0
    assert len(losses(run)) == 4


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ([], "trainer.per_device_train_batch_size"),
        (["collator={name: shared_context}"], "collator.tokens_per_batch"),
    ],
)
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has a lot"),
            "CUDA out of memory",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes."),
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes.",
        ),
        (MemoryError(), "MemoryError"),
    ],
)
def test_full_memory_is_explained(
    striking: Shell,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    cause: str,
    words: list[str],
    size: str,
) -> None:
    from trl.trainer.sft_trainer import SFTTrainer

    real = SFTTrainer.training_step

    def step(trainer: Any, *arguments: Any, **named: Any) -> Any:
        if trainer.state.global_step == 1:
            raise error
        return real(trainer, *arguments, **named)

    monkeypatch.setattr(SFTTrainer, "training_step", step)
    said = striking("r.yaml", *words)
    assert said.status == 1
    assert said.err == (
        f"memory ran out ({cause}): run/checkpoint-1 is kept. Set trainer.gradient_checkpointing "
        "and go on from there with trainer.resume_from_checkpoint=true; or start anew with a lower "
        f"formatter.max_length, or with a lower {size} and as much more "
        "trainer.gradient_accumulation_steps\n"
    )


def cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda checkpoint: cut_off(checkpoint / "adapter_model.safetensors"),
            "run/checkpoint-1 cannot be resumed: adapter_model.safetensors is missing or damaged; "
            "copy it again, or name an earlier checkpoint in trainer.resume_from_checkpoint",
        ),
        (
            lambda checkpoint: cut_off(checkpoint / "optimizer.pt"),
            "run/checkpoint-1 cannot be resumed: optimizer.pt is missing or damaged; copy it "
            "again, or name an earlier checkpoint in trainer.resume_from_checkpoint",
        ),
        (
            lambda checkpoint: (checkpoint / "optimizer.pt").unlink(),
            "run/checkpoint-1 cannot be resumed: optimizer.pt is missing or damaged; copy it "
            "again, or name an earlier checkpoint in trainer.resume_from_checkpoint",
        ),
        (
            lambda checkpoint: changed(checkpoint / "optimizer.pt"),
            "run/checkpoint-1 cannot be resumed: optimizer.pt is damaged; copy it again, or name "
            "an earlier checkpoint in trainer.resume_from_checkpoint",
        ),
        (
            lambda checkpoint: (checkpoint / "manifest.json").unlink(),
            "no complete checkpoint in run; leave out trainer.resume_from_checkpoint to start from "
            "the beginning",
        ),
        (
            lambda checkpoint: cut_off(checkpoint.parent / "run.json"),
            "run/run.json is not as a run wrote it, so nothing says what run/checkpoint-1 was "
            "trained on; restore it, or start anew without trainer.resume_from_checkpoint",
        ),
    ],
)
def test_a_checkpoint_that_is_damaged(shell: Shell, harm: Callable[[Path], Any], said: str) -> None:
    assert shell("r.yaml").status == 0
    harm(shell.folder / "run" / "checkpoint-1")
    assert shell.refused("r.yaml", RESUME, "trainer.max_steps=2") == said


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("collator={name: raising}", "raised in the collator 'raising' of "),
        (
            "callbacks=[{name: striking, phase: raising}]",
            "raised in the callback 'striking' of ",
        ),
    ],
)
def test_a_bug_of_a_stranger_is_put_down_to_them(striking: Shell, override: str, note: str) -> None:
    with pytest.raises(ZeroDivisionError) as error:
        striking("r.yaml", override)
    assert error.value.__notes__ == [f"{note}striking.py"]


def test_nothing_of_a_finished_run_is_lost_where_the_next_one_fails_at_once(
    striking: Shell,
) -> None:
    assert striking("r.yaml").status == 0
    before = snapshot(striking.folder / "run")
    said = striking("r.yaml", "output.overwrite=true", "formatter={name: striking}")
    assert said.status == 130
    assert snapshot(striking.folder / "run") == before
