"""One training run: from a resolved recipe to a saved adapter."""
