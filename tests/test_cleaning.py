"""Cleaning whole questions: documents, programs, evidence, and the account of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finqa_sft.cleaning import Change, Cleaner, CleaningOptions
from finqa_sft.cleaning.account import CHANGES_KEPT, excerpts
from finqa_sft.documents import Document, Evidence, Paragraph, Question, Table, Turn
from finqa_sft.errors import ProgramError
from finqa_sft.programs import execute_program, parse_program
from finqa_sft.readers.base import BadRow, Reader
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
STABLE = settings(
    deadline=None,
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)

TABLE = Table(
    (
        ("", "2019", "", "2018"),
        ("", "$ millions", "", "$ millions"),
        ("stockholders 2019 equity", "5", "", "-4 ( 4 )"),
        ("", "", "", ""),
        ("granted", "16.6% ( 16.6 % )", "", "7%"),
        ("granted", "−3", "", "2"),
    )
)
DOCUMENT = Document(
    "QZX/2019/page_3.pdf",
    (
        Paragraph("the company 2019s equity grew in 2019 ."),
        Paragraph("."),
        TABLE,
        Paragraph(". ."),
        Paragraph("sales were flat ."),
    ),
)
QUESTION = Question(
    id="q-1",
    text="what was the company 2019s equity in 2019?",
    document=DOCUMENT,
    answer="-4 ( 4 )",
    program="table_min(stockholders 2019 equity, none), add(#0, 2019)",
    executed_answer=2015.0,
    evidence=(Evidence(0), Evidence(1), Evidence(2, 3), Evidence(2, 5), Evidence(2), Evidence(4)),
    history=(Turn("the bank 2019s sales?", "5", "table_max(granted, none)"),),
    source="train.json row 1",
)
CLEANED = Table(
    (
        ("", "2019", "2018"),
        ("", "$ millions", "$ millions"),
        ("stockholders' equity", "5", "-4"),
        ("granted (1)", "16.6%", "7%"),
        ("granted", "-3", "2"),
    ),
    header_rows=2,
)


def off(**switches: bool) -> CleaningOptions:
    """All rules off but the given ones."""
    return CleaningOptions(**(dict.fromkeys(CleaningOptions.model_fields, False) | switches))


def result(question: Question) -> float | str | None:
    """What the program computes, or None where it cannot be computed."""
    rows = [row for table in question.document.tables for row in table.rows]
    try:
        return execute_program(parse_program(question.program or ""), rows)
    except ProgramError:
        return None


def test_a_question_is_cleaned_with_its_document() -> None:
    cleaned = Cleaner().clean(QUESTION)
    assert cleaned.document.blocks == (
        Paragraph("the company's equity grew in 2019 ."),
        CLEANED,
        Paragraph("sales were flat ."),
    )
    assert cleaned.text == "what was the company's equity in 2019?"
    assert cleaned.answer == "-4"
    assert cleaned.history == (Turn("the bank's sales?", "5", "table_max(granted, none)"),)
    assert cleaned.source == QUESTION.source


def test_programs_name_rows_as_the_cleaned_table_does_and_compute_the_same() -> None:
    cleaner = Cleaner()
    cleaned = cleaner.clean(QUESTION)
    assert cleaned.program == "table_min(stockholders' equity, none), add(#0, 2019)"
    mended = [[cell for cell in row if cell] for row in TABLE.rows]
    assert execute_program(parse_program(QUESTION.program or ""), mended) == result(cleaned)
    assert cleaner.original_program(cleaned.program, document_id=DOCUMENT.id) == QUESTION.program


def test_new_labels_lead_back_to_the_original_ones() -> None:
    cleaner = Cleaner()
    cleaner.clean(QUESTION)
    assert cleaner.labels(DOCUMENT.id) == {
        "stockholders' equity": "stockholders 2019 equity",
        "granted (1)": "granted",
    }
    assert cleaner.labels("another") == {}
    program = "table_max(granted (1), none)"
    assert cleaner.original_program(program, document_id=DOCUMENT.id) == "table_max(granted, none)"
    assert cleaner.original_program("no program", document_id=DOCUMENT.id) == "no program"


def test_evidence_follows_its_block_and_row() -> None:
    cleaner = Cleaner()
    cleaned = cleaner.clean(QUESTION)
    assert cleaned.evidence == (Evidence(0), Evidence(1, 4), Evidence(1), Evidence(2))
    assert cleaner.noticed["evidence_left_out"] == 2


def test_each_rule_counts_what_it_changes() -> None:
    cleaner = Cleaner()
    cleaner.clean(QUESTION)
    assert cleaner.counts == {
        "stripped_quotes": 3,
        "doubled_negatives": 3,
        "spaces_and_minus": 1,
        "filler_sentences": 2,
        "empty_rows": 1,
        "empty_columns": 1,
        "header_rows": 1,
        "duplicate_labels": 1,
    }


def test_changes_say_what_stood_where() -> None:
    cleaner = Cleaner()
    cleaner.clean(QUESTION)
    page = "QZX/2019/page_3.pdf"
    assert Change("filler_sentences", f"{page}, block 1", ".", "") in cleaner.changes
    assert (
        Change("duplicate_labels", f"{page}, block 2, row 4", "granted", "granted (1)")
        in cleaner.changes
    )
    assert Change("spaces_and_minus", f"{page}, block 2, row 5, column 1", "−3", "-3") in (
        cleaner.changes
    )
    assert Change("doubled_negatives", "q-1, answer", "-4 ( 4 )", "-4") in cleaner.changes
    assert Change("empty_rows", f"{page}, block 2, row 3", "", "") in cleaner.changes
    assert Change("empty_columns", f"{page}, block 2, column 2", "", "") in cleaner.changes


@pytest.mark.parametrize("rule", sorted(CleaningOptions.model_fields))
def test_a_rule_alone_makes_its_changes_alone(rule: str) -> None:
    cleaner = Cleaner(off(**{rule: True}))
    cleaned = cleaner.clean(QUESTION)
    assert set(cleaner.counts) == {rule}
    assert cleaned != QUESTION


def test_with_all_rules_off_a_question_is_returned_as_it_is() -> None:
    cleaner = Cleaner(off())
    assert cleaner.clean(QUESTION) is QUESTION
    assert not cleaner.counts
    assert not cleaner.noticed


def test_a_clean_question_is_returned_as_the_same_object() -> None:
    cleaned = Cleaner().clean(QUESTION)
    again = Cleaner()
    assert again.clean(cleaned) is cleaned
    assert not again.counts


def test_questions_of_equal_documents_share_the_cleaned_one_and_count_it_once() -> None:
    cleaner = Cleaner()
    first = cleaner.clean(QUESTION)
    counts = dict(cleaner.counts)
    copy = replace(DOCUMENT, blocks=tuple(DOCUMENT.blocks))
    second = cleaner.clean(replace(QUESTION, id="q-2", text="why?", answer="no", document=copy))
    assert second.document is first.document
    assert cleaner.counts == counts


def test_labels_that_would_become_equal_stay() -> None:
    table = Table((("", "x"), ("bank 2019s equity", "1"), ("bank's equity", "2")))
    question = replace(QUESTION, document=Document("d", (table,)), evidence=(), history=())
    question = replace(question, program="table_sum(bank 2019s equity, none)")
    cleaned = Cleaner().clean(question)
    assert cleaned.document is question.document
    assert cleaned.program == question.program


def test_rows_of_a_label_that_stays_are_not_renamed() -> None:
    rows = (("", "x"), ("bank 2019s", "1"), ("bank 2019s", "2"), ("bank's", "3"))
    question = replace(QUESTION, document=Document("d", (Table(rows),)), evidence=())
    assert Cleaner().clean(question).document is question.document


def test_a_cell_keeps_the_number_that_programs_read_in_it() -> None:
    table = Table((("", "x"), ("rates", "3.0% ( 3.0 % ) 3.5% ( 3.5 % )")))
    question = replace(QUESTION, document=Document("d", (table,)), evidence=())
    assert Cleaner().clean(question).document is question.document


def test_a_document_of_filler_alone_stays() -> None:
    question = replace(QUESTION, document=Document("d", (Paragraph("."),)), evidence=())
    assert Cleaner().clean(question).document is question.document


def test_dashes_that_may_be_years_are_counted_and_stay() -> None:
    table = Table((("", "total"), ("balance 2014 net", "$ 2014"), ("company 2019s", "2014")))
    page = Document("d", (Paragraph("notes to the accounts 2014 ( continued )"), table))
    cleaner = Cleaner()
    cleaned = cleaner.clean(replace(QUESTION, document=page, evidence=(), history=()))
    assert cleaned.document.blocks[0] == page.blocks[0]
    assert cleaned.document.tables[0].rows[1] == table.rows[1]
    assert cleaner.noticed == {"dash_or_year": 4}


def test_the_first_changes_of_each_rule_are_kept() -> None:
    blocks = (Paragraph("sales"), *[Paragraph(".")] * (CHANGES_KEPT + 5))
    cleaner = Cleaner()
    cleaner.clean(replace(QUESTION, text="?", answer="5", document=Document("d", blocks)))
    assert cleaner.counts["filler_sentences"] == CHANGES_KEPT + 5
    assert len(cleaner.changes) == CHANGES_KEPT


def test_of_a_long_text_the_changed_part_is_kept() -> None:
    before, after = excerpts("a" * 9000 + " b 2019s" + "c" * 9000, "a" * 9000 + " b's" + "c" * 9000)
    assert before == "…" + "a" * 58 + " b 2019s" + "c" * 54 + "…"
    assert after == "…" + "a" * 58 + " b's" + "c" * 58 + "…"
    assert excerpts("short 2019s", "short's") == ("short 2019s", "short's")
    whole = "a" * 9000
    assert excerpts(whole + " ( 2 )", whole) == ("…" + "a" * 60 + " ( 2 )", "…" + "a" * 60)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("a bank 2019s", "a bank's", "d, block 1: 'a bank 2019s' became \"a bank's\""),
        (
            "the net sales of this year were much lower , at -2 ( 2 )",
            "the net sales of this year were much lower , at -2",
            "d, block 1: '…much lower , at -2 ( 2 )' became '…much lower , at -2'",
        ),
        ("a" * 99 + " 2019s", "a" * 99 + "'s", f"d, block 1: '…{'a' * 20} 2019s' became "
         f'"…{"a" * 20}\'s"'),
        (". " * 99, "", "d, block 1: '. . . . . . . . . .…' left out"),
        ("", "", "d, block 1 left out"),
    ],
)  # fmt: skip
def test_a_change_is_told_in_a_line(before: str, after: str, told: str) -> None:
    assert Change("rule", "d, block 1", before, after).told() == told


@STABLE
@given(*[st.text(alphabet=" ab2'", max_size=900)] * 2)
def test_what_is_told_of_a_change_is_short_and_shows_it(before: str, after: str) -> None:
    after += "."
    told = Change("rule", "d", before, after).told()
    assert len(told) <= 110
    first, second = told.removeprefix("d: ").split(" became ")
    assert before == after or first != second


LABELS = [
    "",
    "a",
    "b",
    "bank 2019s",
    "bank's",
    "rate 5% ( 5 % )",
    "rate 5%",
    "-1",
    "h:",
    "a\u00a0b",
]
CELLS = [
    "",
    "5",
    "-2 ( 2 )",
    "$ -5 ( 5 )",
    "16.6% ( 16.6 % )",
    "−3",
    "2019",
    "in millions",
    "1 ( 2 )",
]
TABLES = st.integers(1, 3).flatmap(
    lambda width: st.lists(
        st.tuples(st.sampled_from(LABELS), *[st.sampled_from(CELLS)] * width),
        min_size=1,
        max_size=9,
    )
)
PARAGRAPHS = st.sampled_from(
    [".", "...", "the bank 2019s", "in 2019 sales", "( 201d", "201cnet 201d"]
)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    table = Table(tuple(draw(TABLES)), header_rows=1)
    texts = [Paragraph(text) for text in draw(st.lists(PARAGRAPHS, max_size=4))]
    label = draw(st.sampled_from([row[0] for row in table.rows]))
    operator = draw(st.sampled_from(["table_max", "table_sum"]))
    return replace(
        QUESTION,
        document=Document("d", (*texts, table)),
        program=f"{operator}({label}, none), add(#0, 2)",
        evidence=tuple(Evidence(len(texts), i) for i in range(len(table.rows))),
        history=(),
    )


@STABLE
@given(questions())
def test_figures_stay_and_programs_compute_what_they_computed(question: Question) -> None:
    cleaner = Cleaner()
    cleaned = cleaner.clean(question)

    def filled(question: Question) -> int:
        return sum(map(bool, chain.from_iterable(question.document.tables[0].rows)))

    assert filled(cleaned) == filled(question)
    assert result(question) in (None, result(cleaned))
    assert cleaned.program is not None
    assert cleaner.original_program(cleaned.program, document_id="d") == question.program
    rows = question.document.tables[0].rows
    kept = [rows[evidence.row or 0] for evidence in question.evidence]
    assert len(cleaned.evidence) == sum(any(row) for row in kept) or not any(map(any, rows))


@STABLE
@given(questions())
def test_cleaning_what_is_clean_changes_nothing(question: Question) -> None:
    cleaned = Cleaner().clean(question)
    again = Cleaner()
    assert again.clean(cleaned) is cleaned, again.changes


REAL = {
    "finqa/dev_200.json": lambda path: FinqaReader(FinqaOptions(files=(path,))),
    "tatqa/dev.json": lambda path: TatqaReader(TatqaOptions(files=(path,))),
    "convfinqa/dev_421_cleaned.json": lambda path: ConvfinqaReader(ConvfinqaOptions(files=(path,))),
}


@pytest.mark.parametrize("name", REAL)
def test_real_questions_compute_the_same_and_are_clean_afterwards(name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"needs shared/data/{name} beside the checkout")
    reader: Reader = REAL[name](DATA / name)
    cleaner, again = Cleaner(), Cleaner()
    for question in reader:
        assert not isinstance(question, BadRow)
        cleaned = cleaner.clean(question)
        assert result(cleaned) == result(question)
        assert again.clean(cleaned) is cleaned
        assert cleaned.executed_answer == question.executed_answer
        if question.program and cleaned.program:
            page = question.document.id
            assert cleaner.original_program(cleaned.program, document_id=page) == question.program
    assert cleaner.counts
    assert not again.counts
