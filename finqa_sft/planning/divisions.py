"""The ways in which several processes can divide what training keeps: DDP, and shipped configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finqa_sft.models.sharding import Sharding
from finqa_sft.recipe import Recipe
from finqa_sft.recipe.deepspeed import read_config
from finqa_sft.recipe.shipped import shipped_configs


def divisions(recipe: Recipe, *, gpus: int) -> dict[str, Sharding]:
    """The ways in which processes can divide what is kept, by name; the recipe's own first.

    Args:
        recipe: The recipe, which may name a DeepSpeed configuration.
        gpus: Processes; one alone divides nothing unless the recipe says so.

    Raises:
        RecipeError: A configuration cannot be read.
    """
    found: dict[str, Sharding] = {}
    own = recipe.trainer.get("deepspeed")
    if isinstance(own, Mapping):
        found["recipe's deepspeed"] = Sharding.of(own)
    elif own:
        path = Path(own)
        found[path.stem] = Sharding.of(read_config(path))
    found["one process" if gpus == 1 else "ddp"] = Sharding()
    if gpus > 1:
        shipped = {
            name: Sharding.of(read_config(path))
            for name, path in shipped_configs("deepspeed").items()
        }
        for name in sorted(shipped, key=lambda name: (shipped[name].stage, name)):
            found.setdefault(name, shipped[name])
    return found
