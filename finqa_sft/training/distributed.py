"""What shares a run out, as it is once the trainer stands: processes, ZeRO or FSDP, precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from finqa_sft.ranks import local_world_size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from trl.trainer.sft_trainer import SFTTrainer

STATES, GRADIENTS, WEIGHTS = "optimizer states", "gradients", "weights"

BY_STAGE: tuple[tuple[str, ...], ...] = (
    (),
    (STATES,),
    (STATES, GRADIENTS),
    (STATES, GRADIENTS, WEIGHTS),
)
"""What DeepSpeed ZeRO shares out, by its stage (Rajbhandari et al., 2020)."""


@dataclass(frozen=True, slots=True)
class Distributed:
    """How the processes of a run share it out.

    Attributes:
        type: accelerate's name of it: `NO`, `MULTI_GPU`, `MULTI_CPU`, `DEEPSPEED`, `FSDP`.
        kind: The same in plain words.
        processes: Processes that train together.
        machines: Machines that they are on.
        stage: Of DeepSpeed ZeRO; None without DeepSpeed.
        shared: What each process holds a share of; it holds the whole of everything else.
        offloaded: What stays in the memory of the host between its uses.
        mixed_precision: What autocast, DeepSpeed or FSDP computes in; `no` where products are
            computed in the dtype of the weights.
    """

    type: str
    kind: Literal["none", "ddp", "deepspeed", "fsdp"]
    processes: int
    machines: int
    stage: int | None
    shared: tuple[str, ...]
    offloaded: tuple[str, ...]
    mixed_precision: str

    @classmethod
    def of(cls, trainer: SFTTrainer) -> Distributed:
        """Ask the trainer's accelerator.

        Args:
            trainer: A trainer whose constructor has ended.
        """
        state: Any = trainer.accelerator.state
        processes = int(state.num_processes)
        kind: Literal["none", "ddp", "deepspeed", "fsdp"] = "ddp" if processes > 1 else "none"
        stage: int | None = None
        shared: tuple[str, ...] = ()
        offloaded: tuple[str, ...] = ()
        if trainer.is_deepspeed_enabled:
            kind = "deepspeed"
            stage, shared, offloaded = _zero(state.deepspeed_plugin)
        elif trainer.is_fsdp_enabled:
            kind = "fsdp"
            shared, offloaded = _fsdp(state.fsdp_plugin)
        return cls(
            type=str(state.distributed_type.value),
            kind=kind,
            processes=processes,
            machines=max(1, processes // local_world_size()),
            stage=stage,
            shared=shared if processes > 1 else (),
            offloaded=offloaded,
            mixed_precision=str(state.mixed_precision),
        )

    def __str__(self) -> str:
        """One line for the console."""
        name = {
            "none": "one process",
            "ddp": "DDP",
            "deepspeed": f"DeepSpeed ZeRO-{self.stage}",
            "fsdp": "FSDP",
        }[self.kind]
        parts = [name]
        if self.kind != "none":
            where = "" if self.machines == 1 else f" on {self.machines} machines"
            several = "process" if self.processes == 1 else "processes"
            parts.append(f"{self.processes} {several}{where}")
            shared = ", ".join(self.shared)
            parts.append(f"shared out: {shared}" if shared else "each holds everything")
        if self.offloaded:
            parts.append(f"in the host's memory: {', '.join(self.offloaded)}")
        precision = self.mixed_precision
        parts.append("no mixed precision" if precision == "no" else f"mixed precision {precision}")
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def _zero(plugin: Any) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Stage, what is shared out, and what lies in the host's memory."""
    stage = int(plugin.zero_stage)
    off = {STATES: plugin.offload_optimizer_device, WEIGHTS: plugin.offload_param_device}
    offloaded = tuple(what for what, device in off.items() if device not in (None, "none"))
    return stage, BY_STAGE[stage], offloaded


def _fsdp(plugin: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is shared out between steps, and what lies in the host's memory."""
    from torch.distributed.fsdp import CPUOffload, CPUOffloadPolicy, ShardingStrategy

    offload = plugin.cpu_offload
    is_off = isinstance(offload, CPUOffloadPolicy) or (
        isinstance(offload, CPUOffload) and offload.offload_params
    )
    everything = BY_STAGE[3]
    unshared = plugin.fsdp_version == 1 and ShardingStrategy.NO_SHARD in (
        plugin.sharding_strategy,
        plugin.reshard_after_forward,
    )
    return () if unshared else everything, everything if is_off else ()


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements of tensors, in this process and altogether.

    Attributes:
        here: In this process.
        whole: In all processes together, each counted once.
    """

    here: int
    whole: int

    @classmethod
    def of(cls, module: Module, *, trained: bool) -> Elements:
        """Count the parameters of a model that is trained, or is to be.

        Args:
            module: The model, shared out or not.
            trained: Whether those that are trained are counted, or those that are not.
        """
        counts = [_count(p) for p in module.parameters() if p.requires_grad is trained]
        return cls(sum(here for here, _ in counts), sum(whole for _, whole in counts))

    def record(self) -> dict[str, int]:
        """As plain values."""
        return asdict(self)


def _count(parameter: Tensor) -> tuple[int, int]:
    """Elements of a parameter in this process, and of the whole."""
    from torch.distributed.tensor import DTensor

    if isinstance(parameter, DTensor):
        return parameter.to_local().numel(), parameter.numel()
    attributes = vars(parameter)
    if "ds_tensor" in attributes:
        # Under ZeRO-3 a parameter is empty between its uses, and this holds the share.
        return int(attributes["ds_tensor"].numel()), int(attributes["ds_numel"])
    return parameter.numel(), parameter.numel()


def state_elements(optimizer: Any) -> int:
    """Elements of the optimizer's states in this process, once it has made a step.

    Args:
        optimizer: As the trainer has it, wrapped by accelerate or DeepSpeed or not.
    """
    return sum(_count(tensor)[0] for tensor in _states(optimizer))


def _states(optimizer: Any) -> Iterator[Tensor]:
    import torch

    while "optimizer" in vars(optimizer):
        optimizer = optimizer.optimizer
    for state in optimizer.state.values():
        yield from (v for v in state.values() if isinstance(v, torch.Tensor) and v.ndim > 0)


def held(trainer: SFTTrainer) -> dict[str, Any]:
    """What this process holds of the model when training begins, as plain values.

    Args:
        trainer: Its model is wrapped.
    """
    from torch.distributed.fsdp import FSDPModule

    model: Any = trainer.model
    for module in model.modules():
        # A forward before training, as a collator's check, leaves the last layers whole.
        if isinstance(module, FSDPModule):
            module.reshard()
    return {
        "frozen_elements": Elements.of(model, trained=False).record(),
        "trained_elements": Elements.of(model, trained=True).record(),
    }
