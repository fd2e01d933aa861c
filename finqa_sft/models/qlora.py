"""The model factory `qlora`: a frozen 4-bit NF4 base with trained adapters.

With a stock trainer, without a recipe:

    factory = QLoRAFactory(QLoRAOptions(base="./SmolLM2-135M-Instruct"))
    tokenizer = factory.load_tokenizer()
    args = SFTConfig(**factory.sft_args(), output_dir="out")
    trainer = SFTTrainer(factory.load_model(args), args, processing_class=tokenizer, ...)
    factory.settle(trainer)
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.bases import BaseKind, ResolvedBase, resolve_base
from finqa_sft.models.devices import (
    Device,
    find_device,
    is_fsdp,
    is_zero3,
    precision_args,
    resolve_compute_dtype,
    resolve_storage_dtype,
)
from finqa_sft.models.memory import (
    MemoryEstimate,
    Skeleton,
    estimate_memory,
    require_memory,
    short_names,
    size,
    skeleton,
)
from finqa_sft.models.options import ComputeDtype, QLoRAOptions, StorageDtype
from finqa_sft.models.quiet import import_bitsandbytes
from finqa_sft.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer


class QLoRAFactory:
    """Builds a 4-bit base with LoRA, rsLoRA or DoRA adapters.

    Attributes:
        options: What was asked for.
    """

    def __init__(self, options: QLoRAOptions) -> None:
        """Take the options; nothing is looked up before it is needed."""
        self.options = options
        self._tokenizer_facts: dict[str, Any] = {}
        self._storage: StorageDtype | None = None

    @cached_property
    def device(self) -> Device:
        """The device of this process."""
        return find_device()

    @cached_property
    def compute_dtype(self) -> ComputeDtype:
        """The dtype that 4-bit weights are unpacked to."""
        return resolve_compute_dtype(self.options.compute_dtype, self.device)

    @cached_property
    def base(self) -> ResolvedBase:
        """The base, found and looked at."""
        return resolve_base(self.options.base, revision=self.options.revision)

    @cached_property
    def skeleton(self) -> Skeleton:
        """The shapes of the base."""
        return skeleton(self.base.config)

    @cached_property
    def memory(self) -> MemoryEstimate:
        """What the run keeps in memory beside activations."""
        return estimate_memory(
            self.skeleton,
            lora=self.options.lora,
            compute=self.compute_dtype,
            double_quant=self.options.double_quant,
        )

    def check(self) -> None:
        """Refuse what cannot work, before anything large is read.

        Raises:
            ModelError: The base is not found, not reachable or not a causal language model, or
                `target_modules` names what is not there.
            HardwareError: Too little memory, several GPUs without a launcher, no bfloat16.
        """
        if not self.skeleton.linears:
            raise ModelError(
                f"base {self.options.base!r} has no linear layer that bitsandbytes can quantise "
                f"(model type {self.base.config.model_type!r}); take another base"
            )
        require_memory(self.memory, self.device, base=self.options.base)

    def sft_args(self) -> dict[str, Any]:
        """`SFTConfig` fields that follow from the device: precision, `use_cpu`."""
        return precision_args(self.device, self.compute_dtype)

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

    def load_model(self, args: SFTConfig) -> PeftModel:
        """The 4-bit base with a new adapter, ready for `SFTTrainer`.

        The adapter's first weights follow from `args.seed`. `args` must be built before the model,
        as DeepSpeed ZeRO-3 makes itself known there.

        Raises:
            ModelError: The base cannot be loaded, or DoRA is to run under DeepSpeed ZeRO-3.
            HardwareError: The device ran out of memory.
        """
        self.check()
        # peft imports bitsandbytes, with its false alarm if it comes first.
        import_bitsandbytes()
        from peft import LoraConfig, get_peft_model
        from transformers import set_seed

        lora = self.options.lora
        if lora.dora and is_zero3():
            raise ModelError(
                "model.lora.dora does not work under DeepSpeed ZeRO-3: it computes with whole base "
                "weights, which ZeRO-3 shares out; use ZeRO-2, or set model.lora.dora to false"
            )
        model = self._load_base(args)
        set_seed(args.seed)
        return get_peft_model(model, LoraConfig(**self.lora_arguments()))

    def lora_arguments(self) -> dict[str, Any]:
        """Arguments of `peft.LoraConfig`, as plain values."""
        lora, bones = self.options.lora, self.skeleton
        return {
            "task_type": "CAUSAL_LM",
            "r": lora.r,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "use_rslora": lora.rslora,
            "use_dora": lora.dora,
            # By name: PEFT's own "all-linear" would also adapt layers that only see images, and
            # routers and experts of some mixtures.
            "target_modules": short_names(bones.targets(lora), among=bones.modules),
            "bias": "none",
            "revision": self.base.revision,
        }

    def quantisation_arguments(self, *, sharded: bool) -> dict[str, Any]:
        """Arguments of `transformers.BitsAndBytesConfig`, as plain values.

        Args:
            sharded: Whether FSDP or ZeRO-3 shards the base.
        """
        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.options.double_quant,
            "bnb_4bit_compute_dtype": self.compute_dtype,
            "bnb_4bit_quant_storage": resolve_storage_dtype(
                self.options.storage_dtype, self.compute_dtype, sharded=sharded
            ),
        }

    def _load_base(self, args: SFTConfig) -> PreTrainedModel:
        """Load and quantise the base on this process's device."""
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        zero3 = is_zero3()
        quantisation = self.quantisation_arguments(sharded=zero3 or is_fsdp(args))
        self._storage = quantisation["bnb_4bit_quant_storage"]
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                self.base.location(),
                revision=self.base.revision or "main",
                quantization_config=BitsAndBytesConfig(**quantisation),  # type: ignore[no-untyped-call]
                dtype=getattr(torch, self.compute_dtype),
                # ZeRO-3 refuses any device map and moves the weights itself.
                device_map=None if zero3 else {"": self.device.torch_name},
                use_safetensors=True,
                trust_remote_code=False,
            )
        except torch.OutOfMemoryError as error:
            raise HardwareError(
                f"{self.device} ran out of memory while base {self.options.base!r} was loaded "
                f"(estimate {size(self.memory.total)}, free before {size(self.device.free_memory)})"
                "; end what else runs there, or take a smaller base"
            ) from error
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(
                f"base {self.options.base!r} cannot be loaded: {error}; copy or download it again"
            ) from error
        model.config.use_cache = False
        if self.device.type == "cpu":
            _keep_packing(model)
        return model

    def settle(self, trainer: SFTTrainer) -> None:
        """Give the adapters back their float32 weights where bfloat16 is not computed in.

        `SFTTrainer` casts adapters on a 4-bit base to bfloat16. That is slow on CPUs without units
        for it, and float16's loss scaling cannot unscale such gradients.
        """
        if self.compute_dtype == "bfloat16":
            return
        for parameter in trainer.model.parameters():  # type: ignore[union-attr]
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def describe(self) -> dict[str, Any]:
        """What was resolved and why, as plain values for the console and the run manifest."""
        lora = self.options.lora
        kind = " with ".join(
            name
            for name, chosen in (
                ("DoRA", lora.dora),
                ("rsLoRA scaling", lora.rslora and lora.dora),
                ("rsLoRA", lora.rslora and not lora.dora),
                ("LoRA", not lora.rslora and not lora.dora),
            )
            if chosen
        )
        facts: dict[str, Any] = {
            "base": self.base.name,
            "kind": str(self.base.kind),
            "model_type": self.base.config.model_type,
            "parameters": self.skeleton.parameters,
            "quantisation": "nf4" + (", double" if self.options.double_quant else ""),
            "quantised_parameters": self.skeleton.quantised,
            "adapter": f"{kind}, r={lora.r}, alpha={lora.alpha}, dropout={lora.dropout}",
            "adapted_layers": len(self.skeleton.targets(lora)),
            "trained_parameters": self.memory.adapter_parameters,
            "device": str(self.device),
            "compute_dtype": self.compute_dtype,
            "compute_dtype_why": self._why_compute_dtype(),
            "memory_estimate": size(self.memory.total),
            "memory_free": size(self.device.free_memory),
        }
        if self.base.kind is BaseKind.HUB:
            facts["revision"] = self.base.revision or "main"
        if self._storage is not None:
            facts["storage_dtype"] = self._storage
        return facts | self._tokenizer_facts

    def _why_compute_dtype(self) -> str:
        if self.options.compute_dtype != "auto":
            return "set in model.compute_dtype"
        if self.device.type == "cpu":
            return "no GPU; the CPU is fastest in it"
        return "the GPU computes in it at full speed"


def _keep_packing(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking the 4-bit base in place.

    On CPUs with AVX512-BF16 units, the first forward pass of a `Linear4bit` without gradients, in
    an evaluation, rewrites its weight for a faster product that has no gradients, and training goes
    on with the rewritten weight (bitsandbytes 0.50, `nn/modules.py`, `Linear4bit.forward`).
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
