"""`finqa-sft recipes` and `finqa-sft recipes copy NAME [PATH]`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from finqa_sft.cli.common import print_rows
from finqa_sft.errors import RecipeError
from finqa_sft.recipe.shipped import find_recipe, shipped_recipes, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="list the shipped recipes (the default)")
    copy = actions.add_parser("copy", help="copy a shipped recipe, to be changed")
    copy.add_argument("name", help="the recipe's bare name")
    copy.add_argument("path", nargs="?", type=Path, help="where to (default: NAME.yaml)")


def run(arguments: argparse.Namespace) -> int:
    """List, or copy one."""
    if arguments.action == "copy":
        return _copy(arguments.name, arguments.path)
    print_rows((name, summary(path)) for name, path in shipped_recipes().items())
    return 0


def _copy(name: str, path: Path | None) -> int:
    source = find_recipe(name)
    target = path or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise RecipeError(f"{target} exists already; name another file")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise RecipeError(f"cannot write {target}: {error.strerror}") from error
    print(target)
    return 0
