"""What is planned of several processes is what each of them is seen to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import marks, together
from runs import RECIPE, manifest, write_recipe

from finqa_sft.models.measured import PARTS

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

WAYS = [
    pytest.param(way, marks=marks(way))
    for way in ("ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp in bfloat16")
]


def held(folder: Path, way: str, factory: str) -> dict[str, Any]:
    """What two processes are predicted to hold, and seen to."""
    write_recipe(folder, RECIPE)
    words = ["train", "small.yaml", f"model.factory={factory}", "output.dir=run"]
    words += ["trainer.max_steps=3", "trainer.eval_strategy=no"]
    together(*words, folder=folder, way=way)
    found = manifest(folder / "run")
    assert found["hardware"]["processes"] == 2
    memory: dict[str, Any] = found["memory"]
    return memory


@pytest.mark.parametrize("factory", ["qlora", "lora", "full"])
@pytest.mark.parametrize("way", WAYS)
def test_each_of_two_processes_holds_what_is_planned(
    way: str, factory: str, tmp_path: Path
) -> None:
    found = held(tmp_path, way, factory)
    measured = {part: found["measured"][part] for part in PARTS}
    predicted = {part: found["predicted"][part] for part in PARTS}
    if way.startswith("zero") and factory == "full":
        # DeepSpeed makes the step of weights with decay first, and of the norms after that.
        assert measured == pytest.approx(predicted, rel=1e-3)
    else:
        assert measured == predicted
