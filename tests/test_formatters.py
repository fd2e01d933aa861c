from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.documents import SCALES, Document, Paragraph, Question, Scale, Table, Turn
from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
from finqa_sft.formatters.base import Formatter
from finqa_sft.formatters.budget import bare_document, fit_document
from finqa_sft.formatters.chat import number_text
from finqa_sft.formatters.linearize import document_text
from finqa_sft.formatters.program import SYSTEM, ProgramFormatter
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.filings import FilingsOptions, FilingsReader

TABLE = Table.from_cells([["(in millions)", "2012", "2011"], ["Net sales", "$ 5,829", "5,735"]])
PAGE = Document(
    id="ACME/2012/page_1",
    blocks=(Paragraph("Sales grew."), Paragraph("We make pipes."), TABLE, Paragraph("See note 4.")),
)
CHANGE = Question(
    id="ACME/2012/page_1-1",
    text="By what share did net sales grow?",
    document=PAGE,
    answer="1.6%",
    program="subtract(5829, 5735), divide(#0, 5735)",
    executed_answer=0.01639,
)
LOOKUP = replace(CHANGE, text="What were net sales in 2012?", answer="5,829", program=None)


def test_a_document_reads_as_lines_and_markdown() -> None:
    assert document_text(PAGE) == (
        "Sales grew.\n"
        "We make pipes.\n"
        "\n"
        "| (in millions) | 2012 | 2011 |\n"
        "| --- | --- | --- |\n"
        "| Net sales | $ 5,829 | 5,735 |\n"
        "\n"
        "See note 4."
    )


def test_pipes_and_line_breaks_in_cells_do_not_break_the_table() -> None:
    table = Table.from_cells([["a|b", "two\nlines"], ["c"]])
    text = document_text(Document(id="d", blocks=(table,)))
    assert text == "| a\\|b | two lines |\n| --- | --- |\n| c |  |"


def test_the_document_comes_before_the_question() -> None:
    prompt = ProgramFormatter().prompt(CHANGE, document=PAGE)
    assert [message["role"] for message in prompt] == ["system", "user"]
    assert prompt[0]["content"] == SYSTEM
    assert prompt[1]["content"] == (
        document_text(PAGE) + "\n\nQuestion: By what share did net sales grow?"
    )


def test_earlier_turns_follow_the_document_as_chat_turns() -> None:
    turns = (Turn("What were sales?", "5,829"), Turn("And before?", "5,735", program="add(1, 2)"))
    asked = replace(CHANGE, history=turns, text="The growth?")
    for formatter, second in ((ProgramFormatter(), "add(1, 2)"), (AnswerFormatter(), "5,735")):
        prompt = formatter.prompt(asked, document=PAGE)
        assert [(m["role"], m["content"].rpartition("\n")[2]) for m in prompt[1:]] == [
            ("user", "Question: What were sales?"),
            ("assistant", "5,829"),
            ("user", "Question: And before?"),
            ("assistant", second),
            ("user", "Question: The growth?"),
        ]


def test_an_executed_answer_is_taught_before_a_written_one() -> None:
    def taught(question: Question, **options: str) -> str:
        formatter = AnswerFormatter(AnswerOptions.model_validate(options))
        return formatter.completion(question)[0]["content"]

    assert taught(CHANGE) == "0.01639"
    assert taught(CHANGE, value="written") == "1.6%"
    assert taught(replace(CHANGE, executed_answer=None)) == "1.6%"
    assert taught(replace(CHANGE, executed_answer="yes")) == "yes"


def test_a_question_without_a_program_is_taught_its_bare_value() -> None:
    question = replace(LOOKUP, executed_answer=5829.0)
    assert ProgramFormatter().completion(question)[0]["content"] == "5829"


@pytest.mark.parametrize(
    ("number", "text"),
    [(407.0, "407"), (0.34719, "0.34719"), (-2.4, "-2.4"), (122604300.0, "122604300"),
     (1e-05, "0.00001"), (1e22, "10000000000000000000000"), (-0.0, "0")],
)  # fmt: skip
def test_numbers_are_written_without_exponents_or_empty_decimals(number: float, text: str) -> None:
    assert number_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_is_the_number(number: float) -> None:
    assert float(number_text(number)) == number


@pytest.mark.parametrize("formatter", [ProgramFormatter(), AnswerFormatter()])
def test_parse_reads_every_completion_back(formatter: Formatter) -> None:
    questions = list(FilingsReader(FilingsOptions(pages=40, difficulty="hard")))
    assert len(questions) > 150
    for question in questions:
        assert not isinstance(question, BadRow)
        text = formatter.completion(question)[0]["content"]
        prediction = formatter.parse(f" {text}\n")
        if isinstance(formatter, ProgramFormatter) and question.program:
            assert (prediction.program, prediction.answer) == (question.program, None)
        else:
            value, _, scale = text.partition("\nscale: ")
            assert (prediction.program, prediction.answer) == (None, value)
            assert prediction.scale == scale


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_stands_under_the_answer_and_is_read_back(scale: Scale) -> None:
    formatter = AnswerFormatter()
    for question in (
        CHANGE,
        replace(LOOKUP, answer="5.8 million"),
        replace(LOOKUP, answer="percent"),
    ):
        scaled = replace(question, scale=scale)
        plain = formatter.completion(replace(question, scale=""))[0]["content"]
        text = formatter.completion(scaled)[0]["content"]
        assert text == (f"{plain}\nscale: {scale}" if scale else plain)
        prediction = formatter.parse(text)
        assert (prediction.answer, prediction.scale) == (plain, scale)


@pytest.mark.parametrize(
    ("text", "answer", "scale"),
    [
        ("12.5\n\nscale: million\nmore", "12.5", "million"),
        ("12.5\nscale: millionth", "12.5", ""),
        ("12.5\nscale: dozen", "12.5", ""),
        ("scale: million", "scale: million", ""),
    ],
)
def test_a_scale_is_read_from_the_line_under_the_answer_alone(
    text: str, answer: str, scale: str
) -> None:
    prediction = AnswerFormatter().parse(text)
    assert (prediction.answer, prediction.scale) == (answer, scale)


@given(st.text())
def test_parse_takes_any_text(text: str) -> None:
    for formatter in (ProgramFormatter(), AnswerFormatter()):
        prediction = formatter.parse(text)
        assert prediction.answer != ""
        assert prediction.program != ""


def test_a_reasoning_block_before_the_completion_is_passed_over() -> None:
    prediction = ProgramFormatter().parse("<think>\n12?\n</think>\n\nadd(1, 2)\nadd(3, 4)")
    assert prediction.program == "add(1, 2)"


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
