"""Whether a merged model says what the base with its adapter says, measured on the same prompts.

Logits are compared after each token's mean over the vocabulary is taken off, which no probability
depends on.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from finqa_sft.errors import HardwareError
from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.devices import Device, resolve_compute_dtype
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.full import FullFactory
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.memory import size
from finqa_sft.models.merging.plan import MergedDtype, MergePlan
from finqa_sft.models.options import ComputeDtype, FullOptions, LoRAFactoryOptions, QLoRAOptions

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

LAST_TOKENS = 64
"""Tokens of each prompt that are looked at, up to the one that the answer begins after."""

Coarseness: TypeAlias = Literal["float32", "16-bit weights", "16-bit products", "int8"]
"""What rounds most. LLM.int8() rounds the inputs of its products to 8 bits too, which no merged
model does."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What rounding explains.

    Attributes:
        deviation: Largest deviation of the logits.
        kept: How far the share of the adapter's effect may be from 1.
        effect: The least effect that a share can be told of: above what rounding makes of the
            same products computed twice.
    """

    deviation: float
    kept: float
    effect: float


TOLERANCES: Mapping[Coarseness, Tolerance] = MappingProxyType(
    {
        "float32": Tolerance(deviation=1e-3, kept=0.01, effect=1e-4),
        "16-bit weights": Tolerance(deviation=0.05, kept=0.1, effect=1e-4),
        "16-bit products": Tolerance(deviation=0.05, kept=0.1, effect=0.05),
        "int8": Tolerance(deviation=0.2, kept=0.1, effect=0.2),
    }
)


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near a model is to another one.

    Attributes:
        tokens: Tokens looked at.
        deviation: Length of the difference of all logits as a share of the other's.
        largest: Largest difference of a logit.
        divergence: Kullback-Leibler divergence of the other's probabilities from this model's, a
            token, in nats.
        agreement: Share of tokens after which both think the same token the most likely.
        effect: What the adapter changes in the other, measured as `deviation` is; None where the
            other has none.
        kept: How much of that the model has: 1 where all of it, 0 where it is the base as it was.
    """

    tokens: int
    deviation: float
    largest: float
    divergence: float
    agreement: float
    effect: float | None = None
    kept: float | None = None

    def complaint(self, tolerance: Tolerance) -> str:
        """What differs by more than rounding explains; empty where nothing does."""
        problems = []
        if not self.deviation <= tolerance.deviation:
            problems.append(
                f"its logits deviate by {self.deviation:.2%}, and rounding explains "
                f"{tolerance.deviation:.2%}"
            )
        if (
            self.effect is not None
            and self.kept is not None
            and self.effect >= tolerance.effect
            and not abs(self.kept - 1) <= tolerance.kept
        ):
            problems.append(
                f"it has {self.kept:.1%} of what the adapter changes, and rounding explains "
                f"{1 - tolerance.kept:.0%} to {1 + tolerance.kept:.0%}"
            )
        return "; ".join(problems)

    def record(self) -> dict[str, float | int | None]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Said:
    """The logits of a model, and of its base without the adapter where it has one.

    Attributes:
        logits: For each prompt, [T, V] float32, centred.
        without: The same without the adapter.
    """

    logits: list[Tensor]
    without: list[Tensor]


