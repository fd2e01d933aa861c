"""From a recipe's sources to encoded rows: read, mix, split, format, fit, encode, and count."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finqa_sft.documents import Document, Question
from finqa_sft.encoding import IGNORED, EncodedRow, Encoder
from finqa_sft.errors import DataError
from finqa_sft.formatters.base import Formatter, Message
from finqa_sft.formatters.budget import bare_document, fit_document
from finqa_sft.formatters.linearize import document_text
from finqa_sft.readers.base import BadRow
from finqa_sft.recipe import Recipe, Source
from finqa_sft.training.splits import document_groups, held_out_groups, refuse_leaks

if TYPE_CHECKING:
    from datasets import Dataset

BAD_ROWS_SHOWN = 20
PLACES_KEPT = 20
SECONDS_BETWEEN_REPORTS = 10.0
TOO_LONG = "longer than formatter.max_length without any paragraph or table row"
NO_DOCUMENT = "nothing of its document fits into formatter.max_length"
TAKEN_APART = "control token of the tokenizer in the text, taken apart"
STANDS_TWICE = "question that stands twice"
TWO_ANSWERS = "one question with different answers"


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its messages, the document cut to what fits."""

    question: Question
    prompt: list[Message]
    completion: list[Message]


@dataclass
class Counts:
    """What became of the rows, by reason.

    Attributes:
        read: Rows read, by source.
        left_out: Rows left out, by reason.
        changed: Documents changed, by what was done.
        noticed: Questions trained on as they are that look like a mistake, by what is odd.
        places: Where the first cases of a reason are: file and row, and what is wrong there.
    """

    read: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def note(self, counter: Counter[str], reason: str, place: str) -> None:
        """Count a case, and keep its place if it is among the first."""
        counter[reason] += 1
        places = self.places.setdefault(reason, [])
        if len(places) < PLACES_KEPT:
            places.append(place)


@dataclass(frozen=True)
class Part:
    """One side of the split, encoded.

    Attributes:
        examples: Questions and messages, in the order of the rows.
        rows: Their ids and labels.
    """

    examples: list[Example]
    rows: list[EncodedRow]

    def dataset(self) -> Dataset:
        """The rows as a `datasets.Dataset` with int32 columns."""
        from datasets import Dataset, Features, List, Value

        features = Features(
            {
                "input_ids": List(Value("int32")),
                "labels": List(Value("int32")),
                "document": Value("string"),
            }
        )
        return Dataset.from_list([dict(row) for row in self.rows], features=features)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Counts of questions, documents and tokens."""
        lengths = [len(row["input_ids"]) for row in self.rows]
        supervised = sum(label != IGNORED for row in self.rows for label in row["labels"])
        return {
            "questions": len(self.rows),
            "documents": len({row["document"] for row in self.rows}),
            "tokens": sum(lengths),
            "longest": max(lengths, default=0),
            "supervised_tokens": supervised,
            "supervised_share": supervised / max(sum(lengths), 1),
        }


@dataclass(frozen=True)
class PreparedData:
    """Everything that training reads.

    Attributes:
        training: The rows to train on.
        held_out: The rows to evaluate on; may be empty.
        counts: What became of the rows.
    """

    training: Part
    held_out: Part
    counts: Counts

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all training rows in order; equal where a resumed run reads the same data."""
        digest = hashlib.sha256()
        for row in self.training.rows:
            digest.update(repr((row["input_ids"], row["labels"])).encode())
        return digest.hexdigest()[:16]


