"""The collator `padded`: one row a question, right-padded to the longest of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from finqa_sft.encoding import IGNORED, EncodedRow
from finqa_sft.options import Options

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel

SFT_ARGS: dict[str, Any] = {
    "max_length": None,
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "remove_unused_columns": False,
    "packing": False,
    "padding_free": False,
}
"""What a trainer needs for rows that are encoded already: nothing cut, packed or dropped."""


class PaddedOptions(Options):
    """Options of the collator `padded`."""

    pad_to_multiple_of: PositiveInt | None = None
    """Pad rows to a multiple of this many tokens; 8 suits tensor cores."""


class PaddedCollator:
    """Pads rows on the right; padding is neither attended to nor supervised.

    Attributes:
        sft_args: `SFTConfig` fields that a trainer must have: `SFTConfig(**collator.sft_args)`.
    """

    def __init__(self, pad_token_id: int, *, pad_to_multiple_of: int | None = None) -> None:
        """Take the id to pad with.

        Args:
            pad_token_id: Any valid id; which one has no influence on the loss.
            pad_to_multiple_of: Pad rows to a multiple of this many tokens.
        """
        self.sft_args = dict(SFT_ARGS)
        self._pad_token_id = pad_token_id
        self._multiple = pad_to_multiple_of or 1

    def arrange(self, dataset: Dataset) -> Dataset:
        """The rows as they are."""
        return dataset

    def check_config(self, config: PreTrainedConfig, dataset: Dataset) -> None:
        """Every causal language model takes padded rows."""

    def check_model(self, model: PreTrainedModel, dataset: Dataset) -> dict[str, Any]:
        """Every causal language model takes padded rows."""
        return {}

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, torch.Tensor]:
        """Make one batch.

        Args:
            rows: B encoded rows; columns other than ids and labels are left out.

        Returns:
            `input_ids`, `attention_mask` and `labels`, each int64 of shape [B, T].
        """
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        width = -(-longest // self._multiple) * self._multiple

        def padded(values: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
            return torch.tensor([[*v, *[filler] * (width - len(v))] for v in values])

        return {
            "input_ids": padded([row["input_ids"] for row in rows], self._pad_token_id),
            "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
            "labels": padded([row["labels"] for row in rows], IGNORED),
        }
