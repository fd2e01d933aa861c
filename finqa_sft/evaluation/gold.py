"""Gold questions from a file: which reader it is for, and all of its rows or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finqa_sft.documents import Question
from finqa_sft.errors import DataError
from finqa_sft.plugins.records import ReaderRecord
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.csv_files import DELIMITERS
from finqa_sft.readers.json_files import JSON_LINES, json_rows, opened_json
from finqa_sft.readers.layouts import layout_of
from finqa_sft.readers.values import kind
from finqa_sft.recipe.resolved import Chosen

BAD_ROWS_SHOWN = 20

_KEYS_SHOWN = 10


def reader_of(path: Path) -> str:
    """The name of the reader whose layout a file has, as its suffix and its first row say.

    Raises:
        DataError: The file cannot be read, or its first row has no known layout.
    """
    suffix = path.suffix.lower()
    if suffix in (*DELIMITERS, ".parquet"):
        return "columns"
    if suffix not in JSON_LINES and opened_json(path).peek() == "{":
        # Of all layouts, only ConvFinQA's has files that are objects of lists.
        return "convfinqa"
    first = next(iter(json_rows(path)))
    layout = layout_of(first) if isinstance(first, dict) else None
    if layout is None:
        keys = ", ".join(map(repr, list(first)[:_KEYS_SHOWN])) if isinstance(first, dict) else ""
        found = f"has the keys {keys}" if keys else f"is {kind(first)}"
        raise DataError(
            f"{path}: row 1 {found}, as in no known data set; name the reader with --reader, for "
            "columns of your own --reader columns question=NAME answer=NAME context=NAME"
        )
    return layout.reader


def read_gold(reader: Chosen[ReaderRecord]) -> list[Question]:
    """All questions that a reader yields.

    Raises:
        DataError: Nothing can be read, or a row cannot: a score over the rest would be another one.
    """
    questions: list[Question] = []
    bad: list[BadRow] = []
    source = reader.build()
    with reader.component.blamed():
        for item in source:
            if isinstance(item, Question):
                questions.append(item)
            else:
                bad.append(item)
    if bad:
        shown = "\n".join(f"  {row}" for row in bad[:BAD_ROWS_SHOWN])
        more = f"\n  and {len(bad) - BAD_ROWS_SHOWN} more" if len(bad) > BAD_ROWS_SHOWN else ""
        raise DataError(
            f"{len(bad)} of {len(bad) + len(questions)} gold rows cannot be read:\n{shown}{more}\n"
            "Mend them; a score without them would not be comparable"
        )
    if not questions:
        raise DataError("the gold file has no questions; is it the right one?")
    return questions


def require_answers(questions: Sequence[Question]) -> None:
    """Refuse questions without answers: nothing can be compared with them.

    Raises:
        DataError: Names the first.
    """
    unanswered = [question for question in questions if not question.answer]
    if unanswered:
        first = unanswered[0]
        raise DataError(
            f"{first.source or first.id} has no answer to compare with, as {len(unanswered)} of "
            f"{len(questions)} questions; name the column of the answers"
        )
