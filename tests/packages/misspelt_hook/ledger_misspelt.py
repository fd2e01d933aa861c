"""Offers a metric, and a reader by a hook that does not exist."""

from __future__ import annotations

from finqa_sft import hookimpl
from finqa_sft.options import NoOptions
from finqa_sft.plugins import MetricRecord, ReaderRecord


def build(options: NoOptions) -> object:
    return list


@hookimpl
def finqa_sft_metrics() -> list[MetricRecord]:
    return [MetricRecord(name="spelt", summary="would be right by itself", build=build)]


@hookimpl
def finqa_sft_reader() -> list[ReaderRecord]:
    return [ReaderRecord(name="misspelt", summary="misspelt", build=build)]
