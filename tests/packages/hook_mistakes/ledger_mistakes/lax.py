"""Options that swallow what is misspelt, though not at the first level."""

from __future__ import annotations

from pydantic import BaseModel

from finqa_sft import hookimpl
from finqa_sft.options import Options
from finqa_sft.plugins import MetricRecord


class Rounding(BaseModel):
    digits: int = 2


class LaxOptions(Options):
    rounding: tuple[Rounding, ...] = ()


@hookimpl
def finqa_sft_metrics() -> list[MetricRecord]:
    return [MetricRecord(name="lax", summary="lax", config=LaxOptions, build=len)]
