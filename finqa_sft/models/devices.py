"""The device of this process, and the dtypes and trainer arguments that follow from it.

One process trains on one device: the CPU, or the GPU that the launcher gave it. CUDA here means
ROCm too, which torch presents under the same name; other accelerators count as the CPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from finqa_sft.errors import HardwareError
from finqa_sft.models.options import ComputeDtype, StorageDtype

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig


@dataclass(frozen=True, slots=True)
class Device:
    """A CPU or a GPU.

    Attributes:
        type: What torch calls it.
        index: Which GPU; None for the CPU.
        name: What its maker calls it.
        total_memory: Bytes.
        free_memory: Bytes that nobody used when the device was looked up.
        bfloat16: Computes in bfloat16 at full speed. Taken as False for every CPU: without units
            for it, LoRA's small products in bfloat16 are several times slower than in float32.
    """

    type: Literal["cpu", "cuda"]
    index: int | None
    name: str
    total_memory: int
    free_memory: int
    bfloat16: bool

    @property
    def torch_name(self) -> str:
        """As `torch.device` takes it: `cpu`, `cuda:1`."""
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __str__(self) -> str:
        return self.torch_name if self.index is None else f"{self.torch_name} ({self.name})"


def find_device() -> Device:
    """The device of this process.

    Raises:
        HardwareError: Several GPUs are visible and no launcher shares them out, or a launcher
            started more processes than there are GPUs.
    """
    import psutil
    import torch

    if not torch.cuda.is_available():
        memory = psutil.virtual_memory()
        return Device("cpu", None, "CPU", memory.total, memory.available, bfloat16=False)

    count = torch.cuda.device_count()
    rank = os.environ.get("LOCAL_RANK")
    if rank is None and count > 1:
        raise HardwareError(
            f"{count} GPUs are visible to one process, and SFTTrainer trains on one GPU a process; "
            f"start with `accelerate launch --num_processes {count} -m finqa_sft RECIPE` to use "
            "them all, or set CUDA_VISIBLE_DEVICES=0 to use one"
        )
    index = int(rank or 0)
    if index >= count:
        raise HardwareError(
            f"process {index + 1} of this machine has no GPU: {count} visible, one a process; "
            f"start with `--num_processes {count}`, or make more visible in CUDA_VISIBLE_DEVICES"
        )
    free, total = torch.cuda.mem_get_info(index)
    with torch.cuda.device(index):
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Device("cuda", index, torch.cuda.get_device_name(index), total, free, bfloat16)


def resolve_compute_dtype(wanted: Literal["auto"] | ComputeDtype, device: Device) -> ComputeDtype:
    """The dtype to compute in on this device.

    Raises:
        HardwareError: The device cannot compute in the dtype that is wanted.
    """
    if device.type == "cpu":
        if wanted == "float16":
            raise HardwareError(
                "float16 training needs a GPU and this process has none; leave "
                "model.compute_dtype at auto, which is float32 on the CPU"
            )
        return "float32" if wanted == "auto" else wanted
    if wanted in ("auto", "bfloat16") and not device.bfloat16:
        raise HardwareError(
            f"{device} has no bfloat16 units; set model.compute_dtype to float16, which trains "
            "with loss scaling, or use a GPU of compute capability 8.0 or later"
        )
    return "bfloat16" if wanted == "auto" else wanted


def resolve_storage_dtype(
    wanted: Literal["auto"] | StorageDtype, compute: ComputeDtype, *, sharded: bool
) -> StorageDtype:
    """The dtype that packed 4-bit weights are stored as."""
    if wanted != "auto":
        return wanted
    return compute if sharded else "uint8"


def precision_args(device: Device, compute: ComputeDtype) -> dict[str, Any]:
    """`SFTConfig` fields for a device; `bf16` is always there, as `SFTConfig` defaults it to True.

    Adapters stay in float32 when computing in float16, with autocast and loss scaling around them.
    """
    args: dict[str, Any] = {"bf16": compute == "bfloat16"}
    if compute == "float16":
        args["fp16"] = True
    if device.type == "cpu":
        args["use_cpu"] = True
    return args


def is_zero3() -> bool:
    """Whether DeepSpeed ZeRO-3 is on; known once the `SFTConfig` has been built."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())  # type: ignore[no-untyped-call]


def is_fsdp(args: SFTConfig) -> bool:
    """Whether FSDP shards the model, by the trainer's arguments or by `accelerate launch`."""
    return bool(args.fsdp) or launches_fsdp()


def launches_fsdp() -> bool:
    """Whether `accelerate launch` asks for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")


def shards_weights(args: SFTConfig) -> bool:
    """Whether DeepSpeed ZeRO-3 or FSDP shards the weights."""
    return is_zero3() or is_fsdp(args)


def shares_memory(args: SFTConfig) -> bool:
    """Whether DeepSpeed, at any stage, or FSDP shares out what training keeps in memory."""
    return args.deepspeed_plugin is not None or is_fsdp(args)


def sharded_by(args: SFTConfig) -> str:
    """What shares out a run: `zero1`, `zero2`, `zero3`, `fsdp`, or `none`."""
    plugin = args.deepspeed_plugin
    if plugin is not None:
        return f"zero{plugin.zero_stage}"
    return "fsdp" if is_fsdp(args) else "none"
