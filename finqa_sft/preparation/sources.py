"""Reading a recipe's sources: bad rows, names that clash, questions that stand twice, weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from finqa_sft.documents import Document, Question
from finqa_sft.errors import DataError
from finqa_sft.preparation.counts import (
    DOCUMENT_RENAMED,
    STANDS_TWICE,
    TWO_ANSWERS,
    Counts,
    place,
)
from finqa_sft.preparation.mending import Mender
from finqa_sft.preparation.splits import held_out_groups
from finqa_sft.readers.base import BadRow
from finqa_sft.recipe import Recipe, Source

BAD_ROWS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Pool:
    """The questions of some sources.

    Attributes:
        questions: Mended, each as often as its source's weight says.
        as_read: All of them as they were read, each once, with ids that differ.
    """

    questions: list[Question]
    as_read: list[Question]


def read_sources(
    recipe: Recipe,
    sources: Sequence[Source],
    *,
    mender: Mender,
    counts: Counts,
    ids: set[str],
) -> Pool:
    """All questions of some sources.

    Args:
        recipe: What is done with bad rows, and which seed draws by weight.
        sources: Where the questions are.
        mender: Mends them.
        counts: Where to count what became of them.
        ids: The ids of questions that were read before; those of these are added.

    Raises:
        DataError: A source cannot be read or holds no question, or rows are bad and the recipe
            does not skip them.
    """
    pool = Pool([], [])
    documents: dict[str, Document] = {}
    asked: dict[object, Question] = {}
    for number, source in enumerate(sources, start=1):
        found = _read(recipe, source, number, counts)
        found = [_told_apart(question, documents, number, counts) for question in found]
        for question in found:
            _notice_twin(question, asked, counts)
        pool.as_read.extend(_with_own_id(question, ids, number) for question in found)
        mended = mender.mended(found)
        weight, seed = source.weight, recipe.data.split.seed
        pool.questions.extend(_weighted(mended, weight, seed=seed, counts=counts))
    return pool


def _read(recipe: Recipe, source: Source, number: int, counts: Counts) -> list[Question]:
    """The questions of one source; bad rows are refused or counted."""
    found: list[Question] = []
    bad: list[BadRow] = []
    with source.component.blamed():
        for item in source.build():
            match item:
                case Question():
                    found.append(item)
                case BadRow():
                    bad.append(item)
                case _:
                    raise TypeError(
                        f"a reader yields Question and BadRow, this one a {type(item).__name__}"
                    )
    if bad and recipe.data.bad_rows == "error":
        shown = "\n".join(f"  {row}" for row in bad[:BAD_ROWS_SHOWN])
        more = f"\n  and {len(bad) - BAD_ROWS_SHOWN} more" if len(bad) > BAD_ROWS_SHOWN else ""
        raise DataError(
            f"{len(bad)} of {len(bad) + len(found)} rows cannot be read:\n{shown}{more}\n"
            "Mend them, or leave such rows out with data.bad_rows=skip"
        )
    counts.read[f"{source.component.record.name} {number}"] += len(found)
    for row in bad:
        # Without the index in `table[3]`, which differs from row to row.
        field = re.sub(r"\[\d+\]", "[]", row.field)
        counts.note(counts.left_out, f"bad row: {field}", str(row))
    unanswered = next((question for question in found if not question.answer), None)
    if unanswered:
        raise DataError(
            f"{place(unanswered)} has no answer, so nothing could be learnt from it or compared "
            "with it; name the column of the answers; `finqa-sft predict` asks such questions"
        )
    if not found:
        cause = f"all {len(bad)} rows are bad, first {bad[0]}" if bad else "it has no rows"
        raise DataError(
            f"source {number} ({source.component.record.name}) holds no question that can be "
            f"read: {cause}; mend it, or take it out of the recipe"
        )
    return found


def _told_apart(
    question: Question, documents: dict[str, Document], number: int, counts: Counts
) -> Question:
    """The question, its document renamed where another source has another page of that name."""
    document = question.document
    if documents.setdefault(document.id, document).blocks == document.blocks:
        return question
    name = f"{number}/{document.id}"
    counts.changed[DOCUMENT_RENAMED] += name not in documents
    return replace(question, document=documents.setdefault(name, replace(document, id=name)))


def _with_own_id(question: Question, ids: set[str], number: int) -> Question:
    """The question, renamed where another source has one of its id: answers are told by ids."""
    id = question.id
    while id in ids:
        id = f"{number}/{id}"
    ids.add(id)
    return question if id == question.id else replace(question, id=id)


def _notice_twin(question: Question, asked: dict[object, Question], counts: Counts) -> None:
    """Count a question that was asked before of the same page, at the same point of the talk."""
    first = asked.setdefault((question.text, question.history, question.document.blocks), question)
    if first is not question:
        same = (first.answer, first.scale) == (question.answer, question.scale)
        reason = STANDS_TWICE if same else TWO_ANSWERS
        counts.note(counts.noticed, reason, f"{place(first)} and {place(question)}")


def _weighted(
    questions: list[Question], weight: float, *, seed: int, counts: Counts
) -> list[Question]:
    """Each question as often as the weight's whole part; documents drawn for its fraction."""
    whole, fraction = divmod(weight, 1)
    ids = {question.document.id for question in questions}
    drawn = held_out_groups(ids, share=fraction, seed=seed)
    if not whole and not drawn:
        # A single document cannot be halved.
        drawn = ids
    chosen = [question for question in questions if question.document.id in drawn]
    if not whole:
        counts.left_out[f"not drawn: weight {weight}"] += len(questions) - len(chosen)
    return questions * int(whole) + chosen
