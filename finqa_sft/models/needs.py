"""What training a model takes of a device's memory: what stays, and what comes on top when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING

from finqa_sft.models.activations import (
    Activations,
    Batch,
    Precision,
    Trained,
    Widths,
    activations,
)
from finqa_sft.models.memory import BYTES, Skeleton
from finqa_sft.models.optimizers import state_bytes, step_bytes
from finqa_sft.models.options import ComputeDtype
from finqa_sft.models.sharding import FLOAT32, FullyShard, Sharding, Zero
from finqa_sft.models.stored import Part, Stored, nbytes, trained

if TYPE_CHECKING:
    from finqa_sft.models.factory import BuiltinFactory

GRADIENTS = "gradients"
STATE = "optimizer state"
COPIES = "float32 copies that DeepSpeed trains"
BUFFERS = "buffers to send gradients"
PERSISTING = "small weights that stay whole"
LOADED = "the whole base, until it is shared out"
TEMPORARIES = "temporaries of the optimizer"

ALONE = Sharding()
"""One process, or several under DDP."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is trained, as far as memory goes.

    Attributes:
        bones: The base's shapes.
        widths: What its config tells beside them.
        stored: Every tensor that the model holds once it is loaded.
        learning: Which layers learn.
        dtype: What the base is held in; of a quantised one, what it is unpacked to.
        compute: The dtype of products.
        quantised: Whether the base is quantised.
        optim: As in `trainer.optim`.
        optim_args: As in `trainer.optim_args`.
        checkpointing: Whether layers are computed again in the backward pass.
    """

    bones: Skeleton
    widths: Widths
    stored: tuple[Stored, ...]
    learning: Trained
    dtype: ComputeDtype
    compute: ComputeDtype
    quantised: bool
    optim: str
    optim_args: str | None
    checkpointing: bool

    @classmethod
    def of(
        cls,
        factory: BuiltinFactory,
        *,
        optim: str,
        optim_args: str | None,
        checkpointing: bool,
    ) -> Setting:
        """Take what a factory knows of its model, on its device.

        Raises:
            ModelError: The base is not found, or the options do not fit it.
            HardwareError: The device cannot compute in the dtype that is wanted.
        """
        return cls(
            bones=factory.skeleton,
            widths=Widths.of(factory.base.config, factory.skeleton),
            stored=factory.stored,
            learning=factory.learning,
            dtype=factory.dtype,
            compute=factory.compute_dtype,
            quantised=factory.quantised,
            optim=optim,
            optim_args=optim_args,
            checkpointing=checkpointing,
        )


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a process needs of its device.

    Attributes:
        loading: The most while the model is loaded and shared out.
        kept: What stays from step to step, by what it is.
        backward: What comes on top in forward and backward pass, by what it is.
        step: What comes on top when the optimizer makes a step, by what it is.
        host: What lies in the host's memory instead, by what it is.
        unknown: What is needed too, and not known how much of.
    """

    loading: int
    kept: dict[str, int]
    backward: dict[str, int]
    step: dict[str, int]
    host: dict[str, int]
    unknown: tuple[str, ...] = ()

    @property
    def steady(self) -> int:
        """What stays from step to step."""
        return sum(self.kept.values())

    @property
    def training(self) -> int:
        """The most while it trains."""
        return self.steady + max(sum(self.backward.values()), sum(self.step.values()))

    @property
    def peak(self) -> int:
        """The most at any time."""
        return max(self.loading, self.training)

    def at_step(self) -> dict[str, int]:
        """The tensors that are there when the optimizer has made a step: what can be counted.

        DeepSpeed has let go of all gradients by then but those that the optimizer was given.
        """
        copied = COPIES in self.kept or COPIES in self.host
        return {
            "weights": sum(self.kept[name] for name in Part),
            "gradients": self.step.get(GRADIENTS, 0) if copied else self.kept[GRADIENTS],
            "optimizer": self.kept.get(STATE, 0) + self.kept.get(COPIES, 0),
        }


