"""Formatters: from questions to prompts and completions, and back to predictions."""
