"""What tests of several processes share: starting them, and a callback that counts what each holds.

Processes on CPUs talk through gloo. DeepSpeed is started there by a launcher of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SECONDS = 600

DEEPSPEED = (str(Path(__file__).with_name("deepspeed_cpu.py")),)
FSDP = (str(Path(__file__).with_name("fsdp_cpu.py")),)
PLAIN = ("-m", "finqa_sft")

ON_ITS_DEVICE = ("trainer.use_cpu=false", "trainer.bf16=false")
"""The device of DeepSpeed and FSDP is the CPU by other means; they compute in the dtype that the
trainer says."""

IN_BFLOAT16 = ("trainer.use_cpu=false", "model.compute_dtype=bfloat16")
"""FSDP computes as it does on a GPU."""

FSDP_LAUNCH = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
}
"""What `accelerate launch` makes of recipes/accelerate/fsdp_qlora.yaml, as another test holds."""


def zero(folder: Path, stage: int, **more: Any) -> str:
    """A configuration of DeepSpeed in a folder; the override that names it."""
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    content = {"zero_optimization": {"stage": stage, **more}, **dict.fromkeys(auto, "auto")}
    (folder / f"zero{stage}.json").write_text(json.dumps(content), encoding="utf-8")
    return f"trainer.deepspeed=zero{stage}.json"


def started(
    *words: str, folder: Path, program: Sequence[str] = PLAIN, processes: int = 2, **more: str
) -> subprocess.Popen[str]:
    """Processes that run a command together, in a process group of their own."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc_per_node={processes}", *program, *words,
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more},
    )  # fmt: skip


def ended(process: subprocess.Popen[str], *, within: float = SECONDS) -> tuple[int, str, str]:
    """Exit status and what was printed, of processes that end in time."""
    try:
        out, err = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"hangs: {out}\n{err}")
    return process.returncode, out, err


def together(
    *words: str, folder: Path, program: Sequence[str] = PLAIN, processes: int = 2, **more: str
) -> str:
    """What processes print that run a command together, to its good end."""
    status, out, err = ended(
        started(*words, folder=folder, program=program, processes=processes, **more)
    )
    assert status == 0, out + err
    return out


COUNTS = '''\
"""A callback that writes down how much of the model and of the optimizer's state a process has."""

from __future__ import annotations

import json

from transformers import TrainerCallback

from finqa_sft import hookimpl
from finqa_sft.plugins.records import CallbackRecord
from finqa_sft.ranks import rank


def states(optimizer):
    """The innermost optimizer's state: torch's."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer.state


class Counting(TrainerCallback):
    def __init__(self, folder):
        self.folder = folder

    def on_step_end(self, args, state, control, model, optimizer, **kwargs):
        parts = [vars(p).get("ds_tensor", p).numel() for p in model.parameters()]
        averages = [s["exp_avg"].numel() for s in states(optimizer).values() if "exp_avg" in s]
        found = {"weights": sum(parts), "averages": sum(averages)}
        (self.folder / f"elements-{rank()}.json").write_text(json.dumps(found))


@hookimpl
def finqa_sft_callbacks():
    return [
        CallbackRecord(
            name="counting", summary="Counts", build=lambda options, folder: Counting(folder)
        )
    ]
'''


def elements(folder: Path) -> list[dict[str, int]]:
    """What each process wrote down."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("elements-*.json"))]
