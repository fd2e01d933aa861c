"""How several processes divide what training keeps: not at all (DDP), by DeepSpeed ZeRO or FSDP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, Literal, TypeAlias

from finqa_sft.models.memory import BYTES
from finqa_sft.models.options import ComputeDtype
from finqa_sft.models.stored import Part, Stored, nbytes, trained

Stage: TypeAlias = Literal[1, 2, 3]
Offloaded: TypeAlias = Literal["optimizer", "param"]

OFFLOADED: tuple[Offloaded, ...] = ("optimizer", "param")
"""What can be held in the host's memory, as DeepSpeed names it: `offload_optimizer`,
`offload_param`."""

FLOAT32 = BYTES["float32"]

_BUCKET, _PREFETCH, _PERSISTS, _LIVE = 500_000_000, 50_000_000, 100_000, 1_000_000_000
"""DeepSpeed's own values, in elements (0.19, `runtime/zero/config.py`)."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """One process, or several under DDP: each holds everything.

    Attributes:
        offloads: What lies in the host's memory instead.
    """

    offloads: frozenset[Offloaded] = frozenset()

    @property
    def name(self) -> str:
        """As `finqa_sft.models.devices.sharded_by` names it."""
        return "none"

    @property
    def divides(self) -> int:
        """How much: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too."""
        return 0

    def trained_as(self, stored: Sequence[Stored], compute: ComputeDtype) -> Sequence[Stored]:
        """The model's tensors, whole, in the dtypes that they are trained in.

        Args:
            stored: As they are loaded.
            compute: The dtype of products.
        """
        return stored

    def part(self, tensor: Stored, processes: int) -> Stored:
        """What of a tensor is one process's.

        Args:
            tensor: The tensor.
            processes: Processes that divide it.
        """
        return tensor

    def persisting(self, stored: Iterable[Stored], *, hidden: int) -> int:
        """Bytes of small parameters that stay whole between steps, beside their parts.

        Args:
            stored: The model's tensors.
            hidden: The model's hidden size.
        """
        return 0

    def gathered(self, stored: Iterable[Stored], *, compute: ComputeDtype, hidden: int) -> int:
        """Bytes of divided weights that are whole at a time: an upper bound.

        Args:
            stored: The model's tensors.
            compute: The dtype of products.
            hidden: The model's hidden size.
        """
        return 0

    def buffers(
        self, stored: Iterable[Stored], *, compute: ComputeDtype, processes: int, hidden: int
    ) -> int:
        """Bytes of buffers in which gradients are sent.

        DDP keeps a copy of all gradients (torch, `gradient_as_bucket_view=False`).

        Args:
            stored: The model's tensors.
            compute: The dtype of products.
            processes: Processes.
            hidden: The model's hidden size.
        """
        return nbytes(trained(stored)) if processes > 1 else 0


@dataclass(frozen=True, slots=True)
class Zero(Sharding):
    """The fields of a DeepSpeed configuration that memory depends on.

    `auto` is what transformers makes of it from the hidden size h (5.24,
    `integrations/deepspeed.py`): h² elements of a bucket, 0.9 h² fetched ahead, and up to 10 h of a
    parameter that persists.

    Attributes:
        stage: 1 divides the optimizer's state, 2 gradients too, 3 weights too.
        bucket: Elements of gradients that are reduced at a time.
        overlaps: Whether the next bucket is filled while one is reduced.
        prefetch: Elements of weights that are fetched ahead of their use, in stage 3.
        persists: Most elements of a parameter that is not divided, in stage 3.
        live: Elements of weights that may be whole at a time, in stage 3.
    """

    stage: Stage = 1
    bucket: int | Literal["auto"] = _BUCKET
    overlaps: bool = False
    prefetch: int | Literal["auto"] = _PREFETCH
    persists: int | Literal["auto"] = _PERSISTS
    live: int = _LIVE

    @property
    def name(self) -> str:
        """As `finqa_sft.models.devices.sharded_by` names it."""
        return f"zero{self.stage}"

    @property
    def divides(self) -> int:
        """The stage."""
        return self.stage

    def trained_as(self, stored: Sequence[Stored], compute: ComputeDtype) -> Sequence[Stored]:
        """The model's tensors, whole; DeepSpeed casts all parameters to the compute dtype.

        Source: 0.19, `engine.py`, `_cast_module_mixed_precision`.

        Args:
            stored: As they are loaded.
            compute: The dtype of products.
        """
        size = BYTES[compute]
        if size == FLOAT32:
            return stored
        cast = []
        for tensor in stored:
            if tensor.held == "aside":
                cast.append(tensor)
            elif tensor.part is not Part.PACKED:
                cast.append(replace(tensor, itemsize=size))
            else:
                cast.append(_repacked(tensor, size) if self.stage == 3 else tensor)
        return cast

    def part(self, tensor: Stored, processes: int) -> Stored:
        """What of a tensor is one process's.

        In stage 3 every parameter is divided, padded to equal parts, packed 4-bit weights too
        (DeepSpeed 0.19, `partition_parameters.py`, `_partition_param`). Scales and buffers are no
        parameters, and each process has all of them.

        Args:
            tensor: The tensor.
            processes: Processes that divide it.
        """
        if self.stage < 3 or tensor.held == "aside":
            return tensor
        return replace(tensor, shape=(ceil(tensor.elements / processes),))

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

    def gathered(self, stored: Iterable[Stored], *, compute: ComputeDtype, hidden: int) -> int:
        """Bytes of divided weights that are whole at a time in stage 3: an upper bound.

        What was used stays until `stage3_max_live_parameters` elements are there, unless the model
        has fewer (`partitioned_param_coordinator.py`); the largest comes on top, and what is
        fetched ahead of its use.

        Args:
            stored: The model's tensors.
            compute: The dtype of products; packed 4-bit weights are stored in it too.
            hidden: The model's hidden size.
        """
        if self.stage < 3:
            return 0
        sizes = [tensor.nbytes for tensor in stored if tensor.held != "aside"]
        ahead = _resolved(self.prefetch, int(0.9 * hidden * hidden)) * BYTES[compute]
        return min(sum(sizes), self.live * BYTES[compute] + max(sizes, default=0) + ahead)

    def buffers(
        self, stored: Iterable[Stored], *, compute: ComputeDtype, processes: int, hidden: int
    ) -> int:
        """Bytes of buffers in which gradients are sent.

        DeepSpeed fills one of `reduce_bucket_size` elements, or two by turns, however few gradients
        there are (0.19, `stage_1_and_2.py`, `setup_buckets`; `stage3.py`,
        `_setup_for_real_optimizer`).

        Args:
            stored: The model's tensors.
            compute: The dtype of products, and of gradients.
            processes: Processes.
            hidden: The model's hidden size.
        """
        size = _resolved(self.bucket, hidden * hidden) * BYTES[compute]
        return size * (2 if self.overlaps and self.stage < 3 else 1)


@dataclass(frozen=True, slots=True)
class FullyShard(Sharding):
    """FSDP: the second version of it, `torch.distributed.fsdp.fully_shard`.

    Attributes:
        accumulates: Whether a step adds up several backward passes; until the last of them,
            gradients stay whole in each process (accelerate 1.15, `Accelerator.no_sync`).
    """

    accumulates: bool = False

    @property
    def name(self) -> str:
        """As `finqa_sft.models.devices.sharded_by` names it."""
        return "fsdp"

    @property
    def divides(self) -> int:
        """All there is."""
        return 3

    def trained_as(self, stored: Sequence[Stored], compute: ComputeDtype) -> Sequence[Stored]:
        """The model's tensors, whole.

        What is trained is in float32: accelerate casts it, unless the base is in 4 bits (1.15,
        `fsdp2_prepare_model`), and there `AdapterFactory.settle` does. Packed 4-bit weights are
        stored in the compute dtype.

        Args:
            stored: As they are loaded.
            compute: The dtype of products.
        """
        size = BYTES[compute]
        if size == FLOAT32:
            return stored
        cast = []
        for tensor in stored:
            if tensor.part is Part.PACKED:
                cast.append(_repacked(tensor, size))
            elif tensor.held == "trained":
                cast.append(replace(tensor, itemsize=FLOAT32))
            else:
                cast.append(tensor)
        return cast

    def part(self, tensor: Stored, processes: int) -> Stored:
        """What of a tensor is the first process's.

        Every parameter is divided along its first dimension, and the first processes have one row
        more than the last ones where it does not divide (torch 2.13, `_fsdp_param.py`,
        `_init_sharded_param`). Scales and buffers are no parameters.

        Args:
            tensor: The tensor.
            processes: Processes that divide it.
        """
        if tensor.held == "aside":
            return tensor
        first, *others = tensor.shape or (1,)
        return replace(tensor, shape=(ceil(first / processes), *others))

    def gathered(self, stored: Iterable[Stored], *, compute: ComputeDtype, hidden: int) -> int:
        """Bytes of divided weights that are whole at a time: an upper bound.

        Layer after layer is gathered in the compute dtype into a buffer and copied out of it, while
        the next one is fetched (torch 2.13, `_fsdp_collectives.py`, `_fsdp_param_group.py`); what
        is in no layer stays from the end of the forward pass to the begin of the backward pass.

        Args:
            stored: The model's tensors.
            compute: The dtype of products.
            hidden: The model's hidden size.
        """
        units = self._units((t for t in stored if t.held != "aside"), BYTES[compute])
        rest = units.pop("", 0)
        # The largest can be the embedding: one of its kind, let go of before the rest is gathered.
        largest, *others = sorted(units.values(), reverse=True) or [0]
        layer = others[0] if others else largest
        return layer + max(2 * largest, 2 * rest, rest + 2 * layer)

    def buffers(
        self, stored: Iterable[Stored], *, compute: ComputeDtype, processes: int, hidden: int
    ) -> int:
        """Bytes of whole gradients, and of buffers in which they are sent: an upper bound.

        A layer's gradients are copied to a buffer, the buffer is reduced while those of the next
        layer are computed (torch 2.13, `_fsdp_collectives.py`, `foreach_reduce`).

        Args:
            stored: The model's tensors.
            compute: The dtype of products, and of gradients that are sent.
            processes: Processes.
            hidden: The model's hidden size.
        """
        units = self._units(trained(stored), BYTES[compute])
        whole = sum(units.values()) if self.accumulates else 0
        return whole + 3 * max(units.values(), default=0)

    @staticmethod
    def _units(stored: Iterable[Stored], itemsize: int) -> Counter[str]:
        """Bytes of what is gathered together, with elements of at most so many bytes."""
        found: Counter[str] = Counter()
        for tensor in stored:
            found[tensor.unit] += prod(tensor.shape) * min(tensor.itemsize, itemsize)
        return found


def zero_of(config: Mapping[str, Any]) -> Sharding:
    """What matters of a DeepSpeed configuration.

    Args:
        config: As in its JSON file.
    """
    zero = config.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    if stage == 0:
        return Sharding()
    return Zero(
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


def _repacked(tensor: Stored, itemsize: int) -> Stored:
    """Packed weights in elements of another dtype, as sharding needs one dtype."""
    return replace(tensor, shape=(ceil(tensor.elements / itemsize), 1), itemsize=itemsize)


def _number(value: Any) -> int | Literal["auto"]:
    return "auto" if value == "auto" else int(value)


def _resolved(value: int | Literal["auto"], automatic: int) -> int:
    return automatic if value == "auto" else value
