"""Fitting prompts into a length by leaving out parts of the document, and nothing else."""
