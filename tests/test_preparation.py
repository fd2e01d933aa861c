from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from finqa_sft.encoding import IGNORED, EncodedRow, Encoder
from finqa_sft.errors import DataError
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation import PreparedData, encoded, prepare_data
from finqa_sft.preparation.counts import (
    ANSWER_CUT,
    DOCUMENT_CUT,
    NO_DOCUMENT,
    NOTHING_TO_CITE,
    SEVERAL_CUTS,
    STANDS_TWICE,
    TAKEN_APART,
    TOO_LONG,
    TWO_ANSWERS,
)
from finqa_sft.recipe import load_recipe
from finqa_sft.training import announce

HEAD = "formatter:\n  name: answer\n  system: Answer.\n  max_length: 2048\ndata:\n"
OWN = HEAD + "  sources:\n    - reader: columns\n      files: own.csv\n"


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(tiny))


def write_csv(path: Path, rows: list[tuple[str, str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("question", "context", "answer"), *rows])


def prepared(
    folder: Path,
    text: str,
    encoder: Encoder,
    *overrides: str,
    say: Callable[[str], None] | None = None,
) -> PreparedData:
    (folder / "r.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(folder / "r.yaml", overrides, Plugins.load({"FINQA_SFT_PLUGINS": ""}))
    return prepare_data(recipe, encoder=encoder, formatter=recipe.formatter.build(), say=say)


def ids(data: PreparedData) -> tuple[set[str], set[str]]:
    return (
        {row["document"] for row in data.training.rows},
        {row["document"] for row in data.held_out.rows},
    )


def test_a_bad_row_is_named_by_file_row_and_field(tmp_path: Path, encoder: Encoder) -> None:
    write_csv(tmp_path / "own.csv", [("q1", "c1", "a1"), ("q2", "c2", ""), ("", "c3", "a3")])
    with pytest.raises(DataError) as error:
        prepared(tmp_path, OWN, encoder)
    said = str(error.value)
    assert said.startswith("2 of 3 rows cannot be read:\n  own.csv row 2, field 'answer': ")
    assert "\n  own.csv row 3, field 'question': " in said
    assert said.endswith("\nMend them, or leave such rows out with data.bad_rows=skip")


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path: Path, encoder: Encoder) -> None:
    write_csv(tmp_path / "own.csv", [("q1", "c1", "a1"), ("q2", "c2", ""), ("q3", "c3", "a3")])
    data = prepared(tmp_path, OWN, encoder, "data.bad_rows=skip")
    assert len(data.training.rows) == 2
    assert data.counts.left_out == {"bad row: answer": 1}
    assert data.counts.read == {"columns 1": 2}


def test_many_bad_rows_of_one_kind_are_one_reason_with_the_first_of_its_places(
    tmp_path: Path, encoder: Encoder
) -> None:
    rows = [f"{i % 2},q{i},c,a\n" for i in range(30)]
    (tmp_path / "own.csv").write_text("id,question,context,answer\n" + "".join(rows))
    counts = prepared(tmp_path, OWN, encoder, "data.bad_rows=skip").counts
    assert counts.left_out == {"bad row: id": 28}
    assert len(counts.places["bad row: id"]) == 20
    assert counts.places["bad row: id"][0].startswith(
        "own.csv row 3, field 'id': '0' is also the id of own.csv row 1; "
    )


def test_a_held_out_document_is_never_trained_on(tmp_path: Path, encoder: Encoder) -> None:
    write_csv(tmp_path / "own.csv", [(f"q{i}", f"page {i // 3}", "1") for i in range(60)])
    data = prepared(tmp_path, OWN, encoder, "data.split.held_out=0.25")
    training, held_out = ids(data)
    assert (len(training), len(held_out)) == (15, 5)
    assert not training & held_out
    assert len(data.training.rows) == 45
    again = prepared(tmp_path, OWN, encoder, "data.split.held_out=0.25")
    assert again.fingerprint == data.fingerprint
    other = prepared(tmp_path, OWN, encoder, "data.split.held_out=0.25", "data.split.seed=1")
    assert ids(other)[1] != held_out


def test_one_document_cannot_be_split(tmp_path: Path, encoder: Encoder) -> None:
    write_csv(tmp_path / "own.csv", [("q1", "same", "1"), ("q2", "same", "2")])
    with pytest.raises(DataError, match="all questions belong to one document"):
        prepared(tmp_path, OWN, encoder, "data.split.held_out=0.5")


def test_a_run_refuses_a_document_on_both_sides(tmp_path: Path, encoder: Encoder) -> None:
    write_csv(tmp_path / "own.csv", [("q1", "one page", "1"), ("q2", "another", "2")])
    write_csv(tmp_path / "dev.csv", [("q3", "one page", "3")])
    text = OWN + "evaluation:\n  sources:\n    - reader: columns\n      files: dev.csv\n"
    with pytest.raises(DataError, match=r"1 held-out documents are in the training data as well"):
        prepared(tmp_path, text, encoder)


def test_companies_can_be_held_out_whole(tmp_path: Path, encoder: Encoder) -> None:
    text = HEAD + "  sources:\n    - reader: filings\n      pages: 24\n      length: short\n"
    by = ["data.split.held_out=0.3", "data.split.by=company"]
    training, held_out = ids(prepared(tmp_path, text, encoder, *by))
    companies = [{name.partition("/")[0] for name in side} for side in (training, held_out)]
    assert all(companies)
    assert not companies[0] & companies[1]


@pytest.mark.parametrize(("weight", "rows"), [("2", 60), ("0.5", 15), ("1.5", 45), ("1", 30)])
def test_a_weight_says_how_often_a_source_is_seen(
    tmp_path: Path, encoder: Encoder, weight: str, rows: int
) -> None:
    write_csv(tmp_path / "own.csv", [(f"q{i}", f"page {i // 3}", "1") for i in range(30)])
    data = prepared(tmp_path, OWN, encoder, f"data.sources.0.weight={weight}")
    assert len(data.training.rows) == rows
    assert len(data.held_out.rows) == 0


def test_a_question_seen_twice_is_evaluated_once(tmp_path: Path, encoder: Encoder) -> None:
    write_csv(tmp_path / "own.csv", [(f"q{i}", f"page {i}", "1") for i in range(10)])
    both = ["data.sources.0.weight=2", "data.split.held_out=0.2"]
    data = prepared(tmp_path, OWN, encoder, *both)
    assert (len(data.training.rows), len(data.held_out.rows)) == (16, 2)


def test_no_row_is_longer_than_allowed_and_every_answer_is_whole(
    tmp_path: Path, encoder: Encoder
) -> None:
    text = HEAD.replace("name: answer", "name: program") + (
        "  sources:\n    - reader: filings\n      pages: 20\n      length: medium\n"
    )
    free = prepared(tmp_path, text, encoder)
    tight = prepared(tmp_path, text, encoder, "formatter.max_length=300")
    assert free.training.summary["longest"] > 400
    assert tight.training.summary["longest"] <= 300
    assert len(free.training.rows) == len(tight.training.rows)
    for long, short in zip(free.training.rows, tight.training.rows, strict=True):
        answers = [[i for i in row["labels"] if i != IGNORED] for row in (long, short)]
        assert answers[0] == answers[1]
    assert tight.counts.changed[DOCUMENT_CUT] == 20
    assert tight.counts.changed["paragraph left out"] > 20
    shown = [
        {e.prompt[1]["content"].rpartition("\n\nQuestion:")[0] for e in examples}
        for examples in by_document(tight).values()
    ]
    assert sum(map(len, shown)) < len(tight.training.rows) / 2, "questions share what they read"
    several = sum(len(cuts) > 1 for cuts in shown)
    assert several == tight.counts.changed[SEVERAL_CUTS]
    assert several < len(shown)


def by_document(data: PreparedData) -> dict[str, list]:  # type: ignore[type-arg]
    grouped: dict[str, list] = {}  # type: ignore[type-arg]
    for example in data.training.examples:
        grouped.setdefault(example.question.document.id, []).append(example)
    return grouped


def test_a_question_too_long_by_itself_is_left_out_and_counted_alone(
    tmp_path: Path, encoder: Encoder
) -> None:
    write_csv(
        tmp_path / "own.csv",
        [("What were sales? " * 40, "Sales were 5.", "5"), ("Sales?", "Sales were 5.", "5")],
    )
    data = prepared(tmp_path, OWN, encoder, "formatter.max_length=64")
    assert len(data.training.rows) == 1
    assert data.counts.left_out[TOO_LONG] == 1
    assert data.counts.places[TOO_LONG] == ["own.csv row 1"]


def test_an_answer_with_a_control_token_is_left_out_and_named(
    tmp_path: Path, encoder: Encoder
) -> None:
    write_csv(tmp_path / "own.csv", [("q1", "c1", "5<|end|>6"), ("q2", "c2", "7")])
    data = prepared(tmp_path, OWN, encoder)
    assert [example.question.text for example in data.training.examples] == ["q2"]
    reason = "control token '<|end|>' of the tokenizer in the answer"
    assert data.counts.left_out == {reason: 1}
    assert data.counts.places == {reason: ["own.csv row 1"]}


def test_control_tokens_of_a_page_are_taken_apart_alike_for_all_its_questions(
    tmp_path: Path, encoder: Encoder
) -> None:
    page = "Rev <|assistant|> is 5.<|end|>"
    write_csv(tmp_path / "own.csv", [("q1", page, "5"), ("q2<|pad|>", page, "6"), ("q3", "c", "7")])
    data = prepared(tmp_path, OWN, encoder)
    assert [example.prompt[1]["content"] for example in data.training.examples] == [
        "Rev < |assistant|> is 5.< |end|>\n\nQuestion: q1",
        "Rev < |assistant|> is 5.< |end|>\n\nQuestion: q2< |pad|>",
        "c\n\nQuestion: q3",
    ]
    special = set(encoder._tokenizer.all_special_ids)
    turns = [sum(i in special for i in row["input_ids"]) for row in data.training.rows]
    assert turns == [6, 6, 6]
    assert data.counts.changed[TAKEN_APART] == 1
    assert data.counts.places[TAKEN_APART] == ["own.csv row 1"]


def test_questions_that_stand_twice_are_noticed_and_weights_are_not(
    tmp_path: Path, encoder: Encoder
) -> None:
    rows = [("q1", "c1", "1"), ("q2", "c1", "2"), ("q1", "c1", "1"), ("q2", "c1", "3")]
    write_csv(tmp_path / "own.csv", [*rows, ("q1", "c2", "9")])
    data = prepared(tmp_path, OWN, encoder, "data.sources.0.weight=2")
    assert len(data.training.rows) == 10
    assert data.counts.noticed == {STANDS_TWICE: 1, TWO_ANSWERS: 1}
    assert data.counts.places == {
        STANDS_TWICE: ["own.csv row 1 and own.csv row 3"],
        TWO_ANSWERS: ["own.csv row 2 and own.csv row 4"],
    }


def test_a_row_that_fits_whole_is_encoded_once(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = Encoder.encode

    def counted(self: Encoder, *args: Any, document: str = "") -> EncodedRow:
        encoded.append(document)
        return encode(self, *args, document=document)

    monkeypatch.setattr(Encoder, "encode", counted)
    write_csv(tmp_path / "own.csv", [(f"q{i}", f"page {i // 3}", "1") for i in range(12)])
    data = prepared(tmp_path, OWN, encoder, "data.sources.0.weight=2")
    assert len(data.training.rows) == 24
    assert len(encoded) == 12


def test_many_reasons_are_not_all_printed(tmp_path: Path, encoder: Encoder) -> None:
    write_csv(tmp_path / "own.csv", [("q1", "c1", "1")])
    data = prepared(tmp_path, OWN, encoder)
    for number in range(12):
        data.counts.note(data.counts.left_out, f"bad row: {number}", f"own.csv row {number}")
    screen = io.StringIO()
    announce.data(Console(file=screen, width=120), data, encoder=encoder)
    lines = [line for line in screen.getvalue().splitlines() if line.startswith("left out")]
    assert len(lines) == 11
    assert lines[0] == "left out              1 × bad row: 0; first own.csv row 0"
    assert lines[-1] == "left out              2 more reasons, in run.json"


def test_long_preparation_says_how_far_it_is(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded, "SECONDS_BETWEEN_REPORTS", 0.0)
    write_csv(tmp_path / "own.csv", [(f"q{i}", f"page {i // 2}", "1") for i in range(6)])
    said: list[str] = []
    prepared(tmp_path, OWN, encoder, say=said.append)
    assert said == [f"encoded {n} of 6 questions" for n in (2, 4, 6)]


def test_pages_of_one_name_from_two_sources_are_not_mixed_up(
    tmp_path: Path, encoder: Encoder
) -> None:
    for name, value in (("a", "100"), ("b", "999")):
        (tmp_path / f"{name}.csv").write_text(
            f"document,question,context,answer\n1,Revenue of {name}?,It was {value}.,{value}\n"
        )
    text = (
        HEAD
        + "  sources:\n"
        + "".join(f"    - reader: columns\n      files: {name}.csv\n" for name in "ab")
    )
    data = prepared(tmp_path, text, encoder)
    shown = [example.prompt[1]["content"] for example in data.training.examples]
    assert shown == [
        "It was 100.\n\nQuestion: Revenue of a?",
        "It was 999.\n\nQuestion: Revenue of b?",
    ]
    assert [row["document"] for row in data.training.rows] == ["1", "2/1"]
    assert data.counts.changed["document renamed, as another source has one of its name"] == 1


def test_a_long_context_is_shortened_and_not_lost(tmp_path: Path, encoder: Encoder) -> None:
    lines = "\n".join(f"Item {i} was {i * 3}." for i in range(200))
    write_csv(tmp_path / "own.csv", [("What was item 5?", lines, "15")])
    data = prepared(tmp_path, OWN, encoder, "formatter.max_length=200")
    assert data.training.summary["longest"] <= 200
    assert "Item 5 was 15." in data.training.example(0).prompt[1]["content"]
    assert data.counts.changed["paragraph shortened"] == 1


def test_without_evidence_the_parts_that_the_answer_shows_in_go_last(
    tmp_path: Path, encoder: Encoder
) -> None:
    filler = "".join(f"Paragraph {i} says how large things were.\n\n" for i in range(60))
    table = "".join(f"| item {i} | {i}.5 |\n" for i in range(20))
    context = f"{filler}It came to $ 7,319.\n\n{filler}| | 2020 |\n|---|---|\n{table}"
    write_csv(tmp_path / "own.csv", [("How large was it?", context, "7319")])
    data = prepared(tmp_path, OWN, encoder, "formatter.max_length=200")
    assert "It came to $ 7,319." in data.training.example(0).prompt[1]["content"]
    assert ANSWER_CUT not in data.counts.noticed


def test_an_answer_that_is_cut_off_where_it_was_not_looked_at_is_noticed(
    tmp_path: Path, encoder: Encoder
) -> None:
    filler = "".join(f"Page {i} says how large it was.\n\n" for i in range(60))
    write_csv(tmp_path / "own.csv", [("Sales?", "Sales were 5.", "5")])
    write_csv(tmp_path / "dev.csv", [("How large was it?", f"{filler}Rent: 7,319.", "7319")])
    text = OWN + "evaluation:\n  sources:\n    - reader: columns\n      files: dev.csv\n"
    data = prepared(tmp_path, text, encoder, "formatter.max_length=200")
    assert data.counts.noticed == {ANSWER_CUT: 1}
    assert data.counts.places[ANSWER_CUT] == ["dev.csv row 1"]


def test_a_question_without_evidence_has_nothing_to_cite(tmp_path: Path, encoder: Encoder) -> None:
    write_csv(tmp_path / "own.csv", [("Sales?", "Sales were 5.", "5")])
    data = prepared(tmp_path, OWN, encoder, "formatter.evidence=short")
    assert data.counts.noticed == {NOTHING_TO_CITE: 1}


def test_a_question_without_anything_of_its_document_is_not_taught(
    tmp_path: Path, encoder: Encoder
) -> None:
    write_csv(tmp_path / "own.csv", [("What? " * 13, "x" * 3000, "15"), ("What?", "Short.", "1")])
    data = prepared(tmp_path, OWN, encoder, "formatter.max_length=80")
    assert len(data.training.rows) == 1
    assert data.counts.left_out[NO_DOCUMENT] == 1


def test_a_text_that_is_no_program_is_a_bad_row(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "own.csv").write_text(
        'question,context,answer,program\nq,c,a,"subtract(5, ROW"\nq2,c,a,"add(1, 2)"\n'
    )
    with pytest.raises(DataError, match=r"own.csv row 1, field 'program': no program: no step at"):
        prepared(tmp_path, OWN, encoder)


def test_what_a_weight_leaves_out_is_counted_and_no_source_is_emptied(
    tmp_path: Path, encoder: Encoder
) -> None:
    write_csv(tmp_path / "own.csv", [(f"q{i}", f"page {i}", "1") for i in range(10)])
    data = prepared(tmp_path, OWN, encoder, "data.sources.0.weight=0.3")
    assert len(data.training.rows) == 3
    assert data.counts.left_out == {"not drawn: weight 0.3": 7}
    write_csv(tmp_path / "own.csv", [("q1", "one page", "1"), ("q2", "one page", "2")])
    assert len(prepared(tmp_path, OWN, encoder, "data.sources.0.weight=0.3").training.rows) == 2


def test_real_finqa_rows_keep_their_answers(
    tmp_path: Path, encoder: Encoder, real_data: Path
) -> None:
    text = HEAD.replace("name: answer", "name: program").replace("2048", "700") + (
        f"  sources:\n    - reader: finqa\n      files: {real_data / 'finqa' / 'dev_200.json'}\n"
    )
    data = prepared(tmp_path, text, encoder)
    assert len(data.training.rows) == 200
    assert data.training.summary["longest"] <= 700
    for example, row in zip(data.training.examples, data.training.rows, strict=True):
        taught = encoder._tokenizer.decode([i for i in row["labels"] if i != IGNORED])
        assert taught == f"{example.question.program}<|end|>"
