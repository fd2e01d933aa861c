"""Two metrics of one name."""

from __future__ import annotations

from finqa_sft import hookimpl
from finqa_sft.plugins import MetricRecord


@hookimpl
def finqa_sft_metrics() -> list[MetricRecord]:
    return [
        MetricRecord(name="twin", summary="one", build=len),
        MetricRecord(name="twin", summary="the other", build=len),
    ]
