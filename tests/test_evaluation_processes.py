"""Two processes share what is asked, and come to what one process comes to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from bad_input import Shell, shell
from evaluated import command, logged, predictions, scores, trained, wild, write_recipe
from processes import ended
from test_predict import COLUMNS
from test_scores import plain_loss

from finqa_sft.documents import Document, Paragraph, Question
from finqa_sft.evaluation.answering import share

__all__ = ["shell", "trained", "wild"]


def finished(process: subprocess.Popen[str]) -> str:
    """What a command prints that ends well, and in time."""
    status, out, err = ended(process)
    assert status == 0, err
    return out


def questions(*counts: int) -> list[Question]:
    return [
        Question(f"{n}-{m}", "q?", Document(f"d{n}", (Paragraph("word " * 20 * n),)), "")
        for n, count in enumerate(counts)
        for m in range(count)
    ]


@pytest.mark.parametrize("counts", [(), (3,), (1, 1, 1), (5, 1, 2, 9), (2,) * 7])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_every_question_is_in_one_share_with_all_of_its_document(
    counts: tuple[int, ...], processes: int
) -> None:
    asked = questions(*counts)
    shares = [share(asked, rank=rank, of=processes) for rank in range(processes)]
    assert sorted(one.id for mine in shares for one in mine) == sorted(one.id for one in asked)
    documents = [{one.document.id for one in mine} for mine in shares]
    assert sum(map(len, documents)) == len(counts)
    sizes = [len(found) for found in documents]
    if len(set(counts)) == 1:
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_run_of_two_processes_scores_as_one_process_does(
    shell: Shell, wild: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, wild)
    words = ["train", "small.yaml", "trainer.max_steps=1", "trainer.per_device_train_batch_size=1"]
    said = finished(command(*words, "output.dir=two", folder=tmp_path, processes=2))
    assert said.count("asking all 9 held-out questions") == 1
    two = tmp_path / "two"
    found = scores(two / "evaluation")
    assert found["questions"] == 9
    # The same weights, asked by one process.
    assert shell("evaluate", "two", "--out", "one").status == 0
    assert scores(tmp_path / "one") == found
    assert (tmp_path / "one" / "predictions.jsonl").read_text() == (
        two / "evaluation" / "predictions.jsonl"
    ).read_text()
    entry = next(entry for entry in logged(two) if "eval_nll" in entry)
    assert entry["eval_mark/hash"] == found["metrics"]["mark"]["hash"]["value"]
    # 9 rows in batches of 8: the other process gets one, and 7 that are there already.
    assert entry["eval_nll"] == pytest.approx(plain_loss(recipe, two), rel=1e-5)
    # The base, before any step.
    assert shell("predict", "two", "--base", "--out", "base.jsonl").status == 0
    assert (tmp_path / "base.jsonl").read_text() == (
        two / "evaluation" / "before.jsonl"
    ).read_text()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_flattened_rows_of_two_processes_count_once(
    shell: Shell, wild: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, wild)
    off = ("evaluation.before=false", "evaluation.every=0", "evaluation.after=false")
    words = [
        "train", "small.yaml", "trainer.max_steps=1", "collator.name=flattened", *off,
        "output.dir=two",
    ]  # fmt: skip
    finished(command(*words, folder=tmp_path, processes=2))
    entry = next(entry for entry in logged(tmp_path / "two") if "eval_nll" in entry)
    assert entry["eval_nll"] == pytest.approx(plain_loss(recipe, tmp_path / "two"), rel=1e-5)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_go_on_where_one_was_interrupted(
    shell: Shell, trained: Path, tmp_path: Path
) -> None:
    run = str(trained / "run")
    assert shell("predict", run, "--out", "one.jsonl").status == 0
    lines = (tmp_path / "one.jsonl").read_text().splitlines(keepends=True)
    shutil.copy(tmp_path / "one.jsonl.about.json", tmp_path / "half.jsonl.about.json")
    shell.write("half.jsonl.part0", "".join(lines[:4]))
    shell.write("half.jsonl.part1", lines[7] + lines[8][:9])
    said = finished(command("predict", run, "--out", "half.jsonl", folder=tmp_path, processes=2))
    assert said == "9 predictions in half.jsonl\n"
    assert (tmp_path / "half.jsonl").read_text() == "".join(lines)
    assert not list(tmp_path.glob("half.jsonl.part*"))


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_process_without_a_document_waits_for_the_other(
    shell: Shell, trained: Path, tmp_path: Path
) -> None:
    shell.write("own.csv", COLUMNS.splitlines()[0] + "\n" + COLUMNS.splitlines()[1] + "\n")
    words = ["evaluate", str(trained / "run"), "--data", "own.csv", "--option", "question=frage"]
    finished(command(*words, "--out", "two", folder=tmp_path, processes=2))
    assert shell(*words, "--out", "one").status == 0
    assert scores(tmp_path / "two") == scores(tmp_path / "one")
    assert predictions(tmp_path / "two" / "predictions.jsonl") == predictions(
        tmp_path / "one" / "predictions.jsonl"
    )
