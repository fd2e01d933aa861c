"""Evaluation: ask a trained model, score what it says, and show it to a person."""
