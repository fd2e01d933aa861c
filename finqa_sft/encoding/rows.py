"""What an encoded question is."""

from __future__ import annotations

from typing import TypedDict

IGNORED = -100
"""The label of tokens that the loss leaves out (PyTorch's `ignore_index`)."""


class EncodedRow(TypedDict):
    """One encoded question.

    Attributes:
        input_ids: Token ids of prompt and completion.
        labels: As long; the token id where it is supervised, -100 elsewhere.
        document: Id of the document, for collators that group by it.
    """

    input_ids: list[int]
    labels: list[int]
    document: str
