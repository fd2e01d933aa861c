"""`finqa-sft check RECIPE [key.path=value ...]`."""

from __future__ import annotations

import argparse

from finqa_sft.cli.common import add_recipe_arguments, load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_recipe_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check every key, type, name and choice; problems are raised, all at once."""
    recipe, _ = load_recipe(arguments)
    readers = ", ".join(source.name for source in (*recipe.sources, *recipe.evaluation_sources))
    print(
        f"{recipe.path}: no problems; {recipe.model.name} with {readers}, "
        f"{recipe.formatter.name}, {recipe.collator.name}"
    )
    return 0
