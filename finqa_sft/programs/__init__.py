"""FinQA's program language: parse and execute."""
