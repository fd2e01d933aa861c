"""What contradicts what, in a recipe whose run is to be shared out among processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from finqa_sft.errors import RecipeError
from finqa_sft.models.options import BaseOptions, ComputeDtype, FullOptions
from finqa_sft.models.sharded import unshareable
from finqa_sft.recipe.deepspeed import disagreements, flaws, read_config, stage_of
from finqa_sft.recipe.fsdp import Fsdp, optimizer_problem


def sharing_problems(
    trainer: Mapping[str, Any], model: BaseModel, *, held: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """What contradicts what.

    Args:
        trainer: The recipe's `trainer` section, its files found.
        model: The options of the model factory.
        held: Trainer fields that the collator sets.

    Yields:
        Keys, and what is wrong with them.
    """
    deepspeed = trainer.get("deepspeed")
    if deepspeed and trainer.get("fsdp"):
        yield (
            "trainer.fsdp",
            "shares the model out, as trainer.deepspeed does; leave one of them out",
        )
        return
    sharing = "none"
    if deepspeed:
        try:
            config = deepspeed if isinstance(deepspeed, dict) else read_config(Path(deepspeed))
        except RecipeError as error:
            yield "trainer.deepspeed", str(error)
            return
        found = list(flaws(config, whole=isinstance(model, FullOptions)))
        yield from (("trainer.deepspeed", text) for text in found)
        sharing = f"zero{stage_of(config)}"
        yield from disagreements(config, {**trainer, **held})
    try:
        fsdp = Fsdp.of_recipe(trainer)
    except RecipeError as error:
        yield "trainer.fsdp_config", str(error)
        return
    if fsdp:
        sharing = "fsdp"
        yield from (("trainer.fsdp_config", text) for text in fsdp.problems())
        if problem := optimizer_problem(str(trainer.get("optim"))):
            yield "trainer.optim", problem
    if isinstance(model, BaseOptions):
        chosen = model.compute_dtype
        compute: ComputeDtype | None = None if chosen == "auto" else chosen
        if fault := unshareable(model, sharing, compute=compute):
            yield fault
