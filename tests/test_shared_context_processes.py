"""Two processes train on shared context as one process does: DDP, ZeRO-2 and ZeRO-3."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bad_input import Shell, shell
from evaluated import logged, wild, write_recipe
from runs import losses, manifest
from test_evaluation_processes import SECONDS, finished
from test_scores import plain_loss
from test_shared_context_run import RECIPE

__all__ = ["shell", "wild"]

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

LAUNCHER = Path(__file__).with_name("deepspeed_cpu.py")

ONE = ("output.dir=one", "trainer.gradient_accumulation_steps=2")
TWO = ("output.dir=two", "trainer.gradient_accumulation_steps=1")
"""Two processes have the batches of one that accumulates two: of rows as many as divide."""


def in_processes(
    *words: str, folder: Path, program: Sequence[str] = ("-m", "finqa_sft"), processes: int = 2
) -> str:
    """What processes print that train the small recipe together, to its end."""
    return finished(started(*words, folder=folder, program=program, processes=processes))


def started(
    *words: str, folder: Path, program: Sequence[str] = ("-m", "finqa_sft"), processes: int = 2
) -> subprocess.Popen[str]:
    """Processes that train the small recipe together."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc_per_node={processes}", *program, "train", "small.yaml", *words,
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def nll(folder: Path) -> list[float]:
    return [entry["eval_nll"] for entry in logged(folder) if "eval_nll" in entry]


def same_training(two: Path, one: Path) -> None:
    """Require the same losses of both runs, and the same check beforehand."""
    assert manifest(two)["hardware"]["processes"] == 2
    assert manifest(one)["batches"]["rows_a_step"] == manifest(two)["batches"]["rows_a_step"] == 2
    assert len(losses(two)) == 4
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert nll(two) == pytest.approx(nll(one), rel=1e-4)
    found, expected = (manifest(folder)["layout"]["check"] for folder in (two, one))
    assert found["questions"] == expected["questions"]
    assert found["largest_difference"] < found["tolerance"]


@pytest.mark.parametrize("factory", ["lora", "qlora"])
def test_processes_that_share_the_gradients_have_the_losses_of_one(
    shell: Shell, wild: Path, factory: str
) -> None:
    folder = shell.folder
    write_recipe(folder, wild, RECIPE)
    words = [f"model.factory={factory}", "trainer.gradient_checkpointing=true"]
    said = in_processes(*words, *TWO, folder=folder)
    assert said.count("collator checked") == 1
    assert shell("train", "small.yaml", *words, *ONE).status == 0
    assert manifest(folder / "two")["distributed"]["type"] == "MULTI_CPU"
    assert manifest(folder / "two")["batches"]["rows"] % 2 == 0
    same_training(folder / "two", folder / "one")


def test_an_odd_number_of_held_out_rows_counts_each_once(shell: Shell, wild: Path) -> None:
    recipe = write_recipe(shell.folder, wild, RECIPE)
    words = ["collator.tokens_per_batch=800", "data.split.held_out=0.5", "trainer.max_steps=2"]
    in_processes(*words, *TWO, folder=shell.folder)
    # The last row has no counterpart, and is several trees.
    documents = documents_of_rows(words)
    assert len(documents) % 2 == 1
    assert len(documents) > 1
    assert len(documents[-1]) > 1
    two = shell.folder / "two"
    assert nll(two)[-1] == pytest.approx(plain_loss(recipe, two, *words), rel=1e-5)


def documents_of_rows(words: Sequence[str]) -> list[list[str]]:
    """The documents of each row that the collator makes of the held-out questions."""
    from finqa_sft.collators.shared_context import SharedContextCollator
    from finqa_sft.plugins.manager import Plugins
    from finqa_sft.preparation.prepare import prepared_recipe
    from finqa_sft.recipe import load_recipe

    recipe: Any = load_recipe("small.yaml", words, Plugins.load({"FINQA_SFT_PLUGINS": ""}))
    collator = SharedContextCollator(tokens_per_batch=recipe.collator.options.tokens_per_batch)
    arranged = collator.arrange(prepared_recipe(recipe).data.held_out.rows)
    return list(arranged["documents"])


ASTRAY = """\
from finqa_sft import SharedContextCollator, hookimpl
from finqa_sft.collators.shared_context import ATTENTION, SFT_ARGS, SharedContextOptions
from finqa_sft.plugins import CollatorRecord


class Astray(SharedContextCollator):
    # Positions count along the row, as in a model that makes them by itself.
    def __call__(self, rows):
        import torch

        batch = super().__call__(rows)
        return {**batch, "position_ids": torch.arange(batch["input_ids"].shape[1])[None]}


@hookimpl
def finqa_sft_collators():
    return [
        CollatorRecord(
            name="astray",
            summary="shared context with other positions",
            config=SharedContextOptions,
            build=lambda options, tokenizer: Astray(tokens_per_batch=options.tokens_per_batch),
            sft_args=SFT_ARGS,
            attn_implementation=ATTENTION,
        )
    ]
"""


def test_a_check_that_fails_ends_all_processes(shell: Shell, wild: Path) -> None:
    write_recipe(shell.folder, wild, RECIPE)
    shell.write("astray.py", ASTRAY)
    words = ["plugins=[marks.py, astray.py]", "collator.name=astray", "output.dir=two"]
    process = started(*words, folder=shell.folder)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    assert "gives a question in shared context a loss that differs by" in err
    assert "step 1/" not in out
    assert not (shell.folder / "two" / "run.json").exists()


@pytest.mark.deepspeed
@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the deepspeed extra"
)
@pytest.mark.parametrize(("stage", "factory"), [(2, "lora"), (3, "lora"), (3, "qlora")])
def test_processes_that_divide_the_weights_have_the_losses_of_one(
    shell: Shell, wild: Path, stage: int, factory: str
) -> None:
    folder = shell.folder
    write_recipe(folder, wild, RECIPE)
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    zero = {"zero_optimization": {"stage": stage}, **dict.fromkeys(auto, "auto")}
    shell.write("zero.json", json.dumps(zero))
    words = [f"model.factory={factory}", "trainer.max_grad_norm=0"]
    divided = [*words, "trainer.deepspeed=zero.json", "trainer.use_cpu=false", "trainer.bf16=false"]
    said = in_processes(*divided, *TWO, folder=folder, program=[str(LAUNCHER)])
    assert said.count("collator checked") == 1
    # DeepSpeed's second optimizer step is not quite torch's, with padded rows no less.
    in_processes(*divided, *ONE, folder=folder, program=[str(LAUNCHER)], processes=1)
    assert manifest(folder / "two")["distributed"]["type"] == "DEEPSPEED"
    same_training(folder / "two", folder / "one")
    assert shell("train", "small.yaml", *words, *ONE, "output.dir=plain").status == 0
    assert losses(folder / "two")[:2] == pytest.approx(losses(folder / "plain")[:2], rel=1e-5)
    assert losses(folder / "two") == pytest.approx(losses(folder / "plain"), rel=5e-3)
