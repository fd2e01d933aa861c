"""Two processes train as one does with the same batches, and really divide what they should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluated import logged, wild, write_recipe
from processes import COUNTS, elements, ended, marks, needs_deepspeed, started, together
from runs import losses, manifest
from safetensors.torch import load_file
from test_shared_context_run import RECIPE
from transformers import AutoModelForCausalLM

__all__ = ["wild"]

pytestmark = pytest.mark.multiprocess

TEXT = RECIPE.replace("plugins: [marks.py]", "plugins: [marks.py, counts.py]").replace(
    "output:\n", "callbacks: [{name: counting}]\noutput:\n"
)

PADDED = ("collator={name: padded}", "trainer.per_device_train_batch_size=2")
COLLATORS = {"padded": PADDED, "shared_context": ()}
TYPES = {"ddp": "MULTI_CPU", "zero1": "DEEPSPEED", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}

EVERY = [
    (sharded, factory, collator)
    for sharded in TYPES
    for factory in ("lora", "qlora")
    for collator in COLLATORS
]
PAIRWISE = {
    ("ddp", "lora", "padded"), ("ddp", "qlora", "shared_context"),
    ("zero1", "lora", "shared_context"), ("zero1", "qlora", "padded"),
    ("zero2", "lora", "padded"), ("zero2", "qlora", "shared_context"),
    ("zero3", "lora", "shared_context"), ("zero3", "qlora", "padded"),
}  # fmt: skip
"""Each two choices stand together in one of these."""


def case(sharded: str, factory: str, collator: str) -> Any:
    found = marks(sharded)
    if (sharded, factory, collator) not in PAIRWISE:
        found.append(pytest.mark.slow)
    return pytest.param(sharded, factory, collator, marks=found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, wild: Path) -> Path:
    """A folder with the recipe, where all runs go."""
    path = tmp_path_factory.mktemp("processes")
    write_recipe(path, wild, TEXT)
    (path / "counts.py").write_text(COUNTS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def alone(folder: Path) -> Callable[[str, str, str], Path]:
    """Runs of one process, each made when it is first asked for.

    DeepSpeed's Adam counts a step before the first, on gradients of zero (0.19,
    `runtime/zero/stage_1_and_2.py`, `initialize_optimizer_states`), so its steps are not those of
    torch alone: what ZeRO's stages do is held against DeepSpeed in one process.
    """

    def run(sharded: str, factory: str, collator: str) -> Path:
        kind = "ddp" if sharded == "ddp" else "zero2"
        target = folder / f"one-{kind}-{factory}-{collator}"
        if not target.exists():
            words = [
                "train", "small.yaml", f"model.factory={factory}", *COLLATORS[collator],
                f"output.dir={target.name}", "trainer.gradient_accumulation_steps=2",
            ]  # fmt: skip
            together(*words, folder=folder, way=kind, processes=1)
        return target

    return run


@pytest.mark.parametrize(("sharded", "factory", "collator"), [case(*one) for one in EVERY])
def test_two_processes_have_the_losses_and_the_adapter_of_one(
    folder: Path,
    alone: Callable[[str, str, str], Path],
    sharded: str,
    factory: str,
    collator: str,
) -> None:
    two = folder / f"two-{sharded}-{factory}-{collator}"
    words = [
        "train", "small.yaml", f"model.factory={factory}", *COLLATORS[collator],
        f"output.dir={two.name}", "trainer.gradient_accumulation_steps=1",
    ]  # fmt: skip
    said = together(*words, folder=folder, way=sharded)
    assert said.count("recipe small (small.yaml)") == said.count("step 4/4  loss") == 1

    one = alone(sharded, factory, collator)
    facts = manifest(two)
    assert facts["hardware"]["processes"] == 2
    active = facts["distributed"]
    assert (active["type"], active["processes"]) == (TYPES[sharded], 2)
    assert active["stage"] == (None if sharded == "ddp" else int(sharded[-1]))
    assert facts["identity"]["what shares the run out"] == sharded.replace("ddp", "none")
    assert facts["batches"]["rows_a_step"] == manifest(one)["batches"]["rows_a_step"]
    assert len(losses(two)) == 4
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert nll(two) == pytest.approx(nll(one), rel=1e-4)
    require_divided(elements(two), sharded=sharded, whole=elements(one)[0])

    ours, theirs = adapter(two), adapter(one)
    assert ours.keys() == theirs.keys()
    assert any(weight.any() for name, weight in ours.items() if "lora_B" in name)
    for name, weight in ours.items():
        # By their norms: where a gradient is nearly 0, its rounding decides Adam's direction.
        assert (weight - theirs[name]).norm() <= 1e-3 * theirs[name].norm(), name
    require_loadable(two)


def nll(folder: Path) -> list[float]:
    return [entry["eval_nll"] for entry in logged(folder) if "eval_nll" in entry]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "adapter" / "adapter_model.safetensors"))


def require_divided(found: list[dict[str, int]], *, sharded: str, whole: dict[str, int]) -> None:
    """Each process holds half of what its stage divides, padding aside, and all of the rest."""
    assert len(found) == 2
    for held in found:
        half = pytest.approx(whole["averages"] / 2, rel=0.02)
        assert held["averages"] == (whole["averages"] if sharded == "ddp" else half)
        if sharded == "zero3":
            assert held["weights"] < 0.55 * whole["weights"]
        else:
            assert held["weights"] == whole["weights"]


def require_loadable(folder: Path) -> None:
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(folder.parent / "wild")
    model = PeftModel.from_pretrained(base, folder / "adapter")
    weights = model.state_dict()
    for name, weight in adapter(folder).items():
        loaded = weights[name.replace(".weight", ".default.weight")]
        assert torch.equal(loaded, weight), name


@pytest.mark.slow
@pytest.mark.deepspeed
@needs_deepspeed
@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"train_batch_size": 7},
            'train_batch_size=7, and this run train_batch_size (calculated)=8; write "auto" there',
        ),
        (
            {"train_batch_size": "auto", "bf16": {"enabled": True}},
            'bf16.enabled=True, and this run bf16|bf16_full_eval=False; write "auto" there',
        ),
        (
            {"train_batch_size": "auto", "zero_optimization": {"stage": 2, "overlap_com": True}},
            "zero_optimization.overlap_com: Extra inputs are not permitted",
        ),
    ],
)
def test_what_deepspeed_would_end_the_run_with_is_said_before_the_base_is_loaded(
    tmp_path: Path, wild: Path, config: dict[str, Any], said: str
) -> None:
    write_recipe(tmp_path, wild, RECIPE)
    (tmp_path / "zero2.json").write_text(
        json.dumps({"zero_optimization": {"stage": 2}} | config), encoding="utf-8"
    )
    process = started("train", "small.yaml", *PADDED, folder=tmp_path, way="zero2")
    status, out, err = ended(process)
    assert status != 0
    assert f"trainer.deepspeed has {said}\n" in err, out + err
    assert "Loading weights" not in err


@pytest.mark.slow
@pytest.mark.deepspeed
@needs_deepspeed
@pytest.mark.parametrize("stage", [2, 3])
def test_a_configuration_of_the_launcher_shares_the_run_out(
    tmp_path: Path, wild: Path, stage: int
) -> None:
    write_recipe(tmp_path, wild, RECIPE)
    words = ["train", "small.yaml", *PADDED, "trainer.max_steps=1", "model.factory=full"]
    said = together(*words, folder=tmp_path, way=f"zero{stage} by the launcher")
    assert said.count(f"DeepSpeed ZeRO-{stage}; 2 processes; shared out: ") == 1
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
