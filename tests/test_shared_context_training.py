"""A stock TRL run on padded rows and one on trees are the same training, step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from forests import VOCABULARY, Draws, arranged, labels_of, with_adapter
from small_models import small_model
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from finqa_sft.collators.padded import PaddedCollator
from finqa_sft.collators.shared_context import ATTENTION, SharedContextCollator
from finqa_sft.encoding import EncodedRow

TOKENS = 130
STEPS = 50


def pages(count: int) -> dict[str, list[EncodedRow]]:
    """Pages with 1 to 5 questions, and a conversation now and then; each fits a row."""
    draws = Draws(5)
    found = {}
    for n in range(count):
        name, page = f"page {n}", draws.text(20, 40)
        rows = draws.questions(page, 1 + n % 5, name)
        if n % 3 == 0:
            said = rows[0]["input_ids"]
            rows += draws.questions(said, 1, name)
        found[name] = rows
    return found


PADDED: dict[str, Callable[..., Any]] = {
    "TRL's own": DataCollatorForLanguageModeling(pad_token_id=0),
    "padded": PaddedCollator(0),
}
"""Collators that give each question a row."""


class Unfolded:
    """A collator of padded rows, on the rows of the documents of arranged rows."""

    def __init__(self, documents: dict[str, list[EncodedRow]], pad: Callable[..., Any]) -> None:
        self._documents = documents
        self._pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        plain = [one for row in rows for name in row["documents"] for one in self._documents[name]]
        batch: dict[str, Any] = self._pad(
            [{name: one[name] for name in ("input_ids", "labels")} for one in plain]
        )
        return batch


def trained(
    folder: Path,
    tokenizer: Any,
    *,
    dataset: Dataset,
    collator: Callable[..., Any],
    attention: str,
    **changes: Any,
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The log of each step, and the adapter's weights at the end."""
    # The usual start of an adapter, whose second half is zero.
    model = with_adapter(small_model("qwen3", vocab_size=VOCABULARY, head_dim=16), fresh=True)
    model.set_attn_implementation(attention)
    settings = {
        **SharedContextCollator().sft_args,
        "max_steps": STEPS,
        "learning_rate": 2e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        **changes,
    }
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(folder), **settings),
        train_dataset=dataset,
        data_collator=collator,
        processing_class=tokenizer,
    )
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    weights = {
        name: weight.detach().clone()
        for name, weight in trainer.model.named_parameters()
        if weight.requires_grad
    }
    return log, weights


@pytest.mark.parametrize(
    ("changes", "pad"),
    [
        ({}, "TRL's own"),
        ({}, "padded"),
        ({"gradient_accumulation_steps": 3, "max_steps": 20}, "padded"),
        ({"gradient_checkpointing": True, "max_steps": 10}, "TRL's own"),
        ({"per_device_train_batch_size": 2, "max_steps": 10}, "TRL's own"),
    ],
    ids=["a row a step", "a row a step, padded", "three rows a step", "recomputed", "two a batch"],
)
def test_padded_rows_and_trees_are_the_same_training(
    changes: dict[str, Any], pad: str, tmp_path: Path, tiny: Path
) -> None:
    documents = pages(40)
    rows = [one for of_page in documents.values() for one in of_page]
    dataset = Dataset.from_list(arranged(rows, tokens=TOKENS))
    names = [name for one in dataset for name in one["documents"]]
    assert sorted(names) == sorted(documents)
    tokens = sum(len(one["input_ids"]) for one in dataset)
    assert tokens < 0.6 * sum(len(one["input_ids"]) for one in rows)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    stock, stock_weights = trained(
        tmp_path / "stock",
        tokenizer,
        dataset=dataset,
        collator=Unfolded(documents, PADDED[pad]),
        attention="sdpa",
        **changes,
    )
    shared, shared_weights = trained(
        tmp_path / "shared",
        tokenizer,
        dataset=dataset,
        collator=SharedContextCollator(tokens_per_batch=TOKENS),
        attention=ATTENTION,
        **changes,
    )
    assert len(shared) == len(stock) == changes.get("max_steps", STEPS)
    for name, close in (("loss", 1e-5), ("grad_norm", 1e-4), ("mean_token_accuracy", 1e-6)):
        mine, theirs = ([entry[name] for entry in log] for log in (shared, stock))
        assert mine == pytest.approx(theirs, rel=close), name
    assert shared_weights.keys() == stock_weights.keys()
    for name, weight in shared_weights.items():
        assert float((weight - stock_weights[name]).abs().max()) <= 1e-5, name
        # What began as zero has moved a hundred times as far.
        assert "lora_B" not in name or float(weight.abs().max()) > 1e-3, name


def test_the_loss_of_an_evaluation_is_that_of_the_rows_padded(tmp_path: Path, tiny: Path) -> None:
    documents = pages(12)
    rows = [one for of_page in documents.values() for one in of_page]
    dataset = Dataset.from_list(arranged(rows, tokens=TOKENS))
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    losses = []
    for collator, attention, batch in (
        (SharedContextCollator(tokens_per_batch=TOKENS), ATTENTION, 1),
        (Unfolded(documents, PADDED["TRL's own"]), "sdpa", 1),
    ):
        model = with_adapter(small_model("qwen3", vocab_size=VOCABULARY, head_dim=16))
        model.set_attn_implementation(attention)
        settings = {**SharedContextCollator().sft_args, "per_device_eval_batch_size": batch}
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=str(tmp_path),
                report_to="none",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                **settings,
            ),
            train_dataset=dataset,
            eval_dataset=dataset,
            data_collator=collator,
            processing_class=tokenizer,
        )
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert labels_of(rows) > 0
