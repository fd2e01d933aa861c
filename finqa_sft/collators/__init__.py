"""Collators: from encoded rows to batches."""
