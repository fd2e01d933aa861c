"""What tests of whole runs share: a small recipe, and running it in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from finqa_sft.plugins.manager import Plugins
from finqa_sft.recipe import load_recipe
from finqa_sft.training.run import Outcome, train

RECIPE = """\
data:
  sources:
    - reader: filings
      pages: 12
      length: short
      difficulty: easy
      questions_per_page: 4
  split:
    held_out: 0.1
evaluation:
  before: false
  every: 0
  after: false
formatter:
  name: program
  system: Answer.
  max_length: 512
trainer:
  max_steps: 6
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
  learning_rate: 1e-3
  gradient_checkpointing: false
  logging_steps: 1
  save_steps: 3
  eval_steps: 3
  eval_strategy: steps
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run(recipe: Path, *overrides: str, console: Console | None = None) -> Outcome:
    """Train in this process; the output goes beside the recipe unless an override says where."""
    plugins = Plugins.load({"FINQA_SFT_PLUGINS": ""})
    output = f"output.dir={recipe.parent / 'run'}"
    resolved = load_recipe(recipe, [output, *overrides], plugins)
    return train(resolved, plugins=plugins, console=console or Console(quiet=True))


def losses(folder: Path) -> list[float]:
    """The loss of every logged step."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return content
