"""The ways in which processes can divide what training keeps: DDP, shipped configs, FSDP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finqa_sft.models.sharding import OFFLOADED, FullyShard, Sharding, zero_of
from finqa_sft.planning.request import trainer_values
from finqa_sft.recipe import Recipe
from finqa_sft.recipe.deepspeed import read_config
from finqa_sft.recipe.fsdp import Fsdp
from finqa_sft.recipe.shipped import shipped_configs


def divisions(recipe: Recipe, *, gpus: int) -> dict[str, Sharding]:
    """The ways in which processes can divide what is kept, by name; the recipe's own first.

    Args:
        recipe: The recipe, which may name a DeepSpeed configuration, or ask for FSDP.
        gpus: Processes; one alone divides nothing unless the recipe says so.

    Raises:
        RecipeError: A configuration cannot be read.
    """
    found: dict[str, Sharding] = {}
    own = recipe.trainer.get("deepspeed")
    accumulates = trainer_values(recipe)["gradient_accumulation_steps"] > 1
    if isinstance(own, Mapping):
        found["recipe's deepspeed"] = zero_of(own)
    elif own:
        path = Path(own)
        found[path.stem] = zero_of(read_config(path))
    elif fsdp := Fsdp.of_recipe(recipe.trainer):
        found["fsdp"] = FullyShard(frozenset(OFFLOADED if fsdp.offloads else ()), accumulates)
    found["one process" if gpus == 1 else "ddp"] = Sharding()
    if gpus > 1:
        shipped = {
            name: zero_of(read_config(path)) for name, path in shipped_configs("deepspeed").items()
        }
        for name in sorted(shipped, key=lambda name: (shipped[name].divides, name)):
            found.setdefault(name, shipped[name])
        found.setdefault("fsdp", FullyShard(accumulates=accumulates))
    return found
