"""Offers a metric, and a reader by a hook that asks for what it cannot have."""

from __future__ import annotations

from finqa_sft import hookimpl
from finqa_sft.options import NoOptions
from finqa_sft.plugins import MetricRecord, ReaderRecord


def build(options: NoOptions) -> object:
    return list


@hookimpl
def finqa_sft_metrics() -> list[MetricRecord]:
    return [MetricRecord(name="asked", summary="would be right by itself", build=build)]


@hookimpl
def finqa_sft_readers(recipe: object) -> list[ReaderRecord]:
    return [ReaderRecord(name="asks", summary="asks for the recipe", build=build)]
