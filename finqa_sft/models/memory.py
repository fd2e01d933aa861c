"""What a run keeps in memory, from a model that is built without weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.devices import Device
from finqa_sft.models.options import ComputeDtype, LoraOptions
from finqa_sft.wording import did_you_mean

if TYPE_CHECKING:
    from torch.nn import Parameter
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
        modules: Number of parameters in each module, what it holds included, by full name.
        linears: Input and output width of each linear layer that writes text, by full name. All of
            them can be quantised.
        others: The same for layers that only see images or sound. They are quantised too, and get
            no adapter, as text never reaches them.
        embedding: Full name of the input embedding.
        head: Full name of the output head.
        tied: Whether head and embedding share their weights.
        unquantised: Number of parameters that are never quantised: embeddings, norms, head, biases,
            and experts that are stored as one tensor instead of as linear layers.
        idle: Number of parameters that text never reaches: those that see images or sound.
    """

    modules: dict[str, int]
    linears: dict[str, tuple[int, int]]
    others: dict[str, tuple[int, int]]
    embedding: str
    head: str | None
    tied: bool
    unquantised: int
    idle: int

    @property
    def quantised(self) -> int:
        """Number of parameters that a quantised base holds in 4 or 8 bits."""
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
                    "trained; take it out, or train the head whole with model.lora.modules_to_save"
                )
            if not any(_matches(name, target) for name in self.linears):
                raise ModelError(
                    f"model.lora.target_modules: no linear layer is named {target!r}; there are "
                    f"{', '.join(kinds)}{_hint(target, kinds)}"
                )
        return {
            name: shape
            for name, shape in self.linears.items()
            if any(_matches(name, target) for target in lora.target_modules)
        }

    def saved_modules(self, lora: LoraOptions, *, quantised: bool) -> dict[str, int]:
        """The modules that are trained whole, with their numbers of parameters.

        Head and embedding that share their weights are one module, named as the embedding.

        Raises:
            ModelError: A name matches no module, or one that cannot be trained whole.
        """
        adapted = self.targets(lora)
        found: dict[str, int] = {}
        for name in lora.modules_to_save:
            matched = [module for module in self.modules if _matches(module, name)]
            where = f"model.lora.modules_to_save: {name!r}"
            if not matched:
                known = tuple(dict.fromkeys(m.rsplit(".", 1)[-1] for m in self.modules))
                raise ModelError(
                    f"{where} is no module of the base{_hint(name, known)}; common ones "
                    f"are {self.embedding.rsplit('.', 1)[-1]} and {self.head or 'norm'}"
                )
            empty = [module for module in matched if not self.modules[module]]
            if empty:
                raise ModelError(
                    f"{where} is {empty[0]}, which has no weights to train; take it out"
                )
            inside = [
                linear
                for linear in ((self.linears | self.others) if quantised else adapted)
                if any(linear == module or linear.startswith(module + ".") for module in matched)
            ]
            if inside:
                reason = "is quantised, which cannot be trained" if quantised else "has an adapter"
                raise ModelError(
                    f"{where} covers {inside[0]}, which {reason}; take it out, as adapters train "
                    "linear layers"
                )
            for module in matched:
                shared = self.tied and module == self.head
                found[self.embedding if shared else module] = self.modules[module]
        # What is inside of another one is trained with it.
        return {
            module: count
            for module, count in found.items()
            if not any(module.startswith(other + ".") for other in found)
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


def _hint(word: str, known: Collection[str]) -> str:
    """The nearest known word, as the end of a message."""
    hint = did_you_mean(word, known)
    return f"; {hint}" if hint else ""


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
    embedding = model.get_input_embeddings()
    writers = set(model.get_decoder().modules())  # type: ignore[no-untyped-call]
    modules: dict[str, int] = {}
    linears: dict[str, tuple[int, int]] = {}
    others: dict[str, tuple[int, int]] = {}
    names = {module: name for name, module in model.named_modules() if name}
    for module, name in names.items():
        modules[name] = sum(parameter.numel() for parameter in module.parameters())
        # transformers quantises exactly these two types, and never the output head.
        if module is head:
            continue
        if type(module) is torch.nn.Linear:
            shapes = linears if module in writers else others
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            linears[name] = (module.nx, module.nf)
    total = sum(parameter.numel() for parameter in model.parameters())
    used = sum(parameter.numel() for parameter in text_parameters(model))
    return Skeleton(
        modules=modules,
        linears=linears,
        others=others,
        embedding=names[embedding],
        head=names.get(head),
        tied=head is not None and head.weight is embedding.weight,
        unquantised=total - sum(prod(shape) for shape in (linears | others).values()),
        idle=total - used,
    )


def text_parameters(model: PreTrainedModel) -> set[Parameter]:
    """The parameters that text reaches: those of the decoder and of the output head."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    parts = [model.get_decoder(), *([] if head is None else [head])]  # type: ignore[no-untyped-call]
    return {parameter for part in parts for parameter in part.parameters()}


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that stay in memory from loading to the last step.

    Activations come on top: they depend on the rows. What several processes share out is counted
    in full.

    Attributes:
        parts: Bytes of each part, by what it is.
        trained_parameters: How many parameters are trained.
    """

    parts: dict[str, int]
    trained_parameters: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.parts.values())


def nf4_bytes(bones: Skeleton, *, double_quant: bool) -> int:
    """Bytes of the 4-bit weights with their scales."""
    scales = 0
    for shape in (bones.linears | bones.others).values():
        blocks = ceil(prod(shape) / _BLOCK)
        scales += blocks + 4 * ceil(blocks / _SCALE_BLOCK) if double_quant else 4 * blocks
    return bones.quantised // 2 + scales


def int8_bytes(bones: Skeleton) -> int:
    """Bytes of the 8-bit weights with their scales, a float32 for each output."""
    return bones.quantised + sum(4 * high for _, high in (bones.linears | bones.others).values())


def adapter_parameters(bones: Skeleton, lora: LoraOptions, *, quantised: bool) -> tuple[int, int]:
    """How many parameters an adapter has, and how many of them are trained.

    Args:
        bones: The base's shapes.
        lora: The adapter.
        quantised: Whether the base is quantised.
    """
    held = trained = sum(bones.saved_modules(lora, quantised=quantised).values())
    for wide, high in bones.targets(lora).values():
        held += lora.r * (wide + high) + (high if lora.dora else 0)
        # MiCA never trains the factor on the output's side.
        trained += lora.r * (wide + (0 if lora.init == "mica" else high))
        trained += high if lora.dora else 0
    return held, trained


def require_memory(estimate: MemoryEstimate, device: Device, *, base: str, remedy: str) -> None:
    """Refuse a base that cannot fit.

    Args:
        estimate: What is needed.
        device: What there is.
        base: The base's name, for the message.
        remedy: What makes the need smaller.

    Raises:
        HardwareError: More memory is needed than is free.
    """
    if estimate.total <= device.free_memory:
        return
    parts = ", ".join(f"{size(count)} for {part}" for part, count in estimate.parts.items())
    raise HardwareError(
        f"base {base!r} needs at least {size(estimate.total)} ({parts}), and {device} has "
        f"{size(device.free_memory)} free of {size(device.total_memory)}; end what else runs "
        f"there, take a smaller base, or {remedy}"
    )


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
