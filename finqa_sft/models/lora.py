"""The model factory `lora`: a frozen base as it is, with trained adapters.

With a stock trainer, without a recipe:

    factory = LoRAFactory(LoRAFactoryOptions(base="./SmolLM2-135M-Instruct"))
    tokenizer = factory.load_tokenizer()
    args = SFTConfig(**factory.sft_args(), output_dir="out")
    trainer = SFTTrainer(factory.load_model(args), args, processing_class=tokenizer, ...)
    factory.settle(trainer)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.stored import Part, Stored, nbytes, weights


class LoRAFactory(AdapterFactory):
    """Builds a base that is not quantised with LoRA, rsLoRA or DoRA adapters.

    Attributes:
        options: What was asked for.
    """

    remedy: ClassVar[str] = "hold the base in 4 bits with model.factory=qlora"
    whole_in_each_process: ClassVar[bool] = False
    quantised: ClassVar[bool] = False

    def base_stored(self) -> Iterator[Stored]:
        """The frozen base."""
        return weights(self.skeleton, self.dtype, held="frozen")

    def base_memory(self) -> dict[str, int]:
        """Bytes of the frozen base."""
        return {f"the base in {self.dtype}": nbytes(self.stored, Part.BASE)}

    def quantisation_arguments(self, *, sharded: bool) -> None:
        """None: the base stays as it is."""

    def described(self) -> dict[str, Any]:
        """The adapter."""
        return {"quantisation": "none", **self.described_adapter()}
