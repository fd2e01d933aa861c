"""How several processes divide what training keeps: not at all (DDP), or by DeepSpeed ZeRO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, TypeAlias

from finqa_sft.models.stored import Stored

Stage: TypeAlias = Literal[0, 1, 2, 3]
Offloaded: TypeAlias = Literal["optimizer", "param"]

OFFLOADED: tuple[Offloaded, ...] = ("optimizer", "param")
"""What DeepSpeed can hold in the host's memory: `offload_optimizer`, `offload_param`."""

_BUCKET, _PREFETCH, _PERSISTS, _LIVE = 500_000_000, 50_000_000, 100_000, 1_000_000_000
"""DeepSpeed's own values, in elements (0.19, `runtime/zero/config.py`)."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """The fields of a DeepSpeed configuration that memory depends on.

    `auto` is what transformers makes of it from the hidden size h (5.24,
    `integrations/deepspeed.py`): h² elements of a bucket, 0.9 h² fetched ahead, and up to 10 h of a
    parameter that persists.

    Attributes:
        stage: 0 without DeepSpeed; 1 divides the optimizer's state, 2 gradients too, 3 weights too.
        bucket: Elements of gradients that are reduced at a time.
        overlaps: Whether the next bucket is filled while one is reduced.
        prefetch: Elements of weights that are fetched ahead of their use, in stage 3.
        persists: Most elements of a parameter that is not divided, in stage 3.
        live: Elements of weights that may be whole at a time, in stage 3.
        offloads: What lies in the host's memory instead.
    """

    stage: Stage = 0
    bucket: int | Literal["auto"] = _BUCKET
    overlaps: bool = False
    prefetch: int | Literal["auto"] = _PREFETCH
    persists: int | Literal["auto"] = _PERSISTS
    live: int = _LIVE
    offloads: frozenset[Offloaded] = frozenset()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Sharding:
        """Take what matters of a DeepSpeed configuration.

        Args:
            config: As in its JSON file.
        """
        zero = config.get("zero_optimization", {})
        stage: Stage = zero.get("stage", 0)
        return cls(
            stage=stage,
            bucket=_number(zero.get("reduce_bucket_size", _BUCKET)),
            overlaps=bool(zero.get("overlap_comm", stage == 3)),
            prefetch=_number(zero.get("stage3_prefetch_bucket_size", _PREFETCH)),
            persists=_number(zero.get("stage3_param_persistence_threshold", _PERSISTS)),
            live=int(zero.get("stage3_max_live_parameters", _LIVE)),
            offloads=frozenset(
                name
                for name in OFFLOADED
                if zero.get(f"offload_{name}", {}).get("device", "none") != "none"
            ),
        )

    def part(self, tensor: Stored, processes: int) -> int:
        """Bytes of a tensor that are one process's.

        In stage 3 every parameter is divided, padded to equal parts, packed 4-bit weights too
        (DeepSpeed 0.19, `partition_parameters.py`, `_partition_param`). Scales and buffers are no
        parameters, and each process has all of them.

        Args:
            tensor: The tensor.
            processes: Processes that divide it.
        """
        if self.stage < 3 or tensor.held == "aside":
            return tensor.nbytes
        return ceil(tensor.elements / processes) * tensor.itemsize

    def persisting(self, stored: Iterable[Stored], *, hidden: int) -> int:
        """Bytes of small parameters that stay whole between steps, beside their parts, in stage 3.

        Source: DeepSpeed 0.19, `parameter_offload.py`, `mark_persistent_parameters`.

        Args:
            stored: The model's tensors.
            hidden: The model's hidden size.
        """
        if self.stage < 3:
            return 0
        most = _resolved(self.persists, 10 * hidden)
        return sum(t.nbytes for t in stored if t.held != "aside" and t.elements <= most)

    def gathered(self, stored: Iterable[Stored], *, itemsize: int, hidden: int) -> int:
        """Bytes of divided weights that are whole at a time in stage 3: an upper bound.

        What was used stays until `stage3_max_live_parameters` elements are there, unless the model
        has fewer (`partitioned_param_coordinator.py`); the largest comes on top, and what is
        fetched ahead of its use.

        Args:
            stored: The model's tensors.
            itemsize: Bytes of an element; packed 4-bit weights are stored in this dtype too.
            hidden: The model's hidden size.
        """
        if self.stage < 3:
            return 0
        sizes = [tensor.nbytes for tensor in stored if tensor.held != "aside"]
        ahead = _resolved(self.prefetch, int(0.9 * hidden * hidden)) * itemsize
        return min(sum(sizes), self.live * itemsize + max(sizes, default=0) + ahead)

    def buckets(self, trained: int, *, itemsize: int, processes: int, hidden: int) -> int:
        """Bytes of buffers in which gradients are sent.

        DDP keeps a copy of all gradients (torch, `gradient_as_bucket_view=False`). DeepSpeed fills
        one buffer of `reduce_bucket_size` elements, or two by turns, however few gradients there
        are (0.19, `stage_1_and_2.py`, `setup_buckets`; `stage3.py`, `_setup_for_real_optimizer`).

        Args:
            trained: Elements that are trained.
            itemsize: Bytes of an element of a gradient.
            processes: Processes.
            hidden: The model's hidden size.
        """
        if self.stage == 0:
            return trained * itemsize if processes > 1 else 0
        twice = self.overlaps and self.stage < 3
        return _resolved(self.bucket, hidden * hidden) * itemsize * (2 if twice else 1)


def _number(value: Any) -> int | Literal["auto"]:
    return "auto" if value == "auto" else int(value)


def _resolved(value: int | Literal["auto"], automatic: int) -> int:
    return automatic if value == "auto" else value
