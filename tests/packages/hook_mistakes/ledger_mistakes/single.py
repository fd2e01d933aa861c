"""A hook that returns a record, not a list."""

from __future__ import annotations

from finqa_sft import hookimpl
from finqa_sft.plugins import MetricRecord


@hookimpl
def finqa_sft_metrics() -> MetricRecord:
    return MetricRecord(name="single", summary="single", build=len)
