"""How several processes end: together, in time, with one message, and with what can be resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from evaluated import wild, write_recipe
from processes import ended, marks, started, together
from runs import losses, manifest
from test_shared_context_run import RECIPE

from finqa_sft.training.checkpoints import flaw, newest

__all__ = ["wild"]

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

STEPS = 40

ODD = '''\
"""A reader that tells who reads, and callbacks that are slow, stuck, or fail in one process."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Literal

from transformers import TrainerCallback

from finqa_sft import hookimpl
from finqa_sft.errors import TrainingError
from finqa_sft.options import Options
from finqa_sft.plugins.records import CallbackRecord, ReaderRecord
from finqa_sft.ranks import rank
from finqa_sft import FilingsOptions, FilingsReader


def reader(options):
    class Telling(FilingsReader):
        def __iter__(self):
            with open("readers.txt", "a") as file:
                file.write(f"{os.getpid()}\\n")
            return super().__iter__()

    return Telling(options)


class When(Options):
    does: Literal["wait", "sleep", "stuck", "raise", "break"] = "wait"
    process: int = 1


class Odd(TrainerCallback):
    def __init__(self, options):
        self.options = options

    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(0.2)
        if state.global_step < 2 or rank() != self.options.process:
            return
        match self.options.does:
            case "sleep":
                time.sleep(300)
            case "stuck":
                # In C, where no signal is heard.
                mutex = ctypes.create_string_buffer(64)
                for _ in range(2):
                    ctypes.CDLL(None).pthread_mutex_lock(mutex)
            case "raise":
                raise TrainingError("the disk of this machine is on fire; put it out")
            case "break":
                raise ZeroDivisionError("a bug")


@hookimpl
def finqa_sft_readers():
    return [ReaderRecord(name="telling", summary="", config=FilingsOptions, build=reader)]


@hookimpl
def finqa_sft_callbacks():
    return [
        CallbackRecord(
            name="odd", summary="", config=When, build=lambda options, folder: Odd(options)
        )
    ]