def need(setting: Setting, batch: Batch, *, sharding: Sharding = ALONE, processes: int = 1) -> Need:
    """What a process needs of its device.

    DeepSpeed copies what is trained in float32, float32 weights too, and each process keeps the
    copy and the optimizer's state of its part alone (0.19, `stage_1_and_2.py`, `stage3.py`). Under
    FSDP the optimizer is torch's, on a part of each tensor.

    Args:
        setting: How the model is trained.
        batch: What is computed at a time.
        sharding: How processes divide what is kept.
        processes: How many there are.
    """
    stored = sharding.trained_as(setting.stored, setting.compute)
    hidden = setting.widths.hidden
    model_is_here = "param" not in sharding.offloads
    parts = [sharding.part(tensor, processes) for tensor in stored]
    here = [tensor for tensor in parts if model_is_here or tensor.held == "aside"]
    kept = {str(name): nbytes(here, name) for name in Part}
    kept[PERSISTING] = sharding.persisting(stored, hidden=hidden)
    host: dict[str, int] = {}
    if not model_is_here:
        host["weights"] = sum(tensor.nbytes for tensor in parts if tensor.held != "aside")
    if isinstance(sharding, Zero):
        learning = trained(stored)
        elements = sum(tensor.elements for tensor in learning)
        itemsize = learning[0].itemsize if learning else FLOAT32
        part = Stored(Part.ADAPTER, (ceil(elements / processes),), FLOAT32, "trained")
        own = [part]
        divided = {COPIES: part.nbytes}
        sharers = 1 if sharding.stage == 1 else processes
        gradients = ceil(elements / sharers) * itemsize
        step = {GRADIENTS: part.nbytes}
    else:
        own = trained(parts)
        divided, step = {}, {}
        gradients = nbytes(own)
    state = state_bytes(setting.optim, own, options=setting.optim_args)
    divided[STATE] = state or 0
    if "optimizer" in sharding.offloads:
        kept[GRADIENTS] = 0
        host |= divided | {GRADIENTS: nbytes(own)}
        step = {}
    else:
        kept |= {GRADIENTS: gradients} | divided
        step[TEMPORARIES] = step_bytes(setting.optim, own)
    kept[BUFFERS] = sharding.buffers(
        stored, compute=setting.compute, processes=processes, hidden=hidden
    )
    loading, loading_host = _loading(setting, sharding, parts)
    return Need(
        loading=loading,
        kept=kept,
        backward=_backward(setting, batch, sharding, stored),
        step=step,
        host=host | loading_host,
        unknown=(f"the state of optimizer {setting.optim}",) if state is None else (),
    )


def _loading(
    setting: Setting, sharding: Sharding, parts: Sequence[Stored]
) -> tuple[int, dict[str, int]]:
    """The most while the model is loaded, on the device and in the host's memory.

    transformers quantises one tensor after the other (5.24, `core_model_loading.py`), on every
    process all of them: only a base that is not quantised is shared out while DeepSpeed ZeRO-3
    loads it (`modeling_utils.py`, `get_init_context`). DeepSpeed copies what is trained before it
    lets go of the model's own tensors. Under FSDP, a base that the device cannot hold is loaded
    into the host's memory, see `BuiltinFactory.load_base`; one that it can hold fits in any case.
    """
    size = BYTES[setting.compute]
    largest = max((tensor.elements for tensor in setting.stored), default=0) * size
    if sharding.name == "zero3" and not setting.quantised:
        return largest + nbytes(parts), {}
    whole = nbytes(setting.stored)
    if setting.quantised:
        whole += max(map(prod, setting.bones.linears.values()), default=0) * size
    if isinstance(sharding, FullyShard):
        return largest + nbytes(parts), {LOADED: whole}
    if sharding.divides in (1, 2):
        whole += sum(tensor.elements for tensor in trained(setting.stored)) * size
    return whole, {}


def _backward(
    setting: Setting, batch: Batch, sharding: Sharding, stored: Iterable[Stored]
) -> dict[str, int]:
    """What comes on top in forward and backward pass."""
    stored = list(stored)
    learning = trained(stored)
    size = BYTES[setting.compute]
    # FSDP gathers weights in the dtype of products.
    autocast = sharding.name != "fsdp" and any(tensor.itemsize > size for tensor in learning)
    stream = size if sharding.divides else BYTES[setting.dtype]
    found: Activations = activations(
        setting.bones,
        batch,
        widths=setting.widths,
        precision=Precision(size, stream, autocast),
        trained=setting.learning,
        checkpointing=setting.checkpointing,
        quantised=setting.quantised,
    )
    # Autocast keeps what it casts of weights to the end of the forward pass, and autograd further
    # where nothing is computed again.
    casts = sum(t.elements for t in learning if t.multiplied) * size if autocast else 0
    later = casts // max(1, len(setting.bones.layers)) if setting.checkpointing else casts
    again = found.layer + found.working + found.unpacked + later
    if casts > again:
        later += casts - again
    return {
        "activations": found.kept,
        "a layer computed again": found.layer,
        "backward pass of a layer": found.working,
        "a weight unpacked": found.unpacked,
        "weights cast for products": later,
        "logits, in tiles": found.logits,
        "weights gathered": sharding.gathered(
            stored, compute=setting.compute, hidden=setting.widths.hidden
        ),
    }
