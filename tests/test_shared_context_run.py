"""Runs whose collator is `shared_context`: what they say, keep, refuse and leave behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bad_input import Shell, shell, snapshot
from evaluated import logged, predictions, scores, wild, write_recipe
from rich.console import Console
from runs import losses, manifest, run
from safetensors.torch import load_file
from test_scores import plain_loss
from transformers import AutoModelForCausalLM

from finqa_sft.collators.shared_context import SFT_ARGS, SharedContextCollator
from finqa_sft.encoding import Encoder
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation import prepare_data
from finqa_sft.recipe import load_recipe

__all__ = ["shell", "wild"]

RECIPE = """\
plugins: [marks.py]
model:
  base: ./wild
data:
  sources:
    - reader: filings
      pages: 10
      length: short
      difficulty: easy
      questions_per_page: 4
  split:
    held_out: 0.3
evaluation:
  before: false
  every: 0
  after: false
  max_new_tokens: 6
  metrics: [{name: answer}, {name: mark}]
formatter:
  name: program
  system: Answer.
  max_length: 512
collator:
  name: shared_context
  tokens_per_batch: 1024
trainer:
  max_steps: 4
  gradient_accumulation_steps: 2
  learning_rate: 1e-3
  lr_scheduler_type: constant
  gradient_checkpointing: false
  logging_steps: 1
  save_steps: 2
  eval_strategy: steps
  eval_steps: 2
output:
  dir: run
