"""A hook that returns nothing."""

from __future__ import annotations

from finqa_sft import hookimpl


@hookimpl
def finqa_sft_metrics() -> None:
    pass
