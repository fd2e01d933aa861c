"""A hook that returns names, not records."""

from __future__ import annotations

from finqa_sft import hookimpl


@hookimpl
def finqa_sft_metrics() -> list[str]:
    return ["ratio"]
