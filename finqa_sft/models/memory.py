"""What a QLoRA run keeps in memory, from a model that is built without weights."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.devices import Device
from finqa_sft.models.options import ComputeDtype, LoraOptions

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

BYTES: Mapping[ComputeDtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4}

_BLOCK = 64
"""Weights that share a scale in bitsandbytes' NF4."""

_SCALE_BLOCK = 256
"""Scales that share a scale with double quantisation."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The shapes of a causal language model.

    Attributes:
        modules: Full names of all modules.
        linears: Input and output width of each linear layer that writes text, by full name. All of
            them are quantised.
        others: The same for layers that only see images or sound. They are quantised too, and get
            no adapter, as text never reaches them.
        head: Full name of the output head.
        unquantised: Number of parameters that are not quantised: embeddings, norms, head, biases,
            and experts that are stored as one tensor instead of as linear layers.
    """

    modules: tuple[str, ...]
    linears: dict[str, tuple[int, int]]
    others: dict[str, tuple[int, int]]
    head: str | None
    unquantised: int

    @property
    def quantised(self) -> int:
        """Number of parameters in 4 bits."""
        return sum(prod(shape) for shape in (self.linears | self.others).values())

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.quantised + self.unquantised

    def targets(self, lora: LoraOptions) -> dict[str, tuple[int, int]]:
        """The linear layers that get an adapter, matched as PEFT matches names.

        Raises:
            ModelError: A target matches no linear layer, or the output head is one.
        """
        if lora.target_modules == "all-linear":
            return self.linears
        kinds = tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name in self.linears))
        for target in lora.target_modules:
            if self.head is not None and _matches(self.head, target):
                raise ModelError(
                    f"model.lora.target_modules names the output head {target!r}; SFTTrainer "
                    "scores with the head's own weight, so an adapter there would never be "
                    "trained; take it out"
                )
            if not any(_matches(name, target) for name in self.linears):
                near = difflib.get_close_matches(target, kinds, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ModelError(
                    f"model.lora.target_modules: no linear layer is named {target!r}; there are "
                    f"{', '.join(kinds)}{hint}"
                )
        return {
            name: shape
            for name, shape in self.linears.items()
            if any(_matches(name, target) for target in lora.target_modules)
        }


def short_names(targets: Collection[str], *, among: Collection[str]) -> list[str]:
    """Names of layers as short as PEFT can tell them from the others: `q_proj`, or in full.

    Args:
        targets: Full names of the layers to adapt.
        among: Full names of all modules.
    """
    last = sorted({name.rsplit(".", 1)[-1] for name in targets})
    matched = {name for name in among if any(_matches(name, target) for target in last)}
    return last if matched == set(targets) else sorted(targets)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def skeleton(config: PreTrainedConfig) -> Skeleton:
    """Build the model of a config on the meta device, where tensors have shapes and no values.

    Args:
        config: Of a causal language model.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.pytorch_utils import Conv1D

    # The class itself: under DeepSpeed ZeRO-3, `from_config` would share the parameters out.
    with torch.device("meta"):
        model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)  # type: ignore[operator]
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    writers = set(model.get_decoder().modules())  # type: ignore[no-untyped-call]
    head_name = None
    linears: dict[str, tuple[int, int]] = {}
    others: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if module is head:
            head_name = name
        # transformers quantises exactly these two types, and never the output head.
        elif type(module) is torch.nn.Linear:
            shapes = linears if module in writers else others
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            linears[name] = (module.nx, module.nf)
    total = sum(parameter.numel() for parameter in model.parameters())
    quantised = sum(prod(shape) for shape in (linears | others).values())
    names = tuple(name for name, _ in model.named_modules() if name)
    return Skeleton(names, linears, others, head_name, total - quantised)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that stay in memory from loading to the last step.

    Activations come on top: they depend on the rows. Under DeepSpeed and FSDP each process loads
    the whole 4-bit base before it is shared out, so this holds for each process there too.

    Attributes:
        base: 4-bit weights with their scales.
        other: The parts that stay in the compute dtype.
        adapters: The adapters' weights.
        training: Their gradients and AdamW's two averages.
        adapter_parameters: How many parameters are trained.
    """

    base: int
    other: int
    adapters: int
    training: int
    adapter_parameters: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.base + self.other + self.adapters + self.training


def estimate_memory(
    bones: Skeleton, *, lora: LoraOptions, compute: ComputeDtype, double_quant: bool
) -> MemoryEstimate:
    """Estimate from shapes alone; counts of parameters are exact."""
    scales = 0
    for shape in (bones.linears | bones.others).values():
        blocks = ceil(prod(shape) / _BLOCK)
        scales += blocks + 4 * ceil(blocks / _SCALE_BLOCK) if double_quant else 4 * blocks
    trained = sum(
        lora.r * (wide + high) + (high if lora.dora else 0)
        for wide, high in bones.targets(lora).values()
    )
    # TRL keeps adapters in bfloat16 beside a 4-bit base; where the GPU has none they are float32.
    size = 2 if compute == "bfloat16" else 4
    return MemoryEstimate(
        base=bones.quantised // 2 + scales,
        other=bones.unquantised * BYTES[compute],
        adapters=trained * size,
        training=trained * size * 3,
        adapter_parameters=trained,
    )


def require_memory(estimate: MemoryEstimate, device: Device, *, base: str) -> None:
    """Refuse a base that cannot fit.

    Raises:
        HardwareError: More memory is needed than is free.
    """
    if estimate.total <= device.free_memory:
        return
    raise HardwareError(
        f"base {base!r} needs at least {size(estimate.total)} ({size(estimate.base)} in 4 bits, "
        f"{size(estimate.other)} in the compute dtype, "
        f"{size(estimate.adapters + estimate.training)} for the adapters and their optimizer), "
        f"and {device} has {size(device.free_memory)} free of {size(device.total_memory)}; end "
        "what else runs there, take a smaller base, or lower model.lora.r"
    )


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
