"""The budget on real pages: evidence stays, and nothing is left out without need."""

from __future__ import annotations

from pathlib import Path

import pytest
from budget_checks import check_fitted

from finqa_sft.budget import fit_questions
from finqa_sft.documents import Document, Question
from finqa_sft.formatters.linearize import document_text
from finqa_sft.readers.base import Reader
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

PAGES_TAKEN = 5
"""Every fifth page is cut, for time."""


def readers(data: Path) -> dict[str, Reader]:
    finqa = [data / "finqa" / "train_100.json", data / "finqa" / "dev_200.json"]
    return {
        "finqa": FinqaReader(FinqaOptions(files=finqa)),
        "tatqa": TatqaReader(TatqaOptions(files=data / "tatqa" / "dev.json")),
        "convfinqa": ConvfinqaReader(
            ConvfinqaOptions(files=data / "convfinqa" / "dev_421_cleaned.json")
        ),
    }


def length(question: Question, document: Document) -> int:
    """About what a tokenizer with one token a digit makes of it."""
    turns = sum(len(turn.question) + len(turn.answer) for turn in question.history)
    return 60 + (len(document_text(document)) + len(question.text) + turns) // 3


@pytest.mark.parametrize("name", ["finqa", "tatqa", "convfinqa"])
def test_every_kept_row_of_real_pages_has_its_evidence(real_data: Path, name: str) -> None:
    by_document: dict[str, list[Question]] = {}
    for question in readers(real_data)[name]:
        if isinstance(question, Question):
            by_document.setdefault(question.document.id, []).append(question)
    pages = list(by_document.values())[::PAGES_TAKEN]
    assert len(pages) > 40
    for max_length in (512, 1024, 2048):
        kept = unfit = 0
        for asked in pages:
            fitted = fit_questions(asked, length=length, max_length=max_length, keep_evidence=True)
            check_fitted(fitted, asked, length=length, max_length=max_length, keep_evidence=True)
            kept += sum(len(cut.questions) for cut in fitted.cuts)
            unfit += sum(map(len, (fitted.too_long, fitted.no_document)))
        assert unfit == 0
        assert kept > 0.8 * sum(map(len, pages))
