"""Offers a formatter named like a built-in one."""

from __future__ import annotations

from finqa_sft import AnswerFormatter, AnswerOptions, hookimpl
from finqa_sft.plugins import FormatterRecord


@hookimpl
def finqa_sft_formatters() -> list[FormatterRecord]:
    return [
        FormatterRecord(
            name="answer", summary="another answer", config=AnswerOptions, build=AnswerFormatter
        )
    ]
