"""Labels that disagree, cleaning and derivations, as a recipe's `data` section settles them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from finqa_sft.cleaning.targets import Agreement
from finqa_sft.encoding import Encoder
from finqa_sft.errors import DataError
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation import PreparedData, prepare_data
from finqa_sft.preparation.counts import EVIDENCE_TOO_LONG, PLACES_KEPT, TOO_LONG
from finqa_sft.recipe import load_recipe

RECIPE = """\
data:
  sources:
    - reader: {reader}
      files: own.json
formatter:
  name: answer
  system: Answer.
  max_length: 512
"""

PERCENT = "the rate was 5 2 % , up from 4 % ."
TABLE = [["", "2012", "2011"], ["net income", "$ 100", "$ 80"], ["other", "3", "5"]]


def finqa_row(name: str, question: str, **labels: Any) -> dict[str, Any]:
    """A row as FinQA's files have them."""
    return {
        "id": name,
        "filename": f"{name}.pdf",
        "pre_text": ["net income rose ."],
        "post_text": ["."],
        "table": TABLE,
        "qa": {
            "question": question,
            "answer": "20.0",
            "exe_ans": 20.0,
            "program": "subtract(100, 80)",
            "gold_inds": {"table_1": "net income"},
            **labels,
        },
    }


ROWS = [
    finqa_row("good", "by how much did it rise?"),
    finqa_row("sign", "by how much did it fall?", answer="20.0", exe_ans=-20.0,
              program="subtract(80, 100)"),
    finqa_row("other", "what was it?", answer="7", exe_ans=100.0, program="add(100, 0)"),
    finqa_row("unmarked", "by which share?", answer="25.0", exe_ans=0.25,
              program="subtract(100, 80), divide(#0, 80)"),
    finqa_row("stale", "what is the sum?", answer="180", exe_ans=181.0, program="add(100, 80)"),
]  # fmt: skip

SIGN, DIFFERENT, STALE = (
    agreement.value for agreement in (Agreement.SIGN, Agreement.DIFFERENT, Agreement.PROGRAM)
)


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(tiny))


