"""Model factories: from a recipe section to a tokenizer and an adapted model."""
