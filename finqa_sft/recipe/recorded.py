"""Recipes written into a run's record, with all their values, and read back from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from finqa_sft.recipe.overrides import apply_overrides
from finqa_sft.recipe.raw import RawRecipe
from finqa_sft.recipe.resolve import resolve_recipe
from finqa_sft.recipe.resolved import Recipe
from finqa_sft.recipe.schema import Registry
from finqa_sft.recipe.yaml_loader import Located

_BY_ITSELF = ("default", "collator")
"""Origins of trainer fields that the recipe does not set."""


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe and where it was set; relative paths start from `folder`."""
    return {
        "name": recipe.name,
        "path": str(recipe.path),
        "folder": str(Path.cwd()),
        "values": [
            {"key": v.path, "value": v.value, "origin": v.origin, "line": v.line}
            for v in recipe.values()
        ],
    }


def recorded_recipe(
    record: Mapping[str, Any], registry: Registry, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe that a record was made of.

    Args:
        record: What `recipe_record` gave.
        registry: The plugin manager; the plugin files of the recipe are added to it.
        overrides: Each `key.path=value`.

    Raises:
        RecipeError: A value does not hold with what is installed now, or an override is wrong.
        PluginError: A plugin file is broken.
    """
    values = [
        value
        for value in record["values"]
        if not (value["key"].startswith("trainer.") and value["origin"] in _BY_ITSELF)
    ]
    applied = apply_overrides(_tree(values), overrides)
    files = tuple(map(Path, applied.data.get("plugins", ())))
    folder = Path(record["folder"])
    for file in files:
        registry.add_file(folder / file)
    raw = RawRecipe(
        path=folder / f"{record['name']}.yaml",
        data=applied.data,
        located=Located(applied.data, {}, {}),
        overridden=applied.keys,
        plugin_files=files,
        problems=applied.problems,
    )
    return resolve_recipe(raw, registry)


def _tree(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values by their dotted keys as sections and lists."""
    root: dict[str, Any] = {}
    for value in values:
        pieces = value["key"].split(".")
        node: Any = root
        for piece, following in pairwise(pieces):
            node = _entered(node, piece, [] if following.isdigit() else {})
        _entered(node, pieces[-1], value["value"])
    return root


def _entered(node: Any, key: str, value: Any) -> Any:
    """What stands at a key of a section, or at an index of a list; the value where nothing does."""
    if isinstance(node, dict):
        return node.setdefault(key, value)
    if int(key) == len(node):
        node.append(value)
    return node[int(key)]
