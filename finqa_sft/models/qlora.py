"""The model factory `qlora`: a frozen, quantised base with trained adapters.

With a stock trainer, without a recipe:

    factory = QLoRAFactory(QLoRAOptions(base="./SmolLM2-135M-Instruct"))
    tokenizer = factory.load_tokenizer()
    args = SFTConfig(**factory.sft_args(), output_dir="out")
    trainer = SFTTrainer(factory.load_model(args), args, processing_class=tokenizer, ...)
    factory.settle(trainer)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from finqa_sft.errors import ModelError
from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.devices import resolve_storage_dtype, sharded_by
from finqa_sft.models.options import QLoRAOptions, StorageDtype
from finqa_sft.models.sharded import EIGHT_BITS, unshareable
from finqa_sft.models.stored import Part, Stored, int8, nbytes, nf4, unquantised

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl.trainer.sft_config import SFTConfig


class QLoRAFactory(AdapterFactory):
    """Builds a 4-bit or 8-bit base with LoRA, rsLoRA or DoRA adapters.

    Attributes:
        options: What was asked for.
    """

    remedy: ClassVar[str] = "lower model.lora.r"
    whole_in_each_process: ClassVar[bool] = True
    quantised: ClassVar[bool] = True
    options: QLoRAOptions

    def __init__(self, options: QLoRAOptions) -> None:
        """Take the options; nothing is looked up before it is needed."""
        super().__init__(options)
        self._storage: StorageDtype | None = None

    def base_stored(self) -> Iterator[Stored]:
        """The quantised layers with their scales, and the rest."""
        bones = self.skeleton
        if self.options.bits == 8:
            yield from int8(bones)
        else:
            yield from nf4(bones, double_quant=self.options.double_quant)
        yield from unquantised(bones, self.dtype)

    def base_memory(self) -> dict[str, int]:
        """Bytes of the quantised layers with their scales, and of the rest."""
        return {
            f"the base in {self.options.bits} bits": nbytes(self.stored, Part.PACKED, Part.SCALES),
            f"its other parts in {self.dtype}": nbytes(self.stored, Part.BASE),
        }

    def quantisation_arguments(self, *, sharded: bool) -> dict[str, Any]:
        """Arguments of `transformers.BitsAndBytesConfig`, as plain values.

        Args:
            sharded: Whether FSDP or ZeRO-3 shards the base.

        Raises:
            ModelError: An 8-bit base is to be sharded.
        """
        if self.options.bits == 8:
            if sharded:
                raise ModelError(f"model.bits {EIGHT_BITS}")
            return {"load_in_8bit": True}
        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.options.double_quant,
            "bnb_4bit_compute_dtype": self.compute_dtype,
            "bnb_4bit_quant_storage": resolve_storage_dtype(
                self.options.storage_dtype, self.compute_dtype, sharded=sharded
            ),
        }

    def load_base(self, args: SFTConfig | None = None) -> PreTrainedModel:
        """The base on this process's device, quantised.

        Args:
            args: The trainer's arguments, where the base is to be trained.

        Raises:
            ModelError: The base cannot be loaded, or not be shared out as the options have it.
            HardwareError: There is too little memory.
        """
        if args is not None and (
            problem := unshareable(self.options, sharded_by(args), compute=self.compute_dtype)
        ):
            raise ModelError(" ".join(problem))
        model = super().load_base(args)
        if self.options.bits == 4:
            self._storage = model.config.quantization_config.to_dict()["bnb_4bit_quant_storage"]
            if self.device.type == "cpu":
                _keep_packing(model)
        return model

    def described(self) -> dict[str, Any]:
        """The quantisation and the adapter."""
        double = ", double" if self.options.double_quant else ""
        facts: dict[str, Any] = {
            "quantisation": "int8" if self.options.bits == 8 else f"nf4{double}",
            "quantised_parameters": self.skeleton.quantised,
            **self.described_adapter(),
        }
        if self._storage is not None:
            facts["storage_dtype"] = self._storage
        return facts


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
