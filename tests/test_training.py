from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from bad_input import snapshot
from datasets import Dataset
from filelock import FileLock
from peft import PeftModel
from rich.console import Console
from runs import RECIPE, losses, manifest, run, write_recipe
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from finqa_sft.errors import DataError, ModelError, OutputError, RecipeError, TrainingError
from finqa_sft.training.finished import finish
from finqa_sft.training.folder import RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run, and what it printed."""
    recipe = write_recipe(tmp_path_factory.mktemp("finished"))
    console = Console(record=True, force_terminal=False, soft_wrap=True, quiet=False)
    with console.capture() as captured:
        outcome = run(recipe, console=console)
    assert outcome.steps == 6
    return outcome.folder, captured.get()


def test_a_run_leaves_adapter_checkpoints_record_metrics_and_card(
    finished: tuple[Path, str],
) -> None:
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert {"adapter", "checkpoint-3", "checkpoint-6", "run.json", "metrics.jsonl"} <= names
    record = manifest(folder)
    assert record["status"] == "finished"
    assert record["result"]["losses"] == losses(folder)
    assert len(record["result"]["losses"]) == 6
    assert len(record["result"]["eval_losses"]) == 2
    assert record["batches"]["rows_a_step"] == 4
    assert record["versions"]["trl"]
    line = RECIPE.splitlines().index("  learning_rate: 1e-3") + 1
    rate = {"key": "trainer.learning_rate", "value": 0.001, "origin": "recipe", "line": line}
    assert rate in record["recipe"]["values"]
    assert record["components"]["formatter"] == "program"
    assert {"formatters:program", "model_factories:qlora"} <= {
        f"{row['kind']}:{row['name']}" for row in record["plugins"]
    }
    card = (folder / "adapter" / "README.md").read_text()
    assert "| status | finished after 6 steps |" in card
    assert "accuracy on questions | not measured" in card


def test_a_run_of_all_weights_leaves_a_model_that_loads_by_itself(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    folder = run(recipe, "model.factory=full", "trainer.max_steps=1").folder
    assert not (folder / "adapter").exists()
    assert manifest(folder)["result"]["folder"] == "model"
    card = (folder / "model" / "README.md").read_text()
    assert "library_name: transformers\n" in card
    assert "tags: [finance, question-answering, trl, sft]\n" in card
    assert "\ntiny with all weights fine-tuned on financial questions" in card
    assert "AutoModelForCausalLM" in card
    assert "eft" not in card.partition("## Versions")[0]
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert tokenizer.chat_template
    saved = load_file(folder / "checkpoint-1" / "model.safetensors")
    loaded = {name: weight for name, weight in model.state_dict().items() if name in saved}
    assert loaded
    assert all(torch.equal(weight, saved[name]) for name, weight in loaded.items())
    with pytest.raises(OutputError, match="already holds a run"):
        run(recipe, "model.factory=full")
    run(recipe, "trainer.max_steps=1", "output.overwrite=true")
    assert (folder / "adapter").is_dir()
    assert not (folder / "model").exists()


def test_a_run_says_what_it_resolved(finished: tuple[Path, str]) -> None:
    _, said = finished
    assert "  formatter      program  finqa_sft" in said
    assert "44 questions on 11 documents" in said
    assert "2 rows × 2 accumulated × 1 process = 4 rows a step; 11 steps an epoch, 6 in all" in said
    assert "<|assistant|>⟦" in said
    assert "step 6/6  loss " in said


def test_the_loss_falls(finished: tuple[Path, str]) -> None:
    curve = losses(finished[0])
    assert curve[-1] < 0.85 * curve[0]


def test_the_adapter_loads_in_plain_peft_and_changes_what_the_base_says(
    finished: tuple[Path, str], tiny: Path
) -> None:
    adapter = finished[0] / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    ids = tokenizer("Revenue was $ 12.5 million", return_tensors="pt")["input_ids"]
    base = AutoModelForCausalLM.from_pretrained(
        tiny,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
        dtype=torch.float32,
        device_map={"": "cpu"},
    )
    with torch.no_grad():
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, adapter)(ids).logits
    assert (plain - adapted).abs().max() > 0.1
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny)


@pytest.mark.parametrize(
    "model",
    [
        ["model.lora.dropout=0.1"],
        ["model.factory=full"],
        *(
            pytest.param(model, marks=pytest.mark.slow)
            for model in (
                ["model.factory=lora", "model.lora.init=mica"],
                ["model.lora.init=eva", "model.lora.r=4", "model.lora.dropout=0.1"],
                ["model.bits=8", "model.lora.rslora=true"],
                ["model.lora.modules_to_save=[lm_head]"],
                ["model.compute_dtype=bfloat16", "model.lora.dora=true"],
                ["model.factory=lora", "model.compute_dtype=bfloat16"],
            )
        ),
    ],
    ids=" ".join,
)
def test_an_interrupted_and_resumed_run_continues_bit_for_bit(
    tmp_path: Path, model: list[str]
) -> None:
    recipe = write_recipe(tmp_path)
    model = [*model, "trainer.lr_scheduler_type=constant", "trainer.eval_strategy=no"]
    model.append("data.split.held_out=0")
    whole = run(recipe, f"output.dir={tmp_path / 'whole'}", *model).folder
    half = tmp_path / "half"
    run(recipe, f"output.dir={half}", "trainer.max_steps=3", *model)
    assert losses(half) == losses(whole)[:3]
    run(recipe, f"output.dir={half}", "trainer.resume_from_checkpoint=true", *model)
    assert losses(half) == losses(whole)
    last, resumed = (
        {name: weight for path in sorted(folder.glob("*/*model.safetensors"))
         if "checkpoint" not in path.parent.name
         for name, weight in load_file(path).items()}
        for folder in (whole, half)
    )  # fmt: skip
    assert last.keys() == resumed.keys()
    assert last
    assert all(torch.equal(last[name], resumed[name]) for name in last)


def test_resuming_with_other_rows_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    folder = run(recipe, "trainer.max_steps=3").folder
    before = manifest(folder)
    resume = "trainer.resume_from_checkpoint=true"
    with pytest.raises(OutputError, match="was trained on other rows"):
        run(recipe, resume, "data.sources.0.seed=5")
    checkpoint = f"trainer.resume_from_checkpoint={folder / 'checkpoint-3'}"
    with pytest.raises(OutputError, match="was trained on other rows"):
        run(recipe, checkpoint, "data.sources.0.seed=5", f"output.dir={tmp_path / 'new'}")
    for change, said in {
        "trainer.learning_rate=1e-7": "trainer.learning_rate was 0.001 and is 1e-07",
        "model.lora.r=8": "model.lora.r was 16 and is 8",
        "trainer.max_grad_norm=0.5": "trainer.max_grad_norm was 1.0 and is 0.5",
        "trainer.label_smoothing_factor=0.1": "trainer.label_smoothing_factor was 0.0 and is 0.1",
        "trainer.loss_type=dft": "trainer.loss_type was nll and is dft",
        "trainer.neftune_noise_alpha=5": "trainer.neftune_noise_alpha was None and is 5",
        "collator={name: padded, pad_to_multiple_of: 16}": (
            "collator.pad_to_multiple_of was None and is 16"
        ),
    }.items():
        with pytest.raises(OutputError) as error:
            run(recipe, resume, change)
        assert str(error.value) == (
            f"a checkpoint cannot be resumed with other values of these: {said}. Restore them, or "
            "start anew in another output.dir"
        )
    assert manifest(folder) == before


def test_resuming_a_finished_run_trains_nothing_and_changes_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    steps = ["trainer.max_steps=3", "trainer.lr_scheduler_type=constant"]
    folder = run(recipe, *steps).folder
    before = snapshot(folder)
    console = Console(record=True, force_terminal=False, soft_wrap=True)
    with console.capture() as captured:
        outcome = run(recipe, *steps, "trainer.resume_from_checkpoint=true", console=console)
    assert (outcome.steps, outcome.interrupted) == (3, None)
    assert captured.get().endswith(
        f"adapter               {folder / 'adapter'}\n"
        f"record                {folder / 'run.json'}\n"
        "stopped               after all 3 steps; nothing is left to do\n"
    )
    assert "\nstep " not in captured.get()
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("factory", "result", "weights"),
    [
        ("qlora", "adapter", "adapter_model.safetensors"),
        ("full", "model", "model.safetensors"),
    ],
)
def test_a_result_that_is_missing_is_taken_from_the_last_checkpoint(
    tmp_path: Path, factory: str, result: str, weights: str
) -> None:
    recipe = write_recipe(tmp_path)
    steps = ["trainer.max_steps=1", f"model.factory={factory}"]
    folder = run(recipe, *steps).folder
    before = snapshot(folder / result)
    shutil.rmtree(folder / result)
    run(recipe, *steps, "trainer.resume_from_checkpoint=true")
    assert snapshot(folder / result) == before
    assert before[weights] == (folder / "checkpoint-1" / weights).read_bytes()
    assert manifest(folder)["status"] == "finished"
    # Whoever may read the folder may read them.
    for part in (folder / result, folder / "checkpoint-1"):
        modes = {path.stat().st_mode & 0o777 for path in part.iterdir()}
        assert modes == {part.stat().st_mode & 0o666}


def test_a_run_that_is_to_end_at_an_earlier_checkpoint_ends_with_its_result(
    tmp_path: Path,
) -> None:
    recipe = write_recipe(tmp_path)
    constant = "trainer.lr_scheduler_type=constant"
    folder = run(recipe, constant).folder
    resume = f"trainer.resume_from_checkpoint={folder / 'checkpoint-3'}"
    run(recipe, constant, resume, "trainer.max_steps=3")
    record = manifest(folder)
    assert (record["status"], record["result"]["steps"]) == ("finished", 3)
    assert (record["batches"]["steps"], record["trainer_arguments"]["max_steps"]) == (3, 3)
    weights = "adapter_model.safetensors"
    saved = (folder / "adapter" / weights).read_bytes()
    assert saved == (folder / "checkpoint-3" / weights).read_bytes()


def test_a_run_that_ends_before_its_checkpoint_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    folder = run(recipe, "trainer.max_steps=3").folder
    before = snapshot(folder)
    with pytest.raises(OutputError) as error:
        run(recipe, "trainer.max_steps=2", "trainer.resume_from_checkpoint=true")
    assert str(error.value) == (
        f"{folder / 'checkpoint-3'} was saved after step 3, and the run ends after step 2; raise "
        "trainer.max_steps or trainer.num_train_epochs, or name an earlier checkpoint in "
        "trainer.resume_from_checkpoint"
    )
    other = f"trainer.resume_from_checkpoint={folder / 'checkpoint-3'}"
    with pytest.raises(OutputError) as error:
        run(recipe, "trainer.max_steps=3", other, f"output.dir={tmp_path / 'new'}")
    assert str(error.value) == (
        f"{folder / 'checkpoint-3'} was saved after the last step of this run, so nothing is left "
        f"to train; use what {folder} holds, or raise trainer.max_steps or "
        "trainer.num_train_epochs"
    )
    assert snapshot(folder) == before
    assert not (tmp_path / "new").exists()


def test_weights_in_shards_are_not_taken_for_a_result(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    folder = run(recipe, "trainer.max_steps=1").folder
    shutil.rmtree(folder / "adapter")
    checkpoint = folder / "checkpoint-1"
    (checkpoint / "adapter_model.safetensors").unlink()
    with pytest.raises(OutputError) as error:
        finish(RunFolder(folder), checkpoint, changed={})
    assert str(error.value) == (
        f"{checkpoint} was saved after the last step of this run, and holds the weights in shards "
        f"only, so {folder / 'adapter'} cannot be taken from it; go on from an earlier "
        "checkpoint, named in trainer.resume_from_checkpoint"
    )


def test_brackets_in_paths_are_printed_as_they_are(tmp_path: Path) -> None:
    inside = tmp_path / "d[" / "q]"
    inside.mkdir(parents=True)
    recipe = write_recipe(inside)
    (inside / "p[red].py").write_text(PLUGIN, encoding="utf-8")
    for name in ("m[lr]", "m[/x]"):
        console = Console(record=True, force_terminal=False, soft_wrap=True, width=1000)
        with console.capture() as captured:
            run(
                recipe, f'output.dir="{tmp_path / name}"', "trainer.max_steps=1",
                f'plugins=["{inside / "p[red].py"}"]', "callbacks=[{name: quiet}]",
                console=console,
            )  # fmt: skip
        said = captured.get()
        assert f"recipe small ({recipe})\n" in said
        assert f"saved {tmp_path / name / 'checkpoint-1'}\n" in said
        assert str(inside / "p[red].py") in said
        assert f"adapter               {tmp_path / name / 'adapter'}\n" in said


PLUGIN = """\
from finqa_sft import hookimpl
from finqa_sft.plugins.records import CallbackRecord


