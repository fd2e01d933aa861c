"""What tests of evaluations share: a small recipe, a base that writes much, and plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import run as train
from transformers import AutoModelForCausalLM, AutoTokenizer

from finqa_sft.evaluation.predictions import Predicted, read_predictions
from finqa_sft.models.tiny import tiny_base

RECIPE = """\
plugins: [marks.py]
model:
  base: ./wild
data:
  sources:
    - reader: filings
      pages: 12
      length: short
      difficulty: easy
      questions_per_page: 3
  split:
    held_out: 0.25
evaluation:
  max_new_tokens: 6
  metrics: [{name: answer}, {name: mark}]
formatter:
  name: program
  system: Answer.
  max_length: 512
trainer:
  max_steps: 2
  per_device_train_batch_size: 2
  learning_rate: 1e-3
  gradient_checkpointing: false
  logging_steps: 1
  save_strategy: steps
  save_steps: 1
  eval_strategy: steps
  eval_steps: 1
output:
  dir: run
"""
"""It holds 9 questions on 3 documents out."""

HELD_OUT = 9

MARKS = '''\
"""A metric that tells completions apart, one that says what it is told, a curious formatter."""

from __future__ import annotations

import hashlib

from finqa_sft import hookimpl
from finqa_sft.metrics.base import Figure, Score
from finqa_sft.options import Options
from finqa_sft.plugins.records import FormatterRecord, MetricRecord


class Mark:
    figures = (Figure("hash", "a number that another text would change"),)

    def applies(self, question):
        return True

    def score(self, question, prediction):
        text = question.id + prediction.text
        return Score({"hash": hashlib.sha256(text.encode()).digest()[0] / 255}, note="a note")


class Told(Options):
    figures: tuple[float, ...]
    questions: int = 9


class Teller:
    figures = (Figure("figure", "as it was told, one after the other"),)

    def __init__(self, options):
        self.options, self.calls = options, 0

    def applies(self, question):
        return True

    def score(self, question, prediction):
        place = min(self.calls // self.options.questions, len(self.options.figures) - 1)
        self.calls += 1
        return Score({"figure": self.options.figures[place]})


def curious(options):
    from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions

    class Curious(AnswerFormatter):
        def prompt(self, question, *, document):
            gold = {
                name: getattr(question, name)
                for name in ("answer", "program", "executed_answer", "scale", "answer_type",
                             "evidence", "derivation")
            }
            messages = super().prompt(question, document=document)
            with open("seen.txt", "a") as file:
                file.write(repr(gold) + "\\n")
            return messages

    return Curious(AnswerOptions())


@hookimpl
def finqa_sft_metrics():
    return [
        MetricRecord(name="mark", summary="Tells texts apart", build=lambda options: Mark()),
        MetricRecord(name="told", summary="Says what it is told", config=Told, build=Teller),
    ]


@hookimpl
def finqa_sft_formatters():
    return [FormatterRecord(name="curious", summary="Looks at gold", build=curious)]
'''


@pytest.fixture(scope="session")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded base whose weights are drawn so wide that completions differ."""
    folder = tmp_path_factory.mktemp("wild")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    model = AutoModelForCausalLM.from_pretrained(tiny_base())
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.12, generator=draws)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, wild: Path) -> Path:
    """A folder with a recipe and its run, which has asked nothing yet."""
    recipe = write_recipe(tmp_path_factory.mktemp("trained"), wild)
    off = ("evaluation.before=false", "evaluation.every=0", "evaluation.after=false")
    # From that folder, so that all paths in the run's record are relative ones.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recipe.parent)
        train(Path("small.yaml"), "output.dir=run", *off)
    return recipe.parent


def write_recipe(folder: Path, wild: Path, text: str = RECIPE) -> Path:
    """The recipe in a folder, with the plugin file and the base that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "marks.py").write_text(MARKS, encoding="utf-8")
    if not (folder / "wild").exists():
        (folder / "wild").symlink_to(wild, target_is_directory=True)
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def predictions(path: Path) -> dict[str, Predicted]:
    return dict(read_predictions(path).predictions)


def scores(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return content


def command(*words: str, folder: Path, processes: int = 1) -> subprocess.Popen[str]:
    """Start a command in processes of its own."""
    launcher = ["-m", "finqa_sft"]
    if processes > 1:
        launcher = [
            "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
            "-m", "finqa_sft",
        ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *launcher, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
