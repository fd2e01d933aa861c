"""Recipes: one YAML file, one training run. Nothing here imports torch."""
