"""Mending what is known to be broken in financial documents and their labels, and counting it."""