"""
ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, wild: Path) -> tuple[Path, str]:
    """The folder of a run, and what it printed."""
    recipe = write_recipe(tmp_path_factory.mktemp("shared"), wild, RECIPE)
    console = Console(force_terminal=False, soft_wrap=True)
    with console.capture() as captured:
        outcome = run(recipe, console=console)
    return outcome.folder, captured.get()


def same_weights(first: Path, second: Path, name: str = ADAPTER) -> bool:
    one, other = load_file(first / name), load_file(second / name)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def line(said: str, word: str) -> str:
    """The line that begins with a word, without it."""
    (found,) = re.findall(rf"^{re.escape(f'{word:<22}')}(.*)$", said, re.MULTILINE)
    return str(found)


def test_a_recipe_that_names_the_collator_alone_trains(finished: tuple[Path, str]) -> None:
    folder, said = finished
    record = manifest(folder)
    assert record["status"] == "finished"
    assert record["components"]["collator"] == "shared_context"
    for name, value in SFT_ARGS.items():
        assert record["trainer_arguments"][name] == value
    found = losses(folder)
    assert len(found) == 4
    assert found[-1] < found[0]
    assert line(said, "collator needs").endswith(
        "per_device_train_batch_size=1, per_device_eval_batch_size=1, neftune_noise_alpha=None, "
        "torch_compile=False, torch_compile_backend=None, torch_compile_mode=None, "
        "label_smoothing_factor=0.0, attention=shared_context"
    )


def arranged(recipe: Path, *words: str) -> tuple[Any, Any]:
    """The questions to train on, and the rows that the collator makes of them."""
    resolved = load_recipe(recipe, words, Plugins.load({"FINQA_SFT_PLUGINS": ""}))
    encoder = Encoder(resolved.model.build().load_tokenizer())
    data = prepare_data(
        resolved, encoder=encoder, formatter=resolved.formatter.build(), say=lambda text: None
    )
    collator = SharedContextCollator(tokens_per_batch=1024)
    return data.training, collator.arrange(data.training.rows)


def test_what_a_step_learns_from_is_printed_and_recorded(finished: tuple[Path, str]) -> None:
    folder, said = finished
    part, rows = arranged(folder.parent / "small.yaml")
    record = manifest(folder)
    found = record["layout"]
    apart, tokens = sum(map(len, part.rows["input_ids"])), sum(map(len, rows["input_ids"]))
    share = 2 / len(rows)
    assert record["batches"]["rows"] == len(rows) > 2
    assert {name: value for name, value in found.items() if name != "check"} == pytest.approx(
        {
            "questions": len(part),
            "tokens_apart": apart,
            "tokens": tokens,
            "token_ratio": apart / tokens,
            "questions_a_step": len(part) * share,
            "supervised_a_step": int(part.supervised.sum()) * share,
        }
    )
    assert found["token_ratio"] > 2
    assert line(said, "a step") == (
        f"{found['questions_a_step']:.1f} questions with {found['supervised_a_step']:.0f} "
        "supervised tokens in the mean"
    )
    assert line(said, "an epoch") == (
        f"{tokens} tokens, {found['token_ratio']:.2f} times fewer than the {apart} of one row a "
        "question"
    )
    assert "flattened" not in said


def test_the_model_card_counts_questions_and_not_rows(finished: tuple[Path, str]) -> None:
    folder = finished[0]
    found = manifest(folder)["layout"]
    card = (folder / "README.md").read_text()
    assert (
        f"| tokens computed | {found['tokens']} a pass, {found['token_ratio']:.2f} times fewer, as "
        "questions share their document |\n"
        f"| questions a step | {found['questions_a_step']:.4g} |\n"
    ) in card
    assert (folder / "adapter" / "README.md").read_text() == card


def test_the_check_of_the_model_is_printed_and_recorded(finished: tuple[Path, str]) -> None:
    folder, said = finished
    found = manifest(folder)["layout"]["check"]
    assert found["questions"] > 3
    assert 0 <= found["largest_difference"] < found["tolerance"] == 1e-4
    assert line(said, "collator checked") == (
        f"questions {found['questions']}, largest difference {found['largest_difference']:.2g}, "
        "tolerance 0.0001, dtype float32"
    )
    assert said.index("collator checked") < said.index("step 1/4")


@pytest.mark.parametrize("tokens", [512, 1024])
def test_the_held_out_loss_a_token_is_that_of_the_rows_alone(
    tmp_path: Path, wild: Path, finished: tuple[Path, str], tokens: int
) -> None:
    folder = finished[0]
    if tokens != 1024:
        words = [f"collator.tokens_per_batch={tokens}", "trainer.max_steps=2"]
        folder = run(write_recipe(tmp_path, wild, RECIPE), *words).folder
    log = logged(folder)
    assert sum("eval_loss" in entry for entry in log) == sum("eval_nll" in entry for entry in log)
    found = [entry["eval_nll"] for entry in log if "eval_nll" in entry]
    plain = plain_loss(folder.parent / "small.yaml", folder)
    assert found[-1] == pytest.approx(plain, rel=1e-5)


def test_a_run_on_whole_batches_has_the_losses_of_the_padded_run(
    tmp_path: Path, wild: Path
) -> None:
    recipe = write_recipe(tmp_path, wild, RECIPE)
    words = ["trainer.gradient_accumulation_steps=1", "data.sources.0.pages=4"]
    padded = [
        "collator={name: padded}",
        "trainer.per_device_train_batch_size=64",
        f"output.dir={tmp_path / 'padded'}",
    ]
    one = run(recipe, *words, "collator.tokens_per_batch=16384").folder
    other = run(recipe, *words, *padded).folder
    assert manifest(one)["batches"]["rows"] == 1
    assert losses(one) == pytest.approx(losses(other), rel=1e-5)
    nll = [[e["eval_nll"] for e in logged(folder) if "eval_nll" in e] for folder in (one, other)]
    assert nll[0] == pytest.approx(nll[1], rel=1e-5)


@pytest.mark.parametrize(
    ("questions", "saved"),
    [
        ("1", r"(\d+) tokens, as many as one row a question has"),
        ("2", r"(\d+) tokens, 1\.\d\d times fewer than the \d+ of one row a question"),
    ],
)
def test_where_little_is_shared_the_run_says_so(
    tmp_path: Path, wild: Path, questions: str, saved: str
) -> None:
    console = Console(force_terminal=False, soft_wrap=True)
    with console.capture() as captured:
        run(
            write_recipe(tmp_path, wild, RECIPE), "trainer.max_steps=1",
            f"data.sources.0.questions_per_page={questions}", console=console,
        )  # fmt: skip
    assert re.fullmatch(saved, line(captured.get(), "an epoch"))
    advice = f"{'':<22}the collator flattened is as good for questions with little in common\n"
    assert (advice in captured.get()) == (questions == "1")


@pytest.mark.parametrize("ratio", [1.0, 1.149, 1.15])
@pytest.mark.parametrize("is_arranged", [True, False])
def test_the_run_says_so_below_1_15(ratio: float, is_arranged: bool) -> None:
    from finqa_sft.training import announce

    found: Any = SimpleNamespace(
        questions=10,
        tokens_apart=round(1000 * ratio),
        tokens=1000,
        token_ratio=ratio,
        questions_a_step=2.5,
        supervised_a_step=20.0,
    )
    console = Console(force_terminal=False, soft_wrap=True)
    with console.capture() as captured:
        announce.layout(console, found, is_arranged=is_arranged)
    said = captured.get()
    # Rows that the collator left as they are say nothing of sharing, alike in number or not.
    assert ("an epoch" in said) == is_arranged
    assert ("the collator flattened is as good" in said) == (is_arranged and ratio < 1.15)
    if is_arranged:
        many = "as many as" if ratio == 1 else f"{ratio:.2f} times fewer"
        assert line(said, "an epoch").startswith(f"1000 tokens, {many}")


def test_a_base_that_cannot_be_trained_so_is_refused_before_its_weights_are_read(
    shell: Shell, wild: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(wild, shell.folder / "dropping")
    config = json.loads((wild / "config.json").read_text()) | {"attention_dropout": 0.1}
    (shell.folder / "dropping" / "config.json").write_text(json.dumps(config))
    write_recipe(shell.folder, wild, RECIPE)

    def read(*_: Any, **__: Any) -> None:
        pytest.fail("weights are read")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", read)
    said = shell.refused("train", "small.yaml", "model.base=./dropping")
    assert said == (
        "model type 'llama' cannot be trained on shared context: its attention has dropout "
        "(attention_dropout 0.1); set the recipe's collator to {name: padded}"
    )


def test_a_model_that_computes_otherwise_is_refused_before_the_first_step(
    shell: Shell, wild: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(shell.folder, wild, RECIPE)
    assert shell("train", "small.yaml", "trainer.max_steps=2").status == 0
    before = snapshot(shell.folder / "run")
    batch = SharedContextCollator.__call__

    def along_the_row(self: SharedContextCollator, rows: Any) -> dict[str, Any]:
        """As a model would have it that counts positions by itself."""
        made = batch(self, rows)
        return {**made, "position_ids": torch.arange(made["input_ids"].shape[1])[None]}

    monkeypatch.setattr(SharedContextCollator, "__call__", along_the_row)
    said = shell("train", "small.yaml", "output.overwrite=true")
    assert said.status == 2
    assert re.fullmatch(
        r"model type 'llama' gives a question in shared context a loss that differs by [\d.]+ from "
        r"its loss alone \(in torch.float32, where 0.0001 is tolerated\): it would be trained "
        r"wrongly; set the recipe's collator to \{name: padded\}",
        said.err.splitlines()[-1],
    )
    assert "step 1/" not in said.out
    assert snapshot(shell.folder / "run") == before


def test_a_resumed_run_has_the_losses_of_the_unbroken_one(
    tmp_path: Path, finished: tuple[Path, str]
) -> None:
    whole = finished[0]
    recipe, half = whole.parent / "small.yaml", tmp_path / "half"
    run(recipe, "trainer.max_steps=2", f"output.dir={half}")
    run(recipe, f"output.dir={half}", "trainer.resume_from_checkpoint=true")
    assert losses(half) == losses(whole)
    assert same_weights(half, whole)


@pytest.mark.parametrize("setting", ["collator.tokens_per_batch=2048", "collator={name: padded}"])
def test_a_checkpoint_of_other_batches_is_not_resumed(
    finished: tuple[Path, str], shell: Shell, setting: str
) -> None:
    recipe = finished[0].parent / "small.yaml"
    said = shell(
        "train", str(recipe), f"output.dir={finished[0]}", "trainer.max_steps=6", setting,
        "trainer.resume_from_checkpoint=true",
    )  # fmt: skip
    assert said.status == 2
    assert "collator." in said.err


ASKING = ("evaluation.before=true", "evaluation.every=1", "evaluation.after=true")


def test_the_run_asks_questions_in_between_and_trains_on_as_if_it_had_not(
    tmp_path: Path, wild: Path, finished: tuple[Path, str]
) -> None:
    recipe = write_recipe(tmp_path, wild, RECIPE)
    asking = run(recipe, *ASKING).folder
    assert losses(asking) == losses(finished[0])
    assert same_weights(asking, finished[0])
    padded = run(
        recipe, *ASKING, "collator={name: padded}", "trainer.max_steps=1",
        f"output.dir={tmp_path / 'padded'}",
    ).folder  # fmt: skip
    before = "evaluation/before.jsonl"
    assert (asking / before).read_text() == (padded / before).read_text()
    log = [entry for entry in logged(asking) if "eval_mark/hash" in entry]
    assert [entry["step"] for entry in log] == [0, 2, 4]
    last = scores(asking / "evaluation")["metrics"]["mark"]["hash"]["value"]
    assert log[-1]["eval_mark/hash"] == last
    assert predictions(asking / "evaluation" / "predictions.jsonl")


def test_a_whole_model_loads_without_this_package(tmp_path: Path, wild: Path) -> None:
    recipe = write_recipe(tmp_path, wild, RECIPE)
    folder = run(recipe, "model.factory=full", "trainer.max_steps=1").folder
    for saved in (folder / "model", *folder.glob("checkpoint-*")):
        assert "shared_context" not in (saved / "config.json").read_text()
    code = (
        "import sys, torch, transformers\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "assert 'finqa_sft' not in sys.modules\n"
        "logits = model(torch.tensor([[5, 6, 7]])).logits\n"
        "print(model.config._attn_implementation, bool(logits.isfinite().all()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "model")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "sdpa True\n"


@pytest.mark.parametrize("tokens", [420, 1024])
def test_stats_foretell_the_tokens_of_the_run(shell: Shell, wild: Path, tokens: int) -> None:
    write_recipe(shell.folder, wild, RECIPE)
    words = ["small.yaml", f"collator.tokens_per_batch={tokens}", "trainer.max_steps=1"]
    foretold = json.loads(shell("stats", "--json", *words).out)["training"]["tokens_an_epoch"]
    whole = json.loads(shell("stats", "--json", words[0], "collator={name: padded}").out)
    assert shell("train", *words).status == 0
    found = manifest(shell.folder / "run")["layout"]
    assert foretold == {
        "one_row_a_question": found["tokens_apart"],
        "one_row_a_document": found["tokens"],
        "ratio": found["token_ratio"],
    }
    # With another collator no document is divided.
    at_least = whole["training"]["tokens_an_epoch"]["one_row_a_document"]
    assert (found["tokens"] > at_least) == (tokens == 420)


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.dataloader_num_workers=2", "trainer.dataloader_persistent_workers=true"],
        ["trainer.gradient_checkpointing=true"],
        [
            "trainer.gradient_checkpointing=true",
            "trainer.gradient_checkpointing_kwargs={use_reentrant: true}",
        ],
        [
            "trainer.gradient_checkpointing=true",
            "trainer.gradient_checkpointing_kwargs={use_reentrant: false}",
        ],
        ["collator.attention=sdpa"],
    ],
    ids=" ".join,
)
def test_what_changes_nothing_changes_nothing(
    tmp_path: Path, finished: tuple[Path, str], words: list[str]
) -> None:
    recipe = finished[0].parent / "small.yaml"
    folder = run(recipe, *words, "trainer.max_steps=2", f"output.dir={tmp_path / 'run'}").folder
    assert losses(folder) == pytest.approx(losses(finished[0])[:2], rel=1e-6)


def test_a_question_that_fits_into_no_batch_is_refused(shell: Shell, wild: Path) -> None:
    write_recipe(shell.folder, wild, RECIPE)
    said = shell("train", "small.yaml", "collator.tokens_per_batch=120")
    assert said.status == 2
    found = re.fullmatch(
        r"a question on document '[\w/.-]+' has (\d+) tokens, and a batch of the collator 120; set "
        r"collator.tokens_per_batch to (\d+) or more, or lower formatter.max_length",
        said.err.splitlines()[-1],
    )
    assert found is not None
    assert found[1] == found[2]
    assert not (shell.folder / "run" / "run.json").exists()


def test_what_eject_says_to_do_works(shell: Shell, wild: Path) -> None:
    write_recipe(shell.folder, wild, RECIPE)
    said = shell.refused("eject", "small.yaml")
    assert said == (
        "a plain script has TRL's own padded batches, and the recipe's collator is shared_context; "
        "eject with 'collator={name: padded}' and a trainer.per_device_train_batch_size, in "
        "questions"
    )
    done = shell(
        "eject", "small.yaml", "collator={name: padded}", "trainer.per_device_train_batch_size=4"
    )
    assert (done.status, done.err) == (0, "")
    assert "per_device_train_batch_size=4," in done.out


ONE_ROW = "a row holds as many questions as collator.tokens_per_batch allows"


@pytest.mark.parametrize(
    ("field", "value", "needed", "why"),
    [
        ("per_device_train_batch_size", "4", "1", ONE_ROW),
        ("per_device_eval_batch_size", "8", "1", ONE_ROW),
        (
            "neftune_noise_alpha", "5", "null",
            "the noise would shrink with the tokens of a row, and a document would have the same "
            "for all its questions",
        ),
        (
            "torch_compile", "true", "false",
            "no two batches have the same layout, and each would be compiled anew",
        ),
        (
            "torch_compile_mode", "default", "null",
            "no two batches have the same layout, and each would be compiled anew",
        ),
        (
            "label_smoothing_factor", "0.1", "0.0",
            "a smoothed loss is made from the logits of all tokens, the document's too",
        ),
    ],
)  # fmt: skip
def test_a_trainer_field_that_cannot_be_is_refused_by_check_with_the_reason(
    shell: Shell, wild: Path, field: str, value: str, needed: str, why: str
) -> None:
    write_recipe(shell.folder, wild, RECIPE)
    said = shell.refused("check", "small.yaml", f"trainer.{field}={value}")
    problem = said.splitlines()[1].split("  ")[-1]
    assert problem == f"collator shared_context needs {field}={needed}: {why}; leave it out"


def test_check_reads_the_collator_without_torch(tmp_path: Path, wild: Path) -> None:
    write_recipe(tmp_path, wild, RECIPE)
    code = (
        "import sys\n"
        "from finqa_sft.cli.main import main\n"
        "status = main(['check', 'small.yaml'])\n"
        "sys.exit(status or 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, timeout=60)
    assert done.returncode == 0
