"""Rows that collators are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, islice
from typing import Any

from finqa_sft.encoding import IGNORED, EncodedRow


def example_rows(*, without: int | None = None, ending: int | None = None) -> list[EncodedRow]:
    """Rows of three documents, mixed; the rows of a document begin with the same tokens.

    Ids are from 10 to 127. But for what the rows of a document share, no id stands twice.

    Args:
        without: An id that stands nowhere.
        ending: What the first row is taught to end with.
    """
    fresh = (token for token in count(10) if token != without)
    pages = {name: list(islice(fresh, length)) for name, length in (("a", 9), ("b", 4), ("c", 0))}
    rows: list[EncodedRow] = []
    # Of each row: its document, its tokens in spans, and which of the spans are learnt.
    for page, spans, learnt in (
        ("a", (3, 2), (False, True)),
        ("b", (5, 7), (False, True)),
        ("a", (2, 1), (False, True)),
        ("c", (1,), (False,)),
        ("b", (2, 3, 2, 4), (False, True, False, True)),
        ("a", (4,), (False,)),
    ):
        tokens = list(pages[page])
        labels = [IGNORED] * len(tokens)
        for length, supervised in zip(spans, learnt, strict=True):
            span = list(islice(fresh, length))
            tokens += span
            labels += span if supervised else [IGNORED] * length
        rows.append({"input_ids": tokens, "labels": labels, "document": page})
    if ending is not None:
        rows[0]["input_ids"][-1] = rows[0]["labels"][-1] = ending
    return rows


def filler_of(rows: Sequence[EncodedRow], batch: Mapping[str, Any]) -> int | None:
    """The id that a batch is padded with, if it is."""
    own = {token for row in rows for token in row["input_ids"]}
    others = set(batch["input_ids"].flatten().tolist()) - own
    return min(others, default=None)
