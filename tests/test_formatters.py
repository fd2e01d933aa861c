from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.documents import Document, Paragraph, Table
from finqa_sft.formatters.budget import bare_document, fit_document
from finqa_sft.formatters.linearize import document_text

TABLE = Table.from_cells([["(in millions)", "2012", "2011"], ["Net sales", "$ 5,829", "5,735"]])
PAGE = Document(
    id="ACME/2012/page_1",
    blocks=(Paragraph("Sales grew."), Paragraph("We make pipes."), TABLE, Paragraph("See note 4.")),
)


def documents() -> st.SearchStrategy[Document]:
    words = st.text("abc. \n", min_size=1, max_size=12)
    tables = st.lists(st.lists(words, min_size=2, max_size=2), min_size=1, max_size=5)
    blocks = st.one_of(words.map(Paragraph), tables.map(Table.from_cells))
    return st.lists(blocks, max_size=8).map(lambda b: Document(id="d", blocks=tuple(b)))


@given(documents(), st.integers(0, 300))
def test_a_cut_fits_keeps_headers_and_order_and_is_the_least(document: Document, room: int) -> None:
    least = len(document_text(bare_document(document)))

    def fits(shown: Document) -> bool:
        return len(document_text(shown)) <= max(room, least)

    cut = fit_document(document, fits=fits)
    assert fits(cut.document)
    tables = [(t.rows[0], len(t.rows)) for t in document.tables]
    assert [t.rows[0] for t in cut.document.tables] == [header for header, _ in tables]
    texts = [b.text for b in document.blocks if isinstance(b, Paragraph)]
    shown = [b.text for b in cut.document.blocks if isinstance(b, Paragraph)]
    rest = iter(texts)
    assert all(any(text.startswith(part) for text in rest) for part in shown)
    assert len(texts) - len(shown) == cut.paragraphs
    assert cut.shortened <= 1
    rows = sum(n for _, n in tables) - sum(len(t.rows) for t in cut.document.tables)
    assert rows == cut.rows
    assert cut.rows == 0 or shown == []
    changes = cut.paragraphs + cut.shortened + cut.rows
    assert fits(document) == (changes == 0) == (cut.document is document)


def test_the_paragraph_farthest_from_the_table_goes_first() -> None:
    def shown(characters: int) -> list[str]:
        cut = fit_document(PAGE, fits=lambda d: len(document_text(d)) <= characters)
        return [b.text for b in cut.document.blocks if isinstance(b, Paragraph)]

    whole = len(document_text(PAGE))
    assert shown(whole) == ["Sales grew.", "We make pipes.", "See note 4."]
    assert shown(whole - 1) == ["We make pipes.", "See note 4."]
    assert shown(whole - 20) == ["We make pipes."]


def test_a_paragraph_loses_its_end_sentence_by_sentence() -> None:
    def shown(text: str, characters: int) -> str:
        document = Document(id="d", blocks=(Paragraph(text),))
        return document_text(
            fit_document(document, fits=lambda d: len(document_text(d)) <= characters).document
        )

    assert shown("One was 1. Two was 2.\nThree was 3.", 30) == "One was 1. Two was 2."
    assert shown("One was 1. Two was 2.\nThree was 3.", 15) == "One was 1."
    assert shown("One was 1. Two was 2.\nThree was 3.", 5) == ""
    endless = "word " * 2000
    assert 300 <= len(shown(endless, 500)) <= 500
