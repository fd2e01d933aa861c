"""What training really held in memory, counted and measured beside what was predicted.

A watch stands around the training and needs no callback: torch tells it when an optimizer has made
a step, at which moment weights, gradients and the optimizer's state are all there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finqa_sft.models.memory import size
from finqa_sft.models.needs import Need

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

PARTS = ("weights", "gradients", "optimizer")

STEPS_COUNTED = 4
"""Steps after which tensors are counted; in the first, not every state may be there."""


def model_tensors(model: Module) -> Iterator[Tensor]:
    """Every tensor that a model holds: parameters or their parts, buffers, scales, tables."""
    for parameter in model.parameters():
        yield parameter
        # DeepSpeed ZeRO-3 keeps a process's part beside the parameter.
        if "ds_tensor" in vars(parameter):
            yield vars(parameter)["ds_tensor"]
    yield from model.buffers()
    if "bitsandbytes" in sys.modules:
        yield from _scales(model)


def _scales(model: Module) -> Iterator[Tensor]:
    """What quantised weights are unpacked by (bitsandbytes 0.50, `nn/modules.py`)."""
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    for module in model.modules():
        weight: Any = module._parameters.get("weight")
        if isinstance(module, Linear4bit):
            # FSDP shards the weight alone; the layer keeps the scales.
            packed: Any = vars(weight).get("quant_state") or module.quant_state
            yield from (packed.absmax, packed.code)
            if packed.nested:
                yield from (packed.offset, packed.state2.absmax, packed.state2.code)
        elif isinstance(module, Linear8bitLt):
            # The first forward pass moves the scales.
            state: Any = module.state
            yield state.SCB if weight.SCB is None else weight.SCB


def count(tensors: Iterable[Tensor], *, besides: set[int]) -> int:
    """Bytes of some tensors, each once.

    Args:
        tensors: The tensors.
        besides: Addresses that were counted before; those of these tensors are added.
    """
    from torch.distributed.tensor import DTensor

    total = 0
    for tensor in tensors:
        if isinstance(tensor, DTensor):
            # FSDP's: this process holds a part.
            tensor = tensor.to_local()
        if tensor.numel() and tensor.data_ptr() not in besides:
            besides.add(tensor.data_ptr())
            total += tensor.nbytes
    return total


def held(model: Module, optimizer: Optimizer) -> dict[str, int]:
    """Bytes of the tensors that a model and its optimizer hold on this process.

    Args:
        model: As it trains.
        optimizer: After a step, before gradients are let go.

    Returns:
        `weights`, `gradients`, and `optimizer`: its state, and weights that it has a copy of.
    """
    seen: set[int] = set()
    weights = count(model_tensors(model), besides=seen)
    groups = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    learning = [*model.parameters(), *groups]
    gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
    values = (value for state in optimizer.state.values() for value in state.values())
    return {
        "weights": weights,
        "gradients": count(gradients, besides=seen),
        "optimizer": count([*groups, *filter(_is_tensor, values)], besides=seen),
    }


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


class MemoryWatch:
    """Counts what training holds, and measures the most that a GPU had in use while it trained.

    Attributes:
        held: Bytes by part at an optimizer step, see `held`; zeros before the first.
        peak: Most bytes in use on the GPU in steps between which nothing was evaluated or
            generated; None on the CPU, where nothing keeps account.
    """

    def __init__(self, model: Module) -> None:
        """Take the model that will train."""
        self.held = dict.fromkeys(PARTS, 0)
        self.peak: int | None = None
        self._model = model
        self._left = STEPS_COUNTED
        self._evaluated = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for as long as this lasts."""
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        embedding: Module = self._model.get_input_embeddings()  # type: ignore[operator]
        handles = [
            register_optimizer_step_post_hook(self._stepped),
            embedding.register_forward_pre_hook(self._forward),
        ]
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def record(self, predicted: Need | None) -> dict[str, Any]:
        """What was predicted and what was found, as plain values for the run's record.

        Args:
            predicted: None where it cannot be predicted.
        """
        found: dict[str, Any] = {"measured": {**self.held, "peak": self.peak}}
        if predicted is not None:
            found["predicted"] = {**predicted.at_step(), "peak": predicted.training}
            found["predicted_parts"] = {
                "kept": predicted.kept,
                "backward": predicted.backward,
                "step": predicted.step,
                "host": predicted.host,
            }
            found["not_known"] = list(predicted.unknown)
        return found

    def _forward(self, module: Module, _: Any) -> None:
        """Note that what follows is no training."""
        self._evaluated |= not module.training

    def _stepped(self, optimizer: Optimizer, *_: Any) -> None:
        """Count tensors in the first steps, and measure in all."""
        import torch

        if self._left:
            self._left -= 1
            found = held(self._model, optimizer)
            if sum(found.values()) > sum(self.held.values()):
                self.held = found
        if torch.cuda.is_available():
            if not self._evaluated:
                self.peak = max(self.peak or 0, torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
            self._evaluated = False


def compared(record: Mapping[str, Any]) -> str:
    """What was predicted and what was found, in a line for a person.

    Args:
        record: What `MemoryWatch.record` gave.
    """
    measured, predicted = record["measured"], record.get("predicted")
    if not measured["weights"]:
        return "not counted: no step was made"
    names = PARTS if measured["peak"] is None else ("peak",)

    def told(name: str) -> str:
        beside = f" ({size(predicted[name])} predicted)" if predicted else ""
        return f"{name} {size(measured[name])}{beside}"

    return ", ".join(map(told, names)) + ("" if predicted else "; nothing was predicted")
