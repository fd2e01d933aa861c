"""`finqa-sft show RECIPE [key.path=value ...]` and `finqa-sft show --schema`."""

from __future__ import annotations

import argparse
import json

from rich.text import Text

from finqa_sft.cli.common import load_plugins, load_recipe, print_rows
from finqa_sft.errors import RecipeError
from finqa_sft.recipe import Value, json_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    parser.add_argument("recipe", nargs="?", help="a YAML file, or the name of a shipped recipe")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of recipes")
    parser.add_argument(
        "--set", action="store_true", help="only what the recipe or an override sets"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print values with their origins, or the schema."""
    if arguments.schema:
        print(json.dumps(json_schema(load_plugins()), indent=2, ensure_ascii=False))
        return 0
    if arguments.recipe is None:
        raise RecipeError("show needs a recipe, or --schema")
    recipe, _ = load_recipe(arguments)
    rows = []
    for value in recipe.values():
        if not (arguments.set and value.origin == "default"):
            style = "dim" if value.origin == "default" else ""
            rows.append([Text(t, style) for t in (value.path, _shown(value), _origin(value))])
    print_rows(rows)
    return 0


def _shown(value: Value) -> str:
    """The value as it would stand in the recipe."""
    if isinstance(value.value, str):
        return value.value
    return json.dumps(value.value, ensure_ascii=False, default=str)


def _origin(value: Value) -> str:
    return f"recipe, line {value.line}" if value.line is not None else value.origin
