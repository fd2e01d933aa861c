"""Fitting the questions of a document into a length by leaving out parts of the document."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from itertools import accumulate

from finqa_sft.budget.parts import (
    Part,
    bare_document,
    document_parts,
    has_text,
    is_evidence,
    joined,
    without,
)
from finqa_sft.budget.relevance import relevance
from finqa_sft.documents import Document, Evidence, Question, Table
from finqa_sft.errors import DataError
from finqa_sft.traces import Traces, traces

ESTIMATES = 6
"""How often a place between two known lengths is estimated, before it is halved instead."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a document is shown, and to which of its questions.

    Attributes:
        document: What is shown; the very document where nothing is left out.
        questions: The questions that share it, in the order they were given in.
        left_out: What is not shown, in reading order.
    """

    document: Document
    questions: tuple[Question, ...]
    left_out: tuple[Part, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.left_out

    @property
    def paragraphs(self) -> int:
        """How many paragraphs are left out."""
        return sum(part.row is None and part.sentence is None for part in self.left_out)

    @property
    def shortened(self) -> int:
        """How many paragraphs are shown without some of their sentences."""
        return len({part.block for part in self.left_out if part.sentence is not None})

    @property
    def rows(self) -> int:
        """How many table rows are left out."""
        return sum(part.row is not None for part in self.left_out)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What became of the questions of a document; each stands in one place.

    Attributes:
        cuts: The questions that fit, by what is shown to them.
        too_long: Those that do not fit even without any paragraph and table row.
        evidence_too_long: Those whose evidence alone does not fit.
        no_document: Those that fit only where nothing of the document is shown.
    """

    cuts: tuple[Cut, ...] = ()
    too_long: tuple[Question, ...] = ()
    evidence_too_long: tuple[Question, ...] = ()
    no_document: tuple[Question, ...] = ()


def fit_questions(
    questions: Sequence[Question],
    *,
    length: Callable[[Question, Document], int],
    max_length: int,
    keep_evidence: bool,
) -> Fitted:
    """Show each question as much of its document as fits.

    Paragraphs are left out first, the least relevant to the questions first, and of a long one
    single sentences; then table rows, the least relevant first, of equal ones the last. Header rows
    stay. One cut serves all questions, so that they share what they read; only where their evidence
    does not fit together do they fall into groups with a cut each. Of a question without evidence,
    the parts that its answer shows in go last of all.

    Args:
        questions: All of one document.
        length: Tokens of a question's row with the document shown as given. Called once for each
            whole document, and a few times more where that is too long. Above `max_length` it may
            be an estimate.
        max_length: How many tokens a row may have.
        keep_evidence: Whether the questions' evidence stays, as in training. Without it, neither
            evidence nor answers are looked at, as where they are not known.

    Raises:
        ValueError: The questions are about several documents.
    """
    if not questions:
        return Fitted()
    page = _Page(questions, length=length, max_length=max_length, keep_evidence=keep_evidence)
    cut = page.cut(questions)
    if cut:
        return Fitted(cuts=(cut,))
    unfit = [question for question in questions if not page.can_show([question])]
    unfit_ids = {id(question) for question in unfit}
    groups: list[list[Question]] = []
    for question in sorted(questions, key=_reading_order):
        if id(question) in unfit_ids:
            continue
        group = next((group for group in groups if page.can_show([*group, question])), None)
        if group is None:
            groups.append([question])
        else:
            group.append(question)
    given = {id(question): place for place, question in enumerate(questions)}
    cuts = [page.cut(sorted(group, key=lambda question: given[id(question)])) for group in groups]
    reasons = [page.reason(question) for question in unfit]

    def unfit_for(reason: _Reason) -> tuple[Question, ...]:
        return tuple(q for q, found in zip(unfit, reasons, strict=True) if found is reason)

    return Fitted(
        cuts=tuple(cut for cut in cuts if cut),
        too_long=unfit_for(_Reason.TOO_LONG),
        evidence_too_long=unfit_for(_Reason.EVIDENCE_TOO_LONG),
        no_document=unfit_for(_Reason.NO_DOCUMENT),
    )


