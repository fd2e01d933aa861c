"""Tables as text and back, in every style."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.documents import Document, Paragraph, Table
from finqa_sft.errors import DataError
from finqa_sft.formatters.linearize import document_text
from finqa_sft.formatters.tables import TableStyle, read_table, table_text
from finqa_sft.readers.context import parse_context

READABLE: list[TableStyle] = ["markdown", "pipe", "tsv", "json", "html"]
TABLE = Table.from_cells([["(in millions)", "2012", "2011"], ["Net sales", "$ 5,829", "5,735"]])
TWO_HEADERS = Table(
    rows=(("", "Years ended", ""), ("", "2019", "2018"), ("Freight", "49", "(40)")), header_rows=2
)

ODD = st.sampled_from(
    ["", "|", "\\", "\\|", "---", "\\---", "\\\\", "-", "\t", "a\nb", " ", '"', "'", "&amp;",
     "<td>", "</table>", "&", "\u2212 5", "(5)", "\xa0", "$ 1,234", "{", "null", "营业收入"]
)  # fmt: skip
CELLS = st.one_of(ODD, st.text(max_size=6), st.lists(ODD, max_size=3).map("".join))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=5))
    return Table(rows=tuple(rows), header_rows=draw(st.integers(0, len(rows))))


def folded(table: Table) -> Table:
    rows = tuple(tuple(" ".join(cell.split()) for cell in row) for row in table.rows)
    return Table(rows=rows, header_rows=table.header_rows)


@settings(deadline=None, max_examples=300)
@given(tables(), st.sampled_from(READABLE))
def test_a_table_is_read_back_as_it_was(table: Table, style: TableStyle) -> None:
    assert read_table(table_text(table, style), style) == folded(table)


@settings(deadline=None)
@given(tables(), st.sampled_from([*READABLE, "sentences"]))
def test_no_template_can_take_white_space_from_the_beginning_of_a_table(
    table: Table, style: TableStyle
) -> None:
    text = table_text(table, style)
    assert text == text.lstrip()
    if style in READABLE:
        assert read_table(f"\n{text}\n", style) == folded(table)


@settings(deadline=None)
@given(tables(), st.sampled_from([*READABLE, "sentences"]))
def test_a_table_with_fewer_rows_is_no_longer_text(table: Table, style: TableStyle) -> None:
    texts = [
        table_text(Table(rows=table.rows[:end], header_rows=table.header_rows), style)
        for end in range(table.header_rows, len(table.rows) + 1)
    ]
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)


@settings(deadline=None)
@given(tables())
def test_the_sentences_hold_every_cell(table: Table) -> None:
    text = table_text(table, "sentences")
    assert all(cell in text for row in folded(table).rows for cell in row)


@pytest.mark.parametrize(
    ("style", "one", "two", "none"),
    [
        (
            "markdown",
            "| (in millions) | 2012 | 2011 |\n| --- | --- | --- |\n| Net sales | $ 5,829 | 5,735 |",
            "|  | Years ended |  |\n|  | 2019 | 2018 |\n| --- | --- | --- |\n"
            "| Freight | 49 | (40) |",
            "|  |  |\n| --- | --- |\n| Rail | 5 |",
        ),
        (
            "pipe",
            "(in millions) | 2012 | 2011\nNet sales | $ 5,829 | 5,735",
            "| Years ended |\n| 2019 | 2018\n---\nFreight | 49 | (40)",
            "---\nRail | 5",
        ),
        (
            "tsv",
            "(in millions)\t2012\t2011\nNet sales\t$ 5,829\t5,735",
            "\\\tYears ended\t\n\t2019\t2018\n---\nFreight\t49\t(40)",
            "---\nRail\t5",
        ),
        (
            "json",
            '{"header":[["(in millions)","2012","2011"]],\n'
            '"rows":[["Net sales","$ 5,829","5,735"]]}',
            '{"header":[["","Years ended",""],\n["","2019","2018"]],\n'
            '"rows":[["Freight","49","(40)"]]}',
            '{"header":[],\n"rows":[["Rail","5"]]}',
        ),
        (
            "html",
            "<table>\n<tr><th>(in millions)</th><th>2012</th><th>2011</th></tr>\n"
            "<tr><td>Net sales</td><td>$ 5,829</td><td>5,735</td></tr>\n</table>",
            "<table>\n<tr><th></th><th>Years ended</th><th></th></tr>\n"
            "<tr><th></th><th>2019</th><th>2018</th></tr>\n"
            "<tr><td>Freight</td><td>49</td><td>(40)</td></tr>\n</table>",
            "<table>\n<tr><td>Rail</td><td>5</td></tr>\n</table>",
        ),
        (
            "sentences",
            "Columns: (in millions); 2012; 2011.\nNet sales: 2012 is $ 5,829; 2011 is 5,735.",
            "Columns: Years ended 2019; 2018.\nFreight: Years ended 2019 is 49; 2018 is (40).",
            "Rail: 5.",
        ),
    ],
)
def test_a_table_is_written_so(style: TableStyle, one: str, two: str, none: str) -> None:
    assert table_text(TABLE, style) == one
    assert table_text(TWO_HEADERS, style) == two
    assert table_text(Table(rows=(("Rail", "5"),), header_rows=0), style) == none


@pytest.mark.parametrize("style", [*READABLE, "sentences"])
def test_a_table_without_cells_is_an_empty_text(style: TableStyle) -> None:
    for table in (Table(rows=()), Table(rows=((), ()))):
        assert table_text(table, style) == ""
    if style in READABLE:
        assert read_table("", style) == Table(rows=(), header_rows=0)


def test_empty_header_rows_are_told_from_none() -> None:
    rows = (("", ""), ("Rail", "5"))
    texts = {
        style: [table_text(Table(rows=rows, header_rows=n), style) for n in (0, 1, 2)]
        for style in READABLE
    }
    assert all(len(set(written)) == 3 for written in texts.values())


def test_section_titles_and_rows_without_a_label_become_sentences_too() -> None:
    table = Table.from_cells([["", "2019"], ["Operating:"], ["", "7"], ["Rail", ""], ["", ""]])
    assert table_text(table, "sentences") == "Columns: 2019.\nOperating:\n2019 is 7.\nRail:"


@pytest.mark.parametrize(
    ("text", "style", "problem"),
    [
        (
            "Rail: 5.",
            "sentences",
            "tables in the style 'sentences' cannot be read back; markdown, pipe, tsv, json, html "
            "can",
        ),
        ("| a |", "markdown", "no markdown table: '| a |' has no row of --- below its header"),
        ("[]", "json", "no table in JSON: '[]' has no header and rows"),
        ('{"header":[],"rows":[[5]]}', "json", "no table in JSON: [5] is no list of texts"),
        ("{", "json", "no table in JSON: Expecting property name enclosed in double quotes: line "
         "1 column 2 (char 1)"),
        ("a | b", "html", "no table in HTML: 'a | b' has no rows"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_table_is_refused(text: str, style: TableStyle, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(text, style)
    assert str(caught.value) == problem


@settings(deadline=None)
@given(st.text(), st.sampled_from(READABLE))
def test_any_text_is_a_table_or_refused(text: str, style: TableStyle) -> None:
    try:
        table = read_table(text, style)
    except DataError:
        return
    assert len({len(row) for row in table.rows}) <= 1


def test_our_own_reader_of_free_text_reads_markdown_with_several_header_rows() -> None:
    assert parse_context(table_text(TWO_HEADERS)) == (TWO_HEADERS,)


PAGE = Document(
    id="ACME/2012/page_1",
    blocks=(Paragraph("Sales grew."), Paragraph("We make pipes."), TABLE, Paragraph("See note 4.")),
)


def test_a_document_reads_as_lines_and_tables_between_blank_lines() -> None:
    for style in READABLE:
        table = table_text(TABLE, style)
        expected = f"Sales grew.\nWe make pipes.\n\n{table}\n\nSee note 4."
        assert document_text(PAGE, table_style=style) == expected
    assert document_text(PAGE) == document_text(PAGE, table_style="markdown")


def test_what_is_empty_leaves_no_blank_lines() -> None:
    page = Document(id="d", blocks=(Paragraph("a"), Table(rows=()), Paragraph("b"), Table(rows=())))
    assert document_text(page) == "a\n\nb"


def test_pipes_and_line_breaks_in_cells_do_not_break_the_table() -> None:
    table = Table.from_cells([["a|b", "two\nlines"], ["c"]])
    text = document_text(Document(id="d", blocks=(table,)))
    assert text == "| a\\|b | two lines |\n| --- | --- |\n| c |  |"
