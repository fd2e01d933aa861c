"""What is left out of a page that is too long, by example."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from budget_checks import check_fitted

from finqa_sft.budget import (
    MARKER,
    Cut,
    Fitted,
    Part,
    bare_document,
    fit_question,
    fit_questions,
)
from finqa_sft.budget.parts import sentences
from finqa_sft.budget.relevance import relevance
from finqa_sft.documents import Block, Document, Evidence, Paragraph, Question, Table, Turn
from finqa_sft.errors import DataError

TABLE = Table.from_cells(
    [
        ["(in millions)", "2012", "2011"],
        ["Net sales", "$ 5,829", "5,735"],
        ["Pension cost", "12", "15"],
        ["Rent", "3", "4"],
    ]
)
PAGE = Document(
    id="ACME/2012/page_1",
    blocks=(
        Paragraph("Sales grew in all regions."),
        Paragraph("We make pipes."),
        TABLE,
        Paragraph("Pension plans are closed."),
        Paragraph("See note 4."),
    ),
)
SALES = Question(id="1", text="By what share did sales grow?", document=PAGE, answer="1.6%")
PENSION = replace(SALES, id="2", text="What was the pension cost in 2011?", answer="15")


def characters(document: Document) -> int:
    """The length of a page as these tests count it: its characters, line by line."""
    lines: list[str] = []
    for block in document.blocks:
        if isinstance(block, Table):
            lines += [" | ".join(row) for row in block.rows]
        else:
            lines.append(block.text)
    return len("\n".join(lines))


def fitted(*questions: Question, room: int, keep_evidence: bool = True) -> Fitted:
    def length(question: Question, document: Document) -> int:
        return characters(document)

    found = fit_questions(questions, length=length, max_length=room, keep_evidence=keep_evidence)
    check_fitted(found, questions, length=length, max_length=room, keep_evidence=keep_evidence)
    return found


def only(*questions: Question, room: int, keep_evidence: bool = True) -> Cut:
    [cut] = fitted(*questions, room=room, keep_evidence=keep_evidence).cuts
    return cut


def texts(document: Document) -> list[str]:
    return [block.text for block in document.blocks if isinstance(block, Paragraph)]


def about(*blocks: Block, evidence: tuple[Evidence, ...] = ()) -> Question:
    document = Document(id="page", blocks=blocks)
    return Question(
        id="q", text="What were sales?", document=document, answer="", evidence=evidence
    )


WHOLE = characters(PAGE)


def test_a_page_that_fits_is_shown_as_it_is_for_one_call_a_question() -> None:
    calls: list[str] = []

    def length(question: Question, document: Document) -> int:
        calls.append(question.id)
        return WHOLE

    found = fit_questions([SALES, PENSION], length=length, max_length=WHOLE, keep_evidence=True)
    assert calls == ["1", "2"]
    [cut] = found.cuts
    assert cut.whole
    assert cut.document is PAGE
    assert cut.questions == (SALES, PENSION)


def test_the_paragraph_with_the_least_to_do_with_the_questions_goes_first() -> None:
    assert texts(only(SALES, room=WHOLE - 1).document) == [
        "Sales grew in all regions.",
        "We make pipes.",
        "Pension plans are closed.",
        MARKER,
    ]
    assert texts(only(PENSION, room=130).document) == [MARKER, "Pension plans are closed.", MARKER]
    assert texts(only(SALES, room=130).document) == ["Sales grew in all regions.", MARKER, MARKER]


def test_all_questions_of_a_page_have_their_say_and_see_the_same() -> None:
    cut = only(SALES, PENSION, room=WHOLE - 15)
    assert cut.questions == (SALES, PENSION)
    assert texts(cut.document) == [
        "Sales grew in all regions.",
        MARKER,
        "Pension plans are closed.",
        MARKER,
    ]
    assert (cut.paragraphs, cut.shortened, cut.rows) == (2, 0, 0)
    assert cut.left_out == (Part(1, "We make pipes."), Part(4, "See note 4."))


def test_rows_go_after_all_paragraphs_and_headers_never() -> None:
    cut = only(PENSION, room=characters(bare_document(PAGE)) + 52)
    assert cut.document.blocks == (
        Paragraph(MARKER),
        Table(
            rows=(TABLE.rows[0], (MARKER, "", ""), TABLE.rows[2], (MARKER, "", "")),
        ),
        Paragraph(MARKER),
    )
    assert (cut.paragraphs, cut.shortened, cut.rows) == (4, 0, 2)
    assert cut.left_out[2:4] == (
        Part(2, "Net sales | $ 5,829 | 5,735", row=1),
        Part(2, "Rent | 3 | 4", row=3),
    )


def test_of_rows_that_are_alike_the_last_goes_first() -> None:
    table = Table.from_cells([["year", "units"], *([str(n), "7"] for n in range(1990, 2000))])
    question = about(table)
    cut = only(question, room=characters(question.document) - 8)
    assert cut.document.tables[0].rows == (*table.rows[:-2], (MARKER, ""))


def test_evidence_stays_however_little_it_has_to_do_with_the_question() -> None:
    proven = replace(SALES, evidence=(Evidence(4), Evidence(2, row=3)))
    cut = only(proven, room=90)
    assert texts(cut.document) == [MARKER, MARKER, "See note 4."]
    assert cut.document.tables[0].rows == (TABLE.rows[0], (MARKER, "", ""), TABLE.rows[3])
    asked = only(proven, room=90, keep_evidence=False)
    assert "See note 4." not in texts(asked.document)


def test_a_whole_table_as_evidence_keeps_all_its_rows() -> None:
    cut = only(replace(SALES, evidence=(Evidence(2),)), room=characters(PAGE) - 60)
    assert cut.document.tables == (TABLE,)


def test_a_long_paragraph_is_left_out_sentence_by_sentence() -> None:
    text = (
        "Pipes are sold by the metre. " * 6
        + "Sales were $12 million.\n"
        + "The U.S. Treasury is no customer; nor are banks. " * 5
    ).strip()
    cut = only(about(Paragraph(text)), room=45)
    assert texts(cut.document) == ["[…] Sales were $12 million.\n[…]"]
    assert (cut.paragraphs, cut.shortened) == (0, 1)
    assert cut.left_out[0] == Part(0, "Pipes are sold by the metre. ", sentence=0)
    assert cut.left_out[6] == Part(0, "The U.S. Treasury is no customer; ", sentence=7)


def test_a_long_paragraph_that_is_evidence_stays_whole() -> None:
    long = "Pipes are sold by the metre. " * 20 + "End."
    question = about(Paragraph("Sales rose."), Paragraph(long), evidence=(Evidence(1),))
    assert texts(only(question, room=len(long) + 4).document) == [MARKER, long]


def test_what_is_left_out_in_a_row_has_one_marker_also_across_paragraphs() -> None:
    filler = "Pipes are sold by the metre. " * 15
    first = Paragraph(f"Sales were up. {filler}".strip())
    last = Paragraph(f"{filler}Sales were down.")
    cut = only(about(first, Paragraph("Nothing."), last), room=50)
    assert texts(cut.document) == ["Sales were up. […]", "Sales were down."]
    assert (cut.paragraphs, cut.shortened) == (1, 2)
    assert only(about(Paragraph("Nothing."), last), room=28).document.blocks == (
        Paragraph("[…] Sales were down."),
    )


def test_a_long_paragraph_of_which_nothing_stays_is_left_out_as_one() -> None:
    long = "Pipes are sold by the metre. " * 20 + "End."
    cut = only(about(Paragraph("Sales rose."), Paragraph(long)), room=30)
    assert cut.left_out == (Part(1, long),)
    assert (cut.paragraphs, cut.shortened) == (1, 0)


def test_questions_whose_evidence_does_not_fit_together_fall_into_groups() -> None:
    paragraphs = [Paragraph(f"{letter} " * 20 + "end") for letter in "abcd"]
    page = Document(id="page", blocks=tuple(paragraphs))
    asked = [
        Question(id=str(n), text="?", document=page, answer="", evidence=(Evidence(n),))
        for n in (3, 1, 0, 2)
    ]
    free = Question(id="free", text="?", document=page, answer="")
    found = fitted(free, *asked, room=100)
    assert [[q.id for q in cut.questions] for cut in found.cuts] == [["free", "1", "0"], ["3", "2"]]
    assert found.cuts[0].document.blocks == (*paragraphs[:2], Paragraph(MARKER))
    assert found.cuts[1].document.blocks == (Paragraph(MARKER), *paragraphs[2:])


def test_evidence_that_does_not_fit_alone_is_told_apart_from_a_question_that_does_not() -> None:
    large = replace(SALES, id="large", evidence=(Evidence(2), Evidence(0)))
    endless = replace(SALES, id="endless", text="why " * 100)

    def length(question: Question, document: Document) -> int:
        return characters(document) + len(question.text)

    found = fit_questions(
        [large, endless, PENSION], length=length, max_length=115, keep_evidence=True
    )
    assert found.evidence_too_long == (large,)
    assert found.too_long == (endless,)
    assert [cut.questions for cut in found.cuts] == [(PENSION,)]


def test_one_endless_question_does_not_shorten_the_page_of_the_others() -> None:
    endless = replace(SALES, id="endless", text="why " * 100)

    def length(question: Question, document: Document) -> int:
        return characters(document) + len(question.text)

    room = WHOLE + 40
    found = fit_questions([endless, SALES], length=length, max_length=room, keep_evidence=False)
    assert found.no_document == ()
    assert len(found.cuts) + len(found.too_long) == 2
    assert found.cuts[0].document is PAGE


def test_a_page_of_which_no_text_would_be_left_cannot_be_shown() -> None:
    question = about(Paragraph("Sales of pipes were $12 million."))
    assert fitted(question, room=10).no_document == (question,)
    question = about(Table.from_cells([["sales of pipes", "$12 million"]], header_rows=0))
    assert fitted(question, room=10).no_document == (question,)


def test_a_page_without_text_is_shown_as_it_is() -> None:
    assert only(about(), room=0).whole
    assert only(about(Paragraph("")), room=0).whole


def test_what_was_asked_before_counts_with_the_question() -> None:
    turn = replace(SALES, text="and before?", history=(Turn("What is the pension cost?", "12"),))
    assert "Pension plans are closed." in texts(only(turn, room=130).document)


def test_relevance_is_in_shared_words_without_stop_words() -> None:
    asked = ["sales?", "RENT 2012?", "of the", ""]
    scores = relevance(["Sales rose.", "The rent fell."], asked)
    assert [[score > 0 for score in each] for each in scores] == [
        [True, False],
        [False, True],
        [False, False],
        [False, False],
    ]
    assert relevance(["...", ""], ["sales?"]) == [[0.0, 0.0]]
    assert relevance([], ["sales?"]) == [[]]


def test_text_without_spaces_is_found_by_its_characters() -> None:
    [scores] = relevance(["営業利益は十億円。", "売上高は百億円。"], ["売上高はいくら"])
    assert scores[1] > scores[0]


def test_sentences_end_at_their_stops_and_not_in_names() -> None:
    assert sentences("The U.S. grew 1.5%. Asia did not; nor did Europe.\n\nOdd") == [
        "The U.S. grew 1.5%. ", "Asia did not; ", "nor did Europe.\n\n", "Odd",
    ]  # fmt: skip
    assert sentences("売上高は百億円。利益は十億円。") == ["売上高は百億円。", "利益は十億円。"]
    assert [len(piece) for piece in sentences("word " * 200 + "x" * 450)] == [
        400,
        400,
        200,
        400,
        50,
    ]


def test_the_bare_document_has_the_headers_of_its_tables_alone() -> None:
    assert bare_document(PAGE) == replace(PAGE, blocks=(Table(rows=TABLE.rows[:1]),))


def test_a_single_question_is_fitted_without_its_evidence() -> None:
    cut = fit_question(SALES, length=characters, max_length=130)
    assert cut == only(SALES, room=130, keep_evidence=False)


@pytest.mark.parametrize(
    ("question", "room", "problem"),
    [
        (SALES, 10, "question '1' does not fit even without any paragraph and table row"),
        (
            replace(SALES, evidence=(Evidence(2),), source="dev.json row 3"),
            50,
            "dev.json row 3 does not fit with its evidence alone",
        ),
        (
            about(Paragraph("Sales of pipes were $12 million.")),
            5,
            "question 'q' fits only where nothing of its document is shown",
        ),
    ],
)
def test_a_single_question_that_does_not_fit_is_an_error(
    question: Question, room: int, problem: str
) -> None:
    with pytest.raises(DataError) as error:
        fit_question(question, length=characters, max_length=room, keep_evidence=True)
    assert str(error.value) == f"{problem}: {room} tokens are too few; raise max_length"


def test_questions_of_two_documents_are_refused() -> None:
    other = about(Paragraph("Sales rose."))
    with pytest.raises(ValueError, match="got 'ACME/2012/page_1' and 'page'"):
        fitted(SALES, other, room=100)


def test_no_questions_are_no_cuts() -> None:
    assert fitted(room=100) == Fitted()


def test_lengths_are_asked_for_a_few_times_only() -> None:
    blocks = tuple(Paragraph(f"Item {n} was {n * 37} million. " * (n % 5 + 1)) for n in range(200))
    page = Document(id="page", blocks=blocks)
    asked = [replace(SALES, id=str(n), document=page) for n in range(3)]
    calls: list[str] = []

    def length(question: Question, document: Document) -> int:
        calls.append(question.id)
        return characters(document) // 3 + 100

    for room in (200, 1000, 3000):
        calls.clear()
        fit_questions(asked, length=length, max_length=room, keep_evidence=True)
        assert len(calls) <= 12


def test_a_question_that_gets_longer_by_a_marker_is_looked_at_again() -> None:
    page = Document(id="page", blocks=tuple(Paragraph(f"Item {n}.") for n in range(4)))
    first, second = (replace(SALES, id=name, document=page) for name in ("first", "second"))
    tokens = {"first": [20, 10, 12, 9, 9], "second": [19, 11, 10, 9, 9]}

    def length(question: Question, document: Document) -> int:
        return tokens[question.id][4 - sum(t != MARKER for t in texts(document))]

    found = fit_questions([first, second], length=length, max_length=10, keep_evidence=False)
    [cut] = found.cuts
    assert cut.paragraphs == 3


def test_cutting_is_silent_and_alike_in_every_process() -> None:
    code = (
        "import logging, sys; logging.basicConfig(); sys.path.insert(0, 'tests')\n"
        "from test_budget import *\n"
        "print([only(SALES, PENSION, room=room) for room in (60, 90, 120, 150)])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert [run.stderr for run in runs] == ["", ""]


def test_a_question_that_is_given_twice_is_shown_twice() -> None:
    assert only(SALES, PENSION, SALES, room=130).questions == (SALES, PENSION, SALES)
    large = replace(SALES, evidence=(Evidence(2),))
    assert fitted(large, large, room=50).evidence_too_long == (large, large)
