"""What a process is given at a time, counted in rows as collators arrange them."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.collators.shared_context import SharedContextCollator
from finqa_sft.encoding import IGNORED
from finqa_sft.preparation.rows import ASSUMED, Rows, Shares, longest_of, shares_of


def encoded(ids: list[int], learnt: int, document: str) -> dict[str, Any]:
    labels = [IGNORED] * (len(ids) - learnt) + ids[len(ids) - learnt :]
    return {"input_ids": ids, "labels": labels, "document": document}


LENGTHS = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=30
)  # fmt: skip


@given(lengths=LENGTHS)
def test_shares_are_the_most_in_any_row(lengths: list[tuple[int, int]]) -> None:
    rows = [
        encoded(list(range(tokens)), min(learnt, tokens), str(n))
        for n, (tokens, learnt) in enumerate(lengths)
    ]
    found = shares_of(Dataset.from_list(rows))
    assert found.source == "data"
    assert found.paths == 1.0
    assert found.supervised == max(min(learnt, tokens) / tokens for tokens, learnt in lengths)
    assert longest_of(Dataset.from_list(rows)) == max(tokens for tokens, _ in lengths)


def test_paths_of_shared_context_are_counted_with_what_they_share() -> None:
    page = list(range(100, 160))
    rows = [encoded([*page, n, n + 10, n + 20], 1, "page") for n in range(5)]
    arranged = SharedContextCollator(tokens_per_batch=256).arrange(Dataset.from_list(rows))
    assert len(arranged) == 1
    # The page once and three tokens of each question; five paths of a whole row.
    tokens, paths = 60 + 5 * 3, 5 * 63
    found = shares_of(arranged)
    assert found == Shares(supervised=5 / tokens, paths=paths / tokens, source="data")
    batch = Rows("shared_context", tokens, 63).batch(found)
    assert (batch.tokens, batch.supervised, batch.paths) == (tokens, 5, paths)


def test_rows_without_labels_are_taken_for_any() -> None:
    assert shares_of(Dataset.from_dict({"input_ids": [[1, 2]]})) == ASSUMED


@pytest.mark.parametrize(
    ("kind", "size", "tokens", "mask"),
    [
        ("padded", 1, 10, 0),
        ("padded", 3, 30, 300),
        ("flattened", 1, 10, 0),
        ("flattened", 3, 30, 900),
        ("shared_context", 30, 30, 0),
    ],
)
def test_only_rows_that_stand_together_need_a_mask(
    kind: Any, size: int, tokens: int, mask: int
) -> None:
    batch = Rows(kind, size, 10).batch(Shares(0.5, 2.0, "data"))
    assert (batch.tokens, batch.longest, batch.mask) == (tokens, 10, mask)
    assert batch.supervised == tokens // 2
    assert batch.paths == (2 * tokens if kind == "shared_context" else None)
