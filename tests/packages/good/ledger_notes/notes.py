"""The reader `notes`.

A file holds notes with an empty line between them. The first line of a note is its title, the
lines that begin with `Q:` and `A:` are questions and their answers, the others are its text:

    ACME 2024
    Revenue was $ 5 million, costs were $ 3 million.
    Q: What was revenue?
    A: $ 5 million
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finqa_sft.documents import Document, Paragraph, Question
from finqa_sft.errors import DataError
from finqa_sft.options import Options, RecipePath
from finqa_sft.readers.base import BadRow


class NotesOptions(Options):
    """Options of the reader `notes`."""

    file: RecipePath
    """The file of notes."""


class NotesReader:
    """Reads notes, each a document with its questions."""

    def __init__(self, options: NotesOptions) -> None:
        self._path = options.file

    def __iter__(self) -> Iterator[Question | BadRow]:
        if not self._path.is_file():
            raise DataError(f"{self._path}: no such file of notes")
        notes = self._path.read_text(encoding="utf-8").strip().split("\n\n")
        for number, note in enumerate(notes, start=1):
            yield from _questions(note, source=f"{Path(self._path).name} note {number}")


def _questions(note: str, *, source: str) -> Iterator[Question | BadRow]:
    """The questions of one note."""
    title, *lines = note.strip().splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("Q:", "A:")))
    document = Document(id=title, blocks=(Paragraph(text),))
    asked = [line[2:].strip() for line in lines if line.startswith("Q:")]
    answers = [line[2:].strip() for line in lines if line.startswith("A:")]
    if len(asked) != len(answers):
        yield BadRow(source, "A:", f"{len(asked)} questions, but {len(answers)} answers")
        return
    for number, (question, answer) in enumerate(zip(asked, answers, strict=True), start=1):
        yield Question(
            id=f"{title}/{number}", text=question, document=document, answer=answer, source=source
        )
