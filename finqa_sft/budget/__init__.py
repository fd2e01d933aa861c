"""Fitting prompts into a length by leaving out parts of the document, and nothing else."""

from finqa_sft.budget.fit import Cut, Fitted, fit_question, fit_questions
from finqa_sft.budget.parts import MARKER, Part, bare_document

__all__ = ["MARKER", "Cut", "Fitted", "Part", "bare_document", "fit_question", "fit_questions"]
