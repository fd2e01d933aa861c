"""Which tensors a model holds once it is loaded: the base, its scales, its adapter, its buffers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, prod
from typing import Literal, TypeAlias

from finqa_sft.models.memory import BYTES, Skeleton
from finqa_sft.models.options import ComputeDtype, LoraOptions

_BLOCK = 64
"""Weights that share a scale in bitsandbytes' NF4 (0.50, `functional.py`, `quantize_4bit`)."""

_SCALE_BLOCK = 256
"""Scales that share a scale with double quantisation (the same place)."""

_CODES, _SCALE_CODES = 16, 256
"""Values of the tables that packed weights and packed scales are unpacked by; each layer has tables
of its own."""


class Part(StrEnum):
    """What a tensor belongs to."""

    PACKED = "packed weights of the base"
    SCALES = "scales and tables of the packed weights"
    BASE = "weights of the base"
    ADAPTER = "adapter"
    BUFFERS = "buffers"


_STACKED = 3
"""Dimensions of a tensor that all experts of a layer are stored in."""

Held: TypeAlias = Literal["trained", "frozen", "aside"]
"""`trained` and `frozen`: a parameter, with gradients or without. `aside`: a tensor that is no
parameter, such as scales and buffers; nothing shares it out among processes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor.

    Attributes:
        part: What it belongs to.
        shape: Its shape, in elements.
        itemsize: Bytes of an element.
        held: Whether it is a parameter, and trained.
        multiplied: Whether inputs are multiplied with it, as with the weight of a linear layer.
        unit: What FSDP gathers together with it, see `Skeleton.unit`.
    """

    part: Part
    shape: tuple[int, ...]
    itemsize: int
    held: Held
    multiplied: bool = False
    unit: str = ""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.elements * self.itemsize


def nbytes(stored: Iterable[Stored], *parts: Part) -> int:
    """Bytes of all tensors, or of those of some parts."""
    return sum(tensor.nbytes for tensor in stored if not parts or tensor.part in parts)


def trained(stored: Iterable[Stored]) -> list[Stored]:
    """The tensors that get gradients."""
    return [tensor for tensor in stored if tensor.held == "trained"]


def nf4(bones: Skeleton, *, double_quant: bool) -> Iterator[Stored]:
    """The 4-bit weights of all linear layers, with their scales and tables.

    Layout: bitsandbytes 0.50, `functional.py`, `QuantState`. Two weights are packed in a byte. A
    block of 64 has a scale in float32; with double quantisation it has one byte, 256 of those have
    a scale in float32, and the mean that was taken off is a float32 beside them.
    """
    for name, shape in (bones.linears | bones.others).items():
        weights = prod(shape)
        blocks = ceil(weights / _BLOCK)
        yield _packed(bones, name, (ceil(weights / 2), 1))
        yield _aside(_CODES, 4)
        if double_quant:
            yield _aside(blocks, 1)
            yield _aside(ceil(blocks / _SCALE_BLOCK), 4)
            yield _aside(_SCALE_CODES, 4)
            yield _aside(1, 4)
        else:
            yield _aside(blocks, 4)


def int8(bones: Skeleton) -> Iterator[Stored]:
    """The 8-bit weights of all linear layers, with a float32 scale for each output.

    Layout: bitsandbytes 0.50, `nn/modules.py`, `Int8Params`.
    """
    for name, (wide, high) in (bones.linears | bones.others).items():
        yield _packed(bones, name, (high, wide))
        yield _aside(high, 4)


def unquantised(bones: Skeleton, dtype: ComputeDtype) -> Iterator[Stored]:
    """What a quantised base holds as it is: embeddings, norms, head, biases, stacked experts."""
    packed = {f"{name}.weight" for name in bones.linears | bones.others}
    for name, shape in bones.weights.items():
        if name not in packed:
            size, unit = bones.itemsize(name, dtype), bones.unit(name)
            yield Stored(Part.BASE, shape, size, "frozen", unit=unit)


def weights(bones: Skeleton, dtype: ComputeDtype, *, held: Held) -> Iterator[Stored]:
    """All weights of a base that is not quantised.

    Args:
        bones: The base's shapes.
        dtype: What it is loaded in.
        held: Whether those that text reaches are trained; the others never are.
    """
    products = {f"{name}.weight" for name in bones.linears}
    for name, shape in bones.weights.items():
        yield Stored(
            Part.BASE,
            shape,
            bones.itemsize(name, dtype),
            held if name in bones.reached else "frozen",
            multiplied=name in products or len(shape) == _STACKED,
            unit=bones.unit(name),
        )


def adapter(bones: Skeleton, lora: LoraOptions, *, quantised: bool) -> Iterator[Stored]:
    """The factors beside linear layers, and second copies of modules that are trained whole.

    All are float32, see `finqa_sft.models.adapters.AdapterFactory.settle`.

    Args:
        bones: The base's shapes.
        lora: The adapter.
        quantised: Whether the base is quantised.

    Raises:
        ModelError: The adapter does not fit the base.
    """
    size = BYTES["float32"]
    for module in bones.saved_modules(lora, quantised=quantised):
        for name, shape in bones.weights.items():
            if name.startswith(module + "."):
                yield Stored(Part.ADAPTER, shape, size, "trained", unit=bones.unit(name))
    # MiCA never trains the factor on the output's side.
    second: Held = "frozen" if lora.init == "mica" else "trained"
    for name, (wide, high) in bones.targets(lora).items():
        unit = bones.unit(name)
        yield Stored(Part.ADAPTER, (lora.r, wide), size, "trained", multiplied=True, unit=unit)
        yield Stored(Part.ADAPTER, (high, lora.r), size, second, multiplied=True, unit=unit)
        if lora.dora:
            yield Stored(Part.ADAPTER, (high,), size, "trained", unit=unit)


def buffers(bones: Skeleton, dtype: ComputeDtype) -> Iterator[Stored]:
    """Tensors that are no parameters, such as the frequencies of rotary positions.

    Args:
        bones: The base's shapes.
        dtype: What the base is loaded in.
    """
    for shape, itemsize in bones.buffers:
        yield Stored(Part.BUFFERS, shape, itemsize or BYTES[dtype], "aside")


def _packed(bones: Skeleton, name: str, shape: tuple[int, int]) -> Stored:
    """The quantised weight of a linear layer, in bytes."""
    return Stored(Part.PACKED, shape, 1, "frozen", multiplied=True, unit=bones.unit(name))


def _aside(elements: int, itemsize: int) -> Stored:
    """Something that unpacks weights."""
    return Stored(Part.SCALES, (elements,), itemsize, "aside")