class Room:
    """Prepares rows that lie in a folder of their own."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.folder = folder
        self.encoder = encoder
        self.reader = "finqa"

    def write(self, rows: list[dict[str, Any]], *, reader: str = "finqa") -> None:
        (self.folder / "own.json").write_text(json.dumps(rows), encoding="utf-8")
        self.reader = reader

    def __call__(self, *overrides: str) -> PreparedData:
        path = self.folder / "r.yaml"
        path.write_text(RECIPE.format(reader=self.reader))
        recipe = load_recipe(path, overrides, Plugins.load({"FINQA_SFT_PLUGINS": ""}))
        return prepare_data(recipe, encoder=self.encoder, formatter=recipe.formatter.build())


@pytest.fixture
def room(tmp_path: Path, encoder: Encoder) -> Room:
    room = Room(tmp_path, encoder)
    room.write(ROWS)
    return room


def labels(data: PreparedData) -> dict[str, tuple[str, object]]:
    return {q.id: (q.answer, q.executed_answer) for q in data.training.questions}


def taught(data: PreparedData) -> dict[str, str]:
    return {e.question.id: e.completion[0]["content"] for e in data.training.examples}


AS_WRITTEN = {
    "good": ("20.0", 20.0),
    "sign": ("20.0", -20.0),
    "other": ("7", 100.0),
    "unmarked": ("25.0", 0.25),
    "stale": ("180", 181.0),
}


def test_labels_that_disagree_are_kept_and_counted(room: Room) -> None:
    data = room()
    assert labels(data) == AS_WRITTEN
    assert data.counts.noticed == {SIGN: 1, DIFFERENT: 1, STALE: 1}
    assert data.counts.places[SIGN] == [
        "own.json row 2: answer '20.0', executed answer -20.0, program 'subtract(80, 100)'"
    ]
    assert data.counts.places[STALE] == [
        "own.json row 5: answer '180', executed answer 181.0, program 'add(100, 80)' computes 180"
    ]
    assert not data.counts.left_out


def test_labels_that_disagree_can_be_dropped(room: Room) -> None:
    data = room("data.disagreements=drop")
    assert labels(data) == {name: AS_WRITTEN[name] for name in ("good", "unmarked")}
    assert data.counts.left_out == {SIGN: 1, DIFFERENT: 1, STALE: 1}
    assert data.counts.places[DIFFERENT] == ["own.json row 3"]
    assert not data.counts.noticed


def test_labels_of_which_two_agree_can_be_corrected(room: Room) -> None:
    data = room("data.disagreements=correct")
    assert labels(data) == {
        "good": ("20.0", 20.0),
        "sign": ("-20.0", -20.0),
        "other": ("7", 100.0),
        "unmarked": ("25.0%", 0.25),
        "stale": ("180", 180.0),
    }
    unmarked = Agreement.UNMARKED_PERCENT.value
    assert {reason: n for reason, n in data.counts.changed.items() if n} == {
        f"{SIGN}: corrected": 1,
        f"{STALE}: corrected": 1,
        f"{unmarked}: corrected": 1,
    }
    assert data.counts.noticed == {DIFFERENT: 1}, "which label is wrong cannot be told"
    assert data.counts.places[f"{STALE}: corrected"] == ["own.json row 5"]
    assert taught(data)["stale"] == "180"


def test_labels_that_disagree_can_be_an_error(room: Room) -> None:
    with pytest.raises(DataError) as caught:
        room("data.disagreements=error")
    assert str(caught.value) == (
        "the labels of 3 questions disagree:\n"
        f"  own.json row 2: {SIGN}: answer '20.0', executed answer -20.0, program "
        "'subtract(80, 100)'\n"
        f"  own.json row 3: {DIFFERENT}: answer '7', executed answer 100.0, program 'add(100, 0)'\n"
        f"  own.json row 5: {STALE}: answer '180', executed answer 181.0, program 'add(100, 80)' "
        "computes 180\n"
        "Mend them, or set data.disagreements to keep, drop or correct"
    )


def test_of_many_that_disagree_the_first_are_named(room: Room) -> None:
    room.write([finqa_row(f"r{i}", f"q{i}?", answer="7") for i in range(PLACES_KEPT + 3)])
    with pytest.raises(DataError) as caught:
        room("data.disagreements=error")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the labels of 23 questions disagree:"
    assert lines[-2:] == [
        "  and 3 more",
        "Mend them, or set data.disagreements to keep, drop or correct",
    ]
    assert len(lines) == PLACES_KEPT + 3
    counts = room().counts
    assert counts.noticed[DIFFERENT] == 23
    assert len(counts.places[DIFFERENT]) == PLACES_KEPT


def test_where_all_agree_no_policy_changes_anything(room: Room) -> None:
    room.write(ROWS[:1])
    found = {
        room(f"data.disagreements={policy}").fingerprint
        for policy in ("keep", "drop", "correct", "error")
    }
    assert len(found) == 1


def test_where_all_disagree_and_are_dropped_the_error_says_why(room: Room) -> None:
    room.write(ROWS[1:3])
    with pytest.raises(DataError) as caught:
        room("data.disagreements=drop")
    assert str(caught.value) == (
        f"no token is left to train on: of 2 questions read, 0 remain ({SIGN}: 1; {DIFFERENT}: 1)"
    )


def test_held_out_labels_are_settled_alike(room: Room) -> None:
    text = RECIPE.format(reader="finqa") + (
        "evaluation:\n  sources:\n    - reader: finqa\n      files: own.json\n"
    )
    (room.folder / "train.json").write_text(
        json.dumps([{**ROWS[0], "filename": "train.pdf", "pre_text": ["other ."]}])
    )
    text = text.replace("own.json", "train.json", 1)
    (room.folder / "r.yaml").write_text(text)
    recipe = load_recipe(
        room.folder / "r.yaml",
        ["data.disagreements=drop"],
        Plugins.load({"FINQA_SFT_PLUGINS": ""}),
    )
    data = prepare_data(recipe, encoder=room.encoder, formatter=recipe.formatter.build())
    assert [q.id for q in data.held_out.questions] == ["good", "unmarked"]
    assert data.counts.left_out == {SIGN: 1, DIFFERENT: 1, STALE: 1}


BROKEN = {
    "stripped_quotes": ("the company 2019s rate was 4 .", "the company's rate was 4 ."),
    "doubled_negatives": ("it was -2 ( 2 ) .", "it was -2 ."),
    "spaces_and_minus": ("it\u00a0was 2 .", "it was 2 ."),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_for_text_can_be_switched_off(room: Room, rule: str) -> None:
    before, after = BROKEN[rule]
    room.write([{**ROWS[0], "pre_text": [before]}])
    mended = room()
    assert after in mended.training.example(0).prompt[1]["content"]
    assert mended.counts.cleaned == {rule: 1, "filler_sentences": 1}
    assert mended.counts.places[rule] == [f"good.pdf, block 0: {before!r} became {after!r}"]
    as_read = room(f"data.cleaning.{rule}=false")
    assert before in as_read.training.example(0).prompt[1]["content"]
    assert as_read.counts.cleaned == {"filler_sentences": 1}


BROKEN_TABLES = {
    "header_rows": [["", "2012", "2011"], ["", "$", "$"], ["net income", "100", "80"]],
    "empty_columns": [["", "", "2012"], ["net income", "", "100"], ["other", "", "80"]],
    "empty_rows": [["", "2012"], ["", ""], ["net income", "100"]],
    "duplicate_labels": [["", "2012"], ["other", "1"], ["net income", "100"], ["other", "2"]],
}


@pytest.mark.parametrize("rule", BROKEN_TABLES)
def test_each_rule_for_tables_can_be_switched_off(room: Room, rule: str) -> None:
    qa = {"gold_inds": {}}
    room.write([{**ROWS[0], "table": BROKEN_TABLES[rule], "qa": {**ROWS[0]["qa"], **qa}}])
    mended = room()
    assert mended.counts.cleaned[rule] == 1
    assert len(mended.counts.places[rule]) == 1
    as_read = room(f"data.cleaning.{rule}=false")
    assert rule not in as_read.counts.cleaned
    assert rule not in as_read.counts.places
    [before, after] = (data.training.questions[0].document for data in (as_read, mended))
    assert before.tables[0].rows == tuple(map(tuple, BROKEN_TABLES[rule]))
    assert before != after


def test_of_a_long_text_the_words_that_changed_are_named(room: Room) -> None:
    long = f"{'net income rose . ' * 30}data from an issuer{{}} acquirer {'and so on ' * 30}."
    room.write([{**ROWS[0], "pre_text": [long.format(" 2019s")]}])
    [place] = room().counts.places["stripped_quotes"]
    assert place == (
        "good.pdf, block 0: '…data from an issuer 2019s acquirer and…' became "
        '"…data from an issuer\'s acquirer and so…"'
    )


def test_rows_and_columns_without_text_are_named_by_their_place(room: Room) -> None:
    table = [["", "", "2012"], ["", "", ""], ["net income", "", "100"]]
    room.write([{**ROWS[0], "table": table, "qa": {**ROWS[0]["qa"], "gold_inds": {}}}])
    places = room().counts.places
    assert places["empty_rows"] == ["good.pdf, block 1, row 1 left out"]
    assert places["empty_columns"] == ["good.pdf, block 1, column 1 left out"]
    assert places["filler_sentences"] == ["good.pdf, block 2: '.' left out"]


def test_filler_is_left_out_and_evidence_still_points_to_its_place(room: Room) -> None:
    row = {**ROWS[0], "pre_text": [".", "a b .", "..."]}
    room.write([{**row, "qa": {**ROWS[0]["qa"], "gold_inds": {"text_1": "a b ."}}}])
    for override in ("notes=x", "data.cleaning.filler_sentences=false"):
        [question] = room(override).training.questions
        [place] = question.evidence
        assert question.document.blocks[place.block].text == "a b ."  # type: ignore[union-attr]
    assert room().counts.cleaned == {"filler_sentences": 3}


def test_all_rules_off_is_the_data_as_read(room: Room) -> None:
    room.write([{**ROWS[0], "pre_text": [before for before, _ in BROKEN.values()]}])
    off = [f"data.cleaning.{rule}=false" for rule in (*BROKEN, *BROKEN_TABLES, "filler_sentences")]
    data = room(*off)
    assert not data.counts.cleaned
    [question] = data.training.questions
    read = [before for before, _ in BROKEN.values()]
    assert [block.text for block in question.document.blocks[:3]] == read  # type: ignore[union-attr]


def tatqa_page(*questions: dict[str, Any]) -> dict[str, Any]:
    """A page as TAT-QA's files have them."""
    return {
        "table": {"uid": "page", "table": [["", "2012", "2011"], ["net income", "100", "80"]]},
        "paragraphs": [{"uid": "p", "order": 1, "text": "Net income rose."}],
        "questions": [
            {
                "uid": f"q{number}",
                "order": number,
                "answer_type": "arithmetic",
                "answer_from": "table",
                "rel_paragraphs": [],
                "req_comparison": False,
                "scale": "",
                **question,
            }
            for number, question in enumerate(questions, start=1)
        ],
    }


