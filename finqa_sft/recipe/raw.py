"""A recipe as it was written: file and overrides, and who said what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finqa_sft.recipe.overrides import apply_overrides
from finqa_sft.recipe.problems import Key, Position, Problem
from finqa_sft.recipe.resolved import Origin
from finqa_sft.recipe.shipped import find_recipe
from finqa_sft.recipe.yaml_loader import Located, load_yaml


@dataclass(frozen=True, slots=True)
class RawRecipe:
    """A recipe as read, its components not yet looked up.

    Attributes:
        path: The recipe file.
        data: What stands in it, with overrides applied.
        located: The file's own content, with positions.
        overridden: The keys that overrides have set.
        plugin_files: The plugin files that it names, those that exist.
        problems: What is wrong so far.
    """

    path: Path
    data: dict[str, Any]
    located: Located
    overridden: frozenset[Key]
    plugin_files: tuple[Path, ...]
    problems: tuple[Problem, ...]

    def is_overridden(self, key: Key) -> bool:
        """Whether an override set the value at a key, or what it stands in."""
        return any(key[: length + 1] in self.overridden for length in range(len(key)))

    def touches(self, key: Key) -> bool:
        """Whether an override set the value at a key, or something below or around it."""
        return self.is_overridden(key) or any(other[: len(key)] == key for other in self.overridden)

    def origin(self, key: Key) -> Origin:
        """Where the value at a key was set."""
        if self.touches(key):
            return "override"
        return "recipe" if key in self.located.keys else "default"

    def position(self, key: Key, *, of_value: bool) -> Position | None:
        """Where a key or its value stands: None for overrides, its section if it is missing."""
        places = self.located.values if of_value else self.located.keys
        if self.is_overridden(key) or (key not in places and self.touches(key)):
            return None
        outer = (key[:length] for length in range(len(key) - 1, 0, -1))
        nearest = (self.located.keys[known] for known in outer if known in self.located.keys)
        return places[key] if key in places else next(nearest, Position(1, 1))


def read_recipe(path_or_name: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RawRecipe:
    """Read a recipe and apply overrides.

    Raises:
        RecipeError: The file cannot be read at all. Lesser problems are kept for
            `resolve_recipe`.
    """
    path = find_recipe(path_or_name)
    located = load_yaml(path)
    applied = apply_overrides(located.data, overrides)
    problems = (*located.problems, *applied.problems)
    raw = RawRecipe(path, applied.data, located, applied.keys, (), problems)
    named = applied.data.get("plugins")
    files = [
        (Path() if raw.is_overridden(("plugins", index)) else path.parent) / Path(text).expanduser()
        for index, text in enumerate(named if isinstance(named, list) else ())
        if isinstance(text, str)
    ]
    present = tuple(file for file in files if file.is_file())
    return replace(raw, plugin_files=present)
