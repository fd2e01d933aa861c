"""Recipes written into a run's record, with all their values, and read back from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from finqa_sft.recipe.overrides import apply_overrides
from finqa_sft.recipe.problems import Key, Position
from finqa_sft.recipe.raw import RawRecipe
from finqa_sft.recipe.resolve import resolve_recipe
from finqa_sft.recipe.resolved import Chosen, Recipe, Value
from finqa_sft.recipe.schema import Registry
from finqa_sft.recipe.yaml_loader import Located

_BY_ITSELF = ("default", "collator")
"""Origins of values that the recipe does not set."""


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe and where it was set; relative paths start from `folder`.

    What a component has by default is said to be so also where an override sets the whole section.
    """
    unset = set(_unset(recipe))
    return {
        "name": recipe.name,
        "path": str(recipe.path),
        "folder": str(Path.cwd()),
        "values": [
            {
                "key": v.path,
                "value": v.value,
                "origin": "default" if v.path in unset else v.origin,
                "line": v.line,
            }
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
    # Some options may not be set beside others, not even to their defaults.
    values = [
        value
        for value in record["values"]
        if value["origin"] not in _BY_ITSELF or value["key"].startswith("output.")
    ]
    applied = apply_overrides(_tree(values), overrides)
    files = tuple(map(Path, applied.data.get("plugins", ())))
    folder = Path(record["folder"])
    for file in files:
        registry.add_file(folder / file)
    raw = RawRecipe(
        path=folder / f"{record['name']}.yaml",
        data=applied.data,
        located=_located(applied.data, values),
        overridden=applied.keys,
        plugin_files=files,
        problems=applied.problems,
    )
    recipe = resolve_recipe(raw, registry)
    found = {value.path: value.value for value in _values(recipe)}
    other = [
        value
        for value in record["values"]
        if value["origin"] == "default"
        and not value["key"].startswith(("trainer.", "output."))
        and found.get(value["key"], value["value"]) != value["value"]
        and not raw.touches(_key(value["key"]))
    ]
    if not other:
        return recipe
    # What was a default then is another one in what is installed now.
    applied = apply_overrides(_tree([*values, *other]), overrides)
    located = _located(applied.data, [*values, *other])
    return resolve_recipe(replace(raw, data=applied.data, located=located), registry)


def _values(recipe: Recipe) -> list[Value]:
    """A recipe's values as they are read back from a file."""
    return [
        replace(value, value=json.loads(json.dumps(value.value, default=str)))
        for value in recipe.values()
    ]


def _unset(recipe: Recipe) -> Iterator[str]:
    """The keys of components' options that nobody has set."""
    chosen: dict[str, Chosen[Any]] = {
        "model": recipe.model,
        "formatter": recipe.formatter,
        "collator": recipe.collator,
    }
    lists: dict[str, Sequence[Chosen[Any]]] = {
        "data.sources": recipe.sources,
        "evaluation.sources": recipe.evaluation_sources,
        "evaluation.metrics": recipe.metrics,
        "callbacks": recipe.callbacks,
    }
    for place, several in lists.items():
        chosen |= {f"{place}.{number}": one for number, one in enumerate(several)}
    for value in recipe.values():
        for place, one in chosen.items():
            if value.path.startswith(f"{place}.") and not _is_set(
                one.options, value.path.removeprefix(f"{place}.").split(".")
            ):
                yield value.path


def _is_set(options: Any, pieces: Sequence[str]) -> bool:
    """Whether a value below some options was set; what belongs to the section itself counts so."""
    for piece in pieces:
        if not isinstance(options, BaseModel) or piece not in type(options).model_fields:
            return True
        if piece not in options.model_fields_set:
            return False
        options = dict(options)[piece]
    return True


def _key(path: str) -> Key:
    return tuple(int(piece) if piece.isdigit() else piece for piece in path.split("."))


def _located(data: Any, values: Sequence[Mapping[str, Any]]) -> Located:
    """Where values stood in the recipe; what an override set then is taken for the recipe's."""
    keys = {_key(value["key"]): Position(value["line"] or 1, 1) for value in values}
    return Located(data, keys, {})


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
