"""The collator `flattened`: the rows of a batch one after another, in one row without padding.

Attention keeps the sequences apart. Positions start anew with each, there is no attention mask, and
from that transformers builds a mask with one causal block a sequence, for eager, SDPA and flex
attention alike (5.23, `masking_utils.py`, `find_packed_sequence_indices`); FlashAttention is given
the bounds of the sequences. Not every model heeds either: some make their mask without positions
(Bloom, OPT, gpt-oss), and state spaces and short convolutions need a GPU kernel to stop at a bound.
`require_isolation` tries a model out.

No token is spent on padding. Eager attention and SDPA still compute the masked blocks, so that long
rows gain on FlashAttention and flex attention, and lose on these two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from finqa_sft.collators.padded import SFT_ARGS as PADDED_SFT_ARGS
from finqa_sft.encoding import IGNORED, EncodedRow
from finqa_sft.errors import ModelError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel

SFT_ARGS: dict[str, Any] = {
    **PADDED_SFT_ARGS,
    # The noise shrinks with the length of a row, and here all rows of a batch are one.
    "neftune_noise_alpha": None,
}
"""What a trainer needs for rows that are encoded and flattened already."""


class FlattenedCollator:
    """Puts the rows of a batch into one; a sequence sees and supervises itself alone.

    The loss is that of the same rows padded: `per_device_train_batch_size` still counts questions,
    and `num_items_in_batch` supervised tokens.

    Attributes:
        sft_args: `SFTConfig` fields that a trainer must have: `SFTConfig(**collator.sft_args)`.
    """

    def __init__(self) -> None:
        """Take nothing: there is no padding, so no id to pad with."""
        self.sft_args = dict(SFT_ARGS)

    def arrange(self, dataset: Dataset) -> Dataset:
        """The rows as they are."""
        return dataset

    def check_config(self, config: PreTrainedConfig, dataset: Dataset) -> None:
        """A config does not tell: attention implementations and kernels matter too."""

    def check_model(self, model: PreTrainedModel, dataset: Dataset) -> dict[str, Any]:
        """Refuse a model whose flattened sequences see each other, see `require_isolation`."""
        require_isolation(model)
        return {}

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        """Make one batch.

        Args:
            rows: N encoded rows, T tokens in all; columns other than ids and labels are left out.

        Returns:
            `input_ids`, `position_ids` and `labels`, each int64 of shape [1, T]; `seq_idx`, int32
            of shape [1, T]: the number of each token's row; `cu_seq_lens_q` and `cu_seq_lens_k`,
            int32 of shape [N + 1]: where the rows start and the last one ends; `max_length_q` and
            `max_length_k`: tokens of the longest row; `use_cache`: False, as a model that makes
            itself a cache takes the whole for one sequence.
        """
        import torch

        lengths = [len(row["input_ids"]) for row in rows]
        bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)

        def flat(values: Sequence[Sequence[int]]) -> torch.Tensor:
            return torch.tensor([[value for sequence in values for value in sequence]])

        return {
            "input_ids": flat([row["input_ids"] for row in rows]),
            "position_ids": flat([range(length) for length in lengths]),
            # The token before a sequence's first belongs to another sequence, and must not learn
            # to foretell it.
            "labels": flat([[IGNORED, *row["labels"][1:]] for row in rows]),
            "seq_idx": flat([[n] * length for n, length in enumerate(lengths)]).int(),
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
            "use_cache": False,
        }


def require_isolation(model: PreTrainedModel) -> None:
    """Refuse a model whose flattened sequences see each other.

    Two short sequences go through the model; what the second gives must have a gradient of zero for
    what the first is. Masked attention makes that an exact zero, in any dtype.

    Args:
        model: A causal language model as it will train: its device, dtype and attention, with or
            without adapters.

    Raises:
        ModelError: The sequences see each other, or the model itself refuses such rows.
    """
    import torch

    half = 8
    tokens = [n % model.config.get_text_config().vocab_size for n in range(2 * half)]
    rows: list[EncodedRow] = [
        {"input_ids": t, "labels": t, "document": ""} for t in (tokens[:half], tokens[half:])
    ]
    batch = FlattenedCollator()(rows)
    del batch["labels"]
    embedded: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        """Start the gradient at the embeddings, which are frozen."""
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    kind, attention = model.config.model_type, model.config._attn_implementation
    training = model.training
    hook = model.get_input_embeddings().register_forward_hook(keep)
    model.train(False)
    try:
        with torch.enable_grad():
            logits = model(
                **{k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
            ).logits[0]
            (gradient,) = torch.autograd.grad(logits[half:].float().square().sum(), embedded[:1])
    except ValueError as error:
        # Layers that need a GPU kernel to heed the bounds say so themselves.
        raise ModelError(
            f"model type {kind!r} takes no flattened rows: {error}; or set collator.name to padded"
        ) from error
    finally:
        hook.remove()
        model.train(training)
    if gradient[0, :half].any():
        raise ModelError(
            f"model type {kind!r} lets flattened rows see each other under attention "
            f"{attention!r}, so that one question would read another's document; set "
            "collator.name to padded"
        )
