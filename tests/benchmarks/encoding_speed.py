"""Time the encoding of real rows against TRL's own preparation of the same rows.

    python tests/benchmarks/encoding_speed.py --tokenizer SmolLM2-135M-Instruct.Q4_1.gguf \
        --finqa finqa/dev_200.json --tatqa tatqa/dev.json --out encoding_speed.json

Both sides get the same prompt-completion messages, formatted once, the same tokenizer and one
process. TRL's side is `SFTTrainer._prepare_dataset`, the method with which its constructor prepares
a dataset: with `max_length=None`, so that it cuts nothing, and without its cache of earlier runs.
It is called on a trainer without a model; the method reads no more of the trainer than what is set
here. Ours is `Encoder.encode` of every row and `datasets.Dataset` of the result, so both end in the
same Arrow columns. The sides take turns, and each repetition begins with a new encoder. Seconds are
the processor's, which other programs on the machine disturb less. The JSON holds every time, the
ratios' medians and ranges, what checking costs, and how many rows are equal token for token.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before the libraries read them: one thread on both sides.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

from machine import commit, processor

Rows = list[dict[str, Any]]


def main() -> None:
    """Format, time in turn, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, help="a GGUF file, a folder, or `tiny`")
    parser.add_argument("--finqa", type=Path, help="a file in FinQA's layout")
    parser.add_argument("--tatqa", type=Path, help="a file in TAT-QA's layout")
    parser.add_argument("--rows", type=int, help="questions of each file, from the first")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where the JSON goes; else it is printed")
    arguments = parser.parse_args()

    from transformers import AutoTokenizer

    from finqa_sft.models.bases import resolve_base

    location = resolve_base(arguments.tokenizer).location()
    tokenizer = AutoTokenizer.from_pretrained(location)
    files = {"finqa": arguments.finqa, "tatqa": arguments.tatqa}
    result = {
        "what": "Encoder.encode of every row, and SFTTrainer._prepare_dataset of the same rows",
        "data": {
            name: compared(
                messages(name, file)[: arguments.rows],
                tokenizer=tokenizer,
                repetitions=arguments.repetitions,
            )
            for name, file in files.items()
            if file is not None
        },
        "tokenizer": Path(arguments.tokenizer).name,
        "versions": versions(),
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_in_the_last_minute": os.getloadavg()[0],
        },
        "commit": commit(),
    }
    text = json.dumps(result, indent=1)
    if arguments.out is None:
        print(text)
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")


def messages(layout: str, file: Path) -> Rows:
    """The prompts and completions of a file."""
    from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
    from finqa_sft.formatters.program import ProgramFormatter, ProgramOptions
    from finqa_sft.readers.base import BadRow
    from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
    from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

    reader = (
        FinqaReader(FinqaOptions(files=[file]))
        if layout == "finqa"
        else TatqaReader(TatqaOptions(files=[file]))
    )
    formatter = (
        ProgramFormatter(ProgramOptions())
        if layout == "finqa"
        else AnswerFormatter(AnswerOptions())
    )
    questions = [question for question in reader if not isinstance(question, BadRow)]
    # As a run encodes them: the questions of a document one after another.
    order = {
        document: at for at, document in enumerate(dict.fromkeys(q.document.id for q in questions))
    }
    questions.sort(key=lambda question: order[question.document.id])
    return [
        {
            "prompt": formatter.prompt(question, document=question.document),
            "completion": formatter.completion(question),
            "document": question.document.id,
        }
        for question in questions
    ]


def compared(rows: Rows, *, tokenizer: Any, repetitions: int) -> dict[str, Any]:
    """All times of both sides, and whether their rows are equal."""
    from datasets import Dataset, disable_caching

    from finqa_sft.encoding import Encoder

    disable_caching()
    trainer, args = modelless_trainer(tokenizer)
    dataset = Dataset.from_list([{k: row[k] for k in ("prompt", "completion")} for row in rows])

    def trl() -> Any:
        return trainer._prepare_dataset(dataset, tokenizer, args, False, None, "train")

    def ours(*, reuse: bool, unchecked: bool = False) -> list[Any]:
        encoder = Encoder(tokenizer, reuse=reuse)
        if unchecked:
            encoder._check.require = lambda *_, **__: None
            encoder._require_answer = lambda *_, **__: None
        return [
            encoder.encode(row["prompt"], row["completion"], document=row["document"])
            for row in rows
        ]

    sides: dict[str, Callable[[], Any]] = {
        "trl": trl,
        "ours": lambda: arrow(ours(reuse=True)),
        "ours, encoding alone": lambda: ours(reuse=True),
        "ours, unchecked": lambda: ours(reuse=True, unchecked=True),
        "ours, nothing reused": lambda: ours(reuse=False),
        "ours, nothing reused, unchecked": lambda: ours(reuse=False, unchecked=True),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, side in sides.items():
            gc.collect()
            began = time.process_time()
            side()
            times[name].append(time.process_time() - began)

    encoded = ours(reuse=True)
    theirs = list(trl())
    tokens = sum(len(row["input_ids"]) for row in encoded)
    return {
        "rows": len(rows),
        "documents": len({row["document"] for row in rows}),
        "tokens": tokens,
        "rows_equal_to_trl": sum(
            (row["input_ids"], row["labels"]) == (other["input_ids"], other["labels"])
            for row, other in zip(encoded, theirs, strict=True)
        ),
        "rows_equal_without_reuse": sum(
            row == other for row, other in zip(encoded, ours(reuse=False), strict=True)
        ),
        "trl_to_ours": ratio(times["trl"], times["ours"]),
        "trl_to_ours_nothing_reused": ratio(times["trl"], times["ours, nothing reused"]),
        "nothing_reused_to_reused": ratio(
            times["ours, nothing reused"], times["ours, encoding alone"]
        ),
        "checked_to_unchecked": ratio(times["ours, encoding alone"], times["ours, unchecked"]),
        "checked_to_unchecked_nothing_reused": ratio(
            times["ours, nothing reused"], times["ours, nothing reused, unchecked"]
        ),
        "processor_seconds": {name: [round(t, 4) for t in taken] for name, taken in times.items()},
    }


def arrow(rows: list[Any]) -> Any:
    """The rows as a dataset, which TRL's side makes too."""
    from datasets import Dataset, Features, List, Value

    ids = List(Value("int32"))
    features = Features({"input_ids": ids, "labels": ids, "document": Value("string")})
    return Dataset.from_list(rows, features=features)


def modelless_trainer(tokenizer: Any) -> tuple[Any, Any]:
    """A trainer with what the preparation of a dataset reads, and its arguments."""
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(output_dir="unused", max_length=None, report_to="none", bf16=False)
    trainer = SFTTrainer.__new__(SFTTrainer)
    trainer._tokenizer = tokenizer
    trainer.chat_template = None
    trainer.completion_only_loss = True
    return trainer, args


def ratio(first: list[float], second: list[float]) -> dict[str, float]:
    """How much longer the first takes, repetition by repetition."""
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
    }


def versions() -> dict[str, str]:
    """Of what does the work."""
    from importlib.metadata import version

    return {name: version(name) for name in ("trl", "transformers", "tokenizers", "datasets")}


if __name__ == "__main__":
    main()
