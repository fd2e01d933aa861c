"""Formatters: from questions to prompts and completions, and from completions back to predictions."""
