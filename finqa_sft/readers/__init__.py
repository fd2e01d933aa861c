"""Readers: from files to documents and questions."""
