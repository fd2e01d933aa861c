"""The official scores of FinQA, ConvFinQA and TAT-QA, and scores of plain answers."""
