"""The synthetic reader `filings`: the same everywhere, and right in every figure."""

from __future__ import annotations

import hashlib
import operator
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finqa_sft.documents import Document, Paragraph, Question, Table
from finqa_sft.readers.base import Reader
from finqa_sft.readers.filings import FilingsOptions, FilingsReader
from finqa_sft.readers.filings.draws import Draws
from finqa_sft.readers.filings.pages import KINDS, estimate_tokens, make_page
from finqa_sft.readers.filings.patterns import PATTERNS
from finqa_sft.readers.filings.vocabulary import FILLER, HEADS, SECTORS, company

LENGTHS = ("short", "medium", "long")
DIFFICULTIES = ("easy", "medium", "hard")

SUMS = {
    "Gross profit": "Net sales - Cost of sales - Cost of goods sold",
    "Operating income": "Gross profit - Selling and administrative expenses - Research and "
    "development - Amortization of intangibles - Restructuring charges",
    "Income before income taxes": "Operating income + Income from operations - Interest expense + "
    "Other income (expense), net",
    "Net income": "Income before income taxes - Provision for income taxes - Income tax expense",
    "Net change in cash": "Operating activities + Investing activities + Financing activities + "
    "Effect of exchange rates",
    "Cash at end of year": "Cash at beginning of year + Net change in cash",
    "Free cash flow": "Operating activities + Capital expenditures",
    "Stock-based compensation after tax": "Total stock-based compensation + Income tax benefit",
    "Net property and equipment": "Gross property and equipment + Less accumulated depreciation",
    "Goodwill at end of year": "Goodwill at beginning of year + Goodwill acquired + Currency "
    "translation + Impairment + Divestitures",
    "Long-term debt, net of discount": "Total maturities + Less unamortized discount",
    "Present value of payments": "Total lease payments + Less imputed interest",
}
SUMS["Income from operations"] = SUMS["Operating income"]
"""What adds up to what; rows that a table does not have count nothing."""

SUMS_OF_ALL_ABOVE = {
    "Total net sales",
    "Total stock-based compensation",
    "Effective tax rate",
    "Total inventories",
    "Gross property and equipment",
    "Total maturities",
    "Total lease payments",
    "Total obligations",
}


def read(**options: object) -> list[Question]:
    questions = list(FilingsReader(FilingsOptions.model_validate(options)))
    assert all(isinstance(question, Question) for question in questions)
    return [question for question in questions if isinstance(question, Question)]


def documents(questions: Sequence[Question]) -> list[Document]:
    return [document for document, _ in groupby(question.document for question in questions)]


def cell_number(cell: str) -> str:
    """A cell as programs write it."""
    body = cell.removeprefix("$ ").replace(",", "")
    return re.sub(r"^\((.*)\)", r"-\1", body)


def value(literal: str) -> float:
    return float(literal[:-1]) / 100 if literal.endswith("%") else float(literal)


def evidence_texts(question: Question) -> list[str]:
    """The numbers, and labels, of each piece of evidence."""
    found = []
    for place in question.evidence:
        block = question.document.blocks[place.block]
        if isinstance(block, Paragraph):
            assert place.row is None
            numbers = re.findall(r"\d[\d,]*(?:\.\d+)?%?", block.text)
            found.append([number.replace(",", "") for number in numbers])
        else:
            assert place.row is not None
            assert block.header_rows <= place.row < len(block.rows)
            label, *cells = block.rows[place.row]
            found.append([label, *map(cell_number, cells)])
    return [f"|{'|'.join(texts)}|" for texts in found]


def compute(program: str, table: Table) -> float | str:
    """An evaluator that knows nothing of `finqa_sft.programs`."""
    apply = {
        "add": operator.add,
        "subtract": operator.sub,
        "multiply": operator.mul,
        "divide": operator.truediv,
    }
    results: list[float] = []
    steps = re.findall(r"(\w+)\(([^()]*), ([^(),]*)\)", program)
    assert ", ".join(f"{op}({left}, {right})" for op, left, right in steps) == program
    for place, (op, left, right) in enumerate(steps):
        if op.startswith("table_"):
            assert right == "none"
            (row,) = [row for row in table.rows if row[0] == left]
            assert not any("(" in cell for cell in row[1:])
            cells = [value(cell_number(cell)) for cell in row[1:]]
            functions = {"max": max, "min": min, "sum": sum, "average": mean}
            results.append(functions[op.removeprefix("table_")](cells))
            continue
        arguments = []
        for argument in (left, right):
            if argument.startswith("#"):
                assert int(argument[1:]) < place
                arguments.append(results[int(argument[1:])])
            else:
                arguments.append(value(argument.removeprefix("const_")))
        if op == "greater":
            assert place == len(steps) - 1
            return "yes" if arguments[0] > arguments[1] else "no"
        results.append(apply[op](*arguments))
    return round(results[-1], 5)


