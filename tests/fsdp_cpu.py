"""Starts finqa_sft under FSDP on a machine without an accelerator, for tests alone.

accelerate takes FSDP for granted on accelerators only (1.15, `AcceleratorState`): it would train
under DDP. Here it is told that the CPU is one, and that processes talk through gloo. torch's FSDP
itself works on the CPU.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from transformers import training_args

from finqa_sft.cli.main import main


def gloo(state: PartialState, *_: Any, **__: Any) -> tuple[str, DistributedType]:
    """The backend of processes on CPUs, under the name of GPUs."""
    return "gloo", DistributedType.MULTI_GPU


def on_cpu(state: PartialState) -> None:
    """The device of a process."""
    state.device = torch.device("cpu")


def pretend() -> None:
    """Tell accelerate so, and transformers that this device computes in bfloat16, as it does."""
    PartialState._prepare_backend = gloo
    PartialState.set_device = on_cpu
    training_args.is_torch_bf16_gpu_available = lambda: True


if __name__ == "__main__":
    pretend()
    sys.exit(main(sys.argv[1:]))
