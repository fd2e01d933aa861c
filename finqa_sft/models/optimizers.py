"""What an optimizer keeps of the weights that it trains, by the name that `trainer.optim` has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, prod

from finqa_sft.models.stored import Stored

_STEP = 4
"""Bytes of the step counter that torch's optimizers keep of each tensor, in float32."""

_AVERAGES = {"adamw_torch": 2, "adamw_torch_fused": 2, "adagrad": 1, "rmsprop": 1}
"""Averages that optimizers of torch 2.13 keep beside the step, of a weight's shape and dtype."""

_BY_TABLE = {
    "adamw_bnb_8bit": (2, 2, 8),
    "adamw_8bit": (2, 2, 8),
    "paged_adamw_32bit": (2, 2, 32),
    "paged_adamw_8bit": (2, 2, 8),
    "ademamix": (3, 2, 32),
    "ademamix_8bit": (3, 2, 8),
    "paged_ademamix_32bit": (3, 2, 32),
    "paged_ademamix_8bit": (3, 2, 8),
    "lion_32bit": (1, 1, 32),
    "lion_8bit": (1, 1, 8),
    "paged_lion_32bit": (1, 1, 32),
    "paged_lion_8bit": (1, 1, 8),
    "rmsprop_bnb": (1, 1, 32),
    "rmsprop_bnb_8bit": (1, 1, 8),
    "rmsprop_bnb_32bit": (1, 1, 32),
}
"""Averages, tables and bits of the optimizers of bitsandbytes 0.50 (`optim/optimizer.py`)."""

BITSANDBYTES = frozenset(_BY_TABLE)
"""The optimizers that are bitsandbytes' own."""

_SMALL = 4096
"""Weights below this number have averages in float32 in any case (`min_8bit_size`)."""

_BLOCK = 256
"""Averages in 8 bits that share a float32 scale."""

_TABLE = 256 * 4
"""Bytes of a table that averages in 8 bits are unpacked by; one for all weights."""

KNOWN = (*_AVERAGES, *_BY_TABLE, "sgd", "adafactor")
"""The optimizers whose state is known here; others come from packages of their own, or adapt to the
model."""


def state_bytes(optim: str, trained: Iterable[Stored], *, options: str | None = None) -> int | None:
    """Bytes of an optimizer's state once it has made a step.

    Args:
        optim: As in `trainer.optim`.
        trained: What it trains.
        options: As in `trainer.optim_args`: `momentum=0.9,nesterov=true`.

    Returns:
        None for an optimizer that is not among `KNOWN`.
    """
    trained = list(trained)
    if optim in _BY_TABLE:
        averages, tables, bits = _BY_TABLE[optim]
        packed = [tensor.elements for tensor in trained if bits == 8 and tensor.elements >= _SMALL]
        whole = sum(tensor.elements for tensor in trained) - sum(packed)
        scales = sum(4 * ceil(elements / _BLOCK) for elements in packed)
        return averages * (4 * whole + sum(packed) + scales) + bool(packed) * tables * _TABLE
    if optim == "adafactor":
        # transformers 5.24, `optimization.py`: rows and columns of the last two dimensions, in
        # float32, and the root of the mean square.
        return sum(4 * (_factored(tensor.shape) + 1) for tensor in trained)
    chosen = _options(options)
    momentum = float(chosen.get("momentum", 0)) != 0
    if optim == "sgd":
        return momentum * sum(tensor.nbytes for tensor in trained)
    if optim in _AVERAGES:
        averages = _AVERAGES[optim]
        if optim == "rmsprop":
            averages += momentum + (chosen.get("centered", "").lower() in ("true", "1", "yes"))
        return sum(averages * tensor.nbytes + _STEP for tensor in trained)
    return None


def step_bytes(optim: str, trained: Iterable[Stored]) -> int:
    """Bytes that a step needs for its duration, beside weights, gradients and state.

    torch's AdamW without `fused` takes the roots of all second averages at once on a GPU
    (2.13, `optim/adam.py`, `_multi_tensor_adam`).
    """
    return sum(tensor.nbytes for tensor in trained) if optim == "adamw_torch" else 0


def is_paged(optim: str) -> bool:
    """Whether large averages lie in memory that the driver moves to the host when it is short."""
    return optim.startswith("paged_")


def _factored(shape: tuple[int, ...]) -> int:
    """Elements of Adafactor's average of squares."""
    if len(shape) < 2:
        return prod(shape)
    return prod(shape[:-1]) + prod(shape[:-2]) * shape[-1]


def _options(text: str | None) -> Mapping[str, str]:
    """Options as the trainer reads them (transformers 5.24, `trainer_optimizer.py`)."""
    pairs = (text or "").replace(" ", "").split(",")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs) if key}
