"""What a reader is: something iterable that yields questions and names the rows it cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from finqa_sft.documents import Question


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot become a question.

    Attributes:
        source: File and row, as `train.json row 17` (rows count from 1).
        field: The field at fault, as `qa.question`.
        problem: What is wrong with it and what is expected instead.
    """

    source: str
    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.source}, field {self.field!r}: {self.problem}"


class Reader(Protocol):
    """Yields the questions of one source, in file order.

    Questions of one document carry equal `Document` objects. A row that cannot be read is yielded
    as a `BadRow`; what to do about it is the caller's choice. A source that cannot be read at all
    raises.

    Raises:
        DataError: The file is missing, empty, not in the expected format, or not text.
    """

    def __iter__(self) -> Iterator[Question | BadRow]:
        """Read the source from its beginning; may be called several times."""
        ...
