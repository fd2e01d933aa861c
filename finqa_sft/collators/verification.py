"""Whether a model computes in trees what it computes alone, tried on a run's own rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from finqa_sft.attention.branches import paths_of
from finqa_sft.attention.stock import stock_attention
from finqa_sft.encoding import IGNORED
from finqa_sft.errors import ModelError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from finqa_sft.collators.shared_context import ArrangedRow, SharedContextCollator

TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""By the dtype of the logits, how far the loss of a question may differ: in nats a token, or as a
share of the loss where that is above 1."""

BRANCHES = 4
"""Branches of a row that are computed alone."""


def verify(
    model: PreTrainedModel, collator: SharedContextCollator, dataset: Dataset
) -> dict[str, Any]:
    """Compare the losses of questions in trees with those of the same questions alone.

    Alone they are computed under an attention of transformers. Two rows are tried: that with the
    longest path, and that with the most branches. Nothing random is drawn, and each process does
    the same, so that weights which are divided among processes can be gathered.

    Args:
        model: As it will train, with or without adapters.
        collator: Whose batches are tried.
        dataset: Arranged rows.

    Returns:
        `questions`: how many were compared; `largest_difference` and `tolerance`: see `TOLERANCES`;
        `dtype`: of the logits. Nothing where no token of the two rows is learnt.

    Raises:
        ModelError: The model has another attention than the collator's batches need, or the losses
            differ by more than the tolerance.
    """
    attention = model.config.get_text_config()._attn_implementation
    if attention != collator.attn_implementation:
        raise ModelError(
            f"the model's attention is {attention!r}, which lets the questions of a document see "
            "each other; call model.set_attn_implementation(collator.attn_implementation) first"
        )
    training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            compared = [
                one for row in _chosen(dataset) for one in _compared(model, collator, dataset[row])
            ]
    finally:
        model.train(training)
    if not compared:
        return {}
    dtype = compared[0][2]
    tolerance = TOLERANCES[dtype]
    differences = [abs(shared - alone) / max(1.0, alone) for shared, alone, _ in compared]
    # Where one is not a number, torch's largest is none either, and that is no agreement.
    difference = float(torch.tensor(differences, dtype=torch.float64).max())
    if not difference <= tolerance:
        raise ModelError(
            f"model type {model.config.model_type!r} gives a question in shared context a loss "
            f"that differs by {difference:.2g} from its loss alone (in {dtype}, where {tolerance:g}"
            " is tolerated): it would be trained wrongly; set the recipe's collator to "
            "{name: padded}"
        )
    return {
        "questions": len(compared),
        "largest_difference": difference,
        "tolerance": tolerance,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _chosen(dataset: Dataset) -> list[int]:
    """The rows to be tried."""
    shapes = list(zip(dataset["lengths"], dataset["depths"], strict=True))

    def longest(row: int) -> int:
        return max(int(length + depth) for length, depth in zip(*shapes[row], strict=True))

    rows = range(len(shapes))
    if not rows:
        return []
    return sorted({max(rows, key=longest), max(rows, key=lambda row: len(shapes[row][0]))})


def _compared(
    model: PreTrainedModel, collator: SharedContextCollator, row: ArrangedRow
) -> list[tuple[float, float, torch.dtype]]:
    """The mean loss of some branches' own labels, shared and alone, and the dtype of logits."""
    batch = collator([row])
    labels = batch.pop("labels")[0]
    paths = paths_of(row["lengths"], parents=row["parents"], depths=row["depths"])
    own = [
        [int(place) for place in path[depth:] if labels[place] != IGNORED]
        for path, depth in zip(paths, row["depths"], strict=True)
    ]
    learning = [n for n, places in enumerate(own) if places]
    if not learning:
        return []
    branches = _spread(learning, [len(path) for path in paths])
    places = [place for n in branches for place in own[n]]
    shared, dtype = _log_likelihoods(model, batch, labels, places)
    compared = []
    done = 0
    for n in branches:
        path = torch.from_numpy(paths[n])
        inside = [int(place) for place in torch.searchsorted(path, torch.tensor(own[n]))]
        alone = {"input_ids": batch["input_ids"][:, path], "use_cache": False}
        with stock_attention(model):
            likelihoods, _ = _log_likelihoods(model, alone, labels[path], inside)
        together = shared[done : done + len(inside)]
        done += len(inside)
        compared.append((-float(together.mean()), -float(likelihoods.mean()), dtype))
    return compared


def _spread(branches: Sequence[int], path_lengths: Sequence[int]) -> list[int]:
    """Some branches: that with the longest path, and others from beginning to end."""
    longest = max(branches, key=lambda n: path_lengths[n])
    step = max(1, len(branches) // (BRANCHES - 1))
    return sorted({longest, *list(branches)[::step][: BRANCHES - 2], branches[-1]})


def _log_likelihoods(
    model: PreTrainedModel, batch: dict[str, Any], labels: torch.Tensor, places: Sequence[int]
) -> tuple[torch.Tensor, torch.dtype]:
    """Log-likelihoods of the labels at some places, float64, and the dtype of the logits.

    Args:
        model: The model.
        batch: One row of T tokens.
        labels: `[T]`.
        places: Where labels are wanted; what foretells each stands right before it.
    """
    dtypes: list[torch.dtype] = []
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    # What mixed precision gives back has been made float32 again.
    hook = head.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    wanted = torch.tensor(places)
    on_device = {
        name: value.to(model.device) if hasattr(value, "to") else value
        for name, value in batch.items()
    }
    try:
        logits = model(**on_device, logits_to_keep=wanted.to(model.device) - 1).logits[0]
    finally:
        hook.remove()
    likelihoods = torch.log_softmax(logits.float(), dim=-1).cpu()
    return likelihoods.gather(1, labels[wanted][:, None])[:, 0].double(), dtypes[0]
