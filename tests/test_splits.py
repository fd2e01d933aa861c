from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.documents import Document, Paragraph, Question
from finqa_sft.errors import DataError
from finqa_sft.preparation.splits import document_groups, held_out_groups, refuse_leaks


def question(document: str, *, text: str | None = None, company: str | None = None) -> Question:
    page = Document(id=document, blocks=(Paragraph(text or document),), company=company)
    return Question("q", "?", page, "1", source=f"{document} row 1")


def test_documents_with_the_same_content_under_two_names_stay_together() -> None:
    pool = [question("a", text="x"), question("b", text="x"), question("c"), question("a2")]
    groups = document_groups(pool, by="document")
    assert groups["a"] == groups["b"]
    assert len({groups[name] for name in ("a", "c", "a2")}) == 3


def test_a_company_stays_together() -> None:
    pool = [question("a", company="X"), question("b", company="X"), question("c", company="Y")]
    groups = document_groups(pool, by="company")
    assert groups["a"] == groups["b"] != groups["c"]


def test_a_document_without_a_company_cannot_be_split_by_company() -> None:
    with pytest.raises(DataError) as error:
        document_groups([question("a")], by="company")
    assert str(error.value) == (
        "data.split.by is company, but document 'a' (a row 1) names none; use "
        "data.split.by=document"
    )


@given(
    st.sets(st.text(max_size=4), min_size=2, max_size=30),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 5),
)
def test_a_draw_has_its_share_depends_on_no_order_and_leaves_both_sides(
    names: set[str], share: float, seed: int
) -> None:
    drawn = held_out_groups(names, share=share, seed=seed)
    assert drawn == held_out_groups(sorted(names, reverse=True), share=share, seed=seed)
    if share:
        assert len(drawn) == min(max(round(share * len(names)), 1), len(names) - 1)
    else:
        assert not drawn


def test_adding_documents_moves_few_others() -> None:
    before = held_out_groups(map(str, range(100)), share=0.2, seed=0)
    after = held_out_groups(map(str, range(105)), share=0.2, seed=0)
    assert len(before - after) <= 5


@pytest.mark.parametrize("held_out", [question("a", text="new"), question("z", text="a")])
def test_a_document_on_both_sides_is_refused_by_name_and_by_content(held_out: Question) -> None:
    with pytest.raises(DataError) as error:
        refuse_leaks([question("a"), question("b")], [held_out])
    name = held_out.document.id
    assert str(error.value) == (
        f"1 held-out documents are in the training data as well: {name!r} ({name} row 1; in "
        "training: 'a', a row 1). Scores on them would be too good; take them out of one side, or "
        "hold documents out with data.split"
    )