def skeleton(program: str | None) -> str:
    """A program without its figures and labels."""
    if program is None:
        return "lookup"
    program = re.sub(r"(table_\w+)\([^,]*,", r"\1(label,", program)
    return re.sub(r"(?<=[ (])-?[\d.]+%?(?=[,)])", "n", program)


def digest(questions: Sequence[Question]) -> str:
    """A fingerprint of all that a reader of the pages can see."""
    seen = [
        (
            question.id,
            question.text,
            [
                block.text if isinstance(block, Paragraph) else block.rows
                for block in question.document.blocks
            ],
            (question.answer, question.program, question.executed_answer, question.scale),
            [(place.block, place.row) for place in question.evidence],
        )
        for question in questions
    ]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


any_options = st.builds(
    dict,
    pages=st.integers(1, 6),
    questions_per_page=st.none() | st.integers(1, 8),
    length=st.sampled_from(LENGTHS),
    difficulty=st.sampled_from(DIFFICULTIES),
    seed=st.integers(-(2**40), 2**40),
)


@pytest.fixture(scope="module")
def everything() -> dict[tuple[str, str], list[Question]]:
    """Every length and difficulty: two rounds of all kinds of pages, 8 questions a page."""
    return {
        (length, difficulty): read(
            pages=2 * len(KINDS), questions_per_page=8, length=length, difficulty=difficulty
        )
        for length in LENGTHS
        for difficulty in DIFFICULTIES
    }


def tables(everything: dict[tuple[str, str], list[Question]]) -> Iterator[Table]:
    for questions in everything.values():
        for document in documents(questions):
            yield from document.tables


PINNED = {
    ("short", "easy"): "cd995c46d1e7bcc5",
    ("medium", "medium"): "7776d749ce975045",
    ("long", "hard"): "69d7d09634392d54",
}
"""Fingerprints of the first five pages; whoever changes one changes all trials made with them."""


@pytest.mark.parametrize(("length", "difficulty"), PINNED)
def test_the_first_pages_never_change(length: str, difficulty: str) -> None:
    assert digest(read(pages=5, length=length, difficulty=difficulty)) == PINNED[length, difficulty]


def test_the_random_draws_never_change() -> None:
    draws = Draws(7, "page", 3)
    assert [draws.below(1000) for _ in range(4)] == [649, 768, 54, 194]
    assert draws.shuffled("abcdef") == ["b", "e", "a", "f", "d", "c"]
    assert draws.between(2, 3) == 2.8181200129856494