def test_derivations_that_give_no_program_are_counted_by_reason(room: Room) -> None:
    asked = [
        {"question": "a?", "answer": 20, "derivation": "100 - 80"},
        {"question": "b?", "answer": 21, "derivation": "100 - 80"},
        {"question": "c?", "answer": -20, "derivation": "100 - 80"},
        {"question": "d?", "answer": 22, "derivation": "100 - 80"},
        {"question": "e?", "answer": 25, "scale": "percent", "derivation": "(100 - 80) / 80"},
        {"question": "f?", "answer": 9, "derivation": "100 - (80"},
    ]
    room.write([tatqa_page(*asked)], reader="tatqa")
    data = room()
    programs = {q.text: q.program for q in data.training.questions}
    assert [text for text, program in programs.items() if program] == ["a?", "e?"]
    value, sign, parsed = (
        f"no program: the derivation {said}"
        for said in (
            "computes another value",
            "computes the answer with the other sign",
            "cannot be parsed",
        )
    )
    assert data.counts.noticed == {value: 2, sign: 1, parsed: 1}
    places = data.counts.places
    assert [len(places[reason]) for reason in (value, sign, parsed)] == [2, 1, 1]
    assert places[sign][0].startswith("own.json ")


def long_rows(count: int) -> list[dict[str, Any]]:
    return [finqa_row(f"r{i}", f"{'what of sales? ' * 60}{i}") for i in range(count)]


