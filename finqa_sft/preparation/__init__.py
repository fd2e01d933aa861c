"""From a recipe's sources to encoded rows: read, clean, split, fit, encode, and count."""
