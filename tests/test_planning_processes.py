"""What is planned of several processes is what each of them is seen to hold."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from processes import DEEPSPEED, ON_DEEPSPEED, PLAIN, together, zero
from runs import RECIPE, manifest, write_recipe

from finqa_sft.models.measured import PARTS

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the deepspeed extra"
)

STAGES = [
    0,
    *(pytest.param(n, marks=[pytest.mark.deepspeed, needs_deepspeed]) for n in (1, 2, 3)),
]


def held(folder: Path, stage: int, factory: str, **more: Any) -> dict[str, Any]:
    """What two processes are predicted to hold, and seen to."""
    write_recipe(folder, RECIPE)
    words = ["train", "small.yaml", f"model.factory={factory}", "output.dir=run"]
    words += ["trainer.max_steps=3", "trainer.eval_strategy=no"]
    if stage:
        words += [*ON_DEEPSPEED, zero(folder, stage, **more)]
    together(*words, folder=folder, program=DEEPSPEED if stage else PLAIN)
    found = manifest(folder / "run")
    assert found["hardware"]["processes"] == 2
    memory: dict[str, Any] = found["memory"]
    return memory


@pytest.mark.parametrize("factory", ["qlora", "lora", "full"])
@pytest.mark.parametrize("stage", STAGES)
def test_each_of_two_processes_holds_what_is_planned(
    stage: int, factory: str, tmp_path: Path
) -> None:
    found = held(tmp_path, stage, factory)
    measured = {part: found["measured"][part] for part in PARTS}
    predicted = {part: found["predicted"][part] for part in PARTS}
    if stage and factory == "full":
        # DeepSpeed makes the step of weights with decay first, and of the norms after that.
        assert measured == pytest.approx(predicted, rel=1e-3)
    else:
        assert measured == predicted
