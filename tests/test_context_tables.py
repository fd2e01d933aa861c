"""Free text with tables in it, as blocks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.documents import Document, Paragraph, Question, Table
from finqa_sft.formatters.linearize import document_text
from finqa_sft.readers.context import Register, fingerprint, parse_context
from finqa_sft.readers.values import RowProblem

CELLS = st.text("Net income|\\-$(1,234)%年净利润 ", max_size=12).map(str.strip)
LABELS = CELLS.filter(lambda cell: cell.strip(":-"))


@st.composite
def tables(draw: st.DrawFn, *, min_rows: int = 1) -> Table:
    """Tables whose header cells, row labels and last cells are no dashes and not empty."""
    width = draw(st.integers(2, 4))
    row = st.tuples(LABELS, *[CELLS] * (width - 2), LABELS)
    header = draw(st.tuples(*[LABELS] * width))
    return Table(rows=(header, *draw(st.lists(row, min_size=min_rows - 1, max_size=5))))


def escaped(row: Sequence[str]) -> str:
    return " | ".join(cell.replace("|", "\\|") for cell in row)


def markdown(table: Table) -> str:
    lines = [f"| {escaped(row)} |" for row in table.rows]
    lines.insert(table.header_rows, "|---" * len(table.rows[0]) + "|")
    return "\n".join(lines)


def pipes(table: Table) -> str:
    return "\n".join(escaped(row) for row in table.rows)


@settings(deadline=None)
@given(tables())
def test_a_markdown_table_comes_back_as_it_was(table: Table) -> None:
    assert parse_context(markdown(table)) == (table,)


@settings(deadline=None)
@given(tables(min_rows=2))
def test_a_pipe_table_comes_back_as_it_was(table: Table) -> None:
    assert parse_context(pipes(table)) == (table,)


@settings(deadline=None)
@given(tables(), tables(min_rows=2))
def test_tables_between_paragraphs_stay_in_their_places(first: Table, second: Table) -> None:
    text = f"Net sales rose.\n{markdown(first)}\nCosts fell.\n\n{pipes(second)}\n\nEnd."
    assert parse_context(text) == (
        Paragraph("Net sales rose."),
        first,
        Paragraph("Costs fell."),
        second,
        Paragraph("End."),
    )


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_parsed_and_no_block_is_empty(text: str) -> None:
    for block in parse_context(text):
        if isinstance(block, Paragraph):
            assert block.text
            assert block.text == block.text.strip()
        else:
            assert block.rows
            assert len({len(row) for row in block.rows}) == 1


def test_the_markdown_that_formatters_write_is_read_back() -> None:
    blocks = (
        Paragraph("Revenue by segment, in millions."),
        Table.from_cells([["", "2021", "2020"], ["Retail | online", "1,204", "(98)"]]),
        Table.from_cells([["a", "1"], ["b", "2"]], header_rows=0),
        Paragraph("See note 4."),
    )
    assert parse_context(document_text(Document(id="d", blocks=blocks))) == blocks


def test_lines_of_a_paragraph_stay_apart_and_blank_lines_part_paragraphs() -> None:
    text = "\r\n  Net sales\r\nrose by 4%. \r\n \r\nCosts fell.\n"
    assert parse_context(text) == (Paragraph("Net sales\nrose by 4%."), Paragraph("Costs fell."))


def test_blank_text_has_no_blocks() -> None:
    assert parse_context(" \n\n") == ()


def test_one_line_with_a_pipe_is_text() -> None:
    text = "Note 7 | Income taxes\nThe rate was 21%."
    assert parse_context(text) == (Paragraph(text),)


def test_an_escaped_pipe_makes_no_table() -> None:
    text = "a \\| b\nc \\| d"
    assert parse_context(text) == (Paragraph(text),)


def test_an_unbordered_table_keeps_the_empty_corner_above_its_labels() -> None:
    text = " | 2021 | 2020\nRevenue | 310 | 290\nCosts | 120 |"
    assert parse_context(text) == (
        Table(rows=(("", "2021", "2020"), ("Revenue", "310", "290"), ("Costs", "120", ""))),
    )


def test_outer_pipes_are_a_border_also_where_a_line_lacks_its_last() -> None:
    text = "| | 2021 |\n| Revenue | 310\n| Costs | 120 |"
    assert parse_context(text) == (
        Table(rows=(("", "2021"), ("Revenue", "310"), ("Costs", "120"))),
    )


def test_a_line_of_one_cell_within_a_bordered_table_is_a_row() -> None:
    text = "| | 2021 |\n|---|---|\n| Operating expenses |\n| Rent | 12 |"
    assert parse_context(text) == (
        Table(rows=(("", "2021"), ("Operating expenses", ""), ("Rent", "12"))),
    )


def test_all_lines_above_the_rule_are_header_rows() -> None:
    text = "| | Year ended | |\n| | 2021 | 2020 |\n|:---|---:|---:|\n| Revenue | 310 | 290 |"
    assert parse_context(text) == (
        Table(
            rows=(("", "Year ended", ""), ("", "2021", "2020"), ("Revenue", "310", "290")),
            header_rows=2,
        ),
    )


def test_short_rules_count_below_the_first_line_only() -> None:
    nil_amounts = ("-", "-")
    assert parse_context("|a|b|\n|-|-|\n|c|1|") == (Table(rows=(("a", "b"), ("c", "1"))),)
    assert parse_context("a | b\nc | 1\n- | -") == (
        Table(rows=(("a", "b"), ("c", "1"), nil_amounts)),
    )


def test_a_rule_above_the_total_is_dropped() -> None:
    text = "| a | b |\n|---|---|\n| c | 1 |\n|---|---|\n| Total | 1 |"
    assert parse_context(text) == (Table(rows=(("a", "b"), ("c", "1"), ("Total", "1"))),)


def test_a_rule_makes_a_table_of_one_column() -> None:
    assert parse_context("| Risks |\n|---|\n| Rates |") == (Table(rows=(("Risks",), ("Rates",))),)


def test_a_fingerprint_depends_on_content_alone() -> None:
    one, same = parse_context("a | b\nc | 1"), parse_context("| a | b |\n|---|---|\n| c | 1 |")
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint((Paragraph("a | b\nc | 1"),))
    assert fingerprint((Paragraph("净利润"),)) == (
        "939b0c9fe7897cd475132afed054bc24c6c43ca5141b2be0d75e2f8b927dacdb"
    )


def question(id: str, page: str, text: str) -> Question:
    document = Document(id=page, blocks=(Paragraph(text),))
    return Question(id=id, text="?", document=document, answer="1", source=f"a.csv row {id}")


def test_a_register_knows_documents_that_it_no_longer_holds() -> None:
    register = Register(recent=1)

    def enter(id: str, page: str, text: str) -> Question:
        return register.enter(question(id, page, text), document_field="page", id_field="id")

    first = enter("1", "p", "x")
    assert enter("2", "p", "x").document is first.document
    enter("3", "q", "y")
    again = enter("4", "p", "x")
    assert again.document == first.document
    with pytest.raises(RowProblem) as caught:
        enter("5", "q", "z")
    assert str(caught.value.at("a.csv row 5")) == (
        "a.csv row 5, field 'page': document 'q' has another context in a.csv row 3; give each "
        "context a document id of its own"
    )
    with pytest.raises(RowProblem) as caught:
        enter("1", "p", "x")
    assert str(caught.value.at("a.csv row 6")) == (
        "a.csv row 6, field 'id': '1' is also the id of a.csv row 1; give each question an id of "
        "its own"
    )
