"""Offers a metric; the entry point is named as that of ledger-notes."""

from __future__ import annotations

from finqa_sft import hookimpl
from finqa_sft.options import NoOptions
from finqa_sft.plugins import MetricRecord


def build(options: NoOptions) -> object:
    return lambda predicted, gold: float(predicted == gold)


@hookimpl
def finqa_sft_metrics() -> list[MetricRecord]:
    return [MetricRecord(name="total", summary="equal totals", build=build)]
