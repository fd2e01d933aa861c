"""`finqa-sft show RECIPE [key.path=value ...]` and `finqa-sft show --schema`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.text import Text

from finqa_sft.cli.common import load_plugins, load_recipe, print_rows
from finqa_sft.errors import RecipeError
from finqa_sft.recipe import Value, json_schema
from finqa_sft.training.arguments import BY_DEVICE, run_defaults


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
    evaluates = bool(recipe.data.split.held_out or recipe.evaluation_sources)
    defaults = run_defaults(evaluates=evaluates)
    by_run = {f"trainer.{name}": value for name, value in defaults.items()}
    rows = []
    for value in recipe.values():
        shown, origin = _shown(value.value), _origin(value)
        if value.origin == "default":
            if arguments.set:
                continue
            if value.path in by_run:
                shown, origin = _shown(by_run[value.path]), "run"
            elif value.path.removeprefix("trainer.") in BY_DEVICE:
                shown, origin = "", "as the device needs it"
        style = "dim" if origin == "default" else ""
        rows.append([Text(text, style) for text in (value.path, shown, origin)])
    print_rows(rows)
    return 0


def _shown(value: Any) -> str:
    """The value as it would stand in the recipe."""
    if isinstance(value, str) and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _origin(value: Value) -> str:
    return f"recipe, line {value.line}" if value.line is not None else value.origin
