"""An option that stands where recipes have a key of their own."""

from __future__ import annotations

from finqa_sft import hookimpl
from finqa_sft.options import Options
from finqa_sft.plugins import ReaderRecord


class WeightOptions(Options):
    weight: str = "kg"


@hookimpl
def finqa_sft_readers() -> list[ReaderRecord]:
    return [ReaderRecord(name="scales", summary="weighs", config=WeightOptions, build=list)]
