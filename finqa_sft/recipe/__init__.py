"""Recipes: one YAML file is one training run.

A recipe is read (`yaml_loader`), overridden (`overrides`), checked against its sections (`schema`),
the options of the components that it names and the fields of the installed trainer
(`trainer_fields`), and comes out of `resolve` as a frozen `Recipe` (`resolved`), or as one error
that lists all that is wrong with it (`problems`). Nothing here imports torch.
"""

from __future__ import annotations

from finqa_sft.recipe.json_schema import json_schema
from finqa_sft.recipe.raw import RawRecipe, read_recipe
from finqa_sft.recipe.resolve import load_recipe, resolve_recipe
from finqa_sft.recipe.resolved import Chosen, Output, Recipe, Source, Value
from finqa_sft.recipe.schema import Registry
from finqa_sft.recipe.shipped import find_recipe, shipped_recipes

__all__ = [
    "Chosen",
    "Output",
    "RawRecipe",
    "Recipe",
    "Registry",
    "Source",
    "Value",
    "find_recipe",
    "json_schema",
    "load_recipe",
    "read_recipe",
    "resolve_recipe",
    "shipped_recipes",
]
