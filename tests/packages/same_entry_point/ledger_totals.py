"""Offers a metric; the entry point is named as that of ledger-notes."""

from __future__ import annotations

from finqa_sft import hookimpl
from finqa_sft.documents import Question
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.base import Figure, Score
from finqa_sft.options import NoOptions
from finqa_sft.plugins import MetricRecord


class Total:
    figures = (Figure("equal", "the answer is the gold one, letter by letter"),)

    def applies(self, question: Question) -> bool:
        return True

    def score(self, question: Question, prediction: Prediction) -> Score:
        return Score({"equal": float(prediction.answer == question.answer)})


def build(options: NoOptions) -> Total:
    return Total()


@hookimpl
def finqa_sft_metrics() -> list[MetricRecord]:
    return [MetricRecord(name="total", summary="equal totals", build=build)]
