from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import RECIPE, losses, manifest, write_recipe

from finqa_sft.cli.main import VERBS, main

HEAVY = ("torch", "transformers", "trl", "datasets", "peft")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finqa_sft", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_recipe_in_place_of_the_verb_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, "data: {}\n")
    assert main([str(recipe)]) == 2
    assert capsys.readouterr().err == (
        f"{recipe}: 2 problems\n"
        "  1:1  data.sources    missing; it has no default\n"
        "  1:1  formatter.name  missing; it has no default\n"
    )


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("chekc", "no verb or recipe 'chekc'; did you mean check?\n"),
        ("quikstart", "no verb or recipe 'quikstart'; did you mean quickstart?\n"),
        (
            "xyz",
            "no verb or recipe 'xyz'; verbs are train, check, preview, stats, plan, predict, "
            "evaluate, score, ask, merge, show, recipes, plugins, doctor, eject\n",
        ),
    ],
)
def test_a_misspelt_verb_or_recipe_is_answered_with_the_right_one(
    word: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    assert capsys.readouterr().err == answer


def test_another_process_waits_before_it_prints_an_error_that_the_main_one_may_have_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("nowhere.yaml", RANK="0").stderr.startswith("nowhere.yaml: no such file; ")
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    assert main(["nowhere.yaml"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("process 1: nowhere.yaml: no such file; ")
    assert waited == [10.0]


def test_help_check_and_show_import_nothing_heavy() -> None:
    for arguments in (["--help"], ["check", "quickstart"], ["show", "qlora_7b"], ["plugins"]):
        code = (
            "import sys\nfrom finqa_sft.cli.main import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
            f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr == "[]\n", (arguments, done.stderr)


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {verb} ", text, re.MULTILINE) for verb in VERBS)


def test_show_says_where_every_value_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "quickstart", "trainer.max_steps=10"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["trainer.max_steps"] == ["10", "override"]
    assert rows["model.base"][:2] == ["tiny", "recipe,"]
    assert rows["model.lora.dropout"] == ["0.0", "default"]
    assert rows["trainer.weight_decay"] == ["0.0", "default"]
    assert rows["trainer.max_length"] == ["null", "collator"]
    assert rows["trainer.eval_strategy"] == ["epoch", "run"]
    assert rows["trainer.bf16"] == ["as", "the", "device", "needs", "it"]


def test_show_prints_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["title"] == "finqa_sft recipe"
    assert "learning_rate" in json.dumps(schema["properties"]["trainer"])


def test_show_without_a_recipe_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show"]) == 2
    assert capsys.readouterr().err == "show needs a recipe, or --schema\n"


def test_recipes_are_listed_and_copied_but_never_over_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert {"quickstart", "qlora_7b", "qlora_own_data"} <= {
        line.split()[0] for line in listed.splitlines()
    }
    assert main(["recipes", "copy", "qlora_own_data", "mine.yaml"]) == 0
    assert main(["check", "mine.yaml"]) == 0
    (tmp_path / "mine.yaml").write_text("mine")
    capsys.readouterr()
    assert main(["recipes", "copy", "qlora_own_data", "mine.yaml"]) == 2
    assert capsys.readouterr().err == "mine.yaml exists already; name another file\n"
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_without_a_recipe_only_the_recipe_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["check"])
    said = capsys.readouterr().err
    assert said.endswith("error: the following arguments are required: recipe\n")
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--help"])
    assert "recipe [key.path=value ...]" in capsys.readouterr().out


def test_eject_replaces_no_rows_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = str(write_recipe(tmp_path))
    (tmp_path / "ejected").mkdir()
    (tmp_path / "ejected" / "notes.txt").write_text("mine")
    assert main(["eject", recipe]) == 0
    rows = tmp_path / "ejected" / "train.jsonl"
    rows.write_text("mine")
    capsys.readouterr()
    assert main(["eject", recipe]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "",
        "ejected/train.jsonl exists already; name another folder with --rows, or replace the rows "
        "in this one with --overwrite\n",
    )
    assert rows.read_text() == "mine"
    assert (tmp_path / "ejected" / "held_out.jsonl").is_file()
    whole = ["data.split.held_out=0", "trainer.eval_strategy=no"]
    assert main(["eject", recipe, "--overwrite", *whole]) == 0
    assert len(rows.read_text().splitlines()) == 48
    assert {path.name for path in (tmp_path / "ejected").iterdir()} == {"notes.txt", "train.jsonl"}


def test_plugins_are_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    padded = next(row for row in listed["components"] if row["name"] == "padded")
    assert padded["kind"] == "collator"
    assert padded["full_name"] == "finqa_sft:padded"
    assert padded["distribution"] == "finqa_sft"


def test_doctor_finds_nothing_to_mend_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "ok      trl" in text
    assert text.endswith("nothing to mend\n")


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m finqa_sft show quickstart | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_finds_no_room_is_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "finqa_sft", "show", "quickstart"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "cannot write: No space left on device; make room, or write elsewhere\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_the_run_can_be_resumed(
    tmp_path: Path, number: signal.Signals
) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace("max_steps: 6", "max_steps: 300"))
    output = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "finqa_sft", str(recipe), f"output.dir={output}",
         "trainer.eval_strategy=no", "trainer.save_strategy=no"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (output / "metrics.jsonl").exists() or not losses(output):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no first step within two minutes"
            time.sleep(0.2)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, said
    assert f"{number.name}: saving a checkpoint after this step" in said
    assert "trainer.resume_from_checkpoint=true" in said
    record = manifest(output)
    assert record["status"] == f"interrupted by {number.name}"
    steps = record["result"]["steps"]
    assert 0 < steps < 300
    assert (output / f"checkpoint-{steps}" / "trainer_state.json").is_file()
    assert (output / "adapter" / "adapter_model.safetensors").is_file()
    resumed = command(
        str(recipe), f"output.dir={output}", "trainer.eval_strategy=no",
        "trainer.resume_from_checkpoint=true", f"trainer.max_steps={steps + 2}",
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert len(losses(output)) == steps + 2


def test_accelerate_launch_trains_a_recipe(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1",
         "-m", "finqa_sft", str(recipe), "trainer.max_steps=2", f"output.dir={tmp_path / 'run'}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(losses(tmp_path / "run")) == 2
