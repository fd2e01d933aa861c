"""ConvFinQA's conversations as questions with a history."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finqa_sft.documents import Paragraph, Question, Table, Turn
from finqa_sft.errors import DataError
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader

ROW: dict[str, Any] = {
    "id": "Single_QZX/2017/page_12.pdf-1",
    "filename": "QZX/2017/page_12.pdf",
    "pre_text": ["harbour freight grew in 2017 .", ""],
    "post_text": ["the dividend was $ 3 million ."],
    "table": [["", "2017", "2016"], ["revenue", "$ 120", "$ 100.50"]],
    "annotation": {
        "dialogue_break": ["what was revenue in 2016?", "and the change to 2017? ", "was it more?"],
        "turn_program": ["100.50", "subtract(120, 100.50)", "greater(120, 100.50)"],
        "exe_ans_list": [100.5, 19.5, "yes"],
    },
}

CLEANED: dict[str, Any] = {
    "id": "Double_QZX/2017/page_12.pdf",
    "doc": {
        "pre_text": "harbour freight grew in 2017 .",
        "post_text": "",
        "table": {
            "2017": {"revenue": 120.0, "costs": 80.25},
            "2016": {"revenue": 100.5, "staff": "n/a"},
        },
    },
    "dialogue": {
        "conv_questions": ["what share of revenue in 2017 were costs?", "and costs?"],
        "conv_answers": ["66.9%", "80.25"],
        "turn_program": ["divide(80.25, 120)", "80.25"],
        "executed_answers": [0.66875, 80.25],
        "qa_split": [False, True],
    },
    "features": {"num_dialogue_turns": 2},
}


def changed(row: dict[str, Any] = ROW, **changes: Any) -> dict[str, Any]:
    """The row with other values; `annotation__x=...` goes one level down, an ellipsis removes."""
    row = copy.deepcopy(row)
    for key, value in changes.items():
        *parents, name = key.split("__")
        place = row[parents[0]] if parents else row
        place.pop(name, None)
        if value is not ...:
            place[name] = value
    return row


def read_file(path: Path, value: object, **options: Any) -> list[Question | BadRow]:
    path.write_text(json.dumps(value), encoding="utf-8")
    return list(ConvfinqaReader(ConvfinqaOptions(files=(path,), **options)))


def read(tmp_path: Path, *rows: object) -> list[Question | BadRow]:
    return read_file(tmp_path / "dev.json", rows)


def turns(tmp_path: Path, row: dict[str, Any]) -> list[Question]:
    questions = [item for item in read(tmp_path, row) if isinstance(item, Question)]
    assert questions
    return questions


def refusal(tmp_path: Path, value: object, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_file(tmp_path / "dev.json", value, **options)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_each_turn_is_a_question_with_the_earlier_turns_as_history(tmp_path: Path) -> None:
    first, second, third = turns(tmp_path, ROW)
    assert [q.id for q in (first, second, third)] == [f"{ROW['id']}_{i}" for i in range(3)]
    assert third.text == "was it more?"
    assert first.history == ()
    assert third.history == (
        Turn("what was revenue in 2016?", "100.50", executed_answer=100.5),
        Turn("and the change to 2017?", "19.5", "subtract(120, 100.50)", 19.5),
    )
    assert second.history == third.history[:1]
    assert (third.answer, third.executed_answer) == ("yes", "yes")
    assert third.source == "dev.json row 1"


def test_a_bare_number_is_the_answer_as_it_stands_and_no_program(tmp_path: Path) -> None:
    first, second, _ = turns(tmp_path, ROW)
    assert (first.program, first.answer, first.executed_answer) == (None, "100.50", 100.5)
    assert (second.program, second.answer) == ("subtract(120, 100.50)", "19.5")


@pytest.mark.parametrize("number", ["93", "-4", "13.4%", "1,063", ".5", "5.", "const_100"])
def test_what_counts_as_a_bare_number(tmp_path: Path, number: str) -> None:
    row = changed(annotation__turn_program=[number, "add(1, 2)", "add(1, 2)"])
    assert turns(tmp_path, row)[0].answer == number


def test_the_turns_of_a_page_share_one_document(tmp_path: Path) -> None:
    other = changed(id="Double_QZX/2017/page_12.pdf")
    items = read(tmp_path, ROW, other)
    documents = {id(item.document) for item in items if isinstance(item, Question)}
    assert (len(items), len(documents)) == (6, 1)
    document = turns(tmp_path, ROW)[0].document
    assert (document.id, document.company) == ("QZX/2017/page_12.pdf", "QZX")
    assert document.blocks == (
        Paragraph("harbour freight grew in 2017 ."),
        Table(rows=(("", "2017", "2016"), ("revenue", "$ 120", "$ 100.50"))),
        Paragraph("the dividend was $ 3 million ."),
    )


def test_the_cleaned_layout_is_read_with_its_table_and_written_answers(tmp_path: Path) -> None:
    first, second = turns(tmp_path, CLEANED)
    assert (first.id, first.document.id) == (
        "Double_QZX/2017/page_12.pdf_0",
        "QZX/2017/page_12.pdf",
    )
    assert first.document.company == "QZX"
    assert first.document.blocks == (
        Paragraph("harbour freight grew in 2017 ."),
        Table(
            rows=(
                ("", "2017", "2016"),
                ("revenue", "120", "100.5"),
                ("costs", "80.25", ""),
                ("staff", "", "n/a"),
            )
        ),
    )
    assert (first.answer, first.executed_answer) == ("66.9%", 0.66875)
    assert second.history == (
        Turn("what share of revenue in 2017 were costs?", "66.9%", "divide(80.25, 120)", 0.66875),
    )


def test_conversations_of_one_page_share_it_in_the_cleaned_layout(tmp_path: Path) -> None:
    items = read(tmp_path, CLEANED, changed(CLEANED, id="Single_QZX/2017/page_12.pdf-2"))
    assert {i.document.id for i in items if isinstance(i, Question)} == {"QZX/2017/page_12.pdf"}
    assert len(items) == 4


def test_a_file_of_splits_gives_the_one_that_is_named_or_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "cleaned.json"
    both = {"train": [CLEANED], "dev": [changed(CLEANED, id="Single_A/2017/page_1.pdf-2")]}
    assert len(read_file(path, {"dev": [CLEANED]})) == 2
    dev = read_file(path, both, split="dev")
    assert [q.id for q in dev if isinstance(q, Question)] == [
        "Single_A/2017/page_1.pdf-2_0",
        "Single_A/2017/page_1.pdf-2_1",
    ]
    assert refusal(tmp_path, both) == (
        "dev.json: an object with the keys 'train', 'dev' at the top level; expected a list of "
        "rows, or set 'split' to 'train' or 'dev'"
    )
    assert refusal(tmp_path, both, split="test") == (
        "dev.json: no split 'test'; has 'train', 'dev'"
    )
    assert refusal(tmp_path, both, split="trian") == (
        "dev.json: no split 'trian'; did you mean 'train'?"
    )
    assert refusal(tmp_path, [ROW], split="dev") == ("dev.json: holds no splits; leave out 'split'")
    assert refusal(tmp_path, {"dev": 5}) == (
        "dev.json: the split 'dev' is a number; expected a list of rows"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "dev.json: an empty list; expected rows"),
        ("text", "dev.json: text at the top level; expected a list of rows"),
        (
            [{"id": "1", "qa": {}}],
            "dev.json: row 1 has 'qa' and looks like FinQA, not ConvFinQA; use reader: finqa",
        ),
        (
            [changed(annotation__cur_dial=["what was revenue in 2016?"])],
            "dev.json: row 1 is a single turn; use the conversation file instead, which has the "
            "same turns (train.json in place of train_turn.json)",
        ),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, value: object, message: str) -> None:
    assert refusal(tmp_path, value) == message


def test_json_lines_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(f"{json.dumps(ROW)}\nno json\n", encoding="utf-8")
    *_, last = ConvfinqaReader(ConvfinqaOptions(files=(path,)))
    assert str(last) == "dev.jsonl row 2, field 'row': line 2:1: not JSON: expected value"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"annotation__turn_program": ...},
            "field 'annotation.turn_program': missing; rows without labels cannot be used",
        ),
        (
            {"annotation__exe_ans_list": [1, 2]},
            "field 'annotation.exe_ans_list': 2 entries; expected 3, as in dialogue_break",
        ),
        (
            {"annotation__turn_program": ["revenue", "add(1, 2)", "add(1, 2)"]},
            "field 'annotation.turn_program[0]': 'revenue'; expected a program or a number",
        ),
        (
            {"annotation__turn_program": ["", "add(1, 2)", "add(1, 2)"]},
            "field 'annotation.turn_program[0]': ''; expected a program or a number",
        ),
        (
            {"annotation__exe_ans_list": [1, "n/a", 3]},
            "field 'annotation.exe_ans_list[1]': 'n/a'; expected a number, yes or no",
        ),
        (
            {"annotation__dialogue_break": ["a", "b", " "]},
            "field 'annotation.dialogue_break[2]': empty; expected text",
        ),
        (
            {"annotation__dialogue_break": []},
            "field 'annotation.dialogue_break': an empty list; expected turns",
        ),
        ({"annotation": None}, "field 'annotation': null; expected an object"),
        ({"annotation": ...}, "field 'annotation': missing; expected an object"),
        ({"id": ...}, "field 'id': missing; expected text"),
        ({"table": ...}, "field 'table': missing; expected a list"),
    ],
)
def test_a_conversation_with_a_bad_turn_is_one_bad_row(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    *_, bad = items = read(tmp_path, changed(id="first", filename="f"), changed(**changes))
    assert len(items) == 4
    assert str(bad) == f"dev.json row 2, {problem}"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"doc": 5}, "field 'doc': a number; expected an object"),
        ({"doc__table": []}, "field 'doc.table': a list; expected an object of columns"),
        (
            {"doc__table": {"2017": 5}},
            "field 'doc.table': column '2017' is a number; expected an object",
        ),
        (
            {"dialogue__conv_answers": ["", "1"]},
            "field 'dialogue.conv_answers[0]': empty; expected text",
        ),
    ],
)
def test_a_bad_row_of_the_cleaned_layout_names_its_fields(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    (bad,) = read(tmp_path, changed(CLEANED, **changes))
    assert str(bad) == f"dev.json row 1, {problem}"


def test_a_conversation_that_repeats_is_refused_once(tmp_path: Path) -> None:
    *good, bad = read(tmp_path, ROW, ROW)
    assert len(good) == 3
    assert str(bad) == (
        "dev.json row 2, field 'id': 'Single_QZX/2017/page_12.pdf-1_0' is also the id of dev.json "
        "row 1; give each question an id of its own"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def mangled(row: dict[str, Any], section: str, *more: str) -> st.SearchStrategy[dict[str, Any]]:
    """Changes to a row's fields, those within a section only where it stays."""
    fields = [*row, *more, *(f"{section}__{key}" for key in row[section])]
    changes = st.dictionaries(st.sampled_from(fields), JSON | st.just(...), min_size=1)
    return changes.map(
        lambda c: {k: v for k, v in c.items() if k.split("__")[0] not in c or k in row}
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.just(ROW), mangled(ROW, "annotation"))
    | st.tuples(st.just(CLEANED), mangled(CLEANED, "dialogue", "doc__table", "doc__pre_text"))
)
def test_whatever_stands_in_its_fields_a_row_is_questions_or_bad(
    tmp_path: Path, case: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    row, changes = case
    items = read(tmp_path, changed(id="first", filename="f"), changed(row, **changes))[3:]
    assert items
    for index, item in enumerate(items):
        assert item.source == "dev.json row 2"
        if isinstance(item, Question):
            assert item.text
            assert item.answer
            assert len(item.history) == index


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON)
def test_whatever_a_file_holds_it_is_rows_or_refused(tmp_path: Path, value: object) -> None:
    try:
        items = read_file(tmp_path / "dev.json", value)
    except DataError:
        return
    assert all(isinstance(item, BadRow) for item in items)


