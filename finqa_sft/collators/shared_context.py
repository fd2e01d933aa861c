"""The collator `shared_context`: a document's tokens once, its questions as branches.

Loss and gradients are those of the ordinary batch of the same rows, and the document is computed
once for all its questions. `finqa_sft.collators.trees` says how rows become trees, and
`finqa_sft.attention` how the branches of a tree are kept from seeing each other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Container, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from pydantic import PositiveInt

from finqa_sft.attention.branches import Backend, Branches
from finqa_sft.attention.support import refuse_unsupported
from finqa_sft.collators.packing import best_fit_decreasing
from finqa_sft.collators.padded import SFT_ARGS as PADDED_SFT_ARGS
from finqa_sft.collators.trees import Tree, by_document, trees_within
from finqa_sft.errors import DataError, HardwareError
from finqa_sft.options import Options

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel

ATTENTION = "shared_context"
"""The attention implementation that such batches need."""

SFT_ARGS: dict[str, Any] = {
    **PADDED_SFT_ARGS,
    # A row holds as many questions as fit.
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    # The noise shrinks with the length of a row, and a shared token would have one for all.
    "neftune_noise_alpha": None,
    # Each batch has a layout of its own, for which all would be compiled anew.
    "torch_compile": False,
    "torch_compile_backend": None,
    "torch_compile_mode": None,
    # A smoothed loss is computed from the logits of all tokens, the document's too, in a forward of
    # its own.
    "label_smoothing_factor": 0.0,
}
"""What a trainer needs for rows of trees."""


class SharedContextOptions(Options):
    """Options of the collator `shared_context`."""

    tokens_per_batch: PositiveInt = 4096
    """Most tokens of a row, which is what a device computes at a time."""

    attention: Backend = "auto"
    """What computes attention: `varlen` is torch's FlashAttention, for bfloat16 and float16 on an
    NVIDIA GPU of compute capability 8.0 or later; `flash_attn` the package of that name, likewise;
    `sdpa` works everywhere. `auto` is `varlen` where it can be, else `sdpa`."""


class ArrangedRow(TypedDict):
    """Trees, one after the other, with N branches and T tokens in all.

    Attributes:
        input_ids: `[T]`.
        labels: `[T]`; the token's id where it is supervised, -100 elsewhere.
        lengths: `[N]`: tokens of each branch.
        parents: `[N]`: index of the branch whose path each branch leaves; -1 where a tree begins.
        depths: `[N]`: how many tokens of the parent's path come before each branch.
        documents: Whose trees they are.
        questions: How many rows are in the trees.
    """

    input_ids: list[int]
    labels: list[int]
    lengths: list[int]
    parents: list[int]
    depths: list[int]
    documents: list[str]
    questions: int


class SharedContextCollator:
    """Computes a document once for all its questions.

    Attributes:
        sft_args: `SFTConfig` fields that a trainer must have: `SFTConfig(**collator.sft_args)`.
        attn_implementation: What the model's `set_attn_implementation` must be given.
    """

    def __init__(self, *, tokens_per_batch: int = 4096, attention: Backend = "auto") -> None:
        """Let transformers know the attention implementation.

        Args:
            tokens_per_batch: Most tokens of a row.
            attention: What computes attention.

        Raises:
            HardwareError: The package that `attention` names is not installed.
        """
        if attention == "flash_attn" and importlib.util.find_spec("flash_attn") is None:
            raise HardwareError(
                "collator.attention is flash_attn, which is not installed; install flash-attn, or "
                "set it to auto"
            )
        from finqa_sft.attention.shared_context import register

        register()
        self.sft_args = dict(SFT_ARGS)
        self.attn_implementation = ATTENTION
        self._tokens = tokens_per_batch
        self._attention = attention

    def arrange(self, dataset: Dataset) -> Dataset:
        """Make trees of the rows, and rows of the trees.

        A document whose tree is too large is divided by its questions, and then stands several
        times.

        Args:
            dataset: Encoded rows: `input_ids`, `labels`, `document`.

        Returns:
            Rows as `ArrangedRow` describes, of nearly equal lengths.

        Raises:
            DataError: Rows do not name their document, or a question alone has more tokens than
                `tokens_per_batch`.
        """
        from datasets import Dataset

        if len(dataset) and "document" not in dataset.column_names:
            raise DataError(
                "rows have no column 'document', by which the collator shared_context knows whose "
                "questions they are; add one to the rows"
            )
        trees: list[Tree] = []
        documents: list[str] = []
        for document, rows in by_document(dataset).items():
            longest = max(len(row.ids) for row in rows)
            if longest > self._tokens:
                raise DataError(
                    f"a question on document {document!r} has {longest} tokens, and a batch of the "
                    f"collator {self._tokens}; set collator.tokens_per_batch to {longest} or more, "
                    "or lower formatter.max_length"
                )
            grown = list(trees_within(rows, at_most=self._tokens))
            trees += grown
            documents += [document] * len(grown)
        bins = best_fit_decreasing([len(tree) for tree in trees], capacity=self._tokens)
        arranged = [
            _joined([trees[n] for n in members]) | {"documents": [documents[n] for n in members]}
            for members in bins
        ]
        names = ArrangedRow.__annotations__
        return Dataset.from_dict({name: [row[name] for row in arranged] for name in names})

    def check_config(self, config: PreTrainedConfig, dataset: Dataset) -> None:
        """Refuse a base that shared context would train wrongly, as far as its config tells."""
        _require_arranged(dataset.column_names)
        shapes = dataset.select_columns(["lengths", "depths"])
        longest = max((max(_ends(row)) for row in shapes), default=0)
        refuse_unsupported(config, longest=longest)

    def check_model(self, model: PreTrainedModel, dataset: Dataset) -> dict[str, Any]:
        """Compare losses of questions in trees with those of the same questions alone.

        Returns:
            What was measured, see `finqa_sft.collators.verification.verify`.
        """
        from finqa_sft.collators.verification import verify

        _require_arranged(dataset.column_names)
        return verify(model, self, dataset)

    def __call__(self, rows: Sequence[ArrangedRow]) -> dict[str, Any]:
        """Make one batch.

        Args:
            rows: Arranged rows with T tokens in all.

        Returns:
            `input_ids`, `position_ids` (depths in the trees) and `labels`, int64 of shape [1, T];
            `branches`: what the attention needs; `use_cache`: False.

        Raises:
            DataError: The rows are not arranged.
        """
        import torch

        for row in rows:
            _require_arranged(row)
        lengths: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        for row in rows:
            parents += [parent + len(lengths) if parent >= 0 else -1 for parent in row["parents"]]
            lengths += row["lengths"]
            depths += row["depths"]
        positions = np.concatenate(
            [np.arange(d, d + n) for n, d in zip(lengths, depths, strict=True)]
        )

        def flat(columns: Sequence[Sequence[int]]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([np.asarray(c, np.int64) for c in columns]))[
                None
            ]

        return {
            "input_ids": flat([row["input_ids"] for row in rows]),
            "position_ids": torch.from_numpy(positions)[None],
            "labels": flat([row["labels"] for row in rows]),
            "branches": Branches.of(
                lengths, parents=parents, depths=depths, backend=self._attention
            ),
            "use_cache": False,
        }


def _require_arranged(columns: Container[str]) -> None:
    if "lengths" not in columns:
        raise DataError(
            "the collator shared_context takes rows that it has arranged; give the trainer "
            "train_dataset=collator.arrange(rows), and eval_dataset likewise"
        )


def _joined(trees: Sequence[Tree]) -> dict[str, Any]:
    """Trees one after the other, as columns."""
    before = [0, *accumulate(len(tree.lengths) for tree in trees)]
    return {
        "input_ids": np.concatenate([tree.input_ids for tree in trees]),
        "labels": np.concatenate([tree.labels for tree in trees]),
        "lengths": [length for tree in trees for length in tree.lengths],
        "parents": [
            parent + first if parent >= 0 else -1
            for tree, first in zip(trees, before[:-1], strict=True)
            for parent in tree.parents
        ],
        "depths": [depth for tree in trees for depth in tree.depths],
        "questions": sum(tree.rows for tree in trees),
    }


def _ends(row: Mapping[str, Any]) -> list[int]:
    """Tokens of each path of an arranged row."""
    return [length + depth for length, depth in zip(row["lengths"], row["depths"], strict=True)]