def said(model: PeftModel | PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Said:
    """What a model says to some prompts.

    Args:
        model: In evaluation mode.
        prompts: Tokens of each.
    """
    from peft import PeftModel

    found = list(_logits(model, prompts))
    if not isinstance(model, PeftModel):
        return Said(found, [])
    with model.disable_adapter():
        return Said(found, list(_logits(model, prompts)))


def _logits(model: Any, prompts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    import torch

    for prompt in prompts:
        ids = torch.tensor([list(prompt)], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, -LAST_TOKENS:]
        logits = logits.float().cpu()
        yield logits - logits.mean(dim=-1, keepdim=True)


def nearness(model: Said, other: Said) -> Nearness:
    """How near a model is to another, by what both said to the same prompts.

    Args:
        model: The model that is looked at.
        other: What it should be.
    """
    tokens = agreeing = 0
    largest = divergence = difference = length = effect = shared = 0.0
    for place, (mine, wanted) in enumerate(zip(model.logits, other.logits, strict=True)):
        apart = mine - wanted
        tokens += len(mine)
        agreeing += int((mine.argmax(-1) == wanted.argmax(-1)).sum())
        largest = max(largest, float(apart.abs().max()))
        likely = wanted.log_softmax(-1)
        divergence += float((likely.exp() * (likely - mine.log_softmax(-1))).sum().double())
        difference += float(apart.double().square().sum())
        length += float(wanted.double().square().sum())
        if other.without:
            changed = (wanted - other.without[place]).double()
            effect += float(changed.square().sum())
            shared += float((changed * (mine - other.without[place])).sum())
    return Nearness(
        tokens=tokens,
        deviation=(difference / length) ** 0.5,
        largest=largest,
        divergence=max(divergence, 0.0) / tokens,
        agreement=agreeing / tokens,
        effect=(effect / length) ** 0.5 if other.without else None,
        kept=shared / effect if effect else None,
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a verification found.

    Attributes:
        merged: How near the merged model is to the same weights with the adapter beside them.
        trained: How near it is to the quantised base with the adapter beside it, as it was trained;
            None where that is the same, nothing was quantised, or this device cannot load it.
        prompts: How many prompts were read.
        computed_in: The dtype of the products.
        tolerance: What rounding explains.
    """

    merged: Nearness
    trained: Nearness | None
    prompts: int
    computed_in: ComputeDtype
    tolerance: Tolerance


class Verifier:
    """Compares a merged model with the base and the adapter that it was made of.

    The models are loaded one after the other; each has to fit into memory by itself.

    Attributes:
        computed_in: The dtype of the products: the run's, where this device has it.
    """

    def __init__(self, plan: MergePlan) -> None:
        """Take what is merged; no model is loaded yet."""
        factory, trained_in = plan.factory, plan.trained_in
        self.computed_in = _possible(trained_in, factory.device)
        options = factory.options.model_copy(update={"compute_dtype": self.computed_in})
        trained = type(factory)(options)
        # Over the original weights, a right merge is near to them with the adapter beside them.
        self._reference: AdapterFactory = (
            LoRAFactory(options) if plan.weights == "original" and factory.quantised else trained
        )
        self._trained_in = trained_in
        as_trained = self.computed_in == trained_in
        over_others = self._reference.quantised != factory.quantised
        self._trained = trained if over_others and as_trained else None
        self._merged = FullOptions(
            base=factory.options.base,
            revision=factory.options.revision,
            weights_dtype="bfloat16" if self.computed_in == "bfloat16" else "float32",
        )
        self._adapter = plan.adapter.folder
        self._device = factory.device
        for built in (self._reference, trained):
            built.device = factory.device
        self.tolerance = TOLERANCES[
            self._coarsest(plan.dtype, is_int8=self._reference.quantised and _is_int8(options))
        ]

    def _coarsest(self, dtype: MergedDtype, *, is_int8: bool) -> Coarseness:
        if is_int8:
            return "int8"
        if self.computed_in != "float32":
            return "16-bit products"
        return "16-bit weights" if dtype == "bfloat16" else "float32"

    def check(self) -> None:
        """Refuse what cannot be loaded, before anything is written.

        Raises:
            HardwareError: The largest of the models does not fit into the device's memory, or the
                quantised base cannot be what it was in training.
        """
        if self._reference.quantised and self.computed_in != self._trained_in:
            raise HardwareError(
                f"the run quantised its base from {self._trained_in}, which {self._device} does "
                "not compute in, so what was trained cannot be loaded here; merge on a device that "
                "does, or leave the verification out with --no-verify"
            )
        whole = FullFactory(self._merged)
        models = [self._reference, whole, *([self._trained] if self._trained else [])]
        needed = max(sum(model.held.values()) for model in models)
        if needed > self._device.free_memory:
            raise HardwareError(
                f"verifying loads the base with its adapter and then the merged model, which takes "
                f"{size(needed)}, and {self._device} has {size(self._device.free_memory)} free; "
                "merge on a larger machine, or leave the verification out with --no-verify"
            )

    def measure(
        self, out: Path, prompts: Sequence[Sequence[int]], *, say: Callable[[str], None]
    ) -> Measured:
        """Load the models one after the other, and compare what they say.

        Args:
            out: The merged model.
            prompts: Tokens of each.
            say: Is told what is loaded.

        Raises:
            ModelError: One of them cannot be loaded.
            HardwareError: Memory ran out.
        """
        say("verifying: loading the base with its adapter")
        reference = _asked(self._reference, self._adapter, prompts)
        trained = None
        if self._trained is not None:
            say("verifying: loading the quantised base with its adapter")
            trained = _asked(self._trained, self._adapter, prompts)
        say("verifying: loading the merged model")
        options = self._merged.model_copy(update={"base": str(out.absolute()), "revision": None})
        whole = FullFactory(options)
        whole.device = self._device
        merged = _asked(whole, None, prompts)
        return Measured(
            merged=nearness(merged, reference),
            trained=nearness(merged, trained) if trained else None,
            prompts=len(prompts),
            computed_in=self.computed_in,
            tolerance=self.tolerance,
        )


def _asked(factory: BuiltinFactory, folder: Path | None, prompts: Sequence[Sequence[int]]) -> Said:
    """What a model says that is loaded for it, and gone afterwards."""
    import torch

    found = said(factory.load_trained(folder), prompts)
    # Modules refer to each other in circles; the next model needs the room.
    gc.collect()
    if factory.device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def _possible(dtype: ComputeDtype, device: Device) -> ComputeDtype:
    """A dtype where the device computes in it, else the device's own."""
    try:
        return resolve_compute_dtype(dtype, device)
    except HardwareError:
        return resolve_compute_dtype("auto", device)


def _is_int8(options: LoRAFactoryOptions) -> bool:
    return isinstance(options, QLoRAOptions) and options.bits == 8
