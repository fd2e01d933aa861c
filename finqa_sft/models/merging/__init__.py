"""Putting an adapter into its base: an ordinary model that transformers loads by itself."""
