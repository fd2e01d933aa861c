"""Offers a formatter of the same name as that of ledger-notes."""

from __future__ import annotations

from finqa_sft import AnswerFormatter, AnswerOptions, hookimpl
from finqa_sft.plugins import FormatterRecord


@hookimpl
def finqa_sft_formatters() -> list[FormatterRecord]:
    return [
        FormatterRecord(
            name="boxed", summary="no box at all", config=AnswerOptions, build=AnswerFormatter
        )
    ]
