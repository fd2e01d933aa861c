"""The model factory `full`: every weight of the base is trained.

With a stock trainer, without a recipe:

    factory = FullFactory(FullOptions(base="./SmolLM2-135M-Instruct"))
    tokenizer = factory.load_tokenizer()
    args = SFTConfig(**factory.sft_args(), output_dir="out")
    trainer = SFTTrainer(factory.load_model(args), args, processing_class=tokenizer, ...)
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from finqa_sft.models.devices import resolve_compute_dtype
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.memory import BYTES, MemoryEstimate
from finqa_sft.models.options import ComputeDtype, FullOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer


class FullFactory(BuiltinFactory):
    """Builds a base all of whose weights are trained.

    Attributes:
        options: What was asked for.
    """

    remedy: ClassVar[str] = (
        "train an adapter with model.factory=lora or qlora; several GPUs share the need under "
        "DeepSpeed ZeRO-3"
    )
    whole_in_each_process: ClassVar[bool] = False
    options: FullOptions

    def __init__(self, options: FullOptions) -> None:
        """Take the options; nothing is looked up before it is needed."""
        super().__init__(options)

    @property
    def dtype(self) -> ComputeDtype:
        """The dtype that weights are loaded and trained in."""
        return self.options.weights_dtype

    @cached_property
    def memory(self) -> MemoryEstimate:
        """What the run keeps in memory beside activations."""
        count = self.skeleton.parameters
        weights = count * BYTES[self.dtype]
        return MemoryEstimate(
            parts={
                f"the weights in {self.dtype}": weights,
                "gradients and AdamW's averages": 3 * weights,
            },
            trained_parameters=count,
        )

    def check(self) -> None:
        """Refuse what cannot work, before anything large is read.

        Raises:
            ModelError: The base is not found, not reachable or not a causal language model.
            HardwareError: Too little memory, several GPUs without a launcher, no bfloat16.
        """
        if self.options.weights_dtype == "bfloat16" and self.compute_dtype != "bfloat16":
            # Says what this device lacks, if it does.
            resolve_compute_dtype("bfloat16", self.device)
        super().check()

    def load_model(self, args: SFTConfig) -> PreTrainedModel:
        """The base, its weights to be trained; `args` must have been built before.

        Raises:
            ModelError: The base cannot be loaded.
            HardwareError: The device ran out of memory.
        """
        self.check()
        return self.load_base(args)

    def settle(self, trainer: SFTTrainer) -> None:
        """Nothing is to be undone: the trainer leaves these weights as they are."""

    def quantisation_arguments(self, *, sharded: bool) -> None:
        """None: quantised weights cannot be trained."""

    def lora_arguments(self) -> None:
        """None: there is no adapter."""

    def described(self) -> dict[str, Any]:
        """What is trained, and in which dtype it is held."""
        return {
            "quantisation": "none",
            "adapter": "none; all weights are trained",
            "weights_dtype": self.dtype,
        }