def fit_question(
    question: Question,
    *,
    length: Callable[[Document], int],
    max_length: int,
    keep_evidence: bool = False,
) -> Cut:
    """Show one question as much of its document as fits; see `fit_questions`.

    Args:
        question: The question, with its document.
        length: Tokens of the prompt, or of prompt and completion, with the document shown as given.
        max_length: How many tokens there may be.
        keep_evidence: Whether the question's evidence stays, as in training.

    Raises:
        DataError: The question does not fit.
    """
    fitted = fit_questions(
        [question],
        length=lambda _, document: length(document),
        max_length=max_length,
        keep_evidence=keep_evidence,
    )
    if fitted.cuts:
        return fitted.cuts[0]
    place = question.source or f"question {question.id!r}"
    if fitted.too_long:
        problem = "does not fit even without any paragraph and table row"
    elif fitted.evidence_too_long:
        problem = "does not fit with its evidence alone"
    else:
        problem = "fits only where nothing of its document is shown"
    raise DataError(f"{place} {problem}: {max_length} tokens are too few; raise max_length")


class _Reason(Enum):
    """Why a question has no cut."""

    TOO_LONG = auto()
    EVIDENCE_TOO_LONG = auto()
    NO_DOCUMENT = auto()


def _reading_order(question: Question) -> tuple[float, int, str, str]:
    """Sorts questions by where their evidence begins, those without any last."""
    begin = min(
        ((place.block, -1 if place.row is None else place.row) for place in question.evidence),
        default=(math.inf, 0),
    )
    return (*begin, question.id, question.text)


def _shows(answer: Traces, part: Part) -> bool:
    """Whether an answer shows in a part of its document."""
    if part.row is None:
        return answer.show_in_text(part.text)
    return answer.show_in_row(part.text.split(" | "))


