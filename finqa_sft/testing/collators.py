"""The contract of a collator, as a check."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finqa_sft.attention.stock import stock_attention
from finqa_sft.collators.base import Collator
from finqa_sft.encoding import IGNORED, EncodedRow
from finqa_sft.recipe.trainer_fields import trainer_fields
from finqa_sft.testing.contract import Checked, Rule
from finqa_sft.testing.rows import example_rows, filler_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel


class CollatorRule(Rule):
    """What holds for every collator."""

    SFT_ARGS = (
        "sft_args are fields of SFTConfig",
        "Correct the name, or leave the field out.",
    )
    WORKS = (
        "any encoded rows can be arranged and made into batches",
        "Take rows of any length, in any order, one alone too, and raise nothing.",
    )
    ARRANGES = (
        "arrange loses no row and invents none",
        "Reorder or join rows; each supervised token and each document stays, once.",
    )
    TENSORS = (
        "input_ids and labels are int64 tensors of one shape [B, T]",
        "Make both with torch.tensor from lists of equal lengths.",
    )
    POSITIONS = (
        "a batch says what belongs together: attention_mask, position_ids or both",
        "Add attention_mask (1 on tokens, 0 on padding) or position_ids, of shape [B, T].",
    )
    LEARNS = (
        "every supervised token of every row is in labels once, in the row's order, and no other",
        "Take labels from the rows and fill up with -100, by the lengths of rows and not by the id "
        "that pads: where it is EOS too, rows are taught to end with it.",
    )
    ALIGNED = (
        "a label is the token that stands in its place",
        "Shift nothing: the model compares each label with what it foretold one place before.",
    )
    KEEPS = (
        "no token of a row is lost",
        "Cut nothing: rows fit into formatter.max_length already.",
    )
    PADDING = (
        "padding is not attended to, and all else is",
        "Set attention_mask to 0 on padding and to 1 everywhere else, by the lengths of rows: the "
        "id that pads may be a row's own.",
    )
    UNCHANGED = (
        "rows are left as they were",
        "Build new lists instead of extending those of the rows.",
    )
    MEASURES = (
        "check_model gives plain values",
        "Return a dict of text, numbers, lists and dicts; an empty one where nothing is measured.",
    )
    LOSS = (
        "the loss of a batch is that of its rows, each alone",
        "Keep the rows of a batch from seeing each other: a mask, or positions that start anew; "
        "and give every row the positions that it has alone.",
    )


def check_collator(
    collator: Collator,
    *,
    pad_token_id: int | None = None,
    model: PreTrainedModel | None = None,
    attn_implementation: str | None = None,
) -> None:
    """Check what `finqa_sft.collators.base.Collator` promises, on rows made here.

    The rows are of several lengths and documents; those of a document begin alike. Some supervise
    nothing, one has a single token, and one is taught to end with the id that pads, as where
    padding and end of turn are one token. No row's first token is learnt: nothing foretells it.

    Args:
        collator: The collator.
        pad_token_id: What it pads with; otherwise it is looked up in the batches.
        model: A small model that trains on such batches, in float32, with a vocabulary of at
            least 128. With it, the losses of batches are checked.
        attn_implementation: The attention that the collator's batches need, as its record says;
            None for the model's own. Rows alone are computed under one of transformers' own.

    Raises:
        ContractError: A rule of `CollatorRule` is broken.
    """
    checked = Checked("collator", type(collator).__name__)
    with checked.unraised(CollatorRule.SFT_ARGS, "reading sft_args"):
        unknown = sorted(collator.sft_args.keys() - trainer_fields().keys())
    checked.require(CollatorRule.SFT_ARGS, not unknown, f"SFTConfig has no {', '.join(unknown)}")

    rows = example_rows(without=pad_token_id)
    arranged, batch = _check_batches(checked, collator, rows, pad_token_id=pad_token_id)
    filler = filler_of(rows, batch) if pad_token_id is None else pad_token_id
    if filler is not None:
        rows = example_rows(without=filler, ending=filler)
        arranged, batch = _check_batches(checked, collator, rows, pad_token_id=filler)
    if model is None:
        return
    with _attending(model, attn_implementation):
        with checked.unraised(CollatorRule.LOSS, "the model"):
            collator.check_config(model.config, arranged)
            measured = collator.check_model(model, arranged)
            _check_loss(checked, model, rows, batch)
        checked.require(
            CollatorRule.MEASURES,
            isinstance(measured, dict),
            f"it gives a {type(measured).__name__}",
        )
        with checked.unraised(CollatorRule.MEASURES, "writing it as JSON"):
            json.dumps(measured, allow_nan=False)


@contextmanager
def _attending(model: PreTrainedModel, implementation: str | None) -> Iterator[None]:
    """Let a model attend as is wanted, and as before afterwards."""
    before = model.config._attn_implementation
    if implementation is None or implementation == before:
        yield
        return
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _check_batches(
    checked: Checked, collator: Collator, rows: list[EncodedRow], *, pad_token_id: int | None
) -> tuple[Dataset, dict[str, Any]]:
    """Check batches of all rows, of all backwards, and of each alone.

    Returns:
        The arranged rows, and the batch of all.
    """
    from datasets import Dataset

    with checked.unraised(CollatorRule.WORKS, "arrange()"):
        arranged = collator.arrange(Dataset.from_list([dict(row) for row in rows]))
        batch: list[dict[str, Any]] = [arranged[n] for n in range(len(arranged))]
        _check_arranged(checked, rows, batch)
    batches = []
    for given in (batch, batch[::-1], *([row] for row in batch)):
        before = copy.deepcopy(given)
        with checked.unraised(CollatorRule.WORKS, f"a batch of {len(given)} rows"):
            made = collator(given)
        checked.require(CollatorRule.UNCHANGED, given == before, "the rows of a batch were changed")
        checked.require(
            CollatorRule.TENSORS,
            isinstance(made, Mapping),
            f"{len(given)} rows make a {type(made).__name__}",
        )
        _check_batch(checked, given, made, pad_token_id=pad_token_id)
        batches.append(made)
    return arranged, batches[0]


def _learnt(labels: Sequence[int]) -> list[int]:
    return [label for label in labels if label != IGNORED]


def _documents(row: Mapping[str, Any]) -> Sequence[str]:
    """The documents of an arranged row: `documents` where it may have several, or `document`."""
    return row["documents"] if "documents" in row else [row["document"]]


def _check_arranged(
    checked: Checked, rows: Sequence[EncodedRow], arranged: Sequence[Mapping[str, Any]]
) -> None:
    before = Counter(label for row in rows for label in _learnt(row["labels"]))
    after = Counter(label for row in arranged for label in _learnt(row["labels"]))
    checked.require(
        CollatorRule.ARRANGES,
        before == after,
        f"of {before.total()} supervised tokens, {(before - after).total()} are lost and "
        f"{(after - before).total()} are more than there were",
    )
    missing = {row["document"] for row in rows}.difference(*map(_documents, arranged))
    checked.require(CollatorRule.ARRANGES, not missing, f"the documents {sorted(missing)} are lost")
    tokens = {t for row in rows for t in row["input_ids"]}
    tokens -= {t for row in arranged for t in row["input_ids"]}
    checked.require(CollatorRule.ARRANGES, not tokens, f"{len(tokens)} tokens are lost")


def _check_batch(
    checked: Checked,
    rows: Sequence[Mapping[str, Any]],
    batch: Mapping[str, Any],
    *,
    pad_token_id: int | None,
) -> None:
    import torch

    kept = all(
        isinstance(batch.get(key), torch.Tensor) and batch[key].dtype == torch.long
        for key in ("input_ids", "labels")
    )
    shapes = {key: tuple(v.shape) for key, v in batch.items() if isinstance(v, torch.Tensor)}
    shape = shapes.get("input_ids", ())
    checked.require(
        CollatorRule.TENSORS,
        kept and shape == shapes["labels"] and len(shape) == 2,
        f"{len(rows)} rows make {shapes}"
        + ("" if kept else f" of {[str(v.dtype) for v in batch.values() if torch.is_tensor(v)]}"),
    )
    said = [shapes[key] for key in ("attention_mask", "position_ids") if key in shapes]
    checked.require(
        CollatorRule.POSITIONS,
        any(shape in (given, (given[0], given[-1])) for given in said),
        f"{len(rows)} rows make {shapes}",
    )
    tokens: list[int] = batch["input_ids"].flatten().tolist()
    labels: list[int] = batch["labels"].flatten().tolist()
    learnt = _learnt(labels)
    expected = [_learnt(row["labels"]) for row in rows]
    for span in expected:
        found = [label for label in learnt if label in span]
        checked.require(
            CollatorRule.LEARNS,
            found == span,
            f"a row supervises {span}, the batch has {found} of it",
        )
    others = (Counter(learnt) - Counter(label for span in expected for label in span)).total()
    checked.require(CollatorRule.LEARNS, not others, f"{others} labels are of no row")
    moved = sum(label not in (IGNORED, token) for token, label in zip(tokens, labels, strict=True))
    checked.require(CollatorRule.ALIGNED, not moved, f"{moved} labels stand on another token")
    own = {token for row in rows for token in row["input_ids"]}
    lost = own - set(tokens)
    checked.require(CollatorRule.KEEPS, not lost, f"{len(lost)} of {len(own)} tokens are lost")
    if shapes.get("attention_mask") == shape:
        mask = batch["attention_mask"].flatten().tolist()
        # A supervised token is a row's own, even with the id that pads.
        real = [
            label != IGNORED or (token in own and token != pad_token_id)
            for token, label in zip(tokens, labels, strict=True)
        ]
        wrong = sum(bool(m) != r for m, r in zip(mask, real, strict=True))
        checked.require(
            CollatorRule.PADDING,
            not wrong,
            f"attention_mask is wrong on {wrong} of {len(tokens)} tokens",
        )
    if pad_token_id is not None:
        filled = set(tokens) - own - {pad_token_id}
        checked.require(
            CollatorRule.PADDING, not filled, f"rows are filled with {filled}, not {pad_token_id}"
        )


def _check_loss(
    checked: Checked, model: PreTrainedModel, rows: Sequence[EncodedRow], batch: Mapping[str, Any]
) -> None:
    """Compare the loss of all rows at once with that of each alone, without a collator."""
    import torch

    def total(batch: Mapping[str, Any]) -> float:
        learnt = int((batch["labels"] != IGNORED).sum())
        on_device = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
        with torch.no_grad():
            return float(model(**on_device, num_items_in_batch=learnt).loss) * learnt

    training = model.training
    model.train(False)
    try:
        together = total(batch)
        with stock_attention(model):
            alone = sum(
                total({"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])})
                for ids, labels in ((row["input_ids"], row["labels"]) for row in rows)
                if _learnt(labels)
            )
    finally:
        model.train(training)
    checked.require(
        CollatorRule.LOSS,
        abs(together - alone) <= 1e-4 * alone,
        f"{together:.4f} together, {alone:.4f} alone",
    )