'''

TEXT = (
    RECIPE.replace("plugins: [marks.py]", "plugins: [marks.py, odd.py]")
    .replace("reader: filings", "reader: telling")
    .replace("max_steps: 4", f"max_steps: {STEPS}")
    .replace("eval_strategy: steps\n  eval_steps: 2", "eval_strategy: 'no'")
    .replace("gradient_accumulation_steps: 2", "gradient_accumulation_steps: 1")
)

TRAIN = ("train", "small.yaml")
GOES_ON = "trainer.resume_from_checkpoint=true"


@pytest.fixture
def folder(tmp_path: Path, wild: Path) -> Path:
    write_recipe(tmp_path, wild, TEXT)
    (tmp_path / "odd.py").write_text(ODD, encoding="utf-8")
    return tmp_path


def odd(does: str, process: int = 1) -> str:
    return f"callbacks=[{{name: odd, does: {does}, process: {process}}}]"


def under_way(process: subprocess.Popen[str], folder: Path, *, step: int = 2) -> dict[int, int]:
    """The system's number of each process, once so many steps were logged."""
    file = folder / "run" / "metrics.jsonl"
    until = time.monotonic() + 240
    while time.monotonic() < until:
        lines = file.read_text().splitlines() if file.is_file() else []
        if len(lines) >= step:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    found = {}
    for child in psutil.Process(process.pid).children():
        found[int(child.environ()["RANK"])] = child.pid
    assert set(found) == {0, 1}
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_sigterm_to_one_process_ends_all_with_a_checkpoint(folder: Path, number: int) -> None:
    process = started(*TRAIN, odd("wait"), folder=folder)
    os.kill(under_way(process, folder)[number], signal.SIGTERM)
    _, out, err = ended(process, within=120)
    run = folder / "run"
    assert manifest(run)["status"] == "interrupted by SIGTERM", out + err
    assert out.count("stopped               after step") == 1
    checkpoint = newest(run)
    assert checkpoint is not None
    assert flaw(checkpoint, contents=True) is None
    steps = int(checkpoint.name.partition("-")[2])
    assert steps < STEPS
    assert len(losses(run)) == steps
    together(*TRAIN, GOES_ON, f"trainer.max_steps={steps + 2}", folder=folder)
    assert len(losses(run)) == steps + 2


def test_a_signal_that_the_launcher_hands_on_once_more_counts_once(folder: Path) -> None:
    process = started(*TRAIN, odd("wait"), folder=folder)
    # A scheduler sends it to all, the launcher too.
    for pid in (*under_way(process, folder).values(), process.pid):
        os.kill(pid, signal.SIGINT)
    _, out, err = ended(process, within=120)
    assert manifest(folder / "run")["status"] == "interrupted by SIGINT", out + err
    checkpoint = newest(folder / "run")
    assert checkpoint is not None
    assert len(losses(folder / "run")) == int(checkpoint.name.partition("-")[2])


def is_running(pid: int) -> bool:
    """Whether a process has not ended; its launcher may not have noticed yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("does", ["sleep", "stuck"])
def test_a_process_that_cannot_save_in_time_ends_within_the_grace_period(
    folder: Path, does: str
) -> None:
    words = [odd(does), "output.grace_period=6", "trainer.save_steps=1"]
    process = started(*TRAIN, *words, folder=folder)
    pid = under_way(process, folder)[1]
    time.sleep(1)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    while is_running(pid):
        assert time.monotonic() - began < 6
        time.sleep(0.05)
    status, _, err = ended(process, within=120)
    assert status != 0
    if does == "stuck":
        assert "process 1 did not end within output.grace_period, 6 s" in err
    found = newest(folder / "run")
    assert found is not None
    assert found.name == "checkpoint-2"


def test_an_error_of_one_process_ends_all_with_its_message(folder: Path) -> None:
    process = started(*TRAIN, odd("raise"), folder=folder)
    status, _, err = ended(process, within=120)
    assert status != 0
    assert "process 1: the disk of this machine is on fire; put it out\n" in err
    assert manifest(folder / "run")["status"] in ("failed", "running")


def test_a_bug_in_one_process_ends_all_with_its_traceback(folder: Path) -> None:
    process = started(*TRAIN, odd("break"), folder=folder)
    status, _, err = ended(process, within=120)
    assert status != 0
    assert err.count("ZeroDivisionError: a bug") == 1
    assert "raised in the callback 'odd' of odd.py" in err


def test_an_error_that_all_have_is_said_once(folder: Path) -> None:
    process = started(*TRAIN, "trainer.learning_rat=1", folder=folder)
    status, out, err = ended(process, within=120)
    assert status != 0
    assert err.count("did you mean trainer.learning_rate?") == 1
    assert out == ""
    process = started(*TRAIN, "model.base=./gone", folder=folder)
    status, out, err = ended(process, within=120)
    assert status != 0
    assert err.count("correct the path in model.base") == 1


def test_one_process_reads_the_data_and_one_speaks(folder: Path) -> None:
    words = [odd("wait"), "trainer.max_steps=2"]
    out = together(*TRAIN, *words, folder=folder)
    readers = (folder / "readers.txt").read_text().split()
    assert len(set(readers)) == 1
    lines = [line for line in out.splitlines() if line.strip()]
    assert len([line for line in lines if line.startswith("training ")]) == 1
    assert len([line for line in lines if line.startswith("saved ")]) == 1
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "finished"


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    place = folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a small disk, as root may")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=marks(way)) for way in ("ddp", "zero2", "fsdp")]
)
def test_a_full_disk_keeps_the_last_checkpoint_of_several_processes(
    folder: Path, disk: Path, way: str
) -> None:
    words = [*TRAIN, "output.dir=disk/run", "trainer.max_steps=6", "trainer.save_steps=1"]
    words += ["trainer.save_total_limit=4"]
    status, out, err = ended(started(*words, folder=folder, way=way))
    assert status == 1
    kept = newest(disk / "run")
    assert kept is not None
    assert flaw(kept, contents=True) is None
    said = [line for line in err.splitlines() if line.startswith("the disk of disk/run is full (")]
    assert len(said) == 1, out + err
    assert "a checkpoint takes" in said[0]
    assert f"disk/run/{kept.name} is kept. Free some space and go on from there" in said[0]
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    together(*words, GOES_ON, folder=folder, way=way)
    assert len(losses(disk / "run")) == 6


def machines(
    folder: Path, *words: str, second: Sequence[str] = (), elsewhere: Path | None = None
) -> list[tuple[int, str, str]]:
    """What a process on each of two machines says that train together.

    Args:
        folder: Where the first works.
        words: What both are given.
        second: What the second is given besides.
        elsewhere: Where the second works, if not in the same folder.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1",
                f"--node_rank={number}", "--master_addr=127.0.0.1", f"--master_port={port}",
                "-m", "finqa_sft", *words, *more,
            ],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
        for number, (place, more) in enumerate(((folder, ()), (elsewhere or folder, second)))
    ]  # fmt: skip
    return [ended(process, within=240) for process in processes]


def test_an_error_on_one_machine_ends_the_other_with_its_message(folder: Path) -> None:
    found = machines(folder, *TRAIN, second=["model.base=./gone"])
    for status, out, err in found:
        assert status != 0
        assert "gone': no such folder" in err, out + err
    assert "process 1 (on " in found[0][2]
    assert not (folder / "run").exists()


def test_machines_that_do_not_share_the_output_folder_do_not_train(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(folder, elsewhere, dirs_exist_ok=True)
    found = machines(folder, *TRAIN, elsewhere=elsewhere)
    for status, out, err in found:
        assert status != 0
        assert "set output.dir to a folder that all machines share" in err, out + err
    assert not list(folder.glob("run/*"))