def prepare_data(
    recipe: Recipe,
    *,
    encoder: Encoder,
    formatter: Formatter,
    say: Callable[[str], None] | None = None,
) -> PreparedData:
    """Read, mix, split and encode what a recipe names.

    Args:
        recipe: The resolved recipe.
        encoder: Encodes with the base's tokenizer.
        formatter: The recipe's formatter.
        say: Is told every few seconds how far the work is.

    Raises:
        DataError: A source cannot be read, rows are bad and the recipe does not skip them, a
            document stands on both sides, or nothing is left to train on.
    """
    counts = Counts()
    pool = _read(recipe, recipe.sources, counts)
    training, held_out = _split(recipe, pool)
    held_out += _read(recipe, recipe.evaluation_sources, counts)
    refuse_leaks(training, held_out)

    report = _Report(len(training) + len(held_out), say)
    pages = _Pages(recipe.max_length, encoder, formatter, counts, report)
    data = PreparedData(pages.part(training), pages.part(held_out), counts)
    if not any(label != IGNORED for row in data.training.rows for label in row["labels"]):
        reasons = "; ".join(f"{reason}: {n}" for reason, n in counts.left_out.items() if n)
        short = counts.left_out[TOO_LONG] + counts.left_out[NO_DOCUMENT]
        raise DataError(
            f"no token is left to train on: of {counts.read.total()} questions read, "
            f"{len(data.training.rows)} remain ({reasons or 'none was left out'})"
            + ("; raise formatter.max_length" if short else "")
        )
    return data


def _read(recipe: Recipe, sources: Sequence[Source], counts: Counts) -> list[Question]:
    """All questions of some sources, each as often as its weight says."""
    questions: list[Question] = []
    documents: dict[str, Document] = {}
    asked: dict[object, Question] = {}
    for number, source in enumerate(sources, start=1):
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
        if bad and recipe.bad_rows == "error":
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
        if not found:
            cause = f"all {len(bad)} rows are bad, first {bad[0]}" if bad else "it has no rows"
            raise DataError(
                f"source {number} ({source.component.record.name}) holds no question that can be "
                f"read: {cause}; mend it, or take it out of the recipe"
            )
        found = [_told_apart(question, documents, number, counts) for question in found]
        for question in found:
            _notice_twin(question, asked, counts)
        questions += _weighted(found, source.weight, seed=recipe.split.seed, counts=counts)
    return questions


def _told_apart(
    question: Question, documents: dict[str, Document], number: int, counts: Counts
) -> Question:
    """The question, its document renamed where another source has another page of that name."""
    document = question.document
    if documents.setdefault(document.id, document).blocks == document.blocks:
        return question
    name = f"{number}/{document.id}"
    counts.changed["document renamed, as another source has one of its name"] += (
        name not in documents
    )
    return replace(question, document=documents.setdefault(name, replace(document, id=name)))


def _notice_twin(question: Question, asked: dict[object, Question], counts: Counts) -> None:
    """Count a question that was asked before of the same page, at the same point of the talk."""
    first = asked.setdefault((question.text, question.history, question.document.blocks), question)
    if first is not question:
        same = (first.answer, first.scale) == (question.answer, question.scale)
        reason = STANDS_TWICE if same else TWO_ANSWERS
        counts.note(counts.noticed, reason, f"{_place(first)} and {_place(question)}")


def _place(question: Question) -> str:
    """Where a question stands, for a person who looks for it."""
    return question.source or f"question {question.id!r}"


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


def _split(recipe: Recipe, pool: list[Question]) -> tuple[list[Question], list[Question]]:
    """Training and held-out questions, divided between documents."""
    if not recipe.split.held_out:
        return pool, []
    groups = document_groups(pool, by=recipe.split.by)
    if len(set(groups.values())) < 2:
        raise DataError(
            f"data.split.held_out is {recipe.split.held_out}, but all questions belong to one "
            f"{recipe.split.by}: nothing could be held out without its twin in training; set "
            "data.split.held_out=0 or name other files under evaluation.sources"
        )
    chosen = held_out_groups(groups.values(), share=recipe.split.held_out, seed=recipe.split.seed)
    training = [q for q in pool if groups[q.document.id] not in chosen]
    held_out = {id(q): q for q in pool if groups[q.document.id] in chosen}
    return training, list(held_out.values())


