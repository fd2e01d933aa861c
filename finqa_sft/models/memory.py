"""The shapes of a model that is built without weights, and what a run keeps in memory of it.

`finqa_sft.models.stored` says from the shapes which tensors a factory's model holds, and
`finqa_sft.models.needs` what training them takes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.devices import Device
from finqa_sft.models.options import ComputeDtype, LoraOptions
from finqa_sft.wording import did_you_mean

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from transformers import PreTrainedConfig, PreTrainedModel

FRAGMENTS = 0.05
"""Share of the peak assumed for what torch's allocator holds and cannot use."""

BYTES: Mapping[ComputeDtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the decoder, as gradient checkpointing cuts the model.

    Attributes:
        path: Its full name.
        blocks: Full names of its linear layers, in order, by the module that they are in: attention
            and feed-forward. The last one of a block writes to the residual stream.
        norms: Width of each norm, in elements a token.
        experts: Input and output widths, added up, of experts that are stored as one tensor.
    """

    path: str
    blocks: tuple[tuple[str, ...], ...]
    norms: tuple[int, ...]
    experts: int


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
        weights: Shape of each parameter by full name; one that two modules share is named once.
        reached: Full names of the parameters that text reaches: those of the decoder and the head.
        float32: Full names of the parameters that are held in float32 although the model is loaded
            in the dtype that is the key.
        buffers: Shape and bytes an element of each tensor that is no parameter; None in place of
            the bytes where it is of the dtype that the model is loaded in.
        layers: The layers of the decoder; none where the model cannot be checkpointed.
    """

    modules: dict[str, int]
    linears: dict[str, tuple[int, int]]
    others: dict[str, tuple[int, int]]
    embedding: str
    head: str | None
    tied: bool
    weights: dict[str, tuple[int, ...]]
    reached: frozenset[str]
    float32: dict[ComputeDtype, frozenset[str]]
    buffers: tuple[tuple[tuple[int, ...], int | None], ...]
    layers: tuple[Layer, ...]

    @property
    def quantised(self) -> int:
        """Number of parameters that a quantised base holds in 4 or 8 bits."""
        return sum(prod(shape) for shape in (self.linears | self.others).values())

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(map(prod, self.weights.values()))

    @property
    def idle(self) -> int:
        """Number of parameters that text never reaches: those that see images or sound."""
        return sum(prod(shape) for name, shape in self.weights.items() if name not in self.reached)

    def itemsize(self, name: str, dtype: ComputeDtype) -> int:
        """Bytes of an element of a parameter that is not quantised.

        Args:
            name: The parameter's full name.
            dtype: What the model is loaded in.
        """
        return BYTES["float32" if name in self.float32.get(dtype, ()) else dtype]

    def unit(self, name: str) -> str:
        """What FSDP gathers together with a weight: a decoder layer, the embedding, or the rest.

        Source: accelerate 1.15, `fsdp_utils.py`, `fsdp2_prepare_model`. A head that shares its
        weights with the embedding makes that part of the rest.

        Args:
            name: Full name of a weight, or of a module.

        Returns:
            Full name of the layer or of the embedding; empty for the rest.
        """
        units = [layer.path for layer in self.layers]
        if not self.tied:
            units.append(self.embedding)
        return next((unit for unit in units if f"{name}.".startswith(f"{unit}.")), "")

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
    before = torch.get_default_dtype()
    # Tells buffers of the model's dtype from those that are always float32.
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)  # type: ignore[operator]
    finally:
        torch.set_default_dtype(before)
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
    used = text_parameters(model)
    weights = dict(model.named_parameters())
    return Skeleton(
        modules=modules,
        linears=linears,
        others=others,
        embedding=names[embedding],
        head=names.get(head),
        tied=head is not None and head.weight is embedding.weight,
        weights={name: tuple(weight.shape) for name, weight in weights.items()},
        reached=frozenset(name for name, weight in weights.items() if weight in used),
        float32=_held_in_float32(model, weights),
        buffers=tuple(
            (tuple(b.shape), None if b.dtype is torch.float16 else b.element_size())
            for b in model.buffers()
        ),
        layers=tuple(_layers(model, linears)),
    )


def _held_in_float32(
    model: PreTrainedModel, names: Collection[str]
) -> dict[ComputeDtype, frozenset[str]]:
    """The parameters that transformers loads in float32 (5.24, `_get_dtype_plan`)."""
    strict = set(model._keep_in_fp32_modules_strict or ())
    found: dict[ComputeDtype, frozenset[str]] = {}
    for dtype, patterns in (
        ("bfloat16", strict),
        ("float16", strict | set(model._keep_in_fp32_modules or ())),
    ):
        rule = re.compile("|".join(pattern.replace("*", r".*") for pattern in patterns) or r"(?!)")
        found[dtype] = frozenset(filter(rule.search, names))  # type: ignore[index]
    return found


def _layers(model: PreTrainedModel, linears: Mapping[str, tuple[int, int]]) -> Iterator[Layer]:
    """The layers of the decoder, each with its linear layers by block, and its norms."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    writers = set(model.get_decoder().modules())  # type: ignore[no-untyped-call]
    for path, layer in model.named_modules():
        if not isinstance(layer, GradientCheckpointingLayer) or layer not in writers:
            continue
        blocks: dict[str, list[str]] = {}
        norms = []
        for name, module in layer.named_modules(prefix=path):
            parent = name.rpartition(".")[0]
            if name in linears:
                blocks.setdefault(parent, []).append(name)
            elif width := _norm_width(module):
                # One over the heads, as in `q_norm`, is as wide as what `q_proj` gives.
                given = name.removesuffix("_norm") + "_proj"
                norms.append(max(width, linears[given][1] if given in linears else 0))
        stacked = (weight.shape for weight in layer.parameters() if weight.ndim == 3)
        experts = sum(sum(shape[1:]) for shape in stacked)
        yield Layer(path, tuple(map(tuple, blocks.values())), tuple(norms), experts)


def _norm_width(module: Module) -> int:
    """Elements that a norm scales; 0 for a module that is none."""
    weights = list(module.parameters(recurse=False))
    if "norm" not in type(module).__name__.lower() or not weights or weights[0].ndim != 1:
        return 0
    return weights[0].numel()


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