def test_what_is_too_long_is_dropped_and_counted(room: Room) -> None:
    room.write([ROWS[0], *long_rows(2)])
    data = room("formatter.max_length=200")
    assert [q.id for q in data.training.questions] == ["good"]
    assert data.counts.left_out == {TOO_LONG: 2}
    assert [dropped.reason for dropped in data.training.dropped] == [TOO_LONG] * 2


def test_what_is_too_long_can_be_an_error(room: Room) -> None:
    evidence = {"gold_inds": {"text_0": "x"}}
    big = {**ROWS[0], "id": "big", "filename": "big.pdf", "pre_text": ["income was 5 . " * 90]}
    room.write([ROWS[0], *long_rows(1), {**big, "qa": {**ROWS[0]["qa"], **evidence}}])
    with pytest.raises(DataError) as caught:
        room("formatter.max_length=200", "data.too_long=error")
    assert str(caught.value) == (
        "2 questions are too long:\n"
        f"  own.json row 2: {TOO_LONG}\n"
        f"  own.json row 3: {EVIDENCE_TOO_LONG}\n"
        "Raise formatter.max_length, or leave such questions out with data.too_long=drop"
    )


def test_of_many_that_are_too_long_the_first_are_named(room: Room) -> None:
    room.write([ROWS[0], *long_rows(22)])
    with pytest.raises(DataError) as caught:
        room("formatter.max_length=200", "data.too_long=error")
    lines = str(caught.value).splitlines()
    assert (lines[0], lines[-2]) == ("22 questions are too long:", "  and 2 more")
    assert len(lines) == 23


def test_what_is_left_out_for_another_reason_is_not_too_long(room: Room) -> None:
    room.write([ROWS[0], finqa_row("end", "what?", answer="20<|end|>")])
    data = room("data.too_long=error", "formatter.value=written")
    assert [dropped.reason for dropped in data.training.dropped] == [
        "control token '<|end|>' of the tokenizer in the answer"
    ]
