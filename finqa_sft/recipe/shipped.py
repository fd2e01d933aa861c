"""The recipes and configurations that come with the package, and how one is found by its name."""

from __future__ import annotations

import difflib
import os
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Literal

from finqa_sft.errors import RecipeError

_CONFIGS = (".json", ".sbatch", ".yaml")


@cache
def recipes_folder() -> Path:
    """Where the shipped recipes are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """The shipped recipes by name, in alphabetical order."""
    return {path.stem: path for path in sorted(recipes_folder().glob("*.yaml"))}


def shipped_configs(kind: Literal["accelerate", "deepspeed"]) -> dict[str, Path]:
    """The shipped configurations of a launcher or of DeepSpeed by name, in alphabetical order.

    Args:
        kind: Whose they are, which is the folder that they lie in.
    """
    folder = recipes_folder() / kind
    found = sorted(path for path in folder.glob("*.*") if path.suffix in _CONFIGS)
    return {path.stem if path.suffix != ".sbatch" else path.name: path for path in found}


def find_recipe(text: str | os.PathLike[str]) -> Path:
    """The file that a path, or the bare name of a shipped recipe, stands for.

    Args:
        text: As given on the command line; with `.yaml` it is a file, and no shipped recipe.

    Raises:
        RecipeError: There is no such file, or it is a folder.
    """
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        return path
    shipped = shipped_recipes()
    if str(text) in shipped:
        return shipped[str(text)]
    bare = str(text).removesuffix(".yaml")
    if bare in shipped:
        raise RecipeError(f"{path}: no such file; the shipped recipe is {bare}")
    if path.is_dir():
        raise RecipeError(f"{path}: a folder; name a recipe file in it")
    beside = [str(other) for other in sorted(path.parent.glob("*.yaml"))]
    near = difflib.get_close_matches(str(path), beside, n=1)
    near = near or difflib.get_close_matches(Path(bare).name, shipped, n=1)
    if near:
        raise RecipeError(f"{path}: no such file; did you mean {near[0]}?")
    names = f"; shipped recipes are {', '.join(shipped)}" if shipped else ""
    raise RecipeError(f"{path}: no such file{names}")


def summary(path: Path) -> str:
    """What a recipe says of itself: the last line of the comment that it opens with, or nothing.

    The lines before are the command that runs it.

    Args:
        path: A recipe file.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    opening = list(takewhile(lambda line: line.startswith("#"), lines))
    return opening[-1].lstrip("#").strip() if opening else ""
