"""What is planned of several processes is what each of them is seen to hold."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from processes import DEEPSPEED, FSDP, FSDP_LAUNCH, IN_BFLOAT16, ON_ITS_DEVICE, together, zero
from runs import RECIPE, manifest, write_recipe

from finqa_sft.models.measured import PARTS

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the deepspeed extra"
)

WAYS = [
    "ddp",
    *(pytest.param(f"zero{n}", marks=[pytest.mark.deepspeed, needs_deepspeed]) for n in (1, 2, 3)),
    "fsdp",
    "fsdp in bfloat16",
]


def held(folder: Path, way: str, factory: str) -> dict[str, Any]:
    """What two processes are predicted to hold, and seen to."""
    write_recipe(folder, RECIPE)
    words = ["train", "small.yaml", f"model.factory={factory}", "output.dir=run"]
    words += ["trainer.max_steps=3", "trainer.eval_strategy=no"]
    if way.startswith("fsdp"):
        words += IN_BFLOAT16 if way.endswith("bfloat16") else ON_ITS_DEVICE
        together(*words, folder=folder, program=FSDP, **FSDP_LAUNCH)
    elif way == "ddp":
        together(*words, folder=folder)
    else:
        words += [*ON_ITS_DEVICE, zero(folder, int(way[-1]))]
        together(*words, folder=folder, program=DEEPSPEED)
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
