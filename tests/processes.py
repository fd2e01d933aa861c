"""What tests of several processes share: starting them, and a callback that counts what each holds.

Processes on CPUs talk through gloo. DeepSpeed is started there by a launcher of the tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finqa_sft.recipe.shipped import shipped_configs

SECONDS = 600

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

HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None

needs_deepspeed = pytest.mark.skipif(not HAS_DEEPSPEED, reason="needs the deepspeed extra")


@dataclass(frozen=True)
class Way:
    """How processes on CPUs share a run out.

    Attributes:
        words: Overrides of the recipe.
        program: What the launcher starts.
        environment: What it tells the processes.
    """

    words: tuple[str, ...] = ()
    program: tuple[str, ...] = ("-m", "finqa_sft")
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, folder: Path) -> Way:
        """A way by its name.

        The device of DeepSpeed and FSDP is the CPU by other means; they compute in the dtype that
        the trainer says.

        Args:
            name: `ddp`, `zero1` to `zero3`, `fsdp`, or `fsdp in bfloat16`, as on a GPU; where the
                recipe names no configuration, `zero2 by the launcher` and its like.
            folder: Where a configuration of DeepSpeed goes, if there is none of that name.
        """
        here = Path(__file__)
        device = ("trainer.use_cpu=false", "trainer.bf16=false")
        match name.partition(" ")[0]:
            case "ddp":
                return cls()
            case "fsdp":
                if name.endswith("bfloat16"):
                    device = ("trainer.use_cpu=false", "model.compute_dtype=bfloat16")
                return cls(device, (str(here.with_name("fsdp_cpu.py")),), FSDP_LAUNCH)
        program = (str(here.with_name("deepspeed_cpu.py")),)
        if name.endswith(" by the launcher"):
            file = str(shipped_configs("deepspeed")[name.partition(" ")[0]])
            told = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": file}
            return cls(device, program, told)
        sizes = ("train_batch_size", "train_micro_batch_size_per_gpu")
        auto = dict.fromkeys((*sizes, "gradient_accumulation_steps"), "auto")
        zero = {"stage": int(name[-1]), "stage3_gather_16bit_weights_on_model_save": True}
        config = {"zero_optimization": zero, **auto}
        file = folder / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(config), encoding="utf-8")
        return cls((*device, f"trainer.deepspeed={name}.json"), program)


def marks(way: str) -> list[pytest.MarkDecorator]:
    """The marks of a test that shares a run out in this way."""
    return [pytest.mark.deepspeed, needs_deepspeed] if way.startswith("zero") else []


def started(
    *words: str, folder: Path, way: str = "ddp", processes: int = 2, **more: str
) -> subprocess.Popen[str]:
    """Processes that run a command together, in a process group of their own."""
    how = Way.of(way, folder)
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc_per_node={processes}", *how.program, *words, *how.words,
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            **how.environment,
            **more,
        },
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


def together(*words: str, folder: Path, way: str = "ddp", processes: int = 2, **more: str) -> str:
    """What processes print that run a command together, to its good end."""
    status, out, err = ended(started(*words, folder=folder, way=way, processes=processes, **more))
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
