"""A hook without its mark."""

from __future__ import annotations

from finqa_sft.plugins import MetricRecord


def finqa_sft_metrics() -> list[MetricRecord]:
    return [MetricRecord(name="unmarked", summary="unmarked", build=len)]