class _Page:
    """A document, and what is known of the lengths of its questions."""

    def __init__(
        self,
        questions: Sequence[Question],
        *,
        length: Callable[[Question, Document], int],
        max_length: int,
        keep_evidence: bool,
    ) -> None:
        self._questions = questions
        self._document = questions[0].document
        self._length = length
        self._max_length = max_length
        self._keep_evidence = keep_evidence
        self._known: dict[tuple[int, Document], int] = {}
        others = {question.document.id for question in questions} - {self._document.id}
        if others:
            raise ValueError(
                f"questions of one document are fitted together; got {self._document.id!r} "
                f"and {min(others)!r}"
            )

    def cut(self, questions: Sequence[Question]) -> Cut | None:
        """As much of the document as fits with all of some questions; None if nothing does."""
        group = tuple(questions)
        if all(self._fits(question, self._document) for question in group):
            return Cut(self._document, group)
        order = self._order(group)
        count = self._count(group, order)
        if count is None:
            return None
        gone = set(order[:count])
        return Cut(self._without(order[:count]), group, joined(self._parts, left_out=gone))

    def can_show(self, group: Sequence[Question]) -> bool:
        """Whether some questions can share a cut."""
        least = self._without(self._order(group))
        return any(
            all(self._fits(question, document) for question in group)
            for document in (self._document, least)
        )

    def reason(self, question: Question) -> _Reason:
        """Why a question that cannot be shown does not fit."""
        if not self._fits(question, bare_document(self._document)):
            return _Reason.TOO_LONG
        if any(is_evidence(part, self._evidence([question])) for part in self._parts):
            return _Reason.EVIDENCE_TOO_LONG
        return _Reason.NO_DOCUMENT

    def _count(self, group: Sequence[Question], order: Sequence[Part]) -> int | None:
        """How many parts have to go, of an order in which they go; None if that is too few.

        With one part less, one of the questions does not fit.
        """
        # The longest stands for all, as the same text goes from each; whether it did is seen below.
        # All are looked at again each time: with markers, less text may be more tokens.
        longest_first = sorted(
            group, key=lambda q: (-self._tokens(q, self._document), q.id, q.text)
        )
        unfit = longest_first
        count = 0
        while unfit:
            found = self._count_alone(unfit[0], order, above=count)
            if found is None:
                return None
            count = found
            shown = self._without(order[:count])
            unfit = [question for question in longest_first if not self._fits(question, shown)]
        return count

    def _count_alone(self, question: Question, order: Sequence[Part], *, above: int) -> int | None:
        """How many parts have to go for a question, more than a number that is too few."""
        gone = [0, *accumulate(len(part.text) + 1 for part in order)]
        tokens = {above: self._tokens(question, self._without(order[:above]))}
        low, before, high = above, above, len(order) + 1
        while high - low > 1:
            middle = (low + high) // 2
            if len(tokens) <= ESTIMATES:
                # A line through two known lengths; at first, through no tokens for no characters.
                other = high if high in tokens else before
                characters, fewer = (
                    (gone[other] - gone[low], tokens[low] - tokens[other])
                    if other != low
                    else (self._characters - gone[low], tokens[low])
                )
                if fewer * characters > 0:
                    excess = (tokens[low] - self._max_length) * characters / fewer
                    middle = bisect.bisect_left(gone, gone[low] + excess)
            middle = min(max(middle, low + 1), high - 1)
            tokens[middle] = self._tokens(question, self._without(order[:middle]))
            if tokens[middle] <= self._max_length:
                high = middle
            else:
                before, low = low, middle
        return high if high <= len(order) else None

    def _order(self, group: Sequence[Question]) -> list[Part]:
        """What may go for some questions, first to last, so far as any text remains."""
        scores = [max(each) for each in zip(*(self._scores[id(q)] for q in group), strict=True)]
        evidence = self._evidence(group)
        telling = [traces(q) for q in group if self._keep_evidence and not q.evidence]
        ranked = sorted(
            (any(_shows(found, part) for found in telling), part.row is not None, score, -place)
            for place, (part, score) in enumerate(zip(self._parts, scores, strict=True))
            if not is_evidence(part, evidence)
        )
        order = [self._parts[-place] for *_, place in ranked]
        if not has_text(self._document):
            return order
        counts = range(len(order), -1, -1)
        return order[: next(n for n in counts if has_text(self._without(order[:n])))]

    def _evidence(self, group: Iterable[Question]) -> set[Evidence]:
        """What has to stay for some questions."""
        if not self._keep_evidence:
            return set()
        return {place for question in group for place in question.evidence}

    def _fits(self, question: Question, document: Document) -> bool:
        return self._tokens(question, document) <= self._max_length

    def _tokens(self, question: Question, document: Document) -> int:
        """The length of a question's row, asked for once."""
        key = (id(question), document)
        if key not in self._known:
            self._known[key] = self._length(question, document)
        return self._known[key]

    def _without(self, left_out: Sequence[Part]) -> Document:
        if not left_out:
            return self._document
        return without(self._document, self._parts, left_out=left_out)

    @cached_property
    def _parts(self) -> tuple[Part, ...]:
        return document_parts(self._document)

    @cached_property
    def _characters(self) -> int:
        """Characters of the whole document, headers included."""
        return sum(
            sum(len(cell) + 1 for row in block.rows for cell in row)
            if isinstance(block, Table)
            else len(block.text) + 1
            for block in self._document.blocks
        )

    @cached_property
    def _scores(self) -> dict[int, list[float]]:
        """How relevant each part is to each question, by the id of the question's object.

        What was asked before counts with it: "and in 2005?" alone names nothing.
        """
        asked = [
            " ".join([*(turn.question for turn in question.history), question.text])
            for question in self._questions
        ]
        scores = relevance([part.text for part in self._parts], asked)
        return {id(q): each for q, each in zip(self._questions, scores, strict=True)}
