"""The official scores of FinQA, ConvFinQA and TAT-QA, and scores of plain answers."""

from __future__ import annotations

from finqa_sft.metrics.answer import AnswerScore, score_answer
from finqa_sft.metrics.finqa import FinQAScore, score_convfinqa, score_finqa
from finqa_sft.metrics.tatqa import TatQAScore, score_tatqa

__all__ = [
    "AnswerScore",
    "FinQAScore",
    "TatQAScore",
    "score_answer",
    "score_convfinqa",
    "score_finqa",
    "score_tatqa",
]
