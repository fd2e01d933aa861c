"""Offers a formatter, and needs a package that is not installed."""

from __future__ import annotations

import ledger_of_nowhere

from finqa_sft import hookimpl
from finqa_sft.plugins import FormatterRecord


@hookimpl
def finqa_sft_formatters() -> list[FormatterRecord]:
    return [FormatterRecord(name="gone", summary="gone", build=ledger_of_nowhere.build)]
