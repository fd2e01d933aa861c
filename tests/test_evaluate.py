"""The verb `evaluate`: questions asked, answers scored, a report."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from bad_input import Shell, shell
from evaluated import predictions, scores, trained, wild
from test_predict import COLUMNS, run_folder

from finqa_sft.evaluation.answering import Answerer

__all__ = ["run_folder", "shell", "trained", "wild"]


def numbers(shell: Shell, *words: str) -> dict[str, Any]:
    """What `--json` prints, which is all that may stand on the standard output."""
    said = shell("evaluate", *words, "--json")
    assert said.status == 0, said
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_an_evaluation_leaves_predictions_scores_and_report(run_folder: Shell) -> None:
    said = run_folder("evaluate", "run")
    assert (said.status, said.err) == (0, "")
    folder = run_folder.folder / "run" / "evaluation"
    assert sorted(path.name for path in folder.iterdir()) == [
        "predictions.jsonl", "predictions.jsonl.about.json", "report.html", "scores.json"
    ]  # fmt: skip
    found = scores(folder)
    assert list(found["metrics"]) == ["answer", "mark"]
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    value = 100 * found["metrics"]["mark"]["hash"]["value"]
    assert any(line.startswith(f"mark hash {value:.2f} ") for line in lines)
    assert "report run/evaluation/report.html" in lines
    report = (folder / "report.html").read_text()
    assert "a number that another text would change" in report
    again = run_folder("evaluate", "run")
    assert (again.out, again.err) == (said.out, "9 of 9 questions were answered before\n")


def test_a_log_line_that_was_cut_off_is_passed_over(run_folder: Shell) -> None:
    before = (run_folder.folder / "run" / "metrics.jsonl").read_text()
    numbers(run_folder, "run", "--out", "whole")
    run_folder.write("run/metrics.jsonl", before + '{"loss": 1.0, "st\n5\n\xff')
    numbers(run_folder, "run", "--out", "torn")
    assert (run_folder.folder / "torn" / "report.html").read_bytes() == (
        run_folder.folder / "whole" / "report.html"
    ).read_bytes()


def test_what_cannot_be_written_is_told(run_folder: Shell) -> None:
    (run_folder.folder / "out" / "scores.json").mkdir(parents=True)
    said = run_folder("evaluate", "run", "--out", "out")
    assert (said.status, said.err) == (
        2,
        "cannot write out/scores.json: Is a directory; make room for it, or name another folder "
        "with --out\n",
    )
    assert len(predictions(run_folder.folder / "out" / "predictions.jsonl")) == 9


def test_json_is_all_that_is_printed(run_folder: Shell) -> None:
    found = numbers(run_folder, "run")
    assert found == scores(run_folder.folder / "run" / "evaluation")
    assert found["questions"] == 9


def test_run_and_recipe_give_the_same(
    run_folder: Shell, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    first = numbers(run_folder, "run", "--out", str(tmp_path / "a"))
    monkeypatch.chdir(tmp_path)
    second = numbers(run_folder, str(trained / "run"), "--out", "b")
    recipe = (str(trained / "small.yaml"), f"output.dir={trained / 'run'}")
    third = numbers(run_folder, *recipe, "--out", "c")
    assert first == second == third
    assert (tmp_path / "a" / "predictions.jsonl").read_text() == (
        tmp_path / "c" / "predictions.jsonl"
    ).read_text()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("formatter.system=Other.", "formatter.system=Answer., and the recipe says Other. now"),
        ("model.lora.r=8", "model.lora.r=16, and the recipe says 8 now"),
        ("data.cleaning.empty_rows=false", "empty_rows=True, and the recipe says False now"),
        (
            "model.lora.target_modules=[q_proj]",
            "model.lora.target_modules=all-linear, and the recipe says ['q_proj'] now",
        ),
    ],
)
def test_a_recipe_that_has_changed_is_refused(
    run_folder: Shell, trained: Path, monkeypatch: pytest.MonkeyPatch, override: str, said: str
) -> None:
    monkeypatch.chdir(trained)
    run = str(trained / "run")
    found = run_folder.refused("evaluate", "small.yaml", f"output.dir={run}", override)
    assert f"{run} was trained with " in found
    assert said in found
    assert found.endswith(f"; ask {run} itself, which knows its recipe, or restore the value")


def test_a_recipe_without_a_run(run_folder: Shell) -> None:
    assert run_folder.refused("evaluate", "small.yaml", "output.dir=none") == (
        "none holds no run of small yet; train it, set output.dir to where it is, or ask the base "
        "with --base"
    )


def test_two_evaluations_are_compared(run_folder: Shell) -> None:
    numbers(run_folder, "run", "--base")
    assert (run_folder.folder / "run" / "evaluation-base" / "scores.json").is_file()
    for against in ("run/evaluation-base", "run/evaluation-base/predictions.jsonl"):
        said = run_folder("evaluate", "run", "--against", against)
        assert said.status == 0
        report = (run_folder.folder / "run" / "evaluation" / "report.html").read_text()
        assert against in report
    assert run_folder.refused("evaluate", "run", "--against", "wild") == (
        "wild holds no predictions.jsonl; name the folder of a run that was evaluated, or a file "
        "of predictions"
    )
    assert run_folder.refused("evaluate", "run", "--against", "x" * 300) == (
        f"{'x' * 300}: cannot be read (File name too long); check its rights"
    )


def test_predictions_of_other_questions_are_refused_before_any_question_is_asked(
    run_folder: Shell,
) -> None:
    run_folder.write("other.jsonl", '{"id": "x", "answer": "5"}\n')
    assert run_folder.refused("evaluate", "run", "--against", "other.jsonl") == (
        "other.jsonl has no prediction of a question that is asked here; name predictions of the "
        "same questions"
    )
    run_folder.write("gold.csv", "question,answer\nWhat were sales?,5\n")
    assert run_folder.refused("evaluate", "run", "--against", "gold.csv") == (
        "gold.csv: begins with 'question,answer', so it is no JSON object or list; expected a JSON "
        "object a line with 'id' and 'answer' or 'program', a list of such objects, FinQA's list "
        "of {'id', 'predicted'}, or TAT-QA's {uid: [answer, scale]}"
    )
    assert not (run_folder.folder / "run" / "evaluation").exists()


def test_a_comparison_counts_what_either_side_lacks(run_folder: Shell) -> None:
    numbers(run_folder, "run", "--base", "--out", "base")
    lines = (run_folder.folder / "base" / "predictions.jsonl").read_text().splitlines()[:4]
    run_folder.write("some.jsonl", "\n".join([*lines, '{"id": "x", "answer": "5"}']))
    numbers(run_folder, "run", "--against", "some.jsonl")
    assert (
        "All figures here are of the 4 questions that both have; 5 are only here, 1 only there."
    ) in (run_folder.folder / "run" / "evaluation" / "report.html").read_text()


def test_what_the_base_answered_before_the_training_is_compared_with(run_folder: Shell) -> None:
    numbers(run_folder, "run", "--base", "--out", "base")
    target = run_folder.folder / "run" / "evaluation"
    target.mkdir()
    shutil.copy(run_folder.folder / "base" / "predictions.jsonl", target / "before.jsonl")
    for words in ([], ["--out", "elsewhere"]):
        numbers(run_folder, "run", *words)
    for folder in (target, run_folder.folder / "elsewhere"):
        assert "before training" in (folder / "report.html").read_text()


def test_questions_of_a_file_are_scored_by_the_recipe_s_own_metrics(run_folder: Shell) -> None:
    run_folder.write("own.csv", COLUMNS)
    words = ["--data", "own.csv", "--option", "question=frage", "--out", "own"]
    found = numbers(run_folder, "run", *words)
    assert found["questions"] == 2
    assert list(found["metrics"]) == ["answer", "mark"]
    assert numbers(run_folder, "run", *words, "evaluation.metrics=[]")["metrics"].keys() == {
        "answer"
    }


def test_another_metric_needs_no_new_answers(run_folder: Shell) -> None:
    numbers(run_folder, "run")
    said = run_folder("evaluate", "run", "evaluation.metrics=[{name: mark}]", "--json")
    assert said.err == "9 of 9 questions were answered before\n"
    assert list(json.loads(said.out)["metrics"]) == ["mark"]


def test_results_of_something_else_are_kept(run_folder: Shell) -> None:
    numbers(run_folder, "run")
    before = (run_folder.folder / "run" / "evaluation" / "scores.json").read_bytes()
    assert run_folder.refused("evaluate", "run", "evaluation.max_new_tokens=3") == (
        "run/evaluation/predictions.jsonl holds predictions of something else "
        "(decoding.max_new_tokens was 6 and is 3); name another place with --out, or replace it "
        "with --overwrite"
    )
    numbers(run_folder, "run", "evaluation.max_new_tokens=3", "--overwrite")
    assert (run_folder.folder / "run" / "evaluation" / "scores.json").read_bytes() != before


def test_a_training_interrupted_while_it_asks_is_evaluated_later(
    run_folder: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Answerer._predicted
    calls: list[str] = []

    def predicted(answerer: Answerer, asked: Any, completions: Any) -> Any:
        calls.append(asked.question.id)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return real(answerer, asked, completions)

    monkeypatch.setattr(Answerer, "_predicted", predicted)
    said = run_folder(
        "train", "small.yaml", "output.dir=new run", "evaluation.before=false", "evaluation.every=0"
    )
    assert (said.status, said.err) == (
        130,
        "interrupted; 4 of 9 questions are answered and kept; finqa-sft evaluate 'new run' goes on "
        "from there\n",
    )
    assert json.loads((run_folder.folder / "new run" / "run.json").read_text())["status"] == (
        "finished"
    )
    said = run_folder("evaluate", "new run")
    assert (said.status, said.err) == (0, "4 of 9 questions were answered before\n")
    assert len(predictions(run_folder.folder / "new run" / "evaluation" / "predictions.jsonl")) == 9


def test_a_chat_template_beside_the_recipe_is_found_from_anywhere(
    run_folder: Shell, monkeypatch: pytest.MonkeyPatch, wild: Path
) -> None:
    shutil.copy(wild / "chat_template.jinja", run_folder.folder / "chat.jinja")
    off = ("evaluation.before=false", "evaluation.every=0", "evaluation.after=false")
    recipe = run_folder.folder / "small.yaml"
    recipe.write_text(
        recipe.read_text().replace("model:\n", "model:\n  chat_template: chat.jinja\n")
    )
    said = run_folder("train", "small.yaml", "output.dir=other", "trainer.max_steps=1", *off)
    assert said.status == 0, said
    first = numbers(run_folder, "other", "--out", "a")
    (run_folder.folder / "sub").mkdir()
    monkeypatch.chdir(run_folder.folder / "sub")
    assert numbers(run_folder, "../other", "--out", "b") == first
    assert numbers(run_folder, "../small.yaml", "output.dir=../other", "--out", "c") == first
    # The three are one to the files of predictions, too.
    said = run_folder("evaluate", "../small.yaml", "output.dir=../other", "--out", "b")
    assert (said.status, said.err) == (0, "9 of 9 questions were answered before\n")
