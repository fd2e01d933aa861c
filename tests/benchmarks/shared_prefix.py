"""Time the completion of real questions with each page read once, against plain `generate`.

    python tests/benchmarks/shared_prefix.py --base SmolLM2-135M-Instruct.Q4_1.gguf \
        --tatqa tatqa/dev.json --out docs/results/shared_prefix.json

Both sides are `Generator` with the same prompts, model, rows a batch and limit of new tokens, and
no stop tokens, so that both write as many. One reads what the questions of a document share once;
the other is stock `generate` on batches padded on the left, sorted by length. They take turns. The
documents are taken from the whole file at even distances, with all of their questions. Ratios are
of the processor's seconds, which other programs on the machine disturb less than the clock's; on a
GPU, where the processor waits, they are of the clock's. The JSON holds both.

The tokens of both sides are compared row by row. Where two rows part, the row is read up to there,
by itself and without a cache: if the two tokens that were written are its most probable ones and
their logits are within 1e-4 of each other, the row is a tie, which rounding decides.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from machine import commit, processor

TIE = 1e-4
"""Logits nearer than this are taken as equal."""


def main() -> None:
    """Load, time in turn, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="a GGUF file, a folder, or `tiny`")
    parser.add_argument("--tatqa", type=Path, required=True, help="a file in TAT-QA's layout")
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=12, help="rows of a batch")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; by default as many as it takes")
    parser.add_argument("--out", type=Path, help="where the JSON goes; else it is printed")
    arguments = parser.parse_args()

    import torch

    from finqa_sft.generation.decoding import Decoding
    from finqa_sft.models.lora import LoRAFactory
    from finqa_sft.models.options import LoRAFactoryOptions

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    factory = LoRAFactory(LoRAFactoryOptions(base=arguments.base))
    tokenizer = factory.load_tokenizer()
    model = factory.load_trained(None)
    prompts = asked(arguments.tatqa, tokenizer, documents=arguments.documents)
    decoding = Decoding(max_new_tokens=arguments.new_tokens)
    sides = {
        name: recording(
            model,
            tokenizer,
            stop_ids=(),
            decoding=decoding,
            batch_size=arguments.batch_size,
            share_prefix=name == "shared",
        )
        for name in ("shared", "plain")
    }
    clocks = {"processor": time.process_time, "clock": time.perf_counter}
    taken: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in sides} for clock in clocks
    }
    for number in range(arguments.repeats):
        for name in ("shared", "plain") if number % 2 == 0 else ("plain", "shared"):
            began = {clock: now() for clock, now in clocks.items()}
            for _ in sides[name].complete(prompts):
                pass
            for clock, now in clocks.items():
                taken[clock][name].append(now() - began[clock])

    deciding = "processor" if model.device.type == "cpu" else "clock"
    pairs = zip(taken[deciding]["plain"], taken[deciding]["shared"], strict=True)
    ratios = [plain / shared for plain, shared in pairs]
    lengths = [len(prompt.ids) for prompt in prompts]
    result = {
        "what": "Generator with the page of a document read once, and plain batched generate",
        "plain_to_shared": {
            "median": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
        },
        "ratio_of": deciding,
        "seconds": {
            clock: {name: [round(t, 2) for t in times] for name, times in sides_of.items()}
            for clock, sides_of in taken.items()
        },
        "tokens_compared": compared(
            model, prompts, sides["shared"].written, sides["plain"].written
        ),
        "documents": arguments.documents,
        "questions": len(prompts),
        "prompt_tokens": {
            "all": sum(lengths),
            "median": statistics.median(lengths),
            "shortest": min(lengths),
            "longest": max(lengths),
        },
        "new_tokens_a_question": arguments.new_tokens,
        "rows_a_batch": arguments.batch_size,
        "data": arguments.tatqa.name,
        "base": Path(arguments.base).name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "versions": versions(),
        "hardware": {
            "device": str(factory.device),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_in_the_last_minute": round(os.getloadavg()[0], 1),
        },
        "commit": commit(),
    }
    text = json.dumps(result, indent=1)
    if arguments.out is None:
        print(text)
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")


def asked(file: Path, tokenizer: Any, *, documents: int) -> list[Any]:
    """The prompts of all questions of some documents."""
    from finqa_sft.encoding import Encoder
    from finqa_sft.formatters.answer import AnswerFormatter
    from finqa_sft.generation.decoding import Prompt
    from finqa_sft.readers.base import BadRow
    from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

    read = TatqaReader(TatqaOptions(files=[file]))
    questions = [question for question in read if not isinstance(question, BadRow)]
    ids = list(dict.fromkeys(question.document.id for question in questions))
    taken = {ids[number * len(ids) // documents] for number in range(documents)}
    encoder, formatter = Encoder(tokenizer), AnswerFormatter()
    return [
        Prompt(
            encoder.encode_prompt(formatter.prompt(question, document=question.document)),
            question.document.id,
        )
        for question in questions
        if question.document.id in taken
    ]


def recording(*arguments: Any, **named: Any) -> Any:
    """A generator that keeps the tokens of its last run, by prompt, beside their text."""
    from finqa_sft.generation.generator import Generator

    class Recording(Generator):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.written: dict[int, list[int]] = {}

        def _written(self, groups: Any) -> Any:
            tokens = super()._written(groups)
            rows = [row for group in groups for row in group]
            self.written |= {row.prompt: t for row, t in zip(rows, tokens or [], strict=False)}
            return tokens

    return Recording(*arguments, **named)


def compared(
    model: Any, prompts: list[Any], one: dict[int, list[int]], other: dict[int, list[int]]
) -> dict[str, int]:
    """How many rows are the same, differ after a tie, or differ otherwise."""
    counts = {"identical_rows": 0, "rows_that_differ_after_a_tie": 0, "rows_that_differ": 0}
    for index, prompt in enumerate(prompts):
        if one[index] == other[index]:
            counts["identical_rows"] += 1
        elif is_tie(model, prompt.ids, one[index], other[index]):
            counts["rows_that_differ_after_a_tie"] += 1
        else:
            counts["rows_that_differ"] += 1
    return counts


def is_tie(model: Any, prompt: list[int], one: list[int], other: list[int]) -> bool:
    """Whether the first tokens that differ are equally probable, and the most probable ones."""
    import torch

    place = next(i for i, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + one[:place]], device=model.device)).logits
    top = logits[0, -1].float().topk(2)
    tokens, (first, second) = top.indices.tolist(), top.values.tolist()
    return {one[place], other[place]} == set(tokens) and first - second < TIE


def versions() -> dict[str, str]:
    """Of what does the work."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers")}


if __name__ == "__main__":
    main()
