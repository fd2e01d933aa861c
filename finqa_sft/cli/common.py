"""What several verbs share: the recipe argument, and how it becomes a resolved recipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finqa_sft import recipe
from finqa_sft.plugins.manager import Plugins
from finqa_sft.ranks import is_main
from finqa_sft.recipe import Recipe


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and its overrides."""
    parser.add_argument("recipe", help="a YAML file, or the bare name of a shipped recipe")
    # Without a default, argparse takes a list that may be empty for a required one.
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key.path=value",
        help="replace values of the recipe",
    )


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse.

    Raises:
        ArgumentTypeError: The text is none.
    """
    problem = argparse.ArgumentTypeError(f"expected a whole number from 1, not {text!r}")
    try:
        number = int(text)
    except ValueError:
        raise problem from None
    if number < 1:
        raise problem
    return number


def load_recipe(arguments: argparse.Namespace) -> tuple[Recipe, Plugins]:
    """Read and resolve the recipe that the arguments name, with all plugins loaded.

    Raises:
        RecipeError: The recipe has problems; all are named.
        PluginError: A plugin file that it names is broken.
    """
    plugins = load_plugins()
    return recipe.load_recipe(arguments.recipe, arguments.overrides, plugins), plugins


def print_rows(rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows as aligned columns; text is printed as it is, and cut nowhere."""
    console = Console()
    if not console.is_terminal:
        # Wide enough that nothing is wrapped in what another program reads.
        console = Console(width=10_000)
    table = Table.grid(padding=(0, 2))
    for row in rows:
        cells = [cell if isinstance(cell, Text) else Text(cell) for cell in row]
        while len(table.columns) < len(cells):
            table.add_column(overflow="fold")
        table.add_row(*cells)
    console.print(table)


def print_below(rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows below a blank line; nothing where there are none."""
    rows = list(rows)
    if rows:
        print()
        print_rows(rows)


def tell(text: str) -> None:
    """Say how far the work is, apart from what another program may read."""
    if is_main():
        print(text, file=sys.stderr)


def load_plugins() -> Plugins:
    """All plugins; those left out are reported once, on standard error."""
    plugins = Plugins.load()
    if is_main():
        for failure in plugins.failures:
            print(f"warning: {failure}", file=sys.stderr)
    return plugins
