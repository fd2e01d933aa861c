"""Cleaning questions: their documents, texts, programs and evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from finqa_sft.cleaning.account import Account, Change
from finqa_sft.cleaning.labels import rename_labels
from finqa_sft.cleaning.options import CleaningOptions
from finqa_sft.cleaning.pages import Page, PageRules
from finqa_sft.cleaning.texts import Kind, TextRules
from finqa_sft.documents import Document, Question, Turn


class Cleaner:
    """Cleans questions and their documents, and keeps account of it.

    Programs name rows as the cleaned tables do, and compute what they computed before. Executed
    answers, scales and derivations stay. Cleaning what is clean changes nothing, and a question in
    which nothing changes is returned as the same object.
    """

    def __init__(self, options: CleaningOptions | None = None) -> None:
        """Take the options; all rules are on by default."""
        options = options or CleaningOptions()
        self._account = Account()
        self._texts = TextRules(options, self._account)
        self._rules = PageRules(options, self._texts, self._account)
        self._pages: dict[Document, Page] = {}
        self._labels: dict[str, dict[str, str]] = {}

    @property
    def counts(self) -> Counter[str]:
        """How many texts, rows, columns and paragraphs each rule changed."""
        return self._account.counts

    @property
    def noticed(self) -> Counter[str]:
        """What was seen and left.

        `quote_or_year` and `dash_or_year`: texts in which a number may be a lost character or a
        year; `evidence_left_out`: evidence that pointed at filler or an empty row.
        """
        return self._account.noticed

    @property
    def changes(self) -> list[Change]:
        """The first `CHANGES_KEPT` changes of each rule."""
        return self._account.changes

    def clean(self, question: Question) -> Question:
        """The question with its document, texts, program and evidence cleaned.

        Equal documents are cleaned once; questions about one share the result.
        """
        page = self._page(question.document)

        def text(text: str, name: str, *, kind: Kind = "words") -> str:
            place = f"{question.id}, {name}"
            return self._texts.clean(text, place=place, stripped=page.stripped, kind=kind)

        evidence = tuple(moved for item in question.evidence if (moved := page.moved(item)))
        self._account.saw("evidence_left_out", len(question.evidence) - len(evidence))
        cleaned = replace(
            question,
            document=page.document,
            text=text(question.text, "question"),
            answer=text(question.answer, "answer", kind="value"),
            program=_renamed(question.program, page),
            evidence=evidence,
            history=tuple(self._turn(turn, page) for turn in question.history),
        )
        return question if cleaned == question else cleaned

    def labels(self, document_id: str) -> Mapping[str, str]:
        """The row labels that differ in a cleaned document: the original ones by the new ones.

        Where rows shared a label, the new labels of the earlier ones lead back to the shared one,
        by which the official scripts find the last of them.
        """
        return self._labels.get(document_id, {})

    def original_program(self, program: str, *, document_id: str) -> str:
        """A program about a cleaned document with the rows named as in the original.

        The official scripts compute with the original tables. Text that is no program stays.
        """
        return rename_labels(program, self.labels(document_id))

    def _turn(self, turn: Turn, page: Page) -> Turn:
        """An earlier turn, cleaned; it is entered in the account as a question, where it is one."""
        return replace(
            turn,
            question=self._texts.result(turn.question, stripped=page.stripped),
            answer=self._texts.result(turn.answer, stripped=page.stripped, kind="value"),
            program=_renamed(turn.program, page),
        )

    def _page(self, document: Document) -> Page:
        page = self._pages.get(document)
        if page is None:
            page = self._pages[document] = self._rules.clean(document)
            if page.originals:
                self._labels[document.id] = page.originals
        return page


def _renamed(program: str | None, page: Page) -> str | None:
    return None if program is None else rename_labels(program, page.renamed)
