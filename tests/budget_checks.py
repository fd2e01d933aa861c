"""What holds of every fitting of questions into a length, whatever the document."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from finqa_sft.budget import MARKER, Cut, Fitted, Part, bare_document
from finqa_sft.budget.parts import document_parts, has_text, sentences, without
from finqa_sft.documents import Block, Document, Paragraph, Question, Table


def check_fitted(
    fitted: Fitted,
    questions: Sequence[Question],
    *,
    length: Callable[[Question, Document], int],
    max_length: int,
    keep_evidence: bool,
) -> None:
    """Assert all that `fit_questions` promises; no document may hold the marker itself."""
    unfit = [*fitted.too_long, *fitted.evidence_too_long, *fitted.no_document]
    shown = [question for cut in fitted.cuts for question in cut.questions]
    assert sorted(map(id, [*shown, *unfit])) == sorted(map(id, questions))

    for cut in fitted.cuts:
        assert cut.questions
        document = cut.questions[0].document
        assert all(length(question, cut.document) <= max_length for question in cut.questions)
        assert has_text(cut.document) or not has_text(document)
        check_cut(cut, document)
        if keep_evidence:
            for question in cut.questions:
                check_evidence(question, cut)
        gone = expanded(cut, document)
        parts = document_parts(document)
        assert cut.whole or any(
            length(question, without(document, parts, left_out=gone - {part})) > max_length
            for part in gone
            for question in cut.questions
        ), "more is left out than has to be"

    for question in unfit:
        assert length(question, question.document) > max_length
    for question in fitted.too_long:
        assert length(question, bare_document(question.document)) > max_length
    for question in [*fitted.evidence_too_long, *fitted.no_document]:
        assert length(question, bare_document(question.document)) <= max_length
    assert all(keep_evidence and question.evidence for question in fitted.evidence_too_long)


def expanded(cut: Cut, document: Document) -> set[Part]:
    """What a cut left out, paragraphs of several sentences sentence by sentence."""
    whole = {part.block for part in cut.left_out if part.row is None and part.sentence is None}
    named = set(cut.left_out)
    return {part for part in document_parts(document) if part in named or part.block in whole}


def check_cut(cut: Cut, document: Document) -> None:
    """Assert that what is shown and what is left out are the document, in its order."""
    assert cut.whole == (cut.document is document) == (marker_count(cut.document) == 0)
    assert (cut.document.id, cut.document.company) == (document.id, document.company)
    gone = {(part.block, part.sentence, part.row): part for part in cut.left_out}
    assert [*gone] == sorted(gone, key=lambda k: (k[0], k[1] or 0, k[2] or 0))
    assert len(gone) == len(cut.left_out)

    expected: list[Block] = []
    counts = {"paragraphs": 0, "shortened": 0, "rows": 0}
    for index, block in enumerate(document.blocks):
        if isinstance(block, Table):
            rows = [cells for n, cells in enumerate(block.rows) if (index, None, n) not in gone]
            for n, cells in enumerate(block.rows):
                if (index, None, n) in gone:
                    counts["rows"] += 1
                    assert n >= block.header_rows
                    assert gone.pop((index, None, n)).text == " | ".join(cells)
            expected.append(Table(tuple(rows), block.header_rows))
        elif (index, None, None) in gone:
            assert gone.pop((index, None, None)).text == block.text
            counts["paragraphs"] += 1
        else:
            kept = ""
            for n, sentence in enumerate(sentences(block.text)):
                if (index, n, None) in gone:
                    assert gone.pop((index, n, None)).text == sentence
                else:
                    kept += sentence
            counts["shortened"] += kept != block.text
            expected.append(Paragraph(kept))
    assert gone == {}
    assert list(map(squeezed, unmarked(cut.document))) == list(map(squeezed, expected))
    assert counts == {
        "paragraphs": cut.paragraphs, "shortened": cut.shortened, "rows": cut.rows,
    }  # fmt: skip
    assert marker_count(cut.document) == run_count(document, expanded(cut, document))


def check_evidence(question: Question, cut: Cut) -> None:
    """Assert that a question's evidence is shown, unchanged."""
    for place in question.evidence:
        block = question.document.blocks[place.block]
        if isinstance(block, Paragraph) or place.row is None:
            assert block in cut.document.blocks
        else:
            nth = sum(isinstance(b, Table) for b in question.document.blocks[: place.block])
            assert block.rows[place.row] in cut.document.tables[nth].rows


def marker_count(document: Document) -> int:
    """How many markers a document shows."""
    texts = [
        cell
        for block in document.blocks
        for row in (block.rows if isinstance(block, Table) else [[block.text]])
        for cell in row
    ]
    return sum(text.count(MARKER) for text in texts)


def run_count(document: Document, gone: set[Part]) -> int:
    """How many runs of left-out text or rows a document has; tables end the runs of text."""
    runs = 0
    last: tuple[object, bool] = (None, False)
    tables_before = 0
    parts = iter(document_parts(document))
    part = next(parts, None)
    for index, block in enumerate(document.blocks):
        tables_before += isinstance(block, Table)
        while part is not None and part.block == index:
            stretch = ("table" if part.row is not None else "text", tables_before)
            runs += part in gone and last != (stretch, True)
            last = (stretch, part in gone)
            part = next(parts, None)
    return runs


def unmarked(document: Document) -> list[Block]:
    """The blocks of a document without markers."""
    blocks: list[Block] = []
    for block in document.blocks:
        if isinstance(block, Table):
            rows = tuple(row for row in block.rows if row[:1] != (MARKER,))
            blocks.append(Table(rows, block.header_rows))
        elif block.text != MARKER:
            blocks.append(Paragraph(block.text.replace(MARKER, "")))
    return blocks


def squeezed(block: Block) -> Block:
    """A paragraph without white space, a table as it is."""
    return Paragraph("".join(block.text.split())) if isinstance(block, Paragraph) else block
