"""What preparation gives: the questions of each side, with their encoded rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from finqa_sft.documents import Question
from finqa_sft.encoding import IGNORED, EncodedRow
from finqa_sft.formatters.base import Message
from finqa_sft.preparation.counts import Counts

if TYPE_CHECKING:
    from datasets import Dataset

ROW_COLUMNS = ["input_ids", "labels", "document"]
"""The columns that collators are given."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its messages, the document cut to what fits.

    Attributes:
        question: The question, cleaned.
        prompt: The messages up to the answer, as they were encoded.
        completion: The message that is taught.
        row: Their ids and labels.
        left_out: The parts of the document that the prompt does not show, in reading order.
    """

    question: Question
    prompt: list[Message]
    completion: list[Message]
    row: EncodedRow
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A question that is not taught, and why."""

    question: Question
    reason: str


@dataclass(frozen=True)
class Part:
    """One side of the split, encoded.

    Attributes:
        questions: The questions that are kept, one a row.
        encoded: Their rows, with messages and cuts, as `finqa_sft.preparation.pages` makes them.
        dropped: The questions that were left out here.
    """

    questions: Sequence[Question]
    encoded: Dataset
    dropped: Sequence[Dropped] = ()

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.questions)

    @property
    def rows(self) -> Dataset:
        """Ids and labels: int32 lists of equal length, and the document's id."""
        return self.encoded.select_columns(ROW_COLUMNS)

    def example(self, index: int) -> Example:
        """The question of one row with its messages."""
        stored = self.encoded[index]
        return Example(
            question=self.questions[index],
            prompt=json.loads(stored["prompt"]),
            completion=json.loads(stored["completion"]),
            row={
                "input_ids": stored["input_ids"],
                "labels": stored["labels"],
                "document": stored["document"],
            },
            left_out=tuple(json.loads(stored["cut"])["left_out"]) if stored["cut"] else (),
        )

    @property
    def examples(self) -> Iterator[Example]:
        """The questions with their messages, in the order of the rows."""
        return map(self.example, range(len(self.questions)))

    @cached_property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Tokens of each row."""
        return np.fromiter((len(row) for row in self._column("input_ids")), np.int64)

    @cached_property
    def supervised(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Supervised tokens of each row."""
        return np.fromiter((np.sum(row != IGNORED) for row in self._column("labels")), np.int64)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Counts of questions, documents and tokens."""
        tokens, supervised = int(self.lengths.sum()), int(self.supervised.sum())
        return {
            "questions": len(self.questions),
            "documents": len({question.document.id for question in self.questions}),
            "tokens": tokens,
            "longest": int(self.lengths.max(initial=0)),
            "longest_answer": int(self.supervised.max(initial=0)),
            "supervised_tokens": supervised,
            "supervised_share": supervised / max(tokens, 1),
        }

    def digest(self) -> bytes:
        """A hash of all rows in order."""
        hashed = hashlib.sha256()
        for ids, labels in zip(self._column("input_ids"), self._column("labels"), strict=True):
            hashed.update(ids.tobytes())
            hashed.update(labels.tobytes())
        return hashed.digest()

    def _column(self, name: str) -> Iterator[np.ndarray[Any, np.dtype[np.int32]]]:
        """The arrays of one column, in the order of the rows."""
        for batch in self.encoded.select_columns([name]).with_format("numpy").iter(1000):
            yield from (np.asarray(row, np.int32) for row in batch[name])


@dataclass(frozen=True)
class PreparedData:
    """Everything that training reads.

    Attributes:
        training: The rows to train on.
        held_out: The rows to evaluate on; may be empty.
        gold: The held-out questions as they were read, none mended or left out: what answers are
            scored against.
        counts: What became of the rows.
    """

    training: Part
    held_out: Part
    counts: Counts
    gold: Sequence[Question] = ()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all training rows in order; equal where a resumed run reads the same data."""
        return self.training.digest().hex()[:16]