class _Report:
    """Says now and then how many questions are encoded."""

    def __init__(self, total: int, say: Callable[[str], None] | None) -> None:
        self._total = total
        self._say = say
        self._done = 0
        self._said = time.monotonic()

    def add(self, questions: int) -> None:
        """Note further questions as done."""
        self._done += questions
        now = time.monotonic()
        if self._say and now - self._said >= SECONDS_BETWEEN_REPORTS:
            self._said = now
            self._say(f"encoded {self._done} of {self._total} questions")


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A question that fits with what is shown of its document."""

    example: Example
    row: EncodedRow
    taken_apart: bool


class _Pages:
    """Formats and encodes questions; a document too long for one of them is cut alike for all."""

    def __init__(
        self,
        max_length: int,
        encoder: Encoder,
        formatter: Formatter,
        counts: Counts,
        report: _Report,
    ) -> None:
        self._max_length = max_length
        self._encoder = encoder
        self._formatter = formatter
        self._counts = counts
        self._report = report

    def part(self, questions: Sequence[Question]) -> Part:
        """The questions that can be taught, in their order."""
        by_document: dict[str, list[Question]] = {}
        for question in questions:
            by_document.setdefault(question.document.id, []).append(question)
        fitted: dict[int, _Fitted] = {}
        for asked in by_document.values():
            fitted |= self._page(asked)
            self._report.add(len(asked))
        kept = [fitted[id(question)] for question in questions if id(question) in fitted]
        return Part([one.example for one in kept], [one.row for one in kept])

    def _page(self, asked: Sequence[Question]) -> dict[int, _Fitted]:
        """The questions of one document that fit, by the id of their object."""
        tried: dict[tuple[int, Document], _Fitted | None] = {}

        def fitted(question: Question, document: Document) -> _Fitted | None:
            key = (id(question), document)
            if key not in tried:
                tried[key] = self._fitted(question, document)
            return tried[key]

        def fit(document: Document) -> bool:
            return all(fitted(question, document) for question in answerable)

        counts = self._counts
        document = asked[0].document
        answerable = [question for question in asked if self._is_text(question)]
        if not fit(document):
            bare = bare_document(document)
            for question in answerable:
                if not fitted(question, bare):
                    counts.note(counts.left_out, TOO_LONG, _place(question))
            answerable = [question for question in answerable if fitted(question, bare)]
        cut = fit_document(document, fits=fit)
        is_cut = cut.document is not document
        if is_cut and document_text(document) and not document_text(cut.document):
            for question in answerable:
                counts.note(counts.left_out, NO_DOCUMENT, _place(question))
            return {}
        counts.changed["document cut to formatter.max_length"] += is_cut
        counts.changed["paragraph left out"] += cut.paragraphs
        counts.changed["paragraph shortened"] += cut.shortened
        counts.changed["table row left out"] += cut.rows
        shown = {id(q): one for q in answerable if (one := fitted(q, cut.document))}
        apart = [one for one in shown.values() if one.taken_apart]
        if apart:
            counts.note(counts.changed, TAKEN_APART, _place(apart[0].example.question))
        return shown

    def _is_text(self, question: Question) -> bool:
        """Whether the completion is free of control tokens; one taken apart is no answer."""
        token = self._encoder.control_token(self._formatter.completion(question))
        if token is None:
            return True
        reason = f"control token {token!r} of the tokenizer in the answer"
        self._counts.note(self._counts.left_out, reason, _place(question))
        return False

    def _fitted(self, question: Question, document: Document) -> _Fitted | None:
        """The question with its document encoded, if it is short enough."""
        encoder = self._encoder
        said = self._formatter.prompt(question, document=document)
        completion = self._formatter.completion(question)
        if encoder.is_far_longer([*said, *completion], than=self._max_length):
            return None
        prompt = encoder.taken_apart(said)
        row = encoder.encode(prompt, completion, document=question.document.id)
        if len(row["input_ids"]) > self._max_length:
            return None
        return _Fitted(Example(question, prompt, completion), row, prompt != said)
