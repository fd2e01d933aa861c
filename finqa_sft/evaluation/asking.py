"""Asking questions: from a page as it was read to a prompt, and from a completion back to it.

A question is asked as it would be if nobody knew its answer: labels and evidence are taken off
before its prompt is made, and the document is cut without looking at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from finqa_sft.budget import fit_questions
from finqa_sft.cleaning import Cleaner, CleaningOptions
from finqa_sft.documents import Document, Question
from finqa_sft.encoding import Encoder
from finqa_sft.errors import DataError
from finqa_sft.formatters.base import Formatter, Message, Prediction
from finqa_sft.plugins.manager import Component
from finqa_sft.plugins.records import FormatterRecord
from finqa_sft.preparation.counts import NO_DOCUMENT, TOO_LONG, place


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the prompt that asks it.

    Attributes:
        question: The question as it was read.
        prompt: The messages, none where it cannot be asked.
        ids: Their tokens.
        left_out: The parts of the document that the prompt does not show, in reading order.
        problem: Why it cannot be asked; empty where it can.
    """

    question: Question
    prompt: list[Message]
    ids: list[int]
    left_out: tuple[str, ...] = ()
    problem: str = ""


class Asker:
    """Makes prompts as training made them, and reads what is answered."""

    def __init__(
        self,
        formatter: Formatter,
        encoder: Encoder,
        *,
        component: Component[FormatterRecord],
        cleaning: CleaningOptions,
        max_prompt: int,
    ) -> None:
        """Take what training made its prompts with.

        Args:
            formatter: Makes the messages, and reads completions.
            encoder: Makes ids of them.
            component: Whose formatter it is, for errors.
            cleaning: The rules that pages and questions were cleaned by.
            max_prompt: Longest prompt, in tokens. With the longest row of the training, no page
                is shown with less than training showed of it.
        """
        self._formatter = formatter
        self._encoder = encoder
        self._component = component
        self._cleaner = Cleaner(cleaning)
        self._max_prompt = max_prompt

    def ask(self, questions: Sequence[Question]) -> list[Asked]:
        """The prompts of some questions, in their order.

        Questions of a document are shown the same of it, so they are best asked together.
        """
        by_document: dict[str, list[int]] = {}
        for index, question in enumerate(questions):
            by_document.setdefault(question.document.id, []).append(index)
        asked: dict[int, Asked] = {}
        for places in by_document.values():
            page = [self._shown(questions[index]) for index in places]
            index_of = {id(shown): index for shown, index in zip(page, places, strict=True)}
            for shown, one in self._page(page):
                index = index_of[id(shown)]
                asked[index] = replace(one, question=questions[index])
        return [asked[index] for index in range(len(questions))]

    def read(self, question: Question, completion: str) -> Prediction:
        """What a completion says; its program names rows as the page that was read does."""
        with self._component.blamed():
            prediction = self._formatter.parse(completion)
        if prediction.program is None:
            return prediction
        program = self._cleaner.original_program(
            prediction.program, document_id=question.document.id
        )
        return replace(prediction, program=program)

    def _shown(self, question: Question) -> Question:
        """The question cleaned, without anything that tells its answer."""
        return replace(
            self._cleaner.clean(question),
            answer="",
            program=None,
            executed_answer=None,
            scale="",
            answer_type=None,
            evidence=(),
            derivation=None,
        )

    def _page(self, page: Sequence[Question]) -> list[tuple[Question, Asked]]:
        """The prompts of the questions of one document."""
        tried: dict[tuple[int, Document], tuple[list[Message], list[int]]] = {}

        def length(question: Question, document: Document) -> int:
            with self._component.blamed():
                said = self._formatter.prompt(question, document=document)
            if self._encoder.is_far_longer(said, than=self._max_prompt):
                return self._max_prompt * 2
            prompt = self._encoder.taken_apart(said)
            try:
                ids = self._encoder.encode_prompt(prompt)
            except DataError as error:
                raise DataError(f"{place(question)}: {error}") from error
            tried[id(question), document] = prompt, ids
            return len(ids)

        fitted = fit_questions(
            page, length=length, max_length=self._max_prompt, keep_evidence=False
        )
        found: list[tuple[Question, Asked]] = []
        for cut in fitted.cuts:
            left_out = tuple(part.text for part in cut.left_out)
            for question in cut.questions:
                prompt, ids = tried[id(question), cut.document]
                found.append((question, Asked(question, prompt, ids, left_out)))
        for questions, problem in (
            (fitted.too_long, TOO_LONG),
            (fitted.no_document, NO_DOCUMENT),
        ):
            found += [(one, Asked(one, [], [], problem=problem)) for one in questions]
        return found
