from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.collators.padded import PaddedCollator
from finqa_sft.encoding import IGNORED, EncodedRow

rows = st.lists(
    st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=9).map(
        lambda tokens: EncodedRow(
            input_ids=[token for token, _ in tokens],
            labels=[token if learnt else IGNORED for token, learnt in tokens],
            document="d",
        )
    ),
    min_size=1,
    max_size=4,
)


@given(rows, st.sampled_from([None, 1, 8]))
def test_padding_is_neither_attended_to_nor_supervised(
    batch: list[EncodedRow], multiple: int | None
) -> None:
    made = PaddedCollator(0, pad_to_multiple_of=multiple)(batch)
    assert set(made) == {"input_ids", "attention_mask", "labels"}
    longest = max(len(row["input_ids"]) for row in batch)
    width = made["input_ids"].shape[1]
    assert width % (multiple or 1) == 0
    assert longest <= width < longest + (multiple or 1)
    for index, row in enumerate(batch):
        length = len(row["input_ids"])
        assert made["input_ids"][index].tolist() == row["input_ids"] + [0] * (width - length)
        assert made["labels"][index].tolist() == row["labels"] + [IGNORED] * (width - length)
        assert made["attention_mask"][index].tolist() == [1] * length + [0] * (width - length)
    assert all(tensor.dtype == torch.int64 for tensor in made.values())
