"""Files of predictions that grow, and what questions a model is asked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model
from transformers import AutoTokenizer

from finqa_sft.cleaning import CleaningOptions
from finqa_sft.documents import Document, Evidence, Paragraph, Question, Table, Turn
from finqa_sft.encoding import Encoder
from finqa_sft.errors import OutputError
from finqa_sft.evaluation.answering import answerer
from finqa_sft.evaluation.asking import Asker
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.store import (
    PredictionStore,
    digest_of_questions,
    digest_of_weights,
    write_predictions,
)
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.program import ProgramFormatter, ProgramOptions
from finqa_sft.metrics.computed import computed_prediction
from finqa_sft.plugins.manager import Component, Plugins
from finqa_sft.plugins.records import FormatterRecord
from finqa_sft.recipe import load_recipe


def said(id: str, text: str = "5") -> Predicted:
    return Predicted(id=id, prediction=Prediction(text=text, answer=text), tokens=1)


def add(store: PredictionStore, *several: Predicted) -> None:
    with store.open(), store.adding() as file:
        for predicted in several:
            store.add(file, predicted)


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p.jsonl", {"a": 1})
    add(store, said("x"), said("y"))
    with PredictionStore(tmp_path / "p.jsonl", {"a": 1}).open() as done:
        assert done == {"x": said("x"), "y": said("y")}


@given(cut=st.integers(min_value=0, max_value=400), more=st.booleans())
def test_a_file_torn_anywhere_keeps_all_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int, more: bool
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    store = PredictionStore(folder / "p.jsonl", {})
    several = [said(id, "4 € 千") for id in "abc"]
    add(store, *several)
    part = folder / "p.jsonl.part0"
    content = part.read_bytes()
    part.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n") + (content[cut : cut + 1] == b"\n")
    if more:
        add(store, said("d"))
    with store.open() as done:
        assert done == {one.id: one for one in [*several[:whole], *([said("d")] if more else [])]}


def test_a_finished_file_is_in_the_order_of_the_questions_and_without_parts(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p[0].jsonl", {})
    add(store, said("x"), said("y"))
    with store.open() as done:
        store.finish([done["y"], done["x"]])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "p[0].jsonl", "p[0].jsonl.about.json"
    ]  # fmt: skip
    with store.open() as done:
        assert list(done) == ["y", "x"]


@pytest.mark.parametrize(
    ("was", "now", "differs"),
    [
        ({"questions": "ab"}, {"questions": "cd"}, "the questions, their pages or their order are "
                                                   "others"),
        ({"weights": "ab"}, {"weights": "cd"}, "the trained model is another one"),
        ({"weights": ""}, {"weights": "cd"}, "they were of the base alone and are of a trained "
                                             "model"),
        ({"weights": "ab"}, {"weights": ""}, "they were of a trained model and are of the base "
                                             "alone"),
    ],
)  # fmt: skip
def test_what_differs_is_said_without_hashes(
    tmp_path: Path, was: dict[str, Any], now: dict[str, Any], differs: str
) -> None:
    path = tmp_path / "p.jsonl"
    add(PredictionStore(path, was), said("x"))
    with pytest.raises(OutputError) as error, PredictionStore(path, now).open():
        pass
    assert str(error.value) == (
        f"{path} holds predictions of something else ({differs}); name another place with --out, "
        "or replace it with --overwrite"
    )


def test_something_else_is_told_by_its_first_three_keys(tmp_path: Path) -> None:
    add(PredictionStore(tmp_path / "p.jsonl", {"a": 1, "b": [1, 2], "c": None, "d": 0}), said("x"))
    other = PredictionStore(tmp_path / "p.jsonl", {"a": 2, "b": (1, 2), "c": 3, "e": 1, "f": 1})
    with pytest.raises(OutputError) as error, other.open():
        pass
    assert str(error.value) == (
        f"{tmp_path / 'p.jsonl'} holds predictions of something else (a was 1 and is 2, c was None "
        "and is 3, d was 0 and is None, and 2 more); name another place with --out, or replace it "
        "with --overwrite"
    )
    with other.open(overwrite=True) as done:
        assert done == {}
    assert not (tmp_path / "p.jsonl.part0").exists()


def test_what_is_replaced_is_kept_until_there_are_others(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with (store := PredictionStore(path, {"a": 1})).open():
        store.finish([said("x")])
    before = path.read_bytes()
    other = PredictionStore(path, {"a": 2})
    for _ in range(2):
        # As where the model cannot be loaded: nothing is answered.
        with other.open(overwrite=True) as done:
            assert done == {}
        assert not path.exists()
        assert (tmp_path / "p.jsonl.replaced").read_bytes() == before
    with other.open():
        other.finish([said("y")])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.jsonl", "p.jsonl.about.json"]
    with other.open() as done:
        assert done == {"y": said("y")}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"a"', r"cannot be read: .+"),
        ("\xff", r"cannot be read: .+"),
        ("[]", "is no JSON object"),
        ("5", "is no JSON object"),
    ],
)
def test_a_damaged_account_is_something_else(tmp_path: Path, content: str, problem: str) -> None:
    store = PredictionStore(tmp_path / "p.jsonl", {"a": 1})
    add(store, said("x"))
    store.about_path.write_text(content, encoding="latin-1")
    with (
        pytest.raises(OutputError, match=rf"something else \(p\.jsonl\.about\.json {problem}\); "),
        store.open(),
    ):
        pass
    with store.open(overwrite=True) as done:
        assert done == {}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_which_nothing_says_what_it_is_stays(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "gold.json"
    path.write_text("mine")
    store = PredictionStore(path, {})
    with pytest.raises(OutputError) as error, store.open(overwrite=overwrite):
        pass
    assert str(error.value) == (
        f"{path} may be anything: it has no gold.json.about.json beside it, which all predictions "
        "are written with; name another place with --out, or remove it"
    )
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
    device = PredictionStore(Path(os.devnull), {})
    with (
        pytest.raises(OutputError, match=f"^{os.devnull} is a pipe or device; name a file$"),
        device.open(overwrite=overwrite),
    ):
        pass


def test_a_folder_in_the_place_of_the_account_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_predictions(path, [said("x")])
    store = PredictionStore(path, {})
    store.about_path.mkdir()
    with pytest.raises(OutputError) as error, store.open(overwrite=True):
        pass
    assert str(error.value) == (
        f"cannot write {path}: {path}.about.json: Is a directory; name a file in a folder that can "
        "be written"
    )
    assert path.is_file()


def test_a_line_for_which_there_is_no_room_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "p.jsonl"
    store = PredictionStore(path, {})
    add(store, said("x"), said("y"))
    room = path.with_name("p.jsonl.part0").stat().st_size + 20
    problem = (
        f"cannot write {path}: File too large; make room, and the same command goes on from what "
        "is answered"
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OutputError) as error:
            add(store, said("z"))
        with pytest.raises(OutputError) as other:
            store.finish([said(id) for id in "xyz"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(error.value) == str(other.value) == problem
    assert not path.exists()
    add(store, said("z"))
    with store.open() as done:
        assert list(done) == ["x", "y", "z"]


def test_only_the_first_process_looks_at_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PredictionStore(tmp_path / "p.jsonl", {"a": 1})
    add(store, said("x"))
    monkeypatch.setenv("RANK", "1")
    with store.open() as done:
        assert done == {}
        with store.adding() as file:
            store.add(file, said("y"))
    assert (tmp_path / "p.jsonl.part1").is_file()
    monkeypatch.setenv("RANK", "0")
    with store.open() as done:
        assert list(done) == ["x", "y"]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.jsonl"
    write_predictions(path, [said("x")])
    before = path.read_bytes()

    def refuse(*paths: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="no"):
        write_predictions(path, [said("y")])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


QUESTION = Question(
    id="q",
    text="What?",
    document=Document("d", (Paragraph("Sales were 5."),)),
    answer="5",
    history=(Turn("Before?", "4"),),
)


def test_a_hash_of_questions_tells_all_that_a_prompt_may_show() -> None:
    known = digest_of_questions([QUESTION])
    assert known == digest_of_questions([replace(QUESTION, answer="6", program="add(1, 2)")])
    for other in (
        replace(QUESTION, text="Why?"),
        replace(QUESTION, id="r"),
        replace(QUESTION, document=Document("d", (Paragraph("Sales were 6."),))),
        replace(QUESTION, history=(Turn("Before?", "3"),)),
        replace(QUESTION, history=()),
    ):
        assert digest_of_questions([other]) != known
    assert digest_of_questions([QUESTION, QUESTION]) != known


def test_a_hash_of_weights_goes_by_what_they_are_and_not_where(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.safetensors").write_bytes(b"1" * 3_000_000)
    known = digest_of_weights(tmp_path / "a")
    assert digest_of_weights(tmp_path / "b") == known
    for place in (0, 1_500_000, 2_999_999):
        content = b"1" * place + b"2" + b"1" * (2_999_999 - place)
        (tmp_path / "b" / "w.safetensors").write_bytes(content)
        assert digest_of_weights(tmp_path / "b") != known
    (tmp_path / "b" / "w.safetensors").write_bytes(b"1" * 2_999_999)
    assert digest_of_weights(tmp_path / "b") != known
    assert digest_of_weights(None) == ""


def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.mkdir()
    with pytest.raises(OutputError) as error:
        digest_of_weights(tmp_path)
    assert str(error.value) == f"{path}: cannot be read (Is a directory); check its rights"


@pytest.mark.parametrize(("place", "size"), [(0, 1), (77_777_777, 2**20), (199_999_999, 1)])
def test_large_weights_are_told_apart_by_any_of_their_layers(
    tmp_path: Path, place: int, size: int
) -> None:
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        # Zeros that take no room.
        file.truncate(200_000_000)
    known = digest_of_weights(tmp_path)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"2" * size)
    assert digest_of_weights(tmp_path) != known


TABLE = Table.from_cells(
    [
        ["in millions", "2020", "2019"],
        ["Net sales", "5.1", "4.9"],
        ["Segments:", "", ""],
        ["Europe", "3.0", "2.0"],
        ["Total", "8.1", "6.9"],
        ["Asia", "1.0", "2.0"],
        ["Total", "9.1", "8.9"],
    ]
)
PARAGRAPHS = tuple(
    Paragraph(f"In region {n} demand for product {n} grew by {n}.") for n in range(30)
)


def asker(tiny: Path, *, max_prompt: int) -> tuple[Asker, Encoder]:
    plugins = Plugins.load({"FINQA_SFT_PLUGINS": ""})
    component = cast("Component[FormatterRecord]", plugins.find("formatters", "program"))
    encoder = Encoder(AutoTokenizer.from_pretrained(tiny))
    made = Asker(
        ProgramFormatter(ProgramOptions(system="Answer.")),
        encoder,
        component=component,
        cleaning=CleaningOptions(),
        max_prompt=max_prompt,
    )
    return made, encoder


def test_a_prompt_is_cut_without_a_look_at_the_evidence(tiny: Path) -> None:
    document = Document("d", (*PARAGRAPHS, TABLE))
    plain = Question(id="q", text="What were net sales?", document=document, answer="5.1")
    told = replace(
        plain,
        program="add(5.1, 4.9)",
        executed_answer=10.0,
        scale="million",
        answer_type="arithmetic",
        evidence=tuple(Evidence(n) for n in (3, 17, 29)),
        derivation="5.1 + 4.9",
    )
    made, _ = asker(tiny, max_prompt=200)
    (first,), (second,) = made.ask([plain]), made.ask([told])
    assert first.ids == second.ids
    assert first.left_out == second.left_out != ()
    assert len(first.ids) <= 200
    assert second.question == told


def test_as_much_as_fits_is_shown(tiny: Path) -> None:
    document = Document("d", (*PARAGRAPHS, TABLE))
    question = Question(id="q", text="What were net sales?", document=document, answer="5.1")
    made, _ = asker(tiny, max_prompt=100_000)
    (whole,) = made.ask([question])
    assert whole.left_out == ()
    exact, _ = asker(tiny, max_prompt=len(whole.ids))
    assert exact.ask([question])[0].ids == whole.ids
    less, _ = asker(tiny, max_prompt=len(whole.ids) - 1)
    (cut,) = less.ask([question])
    assert cut.left_out
    (tight,) = asker(tiny, max_prompt=10)[0].ask([question])
    assert (bool(tight.problem), tight.ids) == (True, [])


@pytest.mark.parametrize(
    ("kind", "longest_answer", "longest"),
    [("llama", 20, 512), ("gpt2", 20, 256 - 20), ("gpt2", 0, 256 - 64)],
)
def test_prompts_are_as_long_as_the_rows_of_the_training_where_the_model_has_positions(
    tmp_path: Path, tiny: Path, kind: str, longest_answer: int, longest: int
) -> None:
    """Rotary positions have no end; of a table of 256, the answer needs its part."""
    path = tmp_path / "r.yaml"
    path.write_text(
        "data: {sources: [{reader: filings}]}\n"
        "formatter: {name: program, system: Answer., max_length: 512}\n"
    )
    recipe = load_recipe(path, [], Plugins.load({"FINQA_SFT_PLUGINS": ""}))
    encoder = Encoder(AutoTokenizer.from_pretrained(tiny))
    made = answerer(
        recipe,
        small_model(kind, max_position_embeddings=256),
        encoder=encoder,
        formatter=recipe.formatter.build(),
        longest_answer=longest_answer,
    )
    question = replace(QUESTION, document=Document("d", 10 * PARAGRAPHS))
    (asked,) = made._asker.ask([question])
    assert longest - 30 < len(asked.ids) <= longest
    assert asked.left_out


def test_questions_of_a_document_come_back_in_their_order(tiny: Path) -> None:
    documents = [Document(f"d{n}", (TABLE,)) for n in range(2)]
    questions = [
        Question(id=f"{n}", text=f"What were net sales {n}?", document=documents[n % 2], answer="")
        for n in range(5)
    ]
    made, _ = asker(tiny, max_prompt=1000)
    assert [one.question.id for one in made.ask(questions)] == ["0", "1", "2", "3", "4"]


def test_a_program_about_a_cleaned_label_is_executed_on_the_table_as_it_was_read(
    tiny: Path,
) -> None:
    """Cleaning tells rows of one name apart; of such rows, programs mean the last."""
    document = Document("d", (TABLE,))
    question = Question(id="q", text="What is the sum of all totals?", document=document, answer="")
    made, encoder = asker(tiny, max_prompt=1000)
    (asked,) = made.ask([question])
    shown = encoder.tokenizer.decode(asked.ids)
    assert "| Segments: Total | 8.1 | 6.9 |" in shown
    assert "| Total | 9.1 | 8.9 |" in shown
    for written, original, value in (
        ("table_sum(Total, none)", "table_sum(Total, none)", "18"),
        ("table_sum(Segments: Total, none)", "table_sum(Total, none)", "18"),
        ("table_sum(Europe, none)", "table_sum(Europe, none)", "5"),
        ("add(table_sum(Segments: Total, none)", "add(table_sum(Total, none)", ""),
    ):
        read = made.read(question, f"program: {written}")
        assert read.program == original
        assert read.text == f"program: {written}"
        assert computed_prediction(read, question).text == value
