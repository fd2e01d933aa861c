"""Train a real small model on real questions through the command line, and write what came out.

    python tests/benchmarks/real_input.py --base SmolLM2-135M-Instruct.Q4_1.gguf \
        --data finqa/train.json --out docs/results/real_input.json

The base is loaded as NF4 and trained on a few dozen rows with `accelerate launch -m finqa_sft`, and
asked about pages that it is not trained on, before the training, half-way and after it. The adapter
is then loaded by plain PEFT. The JSON holds the loss curve, scores, what was answered, versions,
machine and commit; with `--report`, the run's own report is kept too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import commit, processor
from peft import AutoPeftModelForCausalLM

RECIPE = """\
model:
  base: {base}
data:
  sources:
    - reader: finqa
      files: train.json
evaluation:
  max_new_tokens: 48
  sources:
    - reader: finqa
      files: asked.json
formatter:
  name: program
  system: Answer with a program of steps op(a, b), such as subtract(5, 4), divide(#0, 4).
  max_length: {max_length}
trainer:
  max_steps: {steps}
  per_device_train_batch_size: 2
  per_device_eval_batch_size: 20
  eval_strategy: steps
  eval_steps: {half}
  learning_rate: 1e-3
  lr_scheduler_type: cosine
  warmup_steps: 4
  logging_steps: 1
  save_strategy: no
  gradient_checkpointing: false
"""


def main() -> None:
    """Train, generate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--data", type=Path, required=True, help="a file in FinQA's layout")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--rows", type=int, default=36, help="rows to train on")
    parser.add_argument("--steps", type=int, default=54)
    parser.add_argument("--max-length", type=int, default=320, help="tokens a row")
    parser.add_argument("--questions", type=int, default=20, help="held-out questions to answer")
    parser.add_argument("--report", type=Path, help="where the run's report goes")
    arguments = parser.parse_args()

    rows = json.loads(arguments.data.read_text(encoding="utf-8"))
    # Other pages than those trained on, not merely other questions.
    pages = list(dict.fromkeys(row["filename"] for row in rows))
    trained: list[dict[str, Any]] = []
    while len(trained) < arguments.rows:
        page = pages.pop(0)
        trained += [row for row in rows if row["filename"] == page]
    asked = [row for row in rows if row["filename"] in set(pages)][: arguments.questions]

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "train.json").write_text(json.dumps(trained), encoding="utf-8")
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        recipe = RECIPE.format(
            base=arguments.base.resolve(),
            steps=arguments.steps,
            half=arguments.steps // 2,
            max_length=arguments.max_length,
        )
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        began = time.monotonic()
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
        launch += ["--cpu", "-m", "finqa_sft", str(folder / "recipe.yaml")]
        subprocess.run([*launch, f"output.dir={folder / 'run'}"], check=True)
        seconds = time.monotonic() - began
        manifest = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
        lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        log = [json.loads(line) for line in lines]
        found = folder / "run" / "evaluation"
        outputs = answers(found / "predictions.jsonl", asked)
        AutoPeftModelForCausalLM.from_pretrained(folder / "run" / "adapter")
        if arguments.report:
            shutil.copy(found / "report.html", arguments.report)

    losses = manifest["result"]["losses"]
    first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
    result = {
        "what": "QLoRA (NF4) of a real model on real FinQA rows, on this machine's device",
        "base": arguments.base.name,
        "data": {"file": arguments.data.name, **manifest["data"]},
        "recipe": recipe.replace(str(arguments.base.resolve()), arguments.base.name),
        "losses": losses,
        "mean_loss_first_10": first,
        "mean_loss_last_10": last,
        "last_to_first": last / first,
        "evaluations": [e for e in log if any(key.startswith("eval_") for key in e)],
        "scores": manifest["scores"],
        "outputs": outputs,
        "in_target_format": sum(output["program"] is not None for output in outputs),
        "seconds": {"command": round(seconds, 1), **manifest["timings"]},
        "model": {k: v for k, v in manifest["model"].items() if k != "base"},
        "versions": manifest["versions"],
        "hardware": {**manifest["hardware"], "processor": processor()},
        "commit": commit(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(f"mean loss {first:.3f} -> {last:.3f} ({last / first:.0%})")
    print(f"{result['in_target_format']} of {len(outputs)} outputs are programs")


def answers(path: Path, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was answered to each question, beside the gold program."""
    gold = {row["id"]: row["qa"]["program"] for row in asked}
    keys = ("id", "text", "program", "finished")
    return [
        {**{key: line[key] for key in keys}, "gold": gold[line["id"]]}
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    ]


if __name__ == "__main__":
    main()