def build(options, folder):
    from transformers import TrainerCallback

    return TrainerCallback()


@hookimpl
def finqa_sft_callbacks():
    return [CallbackRecord(name="quiet", summary="Nothing", build=build)]
"""


def test_a_checkpoint_is_the_folder_s_own_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path)
    folder = run(recipe, "trainer.max_steps=3").folder
    assert folder.is_absolute()
    run(recipe, "trainer.resume_from_checkpoint=./run/../run/checkpoint-3", "trainer.max_steps=4")
    assert (folder / "checkpoint-3" / "trainer_state.json").is_file()
    assert len(losses(folder)) == 4


def test_a_checkpoint_of_another_folder_does_not_open_an_occupied_one(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path)
    own = run(recipe, "trainer.max_steps=1").folder
    before = manifest(own)
    with pytest.raises(OutputError, match="already holds a run"):
        run(recipe, f"trainer.resume_from_checkpoint={finished[0] / 'checkpoint-3'}")
    assert manifest(own) == before


def test_files_that_no_run_wrote_are_never_overwritten(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "checkpoint-notes").mkdir()
    with pytest.raises(OutputError) as error:
        run(recipe, f"output.dir={tmp_path}", "output.overwrite=true")
    assert str(error.value) == (
        f"{tmp_path} holds README.md, which no run of finqa_sft wrote; set output.dir to another "
        "folder"
    )
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / "checkpoint-notes").is_dir()


def test_a_folder_with_a_run_is_neither_overwritten_nor_resumed_unasked(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = finished
    recipe = write_recipe(tmp_path)
    with pytest.raises(OutputError) as error:
        run(recipe, f"output.dir={folder}")
    assert str(error.value) == (
        f"{folder} already holds a run; continue it with trainer.resume_from_checkpoint=true, "
        "replace it with output.overwrite=true, or set output.dir to another folder"
    )
    with pytest.raises(
        OutputError, match=r"no complete checkpoint in .*; leave out trainer.resume"
    ):
        run(recipe, "trainer.resume_from_checkpoint=true")


def test_overwriting_loses_nothing_before_the_new_run_can_begin(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    folder = run(recipe, "trainer.max_steps=1").folder
    (folder / "mine.txt").write_text("kept")
    before = manifest(folder)
    for broken in ("formatter.max_length=32", "model.base=./nowhere"):
        with pytest.raises((DataError, ModelError)):
            run(recipe, "output.overwrite=true", broken)
        assert manifest(folder) == before
        assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    run(recipe, "output.overwrite=true", "trainer.max_steps=2")
    assert len(losses(folder)) == 2
    assert (folder / "mine.txt").read_text() == "kept"


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(OutputError) as error:
        run(recipe)
    assert str(error.value) == (
        f"another run is writing to {tmp_path / 'run'}; wait for it, or set output.dir to another "
        "folder"
    )


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write to .*; set output.dir to a folder that"):
        run(write_recipe(tmp_path), f"output.dir={tmp_path / 'file' / 'run'}")


def test_without_a_token_to_learn_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        run(
            write_recipe(tmp_path),
            "formatter.max_length=32",
            "data.split.held_out=0",
            "trainer.eval_strategy=no",
        )
    assert str(error.value) == (
        "no token is left to train on: of 48 questions read, 0 remain (longer than "
        "formatter.max_length without any paragraph or table row: 48); raise formatter.max_length"
    )
    assert not (tmp_path / "run").exists()


def test_a_run_stops_before_a_step_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step [2-6]: the gradients are not finite; no such"):
        run(write_recipe(tmp_path), "trainer.learning_rate=1e30", "trainer.max_grad_norm=0.0")
    assert manifest(tmp_path / "run")["status"] == "failed"


def test_spoilt_weights_are_not_saved_and_the_record_is_still_json(tmp_path: Path) -> None:
    spoilt = ["trainer.learning_rate=1e38", "trainer.max_steps=1", "trainer.max_grad_norm=0.0"]
    with pytest.raises(TrainingError, match=r"the (eval_loss is|weights are) not finite"):
        run(write_recipe(tmp_path), *spoilt, "trainer.optim=sgd", "trainer.eval_steps=1")
    assert manifest(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / "adapter").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("gradient_accumulation_steps=0", "gradient_accumulation_steps  must be at least 1, got 0"),
        ("save_steps=0", "trainer.save_steps  must be more than 0, got 0"),
        ("seed=-1", "trainer.seed  must be at least 0, got -1"),
        ("load_best_model_at_end=true", "the trainer refuses the recipe's trainer section: "),
        ("lr_scheduler_type=warmup_stable_decay", "the trainer refuses the recipe's trainer sec"),
        ("optim_args=x", "the trainer refuses the recipe's trainer section: "),
        ("deepspeed=zero2.json", "DeepSpeed needs a launcher"),
    ],
)
def test_a_trainer_section_that_cannot_work_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = '{"zero_optimization": {"stage": 2}, "train_batch_size": "auto"}'
    (tmp_path / "zero2.json").write_text(config)
    with pytest.raises(RecipeError, match=said):
        run(write_recipe(tmp_path), f"trainer.{override}", "trainer.eval_strategy=no")
    assert not (tmp_path / "run" / "run.json").exists()


def test_evaluating_without_held_out_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nothing is held out to evaluate on"):
        run(write_recipe(tmp_path), "data.split.held_out=0")


def test_no_socket_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    row = {"question": "What were sales?", "context": "Sales were 5.", "answer": "5"}
    Dataset.from_list([row] * 8).to_csv(tmp_path / "own.csv")
    text = RECIPE.partition("data:")[2].partition("formatter:")[2]
    recipe = write_recipe(
        tmp_path,
        "data:\n  sources:\n    - reader: columns\n      files: own.csv\nformatter:" + text,
    )
    run(recipe, "trainer.max_steps=2", "trainer.eval_strategy=no")
    assert len(losses(tmp_path / "run")) == 2
    assert attempts == []
