"""What the built-in model factories share: the base, its tokenizer, and the device they meet on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.activations import Trained
from finqa_sft.models.bases import BaseKind, ResolvedBase, resolve_base
from finqa_sft.models.devices import (
    Device,
    find_device,
    is_fsdp,
    is_zero3,
    launches_fsdp,
    precision_args,
    resolve_compute_dtype,
    shards_weights,
    shares_memory,
)
from finqa_sft.models.memory import (
    BYTES,
    FRAGMENTS,
    MemoryEstimate,
    Skeleton,
    require_memory,
    size,
    skeleton,
)
from finqa_sft.models.options import BaseOptions, ComputeDtype
from finqa_sft.models.quiet import import_bitsandbytes
from finqa_sft.models.stored import Stored
from finqa_sft.models.tokenizer import load_tokenizer
from finqa_sft.ranks import is_launched
from finqa_sft.wording import one_line

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer


class BuiltinFactory(ABC):
    """A base on this process's device, with its tokenizer; how it is trained is the subclass's.

    Attributes:
        options: What was asked for.
    """

    remedy: ClassVar[str]
    """What makes the need for memory smaller."""

    quantised: ClassVar[bool]
    """Whether the base is quantised."""

    whole_in_each_process: ClassVar[bool]
    """Whether each process loads the whole base, even where DeepSpeed or FSDP shards it."""

    def __init__(self, options: BaseOptions) -> None:
        """Take the options; nothing is looked up before it is needed."""
        self.options = options
        self._tokenizer_facts: dict[str, Any] = {}

    @cached_property
    def device(self) -> Device:
        """The device of this process."""
        return find_device()

    @cached_property
    def compute_dtype(self) -> ComputeDtype:
        """The dtype that products are computed in."""
        return resolve_compute_dtype(self.options.compute_dtype, self.device)

    @cached_property
    def base(self) -> ResolvedBase:
        """The base, found and looked at."""
        return resolve_base(self.options.base, revision=self.options.revision)

    @cached_property
    def skeleton(self) -> Skeleton:
        """The shapes of the base.

        Raises:
            ModelError: The base's config describes no model that can be built.
        """
        config = self.base.config
        try:
            return skeleton(config)
        # Each architecture finds a mistake in its own way.
        except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(
                f"base {self.options.base!r} has a config that no model can be built from: "
                f"{one_line(error)}; copy or download it again"
            ) from error

    @cached_property
    @abstractmethod
    def stored(self) -> tuple[Stored, ...]:
        """Every tensor that the model to be trained holds once it is loaded.

        Raises:
            ModelError: The options do not fit the base.
        """

    @property
    @abstractmethod
    def learning(self) -> Trained:
        """Which layers learn."""

    @cached_property
    @abstractmethod
    def memory(self) -> MemoryEstimate:
        """What the run keeps in memory beside activations."""

    @cached_property
    @abstractmethod
    def held(self) -> dict[str, int]:
        """Bytes of the weights that a model to be asked has, by part."""

    @abstractmethod
    def load_model(self, args: SFTConfig) -> PeftModel | PreTrainedModel:
        """The model, ready for `SFTTrainer`; `args` must have been built before."""

    @abstractmethod
    def load_trained(self, folder: Path | None) -> PeftModel | PreTrainedModel:
        """The model with what a run saved, or the base alone, in evaluation mode.

        Args:
            folder: What the run saved, or None.
        """

    @abstractmethod
    def quantisation_arguments(self, *, sharded: bool) -> dict[str, Any] | None:
        """Arguments of `transformers.BitsAndBytesConfig`, as plain values, or None for no such.

        Args:
            sharded: Whether FSDP or ZeRO-3 shards the base.
        """

    @abstractmethod
    def lora_arguments(self) -> dict[str, Any] | None:
        """Arguments of `peft.LoraConfig`, as plain values, or None without an adapter."""

    @property
    @abstractmethod
    def dtype(self) -> ComputeDtype:
        """The dtype that weights are loaded in, or unpacked to."""

    def check(self) -> None:
        """Refuse what cannot work, before anything large is read.

        Where a launcher may share the base out, its memory is looked at in `load_model`, as only
        the trainer's arguments tell.

        Raises:
            ModelError: The base is not found, not reachable or not a causal language model, or the
                options do not fit it.
            HardwareError: Too little memory, several GPUs without a launcher, no bfloat16.
        """
        # Refuses dtypes that the device does not compute in.
        self.sft_args()
        # Under FSDP a base that the device cannot hold is loaded into the memory of the host.
        if not is_launched() or (self.whole_in_each_process and not launches_fsdp()):
            self._require_memory(self.memory)

    def sft_args(self) -> dict[str, Any]:
        """`SFTConfig` fields that follow from the device: precision, `use_cpu`."""
        return precision_args(self.device, self.compute_dtype)

    def load_config(self) -> PreTrainedConfig:
        """The base's config; no weights are read."""
        return self.base.config

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer, able to pad; with a chat template where there is one.

        Under DeepSpeed ZeRO-3, call this before `SFTConfig` is built: a GGUF base is dequantised
        here.

        Raises:
            ModelError: The base has no tokenizer, or the template is missing or no template.
        """
        tokenizer, self._tokenizer_facts = load_tokenizer(
            self.base.location(),
            name=self.base.name,
            revision=self.base.revision,
            chat_template=self.options.chat_template,
        )
        return tokenizer

    @abstractmethod
    def settle(self, trainer: SFTTrainer) -> None:
        """Undo what the trainer's constructor did to the model that this device cannot use."""

    def describe(self) -> dict[str, Any]:
        """What was resolved and why, as plain values for the console and the run manifest."""
        facts: dict[str, Any] = {
            "base": self.base.name,
            "kind": str(self.base.kind),
            "model_type": self.base.config.model_type,
            "parameters": self.skeleton.parameters,
        }
        if self.base.kind is BaseKind.HUB:
            facts["revision"] = self.base.revision or "main"
        return {
            **facts,
            **self.described(),
            "trained_parameters": self.memory.trained_parameters,
            "device": str(self.device),
            "compute_dtype": self.compute_dtype,
            "compute_dtype_why": self._why_compute_dtype(),
            "memory_estimate": size(self.memory.total),
            "memory_free": size(self.device.free_memory),
            **self._tokenizer_facts,
        }

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What the subclass adds to the base, as plain values."""

    def load_base(self, args: SFTConfig | None = None) -> PreTrainedModel:
        """The base on this process's device, quantised where the factory does so, not in training.

        Args:
            args: The trainer's arguments, where the base is to be trained; else it is to be asked,
                and no memory is needed for gradients and an optimizer.

        Raises:
            ModelError: The base cannot be loaded.
            HardwareError: There is too little memory.
        """
        # Before transformers and peft, which import it with its false alarm.
        import_bitsandbytes()
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        needed = MemoryEstimate(self.held, 0) if args is None else self.memory
        if args is None or not shares_memory(args):
            self._require_memory(needed)
        sharded = args is not None and shards_weights(args)
        quantisation = self.quantisation_arguments(sharded=sharded)
        zero3 = args is not None and is_zero3()
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                self.base.location(),
                revision=self.base.revision or "main",
                quantization_config=quantisation and BitsAndBytesConfig(**quantisation),  # type: ignore[no-untyped-call]
                dtype=getattr(torch, self.dtype),
                # ZeRO-3 refuses any device map and moves the weights itself.
                device_map=None if zero3 else {"": self._loading_place(args)},
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except torch.OutOfMemoryError as error:
            raise HardwareError(
                f"{self.device} ran out of memory while base {self.options.base!r} was loaded "
                f"(estimate {size(needed.total)}, free before {size(self.device.free_memory)})"
                "; end what else runs there, or take a smaller base"
            ) from error
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(
                f"base {self.options.base!r} cannot be loaded: {error}; copy or download it again"
            ) from error
        model: PreTrainedModel = loaded[0]
        if missing := sorted(loaded[1]["missing_keys"]):
            raise ModelError(
                f"base {self.options.base!r} lacks {', '.join(missing[:3])}"
                f"{f' and {len(missing) - 3} more weights' if len(missing) > 3 else ''}, for which "
                "random ones would stand in; name a base that was saved with its output head"
            )
        return model

    def _loading_place(self, args: SFTConfig | None) -> str:
        """Where the base is loaded to, as torch names it: this process's device, or the host.

        FSDP moves layer after layer to the device and keeps a share of each, so that of a base in
        the host's memory the device never holds more than its share and one layer (torch 2.13,
        `fully_shard`). Quantising there takes longer than on a GPU.
        """
        # Beside the weight that is being quantised, and what the allocator cannot use.
        largest = max(map(prod, self.skeleton.weights.values())) * BYTES[self.dtype]
        needed = (1 + FRAGMENTS) * (sum(self.held.values()) + largest)
        fits = needed <= self.device.free_memory
        return self.device.torch_name if args is None or fits or not is_fsdp(args) else "cpu"

    def _require_memory(self, needed: MemoryEstimate) -> None:
        require_memory(needed, self.device, base=self.options.base, remedy=self.remedy)

    def _why_compute_dtype(self) -> str:
        if self.options.compute_dtype != "auto":
            return "set in model.compute_dtype"
        if self.device.type == "cpu":
            return "no GPU; the CPU is fastest in it"
        return "the GPU computes in it at full speed"
