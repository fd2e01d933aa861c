"""The rules of cleaning for tables, and row labels in programs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.cleaning.labels import rename_labels
from finqa_sft.cleaning.tables import filled_columns, filled_rows, header_rows, unique_labels

STABLE = settings(deadline=None, derandomize=True, max_examples=200)


@pytest.mark.parametrize(
    "second",
    [
        ("", "2019", "2018"),
        ("", "december 31 2019", "december 31 2018"),
        ("", "as of december 31 , 2019", ""),
        ("", "$ millions", "%"),
        ("", "(in thousands)", ""),
        ("( in thousands )", "( in thousands )", "( in thousands )"),
    ],
)
def test_a_second_row_of_dates_or_units_is_a_header(second: tuple[str, ...]) -> None:
    rows = [("", "year ended", "year ended"), second, ("sales", "5", "4")]
    assert header_rows(rows, known=1) == 2


@pytest.mark.parametrize(
    "second",
    [
        ("sales", "5", "4"),
        ("", "5", "4"),
        ("", "24,000", "31,000"),
        ("2019", "2018", "2017"),
        ("2019", "$ 5", "$ 4"),
        ("", "owned", "leased"),
        ("", "-", "-"),
        ("", "", ""),
        ("revenues:", "", ""),
        ("for the years ended december 31 ,", "", ""),
        ("( in thousands )", "5", "4"),
        ("", "$ 5 million", "$ 4 million"),
        ("amount", "31", "30"),
    ],
)
def test_a_row_with_data_is_no_header(second: tuple[str, ...]) -> None:
    rows = [("", "year ended", "year ended"), second, ("costs", "5", "4")]
    assert header_rows(rows, known=1) == 1


def test_years_under_years_are_data() -> None:
    rows = [("", "2019", "2018"), ("", "2014", "2014"), ("sales", "5", "4")]
    assert header_rows(rows, known=1) == 1


def test_a_table_keeps_a_row_that_is_no_header() -> None:
    assert header_rows([("", "total"), ("", "2019")], known=1) == 1
    assert header_rows([], known=0) == 0


def test_a_table_without_headers_gets_none() -> None:
    assert header_rows([("", "2019"), ("", "$ millions"), ("a", "5")], known=0) == 0


def test_rows_and_columns_without_text_are_found() -> None:
    rows = [("", "x", "", "y"), ("", "", "", ""), ("", "1", "", "")]
    assert filled_rows(rows) == [0, 2]
    assert filled_columns(rows) == [0, 1, 3]


def test_a_table_without_text_is_left() -> None:
    assert filled_rows([("", ""), ("", "")]) == [0, 1]
    assert filled_columns([("", ""), ("", "")]) == [0, 1]


def test_the_last_of_equal_labels_stays_and_earlier_ones_are_told_apart() -> None:
    rows = [
        ("", "2019"),
        ("Americas:", ""),
        ("Other", "1"),
        ("Europe:", ""),
        ("Other", "2"),
        ("Other", "3"),
        ("Asia:", ""),
        ("Other", "4"),
    ]
    labels = unique_labels(rows, header_rows=1)
    assert labels[2] == "Americas: Other"
    assert labels[4] == "Europe: Other"
    assert labels[5] == "Other (1)"
    assert labels[7] == "Other"


def test_rows_without_a_heading_are_numbered() -> None:
    rows = [
        ("", "2019"),
        ("granted", "1"),
        ("granted", "2"),
        ("granted (1)", "5"),
        ("granted", "3"),
    ]
    assert unique_labels(rows, header_rows=1) == [
        "",
        "granted (2)",
        "granted (3)",
        "granted (1)",
        "granted",
    ]


def test_headers_headings_and_empty_labels_stay() -> None:
    rows = [("total", "2019"), ("", "1"), ("", "2"), ("assets", ""), ("assets", ""), ("total", "3")]
    assert unique_labels(rows, header_rows=1) == [row[0] for row in rows]


def test_new_labels_that_other_rules_would_change_are_not_used() -> None:
    rows = [("", "x"), ("-1", "5"), ("-1", "6")]
    labels = unique_labels(rows, header_rows=1, usable=lambda label: label != "-1 (1)")
    assert labels == ["", "-1 (2)", "-1"]


TABLES = st.integers(1, 3).flatmap(
    lambda width: st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b", "a (1)", "h: a", "h", "2019"]),
            *[st.sampled_from(["", "1", "2019", "$ 5", "in millions"])] * width,
        ),
        max_size=12,
    )
)


@STABLE
@given(TABLES, st.integers(0, 2))
def test_labels_of_rows_with_figures_are_unique_and_the_last_is_kept(
    rows: list[tuple[str, ...]], known: int
) -> None:
    labels = unique_labels(rows, header_rows=known)
    renamed = [(row, (label, *row[1:])) for row, label in zip(rows, labels, strict=True)]
    figures = [new[0] for _, new in renamed[known:] if new[0] and any(new[1:])]
    assert len(set(figures)) == len(figures)
    for label in {row[0] for row in rows}:
        last = max(i for i, row in enumerate(rows) if row[0] == label)
        assert max(i for i, found in enumerate(labels) if found == label) == last
    again = [new for _, new in renamed]
    assert unique_labels(again, header_rows=known) == labels


@STABLE
@given(TABLES)
def test_a_header_never_takes_all_rows(rows: list[tuple[str, ...]]) -> None:
    known = min(1, len(rows))
    found = header_rows(rows, known=known)
    assert known <= found <= max(known, len(rows) - 1)
    assert header_rows(rows, known=found) == found


def test_labels_in_table_steps_are_renamed_and_all_else_stays() -> None:
    program = "table_max(equity , net ( 2 ), none), add(equity, 2), table_sum( a , none)"
    names = {"equity": "capital", "equity , net ( 2 )": "net equity", "a": "b"}
    assert rename_labels(program, names) == (
        "table_max(net equity, none), add(equity, 2), table_sum( b , none)"
    )
    assert rename_labels("table_max(equity other, none)", names) == "table_max(equity other, none)"
    assert rename_labels("no program", names) == "no program"
