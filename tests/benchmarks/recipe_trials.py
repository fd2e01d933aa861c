"""Try shipped recipes on a few real rows with a small base, and write what came out.

    python tests/benchmarks/recipe_trials.py --base SmolLM2-135M-Instruct.Q4_1.gguf --data data \
        --out docs/results/recipe_trials_cpu.json

Each recipe keeps its factory, adapter, formatter and learning rate; base, rows, row length and
number of steps are smaller, and nothing is held out. `accelerate launch -m finqa_sft` trains; the
JSON holds the overrides, the loss of every step, versions, machine and commit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import commit, processor

TRIALS = {
    "qlora_7b": "finqa/train_100.json",
    "qlora_tatqa": "tatqa/dev.json",
    "qlora_convfinqa": "convfinqa/dev_421_cleaned.json",
    "lora_1b": "finqa/train_100.json",
    "full_1b": "finqa/train_100.json",
}
"""The recipes, each with a file of its data set, by its place in the folder that is given."""


def main() -> None:
    """Train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--rows", type=int, default=12, help="rows of the file to read")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--max-length", type=int, default=320, help="tokens a row")
    arguments = parser.parse_args()
    overrides = [
        f"formatter.max_length={arguments.max_length}",
        f"trainer.max_steps={arguments.steps}",
        "collator={name: padded}",
        "trainer.per_device_train_batch_size=2",
        "trainer.gradient_accumulation_steps=1",
        "trainer.warmup_steps=3",
        "trainer.logging_steps=1",
        "trainer.save_strategy=no",
        "trainer.gradient_checkpointing=false",
        "evaluation.sources=[]",
    ]
    trials = {}
    for recipe, file in TRIALS.items():
        trials[recipe] = trial(
            recipe, arguments.data / file, overrides, base=arguments.base, rows=arguments.rows
        )
        losses = trials[recipe]["losses"]
        print(f"{recipe}: {losses[0]:.3f} -> {losses[-1]:.3f}", flush=True)
    result = {
        "what": "shipped recipes on a few real rows with a small base, on this machine's device",
        "base": arguments.base.name,
        "overrides": overrides,
        "trials": trials,
        "processor": processor(),
        "commit": commit(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    arguments.out.write_text(text + "\n", encoding="utf-8")


def trial(recipe: str, file: Path, overrides: list[str], *, base: Path, rows: int) -> Any:
    """One recipe on the first rows of a file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    # An edition of the conversations holds its splits under names.
    read = content if isinstance(content, list) else next(iter(content.values()))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "rows.json").write_text(json.dumps(read[:rows]), encoding="utf-8")
        words = [
            *overrides,
            f"model.base={base.resolve()}",
            f"data.sources.0.files={folder / 'rows.json'}",
            f"output.dir={folder / 'run'}",
        ]
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
        launch += ["--cpu", "-m", "finqa_sft", recipe, *words]
        subprocess.run(launch, check=True, stdout=subprocess.DEVNULL)
        manifest = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    losses = manifest["result"]["losses"]
    return {
        "file": file.name,
        "data": manifest["data"],
        "losses": losses,
        "mean_loss_first_5": sum(losses[:5]) / 5,
        "mean_loss_last_5": sum(losses[-5:]) / 5,
        "model": {k: v for k, v in manifest["model"].items() if k != "base"},
        "timings": manifest["timings"],
        "versions": manifest["versions"],
    }


if __name__ == "__main__":
    main()
