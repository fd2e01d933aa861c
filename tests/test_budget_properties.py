"""What the budget keeps, over documents, evidence, lengths and room of every kind."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from budget_checks import check_fitted
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finqa_sft.budget import fit_questions
from finqa_sft.budget.parts import LONG_PARAGRAPH, sentences
from finqa_sft.documents import Document, Evidence, Paragraph, Question, Table, Turn

Length: TypeAlias = Callable[[Question, Document], int]

WORDS = ["sales", "rose", "2012", "2011", "net", "income", "$", "(1,234)", "5.6%", "of", "the",
         "lease", "収入", "U.S.", "approx.", "in", "was", "million", "—", "pension"]  # fmt: skip


def text_of(document: Document) -> str:
    lines: list[str] = []
    for block in document.blocks:
        if isinstance(block, Table):
            lines += [" | ".join(row) for row in block.rows]
        else:
            lines.append(block.text)
    return "\n".join(lines)


def by_characters(question: Question, document: Document) -> int:
    return (len(text_of(document)) + len(question.text)) // 4 + 5


def by_words(question: Question, document: Document) -> int:
    return len(text_of(document).split()) + len(question.text.split()) + 3


def far_off_where_huge(question: Question, document: Document) -> int:
    exact = by_characters(question, document)
    return exact if exact < 400 else 400


def by_whim(question: Question, document: Document) -> int:
    text = text_of(document)
    return len(text) // 4 + zlib.crc32((question.text + text).encode()) % 30


LENGTHS: list[Length] = [by_characters, by_words, far_off_where_huge, by_whim]

words = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
sentence = st.builds("{} {}".format, words, st.sampled_from([". ", ".\n", "; ", "。", " "]))
short = st.lists(sentence, max_size=3).map("".join).map(str.strip)
long = st.lists(sentence, min_size=12, max_size=30).map("".join).map(str.strip)
rows = st.lists(st.lists(words, min_size=1, max_size=3), max_size=7)
tables = st.builds(
    lambda cells, headers: Table.from_cells(cells, header_rows=headers), rows, st.integers(0, 2)
)
blocks = st.one_of(short.map(Paragraph), long.map(Paragraph), tables)
documents = st.lists(blocks, max_size=9).map(lambda b: Document("d", tuple(b), company="ACME"))


@st.composite
def questions(draw: st.DrawFn) -> list[Question]:
    document = draw(documents)
    places = [Evidence(block) for block in range(len(document.blocks))]
    for index, block in enumerate(document.blocks):
        if isinstance(block, Table):
            places += [Evidence(index, row) for row in range(len(block.rows))]
    evidence = st.lists(st.sampled_from(places), max_size=3) if places else st.just([])
    return [
        Question(
            id=str(n),
            text=draw(words),
            document=document,
            answer="",
            evidence=tuple(draw(evidence)),
            history=tuple(Turn(draw(words), "1") for _ in range(draw(st.integers(0, 1)))),
        )
        for n in range(draw(st.integers(1, 5)))
    ]


room = st.integers(0, 450)


@settings(max_examples=40, deadline=None)  # the first cut imports the search library
@given(questions(), st.sampled_from(LENGTHS), room, st.booleans())
def test_every_fitting_keeps_what_it_promises(
    asked: list[Question], length: Length, max_length: int, keep_evidence: bool
) -> None:
    fitted = fit_questions(asked, length=length, max_length=max_length, keep_evidence=keep_evidence)
    check_fitted(fitted, asked, length=length, max_length=max_length, keep_evidence=keep_evidence)
    assert keep_evidence or not fitted.evidence_too_long


@settings(max_examples=40, deadline=None)  # the first cut imports the search library
@given(questions(), st.sampled_from(LENGTHS), room, st.booleans())
def test_no_length_is_asked_for_twice(
    asked: list[Question], length: Length, max_length: int, keep_evidence: bool
) -> None:
    calls: Counter[tuple[str, Document]] = Counter()

    def counted(question: Question, document: Document) -> int:
        calls[question.id, document] += 1
        return length(question, document)

    fitted = fit_questions(
        asked, length=counted, max_length=max_length, keep_evidence=keep_evidence
    )
    assert set(calls.values()) == {1}
    if fitted.cuts and fitted.cuts[0].whole and len(fitted.cuts[0].questions) == len(asked):
        assert len(calls) == len(asked)


@settings(max_examples=40, deadline=None)  # the first cut imports the search library
@given(questions(), st.sampled_from(LENGTHS), room, st.booleans())
def test_the_order_of_the_questions_changes_nothing(
    asked: list[Question], length: Length, max_length: int, keep_evidence: bool
) -> None:
    def outcome(asked: Sequence[Question]) -> dict[str, object]:
        fitted = fit_questions(
            asked, length=length, max_length=max_length, keep_evidence=keep_evidence
        )
        found: dict[str, object] = {
            question.id: (cut.document, cut.left_out)
            for cut in fitted.cuts
            for question in cut.questions
        }
        for reason in ("too_long", "evidence_too_long", "no_document"):
            for question in getattr(fitted, reason):
                found[question.id] = reason
        return found

    assert outcome(asked) == outcome(asked[::-1]) == outcome(asked)


@given(st.text(max_size=1200))
@example("a\n" + " " * 500 + "b")
@example("。" * 900 + "x" * 900)
def test_sentences_joined_are_the_text(text: str) -> None:
    pieces = sentences(text)
    assert "".join(pieces) == text
    assert all(0 < len(piece.strip()) <= LONG_PARAGRAPH or piece.isspace() for piece in pieces)
