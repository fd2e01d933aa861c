"""What a collator is: an arrangement of rows before training, and batches during it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from finqa_sft.encoding import EncodedRow

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel


class Collator(Protocol):
    """Makes batches of encoded rows.

    Attributes:
        sft_args: `SFTConfig` fields that a trainer must have for this collator to be right.
    """

    sft_args: dict[str, Any]

    def arrange(self, dataset: Dataset) -> Dataset:
        """Regroup the rows once, before training; the identity where no groups are needed."""
        ...

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that would be trained wrongly on these batches.

        Raises:
            ModelError: Says what is wrong and which collator to use instead.
        """
        ...

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        """Make one batch; every key goes to the model's forward."""
        ...
