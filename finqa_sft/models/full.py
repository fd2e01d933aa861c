"""The model factory `full`: every weight of the base is trained.

With a stock trainer, without a recipe:

    factory = FullFactory(FullOptions(base="./SmolLM2-135M-Instruct"))
    tokenizer = factory.load_tokenizer()
    args = SFTConfig(**factory.sft_args(), output_dir="out")
    trainer = SFTTrainer(factory.load_model(args), args, processing_class=tokenizer, ...)
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.activations import Trained
from finqa_sft.models.devices import resolve_compute_dtype
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.memory import MemoryEstimate, text_parameters
from finqa_sft.models.options import ComputeDtype, FullOptions
from finqa_sft.models.stored import Part, Stored, buffers, nbytes, trained, weights

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
    quantised: ClassVar[bool] = False
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
    def stored(self) -> tuple[Stored, ...]:
        """Every tensor that the model holds once it is loaded."""
        bones = self.skeleton
        return (*weights(bones, self.dtype, held="trained"), *buffers(bones, self.dtype))

    @property
    def learning(self) -> Trained:
        """All of it."""
        return Trained(whole=True)

    @cached_property
    def held(self) -> dict[str, int]:
        """Bytes of the weights."""
        return {f"the weights in {self.dtype}": nbytes(self.stored, Part.BASE)}

    @cached_property
    def memory(self) -> MemoryEstimate:
        """What the run keeps in memory beside activations."""
        learning = trained(self.stored)
        return MemoryEstimate(
            parts={**self.held, "gradients and AdamW's averages": 3 * nbytes(learning)},
            trained_parameters=sum(tensor.elements for tensor in learning),
        )

    @cached_property
    def compute_dtype(self) -> ComputeDtype:
        """The dtype that products are computed in: that of the weights where it is bfloat16.

        Raises:
            HardwareError: The device cannot compute in it.
        """
        if self.options.weights_dtype == "float32":
            return resolve_compute_dtype(self.options.compute_dtype, self.device)
        if self.device.type == "cuda" and not self.device.bfloat16:
            raise HardwareError(
                f"{self.device} has no bfloat16 units; set model.weights_dtype to float32, or use "
                "a GPU of compute capability 8.0 or later"
            )
        return "bfloat16"

    def load_model(self, args: SFTConfig) -> PreTrainedModel:
        """The base, with all weights that text reaches to be trained.

        Raises:
            ModelError: The base cannot be loaded.
            HardwareError: The device ran out of memory.
        """
        self.check()
        model = self.load_base(args)
        used = text_parameters(model)
        for parameter in model.parameters():
            parameter.requires_grad_(parameter in used)
        return model

    def load_trained(self, folder: Path | None) -> PreTrainedModel:
        """The model that a run saved, or the base, to be asked and not to be trained.

        Args:
            folder: Where the run saved the model; None for the base.

        Raises:
            ModelError: The folder holds no whole model, or one that cannot be loaded.
            HardwareError: There is too little memory.
        """
        if folder is None:
            return self.load_base()
        _require_model(folder)
        base = {"base": str(folder.absolute()), "revision": None}
        trained = FullFactory(self.options.model_copy(update=base))
        trained.device = self.device
        return trained.load_base()

    def settle(self, trainer: SFTTrainer) -> None:
        """Nothing is to be undone: the trainer leaves these weights as they are."""

    def _why_compute_dtype(self) -> str:
        if self.options.weights_dtype == "bfloat16":
            return "the weights are held in it"
        return super()._why_compute_dtype()

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


def _require_model(folder: Path) -> None:
    """Refuse a folder in which no run saved a whole model; its weights are looked at later."""
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: no such folder; name the one that a run saved its model in, such as "
            "runs/NAME/model"
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds an adapter, and factory full saves whole models; set model.factory to "
            "that of the adapter's run, lora or qlora"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no config.json; name the folder that a run saved its model in, such "
            "as runs/NAME/model"
        )
