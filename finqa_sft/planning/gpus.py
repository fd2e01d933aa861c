"""Common GPUs, and how much of their memory a run can have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from finqa_sft.errors import HardwareError
from finqa_sft.models.devices import Device
from finqa_sft.wording import did_you_mean

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU.

    Attributes:
        name: As people call it.
        memory: Bytes that torch finds on it. Less than the name says: the driver and error
            correction keep the rest.
        bfloat16: Whether it computes in bfloat16.
    """

    name: str
    memory: int
    bfloat16: bool

    def device(self) -> Device:
        """What a process on such a GPU would find."""
        return Device("cuda", 0, self.name, self.memory, self.memory, self.bfloat16)


_FOUND: Mapping[str, float] = MappingProxyType(
    {
        "T4": 14.5,
        "L4": 22.0,
        "A10": 22.0,
        "RTX 3090": 23.5,
        "RTX 4090": 23.5,
        "RTX 5090": 31.3,
        "V100 32": 31.7,
        "A100 40": 39.3,
        "A100 80": 79.1,
        "L40S": 44.3,
        "RTX 6000 Ada": 47.2,
        "H100 80": 79.1,
        "H200": 139.7,
    }
)
"""GiB (2³⁰ bytes) that torch's messages on such GPUs call their total capacity: the least of those
that were found on the web, rounded down. None was measured here."""

_WITHOUT_BFLOAT16 = ("T4", "V100 32")
"""Compute capability below 8.0."""

GPUS: tuple[Gpu, ...] = tuple(
    Gpu(name, int(found * GIB), bfloat16=name not in _WITHOUT_BFLOAT16)
    for name, found in _FOUND.items()
)


def find_gpu(name: str) -> Gpu:
    """The GPU of that name, in any case, with or without spaces, or of what it begins with.

    Raises:
        HardwareError: There is none, or several.
    """
    found = [gpu for gpu in GPUS if _folded(gpu.name).startswith(_folded(name))]
    exact = [gpu for gpu in found if _folded(gpu.name) == _folded(name)]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found and name:
        raise HardwareError(f"GPU {name!r} may be {' or '.join(gpu.name for gpu in found)}")
    names = [gpu.name for gpu in GPUS]
    hint = did_you_mean(name.upper(), names)
    known = f"there are {', '.join(names)}"
    raise HardwareError(f"no GPU {name!r} is known; {hint or known}")


def _folded(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "").removesuffix("gb")
