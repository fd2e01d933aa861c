"""What a model factory is: checks first, then the tokenizer, then the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer


class ModelFactory(Protocol):
    """Builds what a recipe's `model` section describes; what can go wrong early comes first."""

    def check(self) -> None:
        """Refuse what cannot work, before anything large is read.

        Raises:
            ModelError: The base is not found, not reachable, or not a causal language model.
            HardwareError: Too little memory, several GPUs without a launcher, no bfloat16.
        """
        ...

    def sft_args(self) -> dict[str, Any]:
        """`SFTConfig` fields that follow from the device at hand (precision, `use_cpu`)."""
        ...

    def load_config(self) -> PreTrainedConfig:
        """The base's config; no weights are read."""
        ...

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with a padding token, and with the base's chat template if it has one."""
        ...

    def load_model(self, args: SFTConfig) -> PeftModel | PreTrainedModel:
        """The base, with its adapter if it gets one, ready for `SFTTrainer`.

        `args` must have been built before.
        """
        ...

    def load_trained(self, folder: Path | None) -> PeftModel | PreTrainedModel:
        """The base with what a run saved, to be asked and not to be trained, in evaluation mode.

        Args:
            folder: What the run saved: an adapter, or a whole model where there is none. None for
                the base as it is before training.

        Raises:
            ModelError: The folder does not hold what this factory's runs save, or of another base.
            HardwareError: There is too little memory.
        """
        ...

    def settle(self, trainer: SFTTrainer) -> None:
        """Undo what the trainer's constructor did to the model that this device cannot use."""
        ...

    def describe(self) -> dict[str, Any]:
        """What was resolved and why, as plain values for the console and the run manifest.

        `base` and `device` must be among them; the manifest and the model card name them.
        """
        ...
