"""Count the tokens of real files with a row for each question, and with a document's rows as trees.

    python tests/benchmarks/shared_context_tokens.py --data data --bases tiny \
        SmolLM2-135M-Instruct.Q4_1.gguf --out docs/results/shared_context_tokens.json

Rows are those of the shipped recipe that is named for the file: its formatter, its `max_length`,
its `tokens_per_batch`. Nothing but the tokenizer is taken of a base.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

from machine import commit

FILES = {
    "finqa/dev_200.json": "qlora_7b",
    "tatqa/dev.json": "qlora_tatqa",
    "convfinqa/dev_421_cleaned.json": "qlora_convfinqa",
}
"""Files, by their place in the folder that is given, each with the recipe that is made for it."""

WHOLE = {"finqa/dev_200.json": 8281 / 2789}
"""Questions a document in the whole data set, where the file is a sample of its questions: FinQA's
are 8,281 on 2,789 pages (Chen et al. 2021, section 3)."""


def main() -> None:
    """Count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--bases", nargs="+", required=True, help="GGUF files, folders, or `tiny`")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    arguments = parser.parse_args()
    result = {
        "what": "tokens of an epoch as a row for each question, and in shared context",
        "data": [
            counted(arguments.data / file, recipe, base, whole=WHOLE.get(file))
            for file, recipe in FILES.items()
            for base in arguments.bases
        ],
        "commit": commit(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def counted(file: Path, name: str, base: str, *, whole: float | None) -> dict[str, Any]:
    """The counts of one file with one tokenizer."""
    from finqa_sft.collators.trees import by_document, tokens_as_trees, tree_of
    from finqa_sft.plugins.manager import Plugins
    from finqa_sft.preparation.prepare import prepared_recipe
    from finqa_sft.recipe import load_recipe

    words = [f"model.base={base}", f"data.sources.0.files={file.resolve()}"]
    recipe = load_recipe(
        name, [*words, "evaluation.sources=[]"], Plugins.load({"FINQA_SFT_PLUGINS": ""})
    )
    prepared = prepared_recipe(recipe)
    rows = prepared.data.training.rows
    documents = by_document(rows)
    apart = sum(map(len, rows["input_ids"]))
    trees = tokens_as_trees(rows)
    arranged = recipe.collator.build(prepared.encoder.tokenizer).arrange(rows)
    tokens = sum(map(len, arranged["input_ids"]))
    found = {
        "file": file.name,
        "recipe": name,
        "tokenizer": Path(base).name,
        "max_length": recipe.max_length,
        "questions": len(rows),
        "documents": len(documents),
        "tokens_apart": apart,
        "tokens_as_trees": trees,
        "token_ratio": round(apart / trees, 3),
        "tokens_per_batch": recipe.collator.options.model_dump()["tokens_per_batch"],
        "rows": len(arranged),
        "tokens_in_rows": tokens,
        "questions_a_row": round(len(rows) / len(arranged), 1),
    }
    if whole:
        several = [group for group in documents.values() if len(group) > 1]
        more = sum(len(tree_of(group)) - len(group[0].ids) for group in several)
        question = more / sum(len(group) - 1 for group in several)
        found["in_the_whole_set"] = at(whole, apart / len(rows), question, found)
    print(json.dumps(found), flush=True)
    return found


def at(questions: float, row: float, question: float, found: Mapping[str, Any]) -> dict[str, float]:
    """What follows for documents with more questions.

    Args:
        questions: Questions a document.
        row: Tokens of a row, in the mean.
        question: Tokens that a further question adds to a tree, in the mean.
        found: The counts.
    """
    tree = row + (questions - 1) * question
    return {
        "questions_a_document": round(questions, 2),
        "token_ratio": round(questions * row / tree, 2),
        "questions_a_row": round(found["tokens_per_batch"] / tree * questions, 1),
    }


if __name__ == "__main__":
    main()