def test_the_real_conversations_agree_with_the_gold_turns(real_data: Path) -> None:
    path = real_data / "convfinqa" / "dev_421_cleaned.json"
    raw = json.loads((path.parent / "gold_turns.json").read_text(encoding="utf-8"))
    gold = {f"{turn['id']}_{turn['turn']}": turn for turn in raw["gold"]}
    questions = list(ConvfinqaReader(ConvfinqaOptions(files=(path,))))
    assert len(questions) == len(gold) == 1490
    bare = 0
    for question in questions:
        assert isinstance(question, Question), str(question)
        turn = gold[question.id]
        assert (question.program or question.answer) == turn["gold_program"]
        assert question.executed_answer == turn["gold_answer"]
        assert len(question.history) == turn["turn"]
        bare += question.program is None
    assert bare == 487
    documents = {q.document.id: q.document for q in questions if isinstance(q, Question)}
    assert len(documents) == 218
    assert all(len(document.tables) == 1 for document in documents.values())


def test_real_rows_without_labels_are_bad_rows_and_no_crash(real_data: Path) -> None:
    path = real_data / "convfinqa" / "test_no_labels.json"
    items = list(ConvfinqaReader(ConvfinqaOptions(files=(path,))))
    assert len(items) == 434
    assert {(item.field, item.problem) for item in items if isinstance(item, BadRow)} == {
        ("annotation.turn_program", "missing; rows without labels cannot be used")
    }


def test_the_official_layout_of_real_pages_is_read_whole(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "convfinqa" / "test_no_labels.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        asked = len(row["annotation"]["dialogue_break"])
        row["annotation"] |= {"turn_program": ["5"] * asked, "exe_ans_list": [5.0] * asked}
    questions = read(tmp_path, *rows)
    assert all(isinstance(question, Question) for question in questions)
    assert len(questions) == sum(len(row["annotation"]["dialogue_break"]) for row in rows)
    pages = {id(q.document) for q in questions if isinstance(q, Question)}
    assert len(pages) >= len({row["filename"] for row in rows}) == 260
