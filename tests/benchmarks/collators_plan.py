"""What `collators.py` is going to measure: questions, legs, and the batches of each."""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LEGS = ("stock_padded", "stock_bfd", "padded", "flattened", "shared_context")
"""Stock TRL with its own batches and with packing, and this project's collators."""

COLLATORS = {"stock_padded": "padded", "stock_bfd": "padded"}
"""What the recipe of a stock leg names as its collator, whose batches it does not get."""

TOKENS_PER_BATCH = 4096
DRAWS = 2000


def written_plan(
    recipe_name: str, overrides: list[str], arguments: argparse.Namespace, folder: Path
) -> Path:
    """Encode the questions, choose documents, size the batches, and write all that down.

    Raises:
        FinqaSftError: The recipe, its data or its tokenizer cannot be used.
    """
    from finqa_sft.plugins.manager import Plugins
    from finqa_sft.preparation.counts import DOCUMENT_CUT
    from finqa_sft.preparation.prepare import prepared_recipe
    from finqa_sft.recipe import load_recipe

    # Without what a recipe for one leg may say and that another's collator would refuse.
    plain = [*overrides, "trainer.per_device_train_batch_size=1"]
    plain.append("trainer.per_device_eval_batch_size=1")
    recipe = load_recipe(recipe_name, overrides, Plugins.load())
    prepared = prepared_recipe(recipe)
    own = recipe.collator
    asked = {"tokens_per_batch": arguments.tokens_per_batch}
    if not arguments.tokens_per_batch:
        asked = {"tokens_per_batch": TOKENS_PER_BATCH}
        if own.record.name == "shared_context":
            asked = own.options.model_dump()
    tokens = asked["tokens_per_batch"]
    sharing = f"collator={json.dumps({'name': 'shared_context', **asked})}"
    shared = load_recipe(recipe_name, [*plain, sharing], Plugins.load())
    collator = shared.collator.build(prepared.encoder.tokenizer)

    every = prepared.data.training.rows
    chosen = subset(every, arguments, tokens=tokens, accumulation=accumulation_of(recipe))
    rows = every.select(chosen)
    rows.save_to_disk(str(folder / "rows"))
    lengths = [len(ids) for ids in rows["input_ids"]]
    arranged = collator.arrange(rows)
    sizes = sized(recipe, lengths, arranged, tokens=tokens)
    # The questions of the first step of shared_context, all those of its documents.
    first = {
        document
        for row in range(min(sizes["shared_context"][1], len(arranged)))
        for document in arranged[row]["documents"]
    }
    plan = {
        "recipe": str(recipe_name),
        "overrides": plain,
        "rows": str(folder / "rows"),
        "threads": arguments.threads,
        "warm_up": arguments.warm_up,
        "tokens_per_batch": tokens,
        "step_rows": [n for n, document in enumerate(rows["document"]) if document in first],
        "questions": {
            "chosen": counted(rows),
            "of": counted(every),
            "left_out": {k: n for k, n in prepared.data.counts.left_out.items() if n},
            "documents_cut": prepared.data.counts.changed[DOCUMENT_CUT],
        },
        "legs": {
            name: {
                "rows_a_batch": sizes[name][0],
                "batches_a_step": sizes[name][1],
                "overrides": leg_overrides(name, own, sharing, *sizes[name]),
            }
            for name in arguments.only
        },
    }
    file = folder / "plan.json"
    file.write_text(json.dumps(plan), encoding="utf-8")
    return file


def leg_overrides(name: str, own: Any, sharing: str, rows: int, batches: int) -> list[str]:
    """What a leg changes in the recipe."""
    collator = COLLATORS.get(name, name)
    if name == "shared_context":
        words = [sharing]
    elif name == own.record.name:
        # With the recipe's own options.
        words = []
    else:
        words = [f"collator={{name: {collator}}}"]
    return [
        *words,
        f"trainer.per_device_train_batch_size={rows}",
        f"trainer.gradient_accumulation_steps={batches}",
    ]


def accumulation_of(recipe: Any) -> int:
    """Batches an optimizer step, as the recipe has it."""
    return int(recipe.trainer.get("gradient_accumulation_steps", 1))


def subset(
    rows: Any, arguments: argparse.Namespace, *, tokens: int, accumulation: int
) -> list[int]:
    """The rows of some documents, at even distances, with all of their questions."""
    from finqa_sft.collators.trees import tokens_as_trees

    documents = list(dict.fromkeys(rows["document"]))
    count = len(documents)
    if arguments.documents:
        count = arguments.documents
    elif arguments.questions:
        count = round(count * arguments.questions / len(rows))
    elif arguments.steps:
        count = round(count * arguments.steps * accumulation * tokens / tokens_as_trees(rows))
    count = min(max(count, 1), len(documents))
    taken = {documents[number * len(documents) // count] for number in range(count)}
    return [n for n, document in enumerate(rows["document"]) if document in taken]


def sized(
    recipe: Any, lengths: Sequence[int], arranged: Any, *, tokens: int
) -> dict[str, tuple[int, int]]:
    """Rows a batch and batches an optimizer step of each leg.

    Args:
        recipe: The recipe; where its collator is shared_context, its steps hold as many batches as
            it says, and elsewhere about as many questions.
        lengths: Tokens of each row.
        arranged: What shared_context makes of them.
        tokens: Most tokens of a batch of shared_context.
    """
    questions = len(lengths)
    rows_a_step = accumulation_of(recipe)
    if recipe.collator.record.name != "shared_context":
        rows_a_step *= int(recipe.trainer.get("per_device_train_batch_size", 8))
        rows_a_step = max(1, round(rows_a_step * len(arranged) / questions))
    rows_a_step = min(rows_a_step, len(arranged))
    a_step = rows_a_step * questions / len(arranged)
    mean = statistics.mean(len(ids) for ids in arranged["input_ids"])
    padded = nearest(mean, lengths)
    flat = max(1, round(mean * questions / sum(lengths)))
    # Best fit fills rows of this size nearly to the last token.
    packed = max(1.0, tokens * questions / sum(lengths))
    return {
        "stock_padded": (padded, max(1, round(a_step / padded))),
        "stock_bfd": (1, max(1, round(a_step / packed))),
        "padded": (padded, max(1, round(a_step / padded))),
        "flattened": (flat, max(1, round(a_step / flat))),
        "shared_context": (1, rows_a_step),
    }


def nearest(tokens: float, lengths: Sequence[int]) -> int:
    """The number of rows whose padded batch comes nearest to so many tokens, in the mean."""
    draws = random.Random(0)

    def away(count: int) -> float:
        widest = [max(draws.choices(lengths, k=count)) for _ in range(DRAWS)]
        return abs(count * statistics.mean(widest) - tokens)

    return min(range(1, max(2, round(2 * tokens / statistics.mean(lengths)))), key=away)


def counted(rows: Any) -> dict[str, Any]:
    """Questions, documents and tokens of some rows."""
    from finqa_sft.collators.trees import tokens_as_trees

    lengths = [len(ids) for ids in rows["input_ids"]]
    trees = tokens_as_trees(rows)
    return {
        "questions": len(lengths),
        "documents": len(set(rows["document"])),
        "tokens_as_one_row_a_question": sum(lengths),
        "tokens_as_trees": trees,
        "token_ratio": round(sum(lengths) / trees, 4),
        "supervised_tokens": sum(sum(one != -100 for one in labels) for labels in rows["labels"]),
        "longest": max(lengths),
    }
