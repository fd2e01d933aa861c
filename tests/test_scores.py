"""A run that answers held-out questions before, during and after its training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input import Shell, shell
from evaluated import HELD_OUT, RECIPE, logged, predictions, scores, wild, write_recipe
from rich.console import Console
from runs import losses, manifest, run
from safetensors.torch import load_file

from finqa_sft.encoding import Encoder
from finqa_sft.errors import RecipeError
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation import prepare_data
from finqa_sft.recipe import load_recipe

__all__ = ["shell", "wild"]

OFF = ("evaluation.before=false", "evaluation.every=0", "evaluation.after=false")
TOLD = "evaluation.metrics=[{name: told, figures: %s}]"
ADAPTER = "adapter/adapter_model.safetensors"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / ADAPTER)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, wild: Path) -> tuple[Path, str]:
    """The folder of a run with all of its evaluations, and what it printed."""
    recipe = write_recipe(tmp_path_factory.mktemp("scores"), wild)
    console = Console(force_terminal=False, soft_wrap=True)
    with console.capture() as captured:
        outcome = run(recipe, console=console)
    return outcome.folder, captured.get()


def figures(entry: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in entry.items() if "/" in key}


def test_scores_are_logged_before_the_first_step_and_at_each_evaluation(
    finished: tuple[Path, str],
) -> None:
    log = logged(finished[0])
    scored = [entry for entry in log if figures(entry)]
    assert [entry["step"] for entry in scored] == [0, 1, 2]
    assert [list(figures(entry)) for entry in scored] == 3 * [
        [
            "eval_answer/correct", "eval_answer/exact", "eval_answer/numeric", "eval_answer/f1",
            "eval_mark/hash",
        ]
    ]  # fmt: skip
    assert ["eval_nll" in entry for entry in scored] == [False, True, True]
    marks = [entry["eval_mark/hash"] for entry in scored]
    assert marks[0] != marks[2]
    assert "step 0/2  answer/correct " in finished[1]


def test_all_held_out_questions_are_asked_at_the_end(finished: tuple[Path, str]) -> None:
    folder, said = finished
    evaluation = folder / "evaluation"
    assert {path.name for path in evaluation.iterdir()} == {
        "before.jsonl",
        "predictions.jsonl",
        "predictions.jsonl.about.json",
        "report.html",
        "scores.json",
    }
    found = scores(evaluation)
    assert found == manifest(folder)["scores"]
    assert (found["questions"], found["documents"]) == (HELD_OUT, 3)
    last = logged(folder)[-2]
    assert found["metrics"]["mark"]["hash"]["value"] == last["eval_mark/hash"]
    asked = predictions(evaluation / "predictions.jsonl")
    assert len({predicted.prediction.text for predicted in asked.values()}) == HELD_OUT
    assert list(asked) == list(predictions(evaluation / "before.jsonl"))
    assert "asking all 9 held-out questions" in said


def test_a_metric_of_a_plugin_file_is_in_card_and_report(finished: tuple[Path, str]) -> None:
    folder, said = finished
    value = 100 * scores(folder / "evaluation")["metrics"]["mark"]["hash"]["value"]
    for card in (folder / "README.md", folder / "adapter" / "README.md"):
        assert "mark" in card.read_text()
        assert f"{value:.2f}" in card.read_text()
    report = (folder / "evaluation" / "report.html").read_text()
    assert "a number that another text would change" in report
    assert "before training" in report
    assert f" mark hash {value:.2f} " in " ".join(said.split())


def test_before_during_and_after_can_be_switched_off(tmp_path: Path, wild: Path) -> None:
    folder = run(write_recipe(tmp_path, wild), *OFF).folder
    assert not (folder / "evaluation").exists()
    assert "scores" not in manifest(folder)
    log = logged(folder)
    assert not any(map(figures, log))
    assert sum("eval_nll" in entry for entry in log) == 2


def test_every_other_evaluation_asks_whole_documents_up_to_a_number(
    tmp_path: Path, wild: Path
) -> None:
    folder = run(
        write_recipe(tmp_path, wild), "evaluation.every=2", "evaluation.questions=4",
        "trainer.max_steps=5", "evaluation.after=false",
    ).folder  # fmt: skip
    log = logged(folder)
    assert [entry["step"] for entry in log if figures(entry)] == [0, 2, 4]
    assert [entry["step"] for entry in log if "eval_nll" in entry] == [1, 2, 3, 4, 5]
    asked = predictions(folder / "evaluation" / "before.jsonl")
    assert len(asked) == 4
    assert len({id.rpartition("-")[0] for id in asked}) == 2


def nll(folder: Path) -> list[float]:
    return [entry["eval_nll"] for entry in logged(folder) if "eval_nll" in entry]


@pytest.mark.parametrize("collator", ["padded", "flattened"])
def test_the_loss_a_token_is_the_mean_over_all_tokens_however_they_are_batched(
    tmp_path: Path, wild: Path, collator: str
) -> None:
    recipe = write_recipe(tmp_path, wild)
    found = {}
    for size in (1, 4):
        words = [
            *OFF, f"collator.name={collator}", f"trainer.per_device_eval_batch_size={size}",
            f"output.dir={tmp_path / str(size)}",
        ]  # fmt: skip
        folder = run(recipe, *words).folder
        found[size] = nll(folder)
        evaluated = [entry["eval_loss"] for entry in logged(folder) if "eval_loss" in entry]
        assert found[size] != pytest.approx(evaluated, rel=1e-5)
    assert found[4] == pytest.approx(found[1], rel=1e-6)
    assert found[4][-1] == pytest.approx(plain_loss(recipe, tmp_path / "4"), rel=1e-5)


def plain_loss(recipe: Path, folder: Path, *words: str) -> float:
    """The mean loss of held-out tokens, one row after the other, with stock cross entropy."""
    resolved = load_recipe(recipe, words, Plugins.load({"FINQA_SFT_PLUGINS": ""}))
    factory = resolved.model.build()
    encoder = Encoder(factory.load_tokenizer())
    data = prepare_data(
        resolved, encoder=encoder, formatter=resolved.formatter.build(), say=lambda text: None
    )
    model = factory.load_trained(folder / "adapter").eval()
    total, tokens = 0.0, 0
    for row in data.held_out.rows:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"])[1:]
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        tokens += int((labels != -100).sum())
    return total / tokens


@pytest.mark.parametrize(
    "words",
    [
        ["model.lora.dropout=0.2"],
        pytest.param(
            ["evaluation.samples=2", "trainer.gradient_checkpointing=true"], marks=pytest.mark.slow
        ),
        pytest.param(["model.factory=full"], marks=pytest.mark.slow),
        pytest.param(["collator.name=flattened"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_answers_in_between_change_nothing_of_the_training(
    tmp_path: Path, wild: Path, words: list[str]
) -> None:
    recipe = write_recipe(tmp_path, wild)
    quiet = run(recipe, *words, *OFF, f"output.dir={tmp_path / 'quiet'}").folder
    asking = run(recipe, *words, f"output.dir={tmp_path / 'asking'}").folder
    assert losses(asking) == losses(quiet)
    name = "model/model.safetensors" if "full" in words[0] else ADAPTER
    first, second = load_file(quiet / name), load_file(asking / name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_resumed_between_evaluations_goes_on_bit_for_bit(tmp_path: Path, wild: Path) -> None:
    recipe = write_recipe(tmp_path, wild)
    words = [
        "model.lora.dropout=0.2", "trainer.lr_scheduler_type=constant", "evaluation.every=2",
        "evaluation.questions=3",
    ]  # fmt: skip
    whole = run(recipe, *words, "trainer.max_steps=4", f"output.dir={tmp_path / 'whole'}").folder
    half = tmp_path / "half"
    run(recipe, *words, "trainer.max_steps=3", "evaluation.after=false", f"output.dir={half}")
    run(
        recipe, *words, "trainer.max_steps=4", f"output.dir={half}",
        "trainer.resume_from_checkpoint=true",
    )  # fmt: skip

    def told(folder: Path) -> list[dict[str, Any]]:
        return [
            {"step": entry["step"], **figures(entry), "nll": entry.get("eval_nll")}
            for entry in logged(folder)
            if figures(entry) or "eval_nll" in entry
        ]

    assert losses(half) == losses(whole)
    assert told(half) == told(whole)
    assert [entry["step"] for entry in told(half) if figures(entry)] == [0, 2, 4]
    first, second = weights(whole), weights(half)
    assert all(torch.equal(first[key], second[key]) for key in first)
    for file in ("before.jsonl", "predictions.jsonl", "scores.json"):
        assert (half / "evaluation" / file).read_bytes() == (
            whole / "evaluation" / file
        ).read_bytes()


BEST = ("trainer.load_best_model_at_end=true", "evaluation.before=false", "trainer.max_steps=3")


@pytest.mark.parametrize(
    "name", ["eval_told/figure", pytest.param("told/figure", marks=pytest.mark.slow)]
)
def test_the_best_checkpoint_is_told_by_a_figure(tmp_path: Path, wild: Path, name: str) -> None:
    folder = run(
        write_recipe(tmp_path, wild), *BEST, TOLD % "[0.2, 0.9, 0.5, 0.4]",
        f"trainer.metric_for_best_model={name}",
    ).folder  # fmt: skip
    state = json.loads((folder / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["best_metric"] == pytest.approx(0.9)
    assert Path(state["best_model_checkpoint"]).name == "checkpoint-2"
    best = load_file(folder / "checkpoint-2" / "adapter_model.safetensors")
    found = weights(folder)
    assert all(torch.equal(found[key], best[key]) for key in best)
    # What is asked at the end is what was kept: the fourth round.
    assert scores(folder / "evaluation")["metrics"]["told"]["figure"]["value"] == pytest.approx(0.4)


def test_of_the_loss_a_token_less_is_better(tmp_path: Path, wild: Path) -> None:
    folder = run(
        write_recipe(tmp_path, wild), *BEST, *OFF, "trainer.metric_for_best_model=eval_nll",
        "trainer.learning_rate=1e-4",
    ).folder  # fmt: skip
    found = nll(folder)
    state = json.loads((folder / "checkpoint-3" / "trainer_state.json").read_text())
    assert len(set(found)) == 3
    assert state["best_metric"] == min(found)
    assert manifest(folder)["trainer_arguments"]["greater_is_better"] is False


def test_early_stopping_ends_a_run_whose_figure_gets_no_better(
    tmp_path: Path, wild: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, wild)
    words = ["callbacks=[{name: early_stopping, patience: 2}]", "trainer.max_steps=8"]
    outcome = run(
        recipe, *BEST, *words, TOLD % "[0.2, 0.9, 0.5, 0.9, 1.0]",
        "trainer.metric_for_best_model=eval_told/figure",
    )  # fmt: skip
    assert outcome.steps == 4
    assert (
        "early stopping at step 4: eval_told/figure got no better than 0.9 in 2 evaluations in a "
        "row\n"
    ) in capsys.readouterr().out
    assert manifest(outcome.folder)["status"] == "finished"
    best = load_file(outcome.folder / "checkpoint-2" / "adapter_model.safetensors")
    assert all(torch.equal(weights(outcome.folder)[key], best[key]) for key in best)


def test_early_stopping_names_another_figure_where_no_answer_is_right(
    tmp_path: Path, wild: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(
        write_recipe(tmp_path, wild), *BEST, TOLD % "[0.0]",
        "callbacks=[{name: early_stopping, threshold: 0.01}]",
        "trainer.metric_for_best_model=eval_told/figure",
    )  # fmt: skip
    assert outcome.steps == 2
    assert (
        "early stopping at step 2: eval_told/figure got no better than 0 by more than 0.01 in 1 "
        "evaluation; while no answer is right, eval_nll tells more\n"
    ) in capsys.readouterr().out


def test_early_stopping_without_a_figure_is_refused(tmp_path: Path, wild: Path) -> None:
    with pytest.raises(RecipeError) as error:
        run(write_recipe(tmp_path, wild), "callbacks=[{name: early_stopping}]")
    assert str(error.value) == (
        "the callback early_stopping has no figure to go by; set trainer.metric_for_best_model, as "
        "eval_finqa/execution or eval_nll"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["trainer.metric_for_best_model=eval_answer/corect"],
            "no answer is scored by 'eval_answer/corect'; did you mean 'eval_answer/correct'?",
        ),
        (
            ["trainer.metric_for_best_model=tatqa/f1"],
            "no answer is scored by 'tatqa/f1'; did you mean 'eval_answer/f1'?",
        ),
        (
            ["trainer.metric_for_best_model=eval_mark/hash", "evaluation.every=2"],
            "trainer.metric_for_best_model is eval_mark/hash, which has to be known at each of the "
            "trainer's evaluations; set 1",
        ),
        (
            ["trainer.metric_for_best_model=eval_mark/hash", "evaluation.every=0"],
            "trainer.metric_for_best_model is eval_mark/hash, which has to be known at each of the "
            "trainer's evaluations; set 1",
        ),
        (
            ["trainer.metric_for_best_model=eval_nll", "data.split.held_out=0"],
            "eval_nll is of held-out questions, and there are none; set data.split.held_out or "
            "evaluation.sources",
        ),
    ],
)
def test_a_figure_that_will_not_be_known_is_refused_by_check(
    shell: Shell, wild: Path, words: list[str], said: str
) -> None:
    write_recipe(shell.folder, wild)
    assert said in shell.refused("check", "small.yaml", *words)


def test_nothing_held_out_is_no_reason_to_ask(tmp_path: Path, wild: Path) -> None:
    folder = run(
        write_recipe(tmp_path, wild), "data.split.held_out=0", "trainer.eval_strategy=no"
    ).folder
    assert not (folder / "evaluation").exists()
    assert manifest(folder)["status"] == "finished"


@pytest.mark.slow
def test_samples_vote_and_a_seed_repeats_them(tmp_path: Path, wild: Path) -> None:
    recipe = write_recipe(tmp_path, wild)
    words = [
        "evaluation.samples=3", "evaluation.temperature=2.0", "evaluation.every=0",
        "evaluation.after=false", "evaluation.questions=3",
    ]  # fmt: skip
    found = []
    for name, more in (("a", []), ("b", []), ("c", ["evaluation.seed=7"])):
        run(recipe, *words, *more, "trainer.max_steps=1", f"output.dir={tmp_path / name}")
        found.append((tmp_path / name / "evaluation" / "before.jsonl").read_text())
    assert found[0] == found[1] != found[2]
    asked = predictions(tmp_path / "a" / "evaluation" / "before.jsonl")
    for predicted in asked.values():
        assert len(predicted.samples) == 3
        assert 1 <= predicted.votes <= 3
        assert predicted.prediction.text in map(str.strip, predicted.samples)
    assert any(len(set(predicted.samples)) > 1 for predicted in asked.values())


@pytest.mark.slow
def test_the_first_loss_a_token_of_a_uniform_guess_is_the_logarithm_of_the_vocabulary(
    tmp_path: Path, wild: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(wild)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    model.save_pretrained(tmp_path / "zero")
    AutoTokenizer.from_pretrained(wild).save_pretrained(tmp_path / "zero")
    folder = run(
        write_recipe(tmp_path, wild, RECIPE.replace("./wild", "./zero")), *OFF,
        "model.factory=lora", "trainer.max_steps=1", "trainer.eval_on_start=true",
    ).folder  # fmt: skip
    assert nll(folder)[0] == pytest.approx(math.log(model.config.vocab_size), rel=1e-6)
