"""What a collator is: an arrangement of rows before training, and batches during it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel


class Collator(Protocol):
    """Makes batches of encoded rows, see `finqa_sft.encoding.EncodedRow`.

    Attributes:
        sft_args: `SFTConfig` fields that a trainer must have for this collator to be right.
    """

    sft_args: dict[str, Any]

    def arrange(self, dataset: Dataset) -> Dataset:
        """Regroup the rows once, before training; the identity where no groups are needed."""
        ...

    def check_config(self, config: PreTrainedConfig, dataset: Dataset) -> None:
        """Refuse a base that would be trained wrongly on such batches, before it is loaded.

        Args:
            config: The base's.
            dataset: What `arrange` gave.

        Raises:
            ModelError: Says what is wrong and which collator to use instead.
        """
        ...

    def check_model(self, model: PreTrainedModel, dataset: Dataset) -> dict[str, Any]:
        """Refuse a model that would be trained wrongly on such batches, before the first step.

        Args:
            model: As it will train. Under ZeRO-3 its weights are divided: all processes must call
                it equally often.
            dataset: What `arrange` gave; the same in all processes.

        Returns:
            What was measured, as plain values for the console and the run's record.

        Raises:
            ModelError: Says what is wrong and which collator to use instead.
        """
        ...

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Make one batch of rows that `arrange` gave; every key goes to the model's forward."""
        ...
