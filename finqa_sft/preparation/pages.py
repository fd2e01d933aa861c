"""Formatting, fitting and encoding the questions of one document at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from finqa_sft.budget import Cut, fit_questions
from finqa_sft.documents import Document, Question
from finqa_sft.encoding import EncodedRow, Encoder
from finqa_sft.errors import DataError
from finqa_sft.formatters.base import Formatter, Message
from finqa_sft.plugins.manager import Component
from finqa_sft.plugins.records import FormatterRecord
from finqa_sft.preparation.counts import EVIDENCE_TOO_LONG, NO_DOCUMENT, TOO_LONG, place
from finqa_sft.traces import traces

Page: TypeAlias = Sequence[tuple[int, Question]]
"""The questions of one document, each with its index."""

_Encoded: TypeAlias = tuple[EncodedRow, list[Message], bool]
"""A row, the prompt that it was made of, and whether that was taken apart."""

Row: TypeAlias = dict[str, Any]
"""What became of one question, in the columns of `finqa_sft.preparation.encoded.COLUMNS`."""


class PageEncoder:
    """Turns the questions of a document into rows; a document too long is cut alike for all."""

    def __init__(
        self,
        formatter: Formatter,
        encoder: Encoder,
        *,
        component: Component[FormatterRecord],
        max_length: int,
        keep_evidence: bool,
    ) -> None:
        """Take what rows are made with.

        Args:
            formatter: Makes the messages.
            encoder: Makes ids of them.
            component: Whose formatter it is, for errors.
            max_length: Longest row, in tokens.
            keep_evidence: Whether the evidence of a question stays in its document: so in
                training, and not where a question is asked, as its evidence is unknown then.
        """
        self._formatter = formatter
        self._encoder = encoder
        self._component = component
        self._max_length = max_length
        self._keep_evidence = keep_evidence

    def page(self, page: Page) -> Iterator[Row]:
        """What became of each question of one document."""
        index = {id(question): number for number, question in page}
        tries = _Tries(self._formatter, self._encoder, self._component, self._max_length)

        def dropped(question: Question, reason: str) -> Row:
            return _row(index[id(question)], question, reason=reason)

        answerable = []
        for _, question in page:
            token = self._encoder.control_token(tries.completion(question))
            if token is None:
                answerable.append(question)
            else:
                # Taken apart, it would be another answer.
                reason = f"control token {token!r} of the tokenizer in the answer"
                yield dropped(question, reason)
        fitted = fit_questions(
            answerable,
            length=tries.length,
            max_length=self._max_length,
            keep_evidence=self._keep_evidence,
        )
        for questions, reason in (
            (fitted.too_long, TOO_LONG),
            (fitted.evidence_too_long, EVIDENCE_TOO_LONG),
            (fitted.no_document, NO_DOCUMENT),
        ):
            for question in questions:
                yield dropped(question, reason)
        for cut in fitted.cuts:
            for question in cut.questions:
                row, prompt, taken_apart = tries.encoded(question, cut.document)
                yield _row(
                    index[id(question)],
                    question,
                    row=row,
                    prompt=prompt,
                    completion=tries.completion(question),
                    cut=_cut(cut),
                    lacks=_lacks(question, cut),
                    taken_apart=taken_apart,
                )


class _Tries:
    """What was encoded already of a document's questions; a row is encoded once."""

    def __init__(
        self,
        formatter: Formatter,
        encoder: Encoder,
        component: Component[FormatterRecord],
        max_length: int,
    ) -> None:
        self._formatter = formatter
        self._encoder = encoder
        self._component = component
        self._max_length = max_length
        self._completions: dict[int, list[Message]] = {}
        self._rows: dict[tuple[int, Document], _Encoded] = {}

    def completion(self, question: Question) -> list[Message]:
        """The message that is taught."""
        key = id(question)
        if key not in self._completions:
            with self._component.blamed():
                self._completions[key] = self._formatter.completion(question)
        return self._completions[key]

    def length(self, question: Question, document: Document) -> int:
        """Tokens of the question's row with that much of its document.

        Of what is far too long, a number above the limit: encoding megabytes takes seconds.
        """
        said = self._said(question, document)
        completion = self.completion(question)
        if self._encoder.is_far_longer([*said, *completion], than=self._max_length):
            return self._max_length * 2
        prompt = self._encoder.taken_apart(said)
        try:
            row = self._encoder.encode(prompt, completion, document=question.document.id)
        except DataError as error:
            raise DataError(f"{place(question)}: {error}") from error
        self._rows[id(question), document] = row, prompt, prompt != said
        return len(row["input_ids"])

    def encoded(self, question: Question, document: Document) -> _Encoded:
        """The row of a question with a document whose length was asked for, and fits."""
        return self._rows[id(question), document]

    def _said(self, question: Question, document: Document) -> list[Message]:
        with self._component.blamed():
            return self._formatter.prompt(question, document=document)


def _row(
    index: int,
    question: Question,
    *,
    reason: str = "",
    row: EncodedRow | None = None,
    prompt: Sequence[Message] = (),
    completion: Sequence[Message] = (),
    cut: str = "",
    lacks: str = "",
    taken_apart: bool = False,
) -> Row:
    return {
        "input_ids": row["input_ids"] if row else [],
        "labels": row["labels"] if row else [],
        "document": question.document.id,
        "question": index,
        "reason": reason,
        "prompt": json.dumps(prompt),
        "completion": json.dumps(completion),
        "cut": cut,
        "lacks": lacks,
        "taken_apart": taken_apart,
    }


def _cut(cut: Cut) -> str:
    """What a cut has left out, as JSON; empty where nothing is."""
    if cut.whole:
        return ""
    return json.dumps(
        {
            "paragraphs": cut.paragraphs,
            "shortened": cut.shortened,
            "rows": cut.rows,
            "left_out": [part.text for part in cut.left_out],
        }
    )


def _lacks(question: Question, cut: Cut) -> str:
    """What of a question is cut off: its `evidence`, without any its `answer`, or nothing."""
    if cut.whole:
        return ""
    if question.evidence:
        rows = {(part.block, part.row) for part in cut.left_out}
        blocks = {part.block for part in cut.left_out}
        lost = any(
            (place.block, place.row) in rows or (place.row is None and place.block in blocks)
            for place in question.evidence
        )
        return "evidence" if lost else ""
    answer = traces(question)
    lost = answer.show_in(question.document) and not answer.show_in(cut.document)
    return "answer" if lost else ""
