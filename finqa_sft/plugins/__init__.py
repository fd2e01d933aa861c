"""The plugin layer: hook specifications, the records that hooks return, and the manager."""

from __future__ import annotations

from finqa_sft.plugins.hookspecs import hookimpl
from finqa_sft.plugins.records import (
    CallbackRecord,
    CollatorRecord,
    FormatterRecord,
    MetricRecord,
    ModelFactoryRecord,
    ReaderRecord,
)

__all__ = [
    "CallbackRecord",
    "CollatorRecord",
    "FormatterRecord",
    "MetricRecord",
    "ModelFactoryRecord",
    "ReaderRecord",
    "hookimpl",
]
