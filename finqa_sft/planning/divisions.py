"""The ways in which several processes can divide what training keeps: DDP, and shipped configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finqa_sft.errors import RecipeError
from finqa_sft.models.sharding import Sharding
from finqa_sft.recipe import Recipe
from finqa_sft.recipe.shipped import recipes_folder


def divisions(recipe: Recipe, *, gpus: int) -> dict[str, Sharding]:
    """The ways in which processes can divide what is kept, by name; the recipe's own first.

    Args:
        recipe: The recipe, which may name a DeepSpeed configuration.
        gpus: Processes; one alone divides nothing unless the recipe says so.

    Raises:
        RecipeError: The DeepSpeed configuration of the recipe cannot be read.
    """
    folder = recipes_folder() / "deepspeed"
    found: dict[str, Sharding] = {}
    own = recipe.trainer.get("deepspeed")
    if isinstance(own, Mapping):
        found["recipe's deepspeed"] = Sharding.of(own)
    elif own:
        path = Path(str(own))
        if not path.is_file():
            # A shipped one by its name.
            path = folder / f"{path.stem}.json"
        found[path.stem] = Sharding.of(_read(path))
    found["one process" if gpus == 1 else "ddp"] = Sharding()
    if gpus > 1:
        shipped = {path.stem: Sharding.of(_read(path)) for path in folder.glob("*.json")}
        for name in sorted(shipped, key=lambda name: (shipped[name].stage, name)):
            found.setdefault(name, shipped[name])
    return found


def _read(path: Path) -> Mapping[str, Any]:
    """A DeepSpeed configuration."""
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"trainer.deepspeed: {path} cannot be read: {error}; name a DeepSpeed configuration"
        ) from error
    return content
