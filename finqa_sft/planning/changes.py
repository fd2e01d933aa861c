"""What to change where training does not fit: keys of the recipe, each with what it would need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.full import FullFactory
from finqa_sft.models.options import LoraOptions, QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.models.sharding import Sharding
from finqa_sft.planning.fit import Fit
from finqa_sft.planning.gpus import Gpu
from finqa_sft.planning.request import Request, varied
from finqa_sft.preparation.rows import SIZE_KEYS

LESS_RANK = 8
"""The rank that is tried in place of a higher one."""

LESS_STATE = "adamw_8bit"
"""The optimizer that is tried in place of one that keeps more."""

Division: TypeAlias = tuple[Sharding, int]
"""How what is kept is divided, and among how many processes."""

Edit: TypeAlias = Callable[[Request], Request | None]
"""Changes a request; None where there is nothing to change."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something to change.

    Attributes:
        keys: What to set, as on the command line.
        total: Bytes of a GPU with it, what is allowed for included.
        fits: Whether that is there.
    """

    keys: str
    total: int
    fits: bool

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def fit_of(request: Request, gpu: Gpu, *, sharding: Sharding, processes: int) -> Fit:
    """What a request needs on a GPU.

    Args:
        request: What is to be trained.
        gpu: Where.
        sharding: How processes divide what is kept.
        processes: How many there are.

    Raises:
        HardwareError: The GPU cannot train it with any compute dtype.
        ModelError: The model cannot be divided so.
    """
    setting, _ = request.setting(bfloat16=gpu.bfloat16)
    request.require_divisible(sharding)
    return Fit(setting, request.rows, request.shares, sharding=sharding, processes=processes)


def changes(
    request: Request, gpu: Gpu, *, now: Sharding, processes: int, others: Mapping[str, Division]
) -> list[Change]:
    """What makes the need smaller: each change alone, then all of the recipe together.

    The last are with the division that needs least: a smaller batch, and all of it together.

    Args:
        request: What does not fit.
        gpu: Where it does not.
        now: How processes divide what is kept.
        processes: How many there are.
        others: How else it could be divided, by what is to be set for it.

    Returns:
        Those that help, in the order in which they are worth trying.
    """
    before = fit_of(request, gpu, sharding=now, processes=processes).total(request.rows.size)
    found: dict[str, Change] = {}
    for words, other, division in _trials(request, gpu, (now, processes), others):
        fit = _fit(other, gpu, division)
        total = fit.total(other.rows.size) if fit else before
        keys = " ".join(words)
        if total < before:
            found.setdefault(keys, Change(keys, total, total <= gpu.memory))
    return list(found.values())


def _trials(
    request: Request, gpu: Gpu, now: Division, others: Mapping[str, Division]
) -> Iterator[tuple[list[str], Request, Division]]:
    """What is tried: what is to be set for it, what is then trained, and how it is divided."""
    yield *_sized(request, gpu, now), now
    for keys, edit in EDITS.items():
        if (edited := edit(request)) is not None:
            yield [keys], edited, now
    for keys, division in others.items():
        yield [keys], request, division
    yield *_together(request, gpu, now), now
    fits = {keys: _fit(request, gpu, division) for keys, division in others.items()}
    totals = {keys: fit.total(request.rows.size) for keys, fit in fits.items() if fit}
    if totals:
        least = min(totals, key=totals.__getitem__)
        for words, other in (
            _sized(request, gpu, others[least]),
            _together(request, gpu, others[least]),
        ):
            yield [least, *words], other, others[least]


def _fit(request: Request, gpu: Gpu, division: Division) -> Fit | None:
    """What a request needs; None where it cannot be on this GPU, or not be divided so."""
    sharding, processes = division
    try:
        return fit_of(request, gpu, sharding=sharding, processes=processes)
    except (HardwareError, ModelError):
        return None


def _sized(request: Request, gpu: Gpu, division: Division) -> tuple[list[str], Request]:
    """With the largest batch that fits, and what sets it, where only a smaller one does."""
    fit = _fit(request, gpu, division)
    longest = fit.longest(gpu.memory) if fit else 0
    if 0 < longest < request.rows.size:
        return [_size_keys(request, longest)], request.sized(longest)
    return [], request


def _size_keys(request: Request, size: int) -> str:
    """What sets the size of a batch; of shared context, one row alone must fit into it."""
    keys = f"{SIZE_KEYS[request.rows.kind]}={size}"
    if request.rows.kind == "shared_context" and size < request.rows.longest:
        keys += f" formatter.max_length={size}"
    return keys


def _together(request: Request, gpu: Gpu, division: Division) -> tuple[list[str], Request]:
    """All changes of the recipe that go with a division, and the largest batch that fits then."""
    keys = []
    for words, edit in EDITS.items():
        edited = edit(request)
        if edited is not None and _fit(edited, gpu, division):
            keys.append(words)
            request = edited
    words_, request = _sized(request, gpu, division)
    return keys + words_, request


def _checkpointing(request: Request) -> Request | None:
    if request.trainer.gradient_checkpointing:
        return None
    return replace(request, trainer=replace(request.trainer, gradient_checkpointing=True))


def _small_state(request: Request) -> Request | None:
    if request.trainer.optim == LESS_STATE:
        return None
    return replace(request, trainer=replace(request.trainer, optim=LESS_STATE))


def _quantised(request: Request) -> Request | None:
    factory = request.factory
    if isinstance(factory, QLoRAFactory):
        return None
    options = factory.options
    lora = factory.options.lora if isinstance(factory, AdapterFactory) else LoraOptions()
    if lora.init in ("orthogonal", "mica"):
        # They work on bases that are not quantised.
        return None
    wanted = QLoRAOptions(base=options.base, revision=options.revision, lora=lora)
    other = QLoRAFactory(wanted.model_copy(update={"compute_dtype": options.compute_dtype}))
    other.base, other.skeleton = factory.base, factory.skeleton
    return replace(request, factory=other)


def _half_the_bits(request: Request) -> Request | None:
    factory = request.factory
    if not isinstance(factory, QLoRAFactory) or factory.options.bits == 4:
        return None
    return replace(request, factory=varied(factory, bits=4))


def _half_the_weights(request: Request) -> Request | None:
    factory = request.factory
    if not isinstance(factory, FullFactory) or factory.options.weights_dtype == "bfloat16":
        return None
    halved = varied(factory, weights_dtype="bfloat16", compute_dtype="auto")
    return replace(request, factory=halved)


def _less_rank(request: Request) -> Request | None:
    factory = request.factory
    if not isinstance(factory, AdapterFactory) or factory.options.lora.r <= LESS_RANK:
        return None
    lora = factory.options.lora.model_copy(update={"r": LESS_RANK})
    return replace(request, factory=varied(factory, lora=lora))


EDITS: Mapping[str, Edit] = {
    "trainer.gradient_checkpointing=true": _checkpointing,
    "model.factory=qlora": _quantised,
    "model.bits=4": _half_the_bits,
    "model.weights_dtype=bfloat16": _half_the_weights,
    f"trainer.optim={LESS_STATE}": _small_state,
    f"model.lora.r={LESS_RANK}": _less_rank,
}
"""What can be changed of a recipe, by the keys that do it."""
