"""Count what becomes of real rows at several lengths, here and in stock TRL.

    python tests/benchmarks/truncation.py --tokenizer SmolLM2-135M-Instruct.Q4_1.gguf \
        --finqa finqa/dev_200.json --tatqa tatqa/dev.json --convfinqa dev_421_cleaned.json \
        --out docs/results/truncation.json

Both sides get the same questions and the formatter's same messages. Ours is `prepare_data` with
default options. Theirs is `SFTTrainer._prepare_dataset`, with which the trainer's constructor
prepares a dataset, on the same messages about the whole documents, called on a trainer without a
model. Whether evidence is shown is looked up in the text of the row, as is the answer.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

from encoding_speed import modelless_trainer, versions
from machine import commit, processor

LENGTHS = (512, 1024, 2048, 4096)
FORMATTERS = {"finqa": "program", "tatqa": "answer", "convfinqa": "program"}

RECIPE = """\
model: {{factory: lora, base: '{base}'}}
data: {{sources: [{{reader: {reader}, files: '{file}'}}]}}
formatter: {{name: {formatter}, max_length: {max_length}}}
"""


def main() -> None:
    """Prepare every file at every length on both sides, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, help="a GGUF file, a folder, or `tiny`")
    for reader in FORMATTERS:
        parser.add_argument(f"--{reader}", type=Path, help=f"a file for the reader {reader}")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    arguments = parser.parse_args()
    files = {reader: vars(arguments)[reader] for reader in FORMATTERS}
    result = {
        "what": "rows kept, cut and dropped at several max_length, by prepare_data and stock TRL",
        "tokenizer": Path(arguments.tokenizer).name,
        "data": {
            reader: {
                "file": file.name,
                "formatter": FORMATTERS[reader],
                "lengths": counted(arguments.tokenizer, reader, file),
            }
            for reader, file in files.items()
            if file is not None
        },
        "versions": versions(),
        "hardware": {"processor": processor()},
        "commit": commit(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def counted(base: str, reader: str, file: Path) -> dict[str, Any]:
    """The counts of one file at each length."""
    from transformers import AutoTokenizer

    from finqa_sft.encoding import Encoder
    from finqa_sft.models.bases import resolve_base
    from finqa_sft.plugins.manager import Plugins
    from finqa_sft.recipe import load_recipe

    tokenizer = AutoTokenizer.from_pretrained(resolve_base(base).location())
    encoder = Encoder(tokenizer)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for max_length in LENGTHS:
            path = Path(scratch) / "recipe.yaml"
            text = RECIPE.format(
                base=base,
                reader=reader,
                file=file.resolve(),
                formatter=FORMATTERS[reader],
                max_length=max_length,
            )
            path.write_text(text, encoding="utf-8")
            recipe = load_recipe(path, [], Plugins.load({"FINQA_SFT_PLUGINS": ""}))
            found[str(max_length)] = {
                "finqa_sft": ours(recipe, encoder),
                "trl": stock(recipe, encoder, max_length=max_length),
            }
            print(file.name, max_length, found[str(max_length)], flush=True)
    return found


def ours(recipe: Any, encoder: Any) -> dict[str, Any]:
    """What `prepare_data` makes of the rows."""
    from finqa_sft.preparation import prepare_data

    data = prepare_data(recipe, encoder=encoder, formatter=recipe.formatter.build())
    part = data.training
    kept = list(part.examples)
    return {
        "rows": len(part) + len(part.dropped),
        "kept": len(kept),
        "document_cut": sum(bool(example.left_out) for example in kept),
        "dropped": len(part.dropped),
        "answer_not_whole": sum(
            encoder.completion_text(example.completion) not in answer(example.row, encoder)
            for example in kept
        ),
        **evidence_counts((example.question, example.prompt[1]["content"]) for example in kept),
    }


def stock(recipe: Any, encoder: Any, *, max_length: int) -> dict[str, Any]:
    """What stock TRL makes of the same questions' messages about whole documents."""
    from datasets import Dataset, disable_caching

    from finqa_sft.documents import Question

    disable_caching()
    formatter = recipe.formatter.build()
    questions = [q for source in recipe.sources for q in source.build() if isinstance(q, Question)]
    rows = [
        {
            "prompt": encoder.messages(formatter.prompt(question, document=question.document)),
            "completion": formatter.completion(question),
        }
        for question in questions
    ]
    trainer, args = modelless_trainer(encoder.tokenizer)

    def prepared(limit: int | None) -> list[dict[str, Any]]:
        args.max_length = limit
        return list(
            trainer._prepare_dataset(
                Dataset.from_list(rows), encoder.tokenizer, args, False, None, "train"
            )
        )

    whole = prepared(None)
    remaining = iter(prepared(max_length))
    kept = []
    for question, row in zip(questions, whole, strict=True):
        # TRL drops a row of which no supervised token is left, and keeps the order.
        if any(label != -100 for label in row["labels"][:max_length]):
            kept.append((question, row, next(remaining)))
    assert next(remaining, None) is None
    cut = [(q, row, now) for q, row, now in kept if len(now["input_ids"]) < len(row["input_ids"])]
    return {
        "rows": len(rows),
        "kept": len(kept),
        "answer_cut": len(cut),
        "dropped": len(rows) - len(kept),
        "answer_not_whole": sum(
            answer(row, encoder) != answer(now, encoder) for _, row, now in kept
        ),
        **evidence_counts(
            (question, str(encoder.tokenizer.decode(now["input_ids"]))) for question, _, now in kept
        ),
    }


def answer(row: Any, encoder: Any) -> str:
    """What a row supervises."""
    return str(encoder.tokenizer.decode([label for label in row["labels"] if label != -100]))


def evidence_counts(shown: Iterable[tuple[Any, str]]) -> dict[str, int]:
    """How many rows name evidence, and of how many of them all of it is in the text."""
    from finqa_sft.documents import Table
    from finqa_sft.formatters.tables import table_text

    with_evidence = all_shown = 0
    for question, text in shown:
        pieces = []
        for place in question.evidence:
            block = question.document.blocks[place.block]
            if not isinstance(block, Table):
                pieces.append(block.text)
                continue
            rows = block.rows if place.row is None else [block.rows[place.row]]
            for cells in rows:
                alone = table_text(Table(rows=(tuple(cells),), header_rows=0), style="markdown")
                pieces.append(alone.splitlines()[-1])
        with_evidence += bool(pieces)
        all_shown += bool(pieces) and all(piece in text for piece in pieces)
    return {"with_evidence": with_evidence, "evidence_shown": all_shown}


if __name__ == "__main__":
    main()
