"""The layouts of known data sets, told apart by the keys of their rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a data set look.

    Attributes:
        key: A key that its rows have.
        name: The data set.
        reader: The reader for it.
    """

    key: str
    name: str
    reader: str


LAYOUTS = (
    Layout("annotation", "ConvFinQA", "convfinqa"),
    Layout("dialogue", "ConvFinQA", "convfinqa"),
    Layout("qa", "FinQA", "finqa"),
    Layout("paragraphs", "TAT-QA", "tatqa"),
    Layout("financebench_id", "FinanceBench", "financebench"),
    Layout("question", "plain columns", "columns"),
)
"""All known layouts; a row that has several of the keys is of the first: ConvFinQA's rows may have
`qa` too."""


def layout_of(keys: Iterable[str]) -> Layout | None:
    """The layout that a row with these keys has, if it is a known one."""
    present = set(keys)
    return next((layout for layout in LAYOUTS if layout.key in present), None)


def is_conversation(row: object) -> bool:
    """Whether a row looks like one of ConvFinQA's, whose files may be objects of lists."""
    layout = layout_of(row) if isinstance(row, dict) else None
    return layout is not None and layout.reader == "convfinqa"
