"""Measure which merged model is nearer to the quantised one that was trained; write the figures.

    python tests/benchmarks/merge_nearness.py --out docs/results/merge_nearness.json \
        --base tiny --base SmolLM2-135M-Instruct.Q4_1.gguf

Each base is trained for a few steps on generated pages, in 4 and in 8 bits, and its adapter merged
by `finqa-sft merge` over the base's own weights and over the dequantised ones, in bfloat16 and in
float32. All models read the held-out questions with their answers. The JSON holds how near each
merged model is to the quantised base with the adapter beside it, the held-out loss of each,
versions, machine and commit. Where it is there already, only the bases measured now are replaced.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from machine import commit, processor

from finqa_sft.cli.main import main as command
from finqa_sft.encoding import Encoder
from finqa_sft.evaluation.trained import find_trained
from finqa_sft.models.full import FullFactory
from finqa_sft.models.merging.verification import LAST_TOKENS, nearness, said
from finqa_sft.models.options import FullOptions
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation import prepare_data
from finqa_sft.training.record import versions

RECIPE = """\
model:
  base: {base}
  bits: {bits}
data:
  sources:
    - reader: filings
      pages: 40
      length: short
      difficulty: easy
      questions_per_page: 4
  split:
    held_out: 0.1
collator:
  name: padded
evaluation:
  before: false
  every: 0
  after: false
formatter:
  name: program
  system: Answer with a program of steps op(a, b), such as subtract(5, 4), divide(#0, 4).
  max_length: 512
trainer:
  max_steps: {steps}
  per_device_train_batch_size: {batch}
  learning_rate: {rate}
  lr_scheduler_type: cosine
  warmup_steps: 4
  logging_steps: 1
  save_strategy: no
  eval_strategy: no
  gradient_checkpointing: false
"""

RATES = {"tiny": "2e-3"}
"""Learning rates by base; 1e-3 for others."""


def main() -> None:
    """Train, merge, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", action="append", required=True, help="tiny, a folder or a file")
    parser.add_argument("--bits", type=int, action="append", help="4, 8, or both")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=4, help="rows a step")
    parser.add_argument("--held-out", type=int, default=16, help="most questions to compare on")
    parser.add_argument(
        "--work", type=Path, help="keep runs and merged models there, and go on with those"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    arguments = parser.parse_args()
    quiet_libraries()
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    if arguments.out.is_file():
        earlier = json.loads(arguments.out.read_text(encoding="utf-8"))["runs"]
        runs = {(found["base"], found["bits"]): found for found in earlier}
    for base in arguments.base:
        for bits in arguments.bits or (4, 8):
            with tempfile.TemporaryDirectory() as scratch:
                folder = (arguments.work or Path(scratch)) / f"{Path(base).stem}-{bits}"
                folder.mkdir(parents=True, exist_ok=True)
                found = measured(folder, base, bits=bits, arguments=arguments)
            runs[found["base"], bits] = found
    result = {
        "what": "how near merged models are to the quantised base with its adapter, as trained",
        "recipe": RECIPE,
        "compared": f"the last {LAST_TOKENS} tokens of each held-out question with its answer",
        "runs": [runs[key] for key in sorted(runs)],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    arguments.out.write_text(text + "\n", encoding="utf-8")


def measured(
    folder: Path, base: str, *, bits: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One base, trained once and merged in every way."""
    named = base if base == "tiny" else str(Path(base).resolve())
    recipe = folder / "recipe.yaml"
    text = RECIPE.format(
        base=named,
        bits=bits,
        steps=arguments.steps,
        batch=arguments.batch,
        rate=RATES.get(base, "1e-3"),
    )
    recipe.write_text(text, encoding="utf-8")
    record = folder / "run" / "run.json"
    if not record.is_file() or json.loads(record.read_text())["status"] != "finished":
        goes_on = ["trainer.resume_from_checkpoint=true"] if record.is_file() else []
        _run(str(recipe), f"output.dir={folder / 'run'}", *goes_on)
    manifest = json.loads(record.read_text(encoding="utf-8"))
    trained = find_trained(folder / "run", Plugins.load())
    factory = trained.recipe.model.build()
    encoder, formatter = Encoder(factory.load_tokenizer()), trained.recipe.formatter.build()
    data = prepare_data(trained.recipe, encoder=encoder, formatter=formatter, say=print)
    rows = [(row["input_ids"], row["labels"]) for row in data.held_out.rows]
    rows = rows[: arguments.held_out]
    prompts = [ids for ids, _ in rows]
    labels = [row[1] for row in rows]
    as_trained = said(factory.load_trained(trained.folder), prompts)
    losses = {
        "as_trained": loss(as_trained.logits, labels),
        "quantised_base": loss(as_trained.without, labels),
    }
    merged = []
    for weights in ("original", "dequantised"):
        for dtype in ("bfloat16", "float32"):
            out = folder / f"{weights}-{dtype}"
            if not out.exists():
                _run(
                    "merge", str(folder / "run"), "--out", str(out), "--weights", weights,
                    "--dtype", dtype, "--no-verify",
                )  # fmt: skip
            whole = said(FullFactory(FullOptions(base=str(out))).load_trained(None), prompts)
            found = {
                "weights": weights,
                "dtype": dtype,
                **nearness(whole, as_trained).record(),
                "held_out_loss": loss(whole.logits, labels),
            }
            merged.append(found)
            print(
                f"{Path(base).name} {bits} bits {weights} {dtype}: KL {found['divergence']:.2g}, "
                f"agreement {found['agreement']:.1%}, held-out loss {found['held_out_loss']:.4f} "
                f"(trained {losses['as_trained']:.4f})",
                flush=True,
            )
    run_losses = manifest["result"]["losses"]
    return {
        "base": Path(base).name,
        "bits": bits,
        "steps": arguments.steps,
        "rows_a_step": arguments.batch,
        "model": {key: value for key, value in manifest["model"].items() if key != "base"},
        "training_loss": {"first": run_losses[0], "last": run_losses[-1]},
        "held_out_questions": len(rows),
        "held_out_loss": losses,
        "merged": merged,
        "versions": versions(),
        "processor": processor(),
        "commit": commit(),
    }


def _run(*words: str) -> None:
    """A command of the command line, which must go well."""
    status = command(words)
    if status:
        raise SystemExit(f"{' '.join(words)} ended with status {status}")


def loss(logits: Sequence[torch.Tensor], labels: Sequence[Sequence[int]]) -> float:
    """Mean negative log-likelihood of a supervised token, in nats.

    Args:
        logits: After the last tokens of each row.
        labels: Of all tokens of each row.
    """
    total = tokens = 0.0
    for said_after, row in zip(logits, labels, strict=True):
        wanted = torch.tensor(row[1 - len(said_after) :])
        if all(label == -100 for label in row[: len(row) - len(wanted)]):
            found = torch.nn.functional.cross_entropy(said_after[:-1], wanted, reduction="sum")
            total, tokens = total + float(found), tokens + int((wanted != -100).sum())
    return total / tokens


if __name__ == "__main__":
    main()
