"""`finqa-sft eject RECIPE [key.path=value ...] [--rows FOLDER] [--overwrite]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from finqa_sft.cli.common import add_recipe_arguments, load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--rows",
        type=Path,
        default=Path("ejected"),
        metavar="FOLDER",
        help="where the prompts and completions are written for the script (default: ejected)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace rows that are in that folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the rows, print the script."""
    recipe, _ = load_recipe(arguments)
    from finqa_sft.training.eject import eject

    print(eject(recipe, rows=arguments.rows, overwrite=arguments.overwrite))
    return 0