def test_another_process_with_another_hash_seed_makes_the_same_pages() -> None:
    script = (
        "import sys\n"
        "from finqa_sft.readers.filings import FilingsOptions, FilingsReader\n"
        "print(list(FilingsReader(FilingsOptions(pages=5))))\n"
        "print(sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        env={
            "PYTHONHASHSEED": "12345",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == f"{read(pages=5)}\n[]\n"


def test_a_reader_can_be_read_twice() -> None:
    reader: Reader = FilingsReader(FilingsOptions(pages=3))
    assert list(reader) == list(reader)


def test_the_default_is_forty_medium_pages_of_four_to_eight_questions() -> None:
    questions = read()
    counts = [len(list(group)) for _, group in groupby(q.document.id for q in questions)]
    assert len(counts) == 40
    assert set(counts) == {4, 5, 6, 7, 8}
    assert questions == read(length="medium", difficulty="medium", seed=0)


@given(any_options)
@settings(max_examples=15, deadline=None)
def test_a_page_does_not_depend_on_how_many_there_are(options: dict[str, object]) -> None:
    questions = read(**options)
    more = read(**{**options, "pages": 9})
    assert more[: len(questions)] == questions


@given(any_options)
@settings(max_examples=15, deadline=None)
def test_fewer_questions_are_the_first_of_more_about_the_same_page(
    options: dict[str, object],
) -> None:
    all_questions = read(**{**options, "questions_per_page": 8})
    expected = [
        question
        for _, group in groupby(all_questions, key=lambda question: question.document)
        for question in list(group)[:3]
    ]
    assert read(**{**options, "questions_per_page": 3}) == expected


@given(any_options)
@settings(max_examples=60, deadline=None)
def test_whatever_the_options_every_question_is_sound(options: dict[str, object]) -> None:
    questions = read(**options)
    pages = documents(questions)
    wanted = options["questions_per_page"]

    assert len({question.id for question in questions}) == len(questions)
    assert len({page.id for page in pages}) == len(pages) == options["pages"]
    for number, page in enumerate(pages, start=1):
        own = [question for question in questions if question.document == page]
        assert len(own) == wanted if wanted else 4 <= len(own) <= 8
        assert [question.id for question in own] == [f"{page.id}-{k}" for k in range(len(own))]
        assert {question.source for question in own} == {f"filings page {number}"}
        assert len({question.text for question in own}) == len(own)
        assert re.fullmatch(rf"{page.company}/20\d\d/page_{number}", page.id)
    for question in questions:
        assert_sound(question)


def test_every_kind_of_page_has_sound_questions_at_every_length_and_difficulty(
    everything: dict[tuple[str, str], list[Question]],
) -> None:
    for questions in everything.values():
        assert len(questions) == 8 * 2 * len(KINDS)
        for question in questions:
            assert_sound(question)


def assert_sound(question: Question) -> None:
    """Evidence exists and holds every figure; the program gives the answer as it is written."""
    assert question.evidence
    assert len(set(question.evidence)) == len(question.evidence)
    places = evidence_texts(question)
    if question.program is None:
        assert question.answer_type == "span"
        (place,) = places
        assert f"|{cell_number(question.answer)}|" in place
        assert question.executed_answer == pytest.approx(value(cell_number(question.answer)))
    else:
        result = compute(question.program, question.document.tables[0])
        assert question.executed_answer == result
        assert question.answer_type == ("comparison" if isinstance(result, str) else "arithmetic")
        labels = re.findall(r"table_\w+\((.*?), none\)", question.program)
        literals = re.findall(r"(?<=[ (])-?[\d.]+%?(?=[,)])", question.program)
        wanted = [f"|{text}|" for text in (*labels, *literals)]
        assert all(any(text in place for place in places) for text in wanted), question
        assert all(any(text in place for text in wanted) for place in places), question
    assert_written(question)


def assert_written(question: Question) -> None:
    """The answer is the executed one, rounded; its scale is the one that the page names."""
    executed = question.executed_answer
    page = " ".join(
        block.text if isinstance(block, Paragraph) else block.rows[block.header_rows - 1][0]
        for block in question.document.blocks
    )
    if isinstance(executed, str):
        assert (question.answer, question.scale) == (executed, "")
        return
    assert isinstance(executed, float)
    written = cell_number(question.answer)
    assert written.endswith("%") == (question.scale == "percent")
    number = written.rstrip("%")
    last_digit = 10.0 ** -len(number.partition(".")[2])
    shown = 100 * executed if question.scale == "percent" else executed
    assert abs(float(number) - shown) <= 0.5001 * last_digit
    assert float(number) != 0
    if question.scale not in ("", "percent"):
        assert f"in {question.scale}s" in page or f" {question.scale}" in page


def test_every_pattern_is_asked_where_its_difficulty_says_and_nowhere_else() -> None:
    for difficulty in DIFFICULTIES:
        questions = read(pages=250, questions_per_page=8, difficulty=difficulty, seed=1)
        expected = {
            "lookup"
            if pattern.program == "{a}"
            else re.sub(r"\{\w+\}", "n", pattern.program.replace("{label}", "label"))
            for pattern in PATTERNS
            if difficulty[0] in pattern.levels
        }
        assert {skeleton(question.program) for question in questions} == expected
        texts = " ".join(question.text for question in questions)
        for pattern in PATTERNS:
            if difficulty[0] in pattern.levels:
                for wording in pattern.texts:
                    words = re.escape(wording)
                    regex = re.sub(r"\\\{\w+\\\}", r"[^?]*", words)
                    assert re.search(regex, texts), wording


def test_answers_come_from_the_table_from_the_text_and_from_both(
    everything: dict[tuple[str, str], list[Question]],
) -> None:
    for (_, difficulty), questions in everything.items():
        sources = {
            frozenset(place.row is None for place in question.evidence) for question in questions
        }
        assert {frozenset({True}), frozenset({False})} <= sources
        assert (frozenset({True, False}) in sources) == (difficulty != "easy")


def test_yes_and_no_are_both_common() -> None:
    verdicts = [q.answer for q in read(pages=150) if q.answer_type == "comparison"]
    assert 0.35 < mean(verdict == "yes" for verdict in verdicts) < 0.65


def test_every_kind_of_page_comes_once_before_any_comes_twice() -> None:
    headings = {heading for kind in KINDS for heading in kind.headings}
    assert len(headings) == sum(len(kind.headings) for kind in KINDS)
    pages = [make_page(number, FilingsOptions(length="short")) for number in range(len(KINDS))]
    shown = [
        [block.text for block in page.document.blocks if isinstance(block, Paragraph)]
        for page in pages
    ]
    for kind in KINDS:
        assert sum(bool(set(kind.headings) & set(texts)) for texts in shown) == 1


def test_tables_are_rectangular_with_one_label_each(
    everything: dict[tuple[str, str], list[Question]],
) -> None:
    for questions in everything.values():
        for document in documents(questions):
            labels = []
            for table in document.tables:
                assert len({len(row) for row in table.rows}) == 1
                assert table.header_rows in (1, 2)
                assert all(table.rows[table.header_rows - 1][1:])
                body = table.rows[table.header_rows :]
                assert all(cell for row in body for cell in row)
                labels += [row[0] for row in body]
            assert len(set(labels)) == len(labels)


def test_totals_add_up(everything: dict[tuple[str, str], list[Question]]) -> None:
    checked = set()
    for table in tables(everything):
        body = {
            row[0]: [value(cell_number(cell)) for cell in row[1:]]
            for row in table.rows[table.header_rows :]
        }
        for label, figures in body.items():
            if label in SUMS_OF_ALL_ABOVE:
                terms = list(body)[: list(body).index(label)]
                expected = [
                    sum(column) for column in zip(*(body[term] for term in terms), strict=True)
                ]
            elif label == "Total segment operating income":
                parts = [body[term] for term in body if term.endswith(" operating income")]
                expected = [sum(column) for column in zip(*parts[:-1], strict=True)]
            elif label in SUMS:
                expected = [0.0] * len(figures)
                for sign, term in re.findall(r"(?:^|([+-]) )(.+?)(?= [+-] |$)", SUMS[label]):
                    factor = -1 if sign == "-" else 1
                    row = body.get(term, [0.0] * len(figures))
                    expected = [e + factor * r for e, r in zip(expected, row, strict=True)]
            else:
                continue
            checked.add(label)
            assert figures == pytest.approx(expected, abs=1e-6), (label, table)
    assert checked == {*SUMS, *SUMS_OF_ALL_ABOVE, "Total segment operating income"}


def test_columns_that_sum_the_others_do(everything: dict[tuple[str, str], list[Question]]) -> None:
    seen = 0
    for table in tables(everything):
        if table.rows[0][-1].startswith("Total"):
            seen += 1
            for row in table.rows[1:]:
                *parts, whole = (value(cell_number(cell)) for cell in row[1:])
                assert whole == pytest.approx(sum(parts))
    assert seen > 10


def test_a_year_opens_with_what_the_year_before_closed_with(
    everything: dict[tuple[str, str], list[Question]],
) -> None:
    seen = 0
    for table in tables(everything):
        rows = {row[0]: row[1:] for row in table.rows}
        for name in ("Cash", "Goodwill"):
            if f"{name} at beginning of year" in rows:
                seen += 1
                opening = [cell_number(cell) for cell in rows[f"{name} at beginning of year"]]
                closing = [cell_number(cell) for cell in rows[f"{name} at end of year"]]
                assert opening[:-1] == closing[1:]
    assert seen > 10


def test_earnings_per_share_are_net_income_over_shares(
    everything: dict[tuple[str, str], list[Question]],
) -> None:
    found = [
        [list(map(value, map(cell_number, rows[label]))) for label in
         ("Net income", "Average diluted shares", "Diluted earnings per share")]
        for rows in ({row[0]: row[1:] for row in table.rows} for table in tables(everything))
        if "Diluted earnings per share" in rows
    ]  # fmt: skip
    assert found
    for net, shares, earnings in found:
        assert earnings == pytest.approx(
            [n / s for n, s in zip(net, shares, strict=True)], abs=0.006
        )


def test_figures_are_plausible(everything: dict[tuple[str, str], list[Question]]) -> None:
    for questions in everything.values():
        for question in questions:
            program = question.program or ""
            executed = question.executed_answer
            if program.startswith("subtract") and question.scale == "percent":
                assert isinstance(executed, float)
                assert -0.8 < executed < 1.5
            if skeleton(program) in ("divide(n, n)", "multiply(n, const_1000), divide(#0, n)"):
                assert isinstance(executed, float)
                assert 0.005 < executed < 0.98


def test_lengths_stay_within_their_bands(
    everything: dict[tuple[str, str], list[Question]],
) -> None:
    bands = {"short": (130, 300, 225), "medium": (410, 720, 490), "long": (910, 1350, 1030)}
    for (length, _), questions in everything.items():
        least, most, average = bands[length]
        sizes = [sum(map(estimate_tokens, page.blocks)) for page in documents(questions)]
        assert least <= min(sizes)
        assert max(sizes) <= most
        assert 0.7 * average < mean(sizes) <= average
        assert {len(page.tables) for page in documents(questions)} == {1 + (length == "long")}


def test_harder_pages_have_longer_programs_and_larger_tables(
    everything: dict[tuple[str, str], list[Question]],
) -> None:
    for length in LENGTHS:
        steps, cells = [], []
        for difficulty in DIFFICULTIES:
            questions = everything[length, difficulty]
            programs = [question.program for question in questions if question.program]
            steps.append(mean(program.count("(") for program in programs))
            cells.append(
                mean(
                    len(table.rows) * len(table.rows[0])
                    for page in documents(questions)
                    for table in page.tables
                )
            )
        assert all(later > 1.1 * earlier for earlier, later in pairwise(steps)), steps
        assert all(later > 1.15 * earlier for earlier, later in pairwise(cells)), cells
    easy = {skeleton(question.program) for question in everything["medium", "easy"]}
    assert not any("table_" in program or "divide(n" in program for program in easy)
    assert max(program.count("(") for program in easy) == 2


def test_negative_figures_stand_in_parentheses_and_are_computed_with(
    everything: dict[tuple[str, str], list[Question]],
) -> None:
    questions = [question for some in everything.values() for question in some]
    cells = [cell for table in tables(everything) for row in table.rows for cell in row[1:]]
    assert any(re.fullmatch(r"\(\d{1,3}(,\d{3})+\)", cell) for cell in cells)
    assert any(re.fullmatch(r"\(\d+\.\d\)%", cell) for cell in cells)
    assert not any("-" in cell for cell in cells)
    assert any(re.search(r"\(-\d", question.program or "") for question in questions)


def test_text_is_finished_english(everything: dict[tuple[str, str], list[Question]]) -> None:
    for questions in everything.values():
        texts = [question.text for question in questions]
        assert all(text.endswith("?") and text[0].isupper() for text in texts)
        for page in documents(questions):
            paragraphs = [block.text for block in page.blocks if isinstance(block, Paragraph)]
            assert len(set(paragraphs)) == len(paragraphs)
            texts += paragraphs
        for text in texts:
            assert text == text.strip()
            assert not re.search(r"[{}|]|  |\bNone\b(?! of)|\b(\w+) \1\b| ,|\?\?|\.\.", text), text


def test_a_filler_says_nothing_in_figures() -> None:
    assert not any(re.search(r"\d", filler) for filler in FILLER)
    assert len(set(FILLER)) == len(FILLER)


def test_neighbouring_pages_share_a_company_and_companies_have_tickers_of_their_own() -> None:
    pages = documents(read(pages=9, questions_per_page=1))
    assert [len(list(group)) for _, group in groupby(pages, key=lambda page: page.company)] == [
        3
    ] * 3
    firms = [company(number, seed=5) for number in range(len(HEADS) * len(SECTORS))]
    assert len({firm.ticker for firm in firms}) == len({firm.name for firm in firms}) == len(firms)
    assert all(re.fullmatch("[A-Z]{5}", firm.ticker) for firm in firms)


def test_seeds_differ() -> None:
    first, second = read(pages=5, seed=1), read(pages=5, seed=2)
    assert not {question.document for question in first} & {
        question.document for question in second
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pages": 0}, "Input should be greater than or equal to 1"),
        ({"questions_per_page": 9}, "Input should be less than or equal to 8"),
        ({"questions_per_page": 0}, "Input should be greater than or equal to 1"),
        ({"length": "tiny"}, "Input should be 'short', 'medium' or 'long'"),
        ({"difficulty": "brutal"}, "Input should be 'easy', 'medium' or 'hard'"),
        ({"page": 3}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FilingsOptions.model_validate(options)
    (problem,) = caught.value.errors()
    assert problem["msg"] == message
