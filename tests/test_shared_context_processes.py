"""Two processes train on rows of trees: an odd number of them, and none that the check refuses.

That they train as one process does is in `test_processes_training.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bad_input import Shell, shell
from evaluated import logged, wild, write_recipe
from processes import ended, started, together
from test_scores import plain_loss
from test_shared_context_run import RECIPE

__all__ = ["shell", "wild"]

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

TWO = ("output.dir=two", "trainer.gradient_accumulation_steps=1")


def nll(folder: Path) -> list[float]:
    return [entry["eval_nll"] for entry in logged(folder) if "eval_nll" in entry]


def test_an_odd_number_of_held_out_rows_counts_each_once(shell: Shell, wild: Path) -> None:
    recipe = write_recipe(shell.folder, wild, RECIPE)
    words = ["collator.tokens_per_batch=800", "data.split.held_out=0.5", "trainer.max_steps=2"]
    together("train", "small.yaml", *words, *TWO, folder=shell.folder)
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
    process = started("train", "small.yaml", *words, folder=shell.folder)
    status, out, err = ended(process)
    assert status != 0
    assert "gives a question in shared context a loss that differs by" in err
    assert "step 1/" not in out
    assert not (shell.folder / "two" / "run.json").exists()
