"""Ctrl-C in each phase of a run: what is said, what is kept, and that the run goes on from there.

A plugin file, `striking.py`, presses the keys.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bad_input import Shell, edited, snapshot
from runs import losses, manifest

pytest_plugins = ["bad_input"]

INTERRUPTED = 130
TERMINATED = 143
AT_FIRST = (
    "interrupted; before the first step: nothing was written; start again with the same command\n"
)
RECIPE = edited(
    "  max_steps: 1\n",
    "  max_steps: 4\n  save_steps: 1\n  eval_steps: 1\n  eval_strategy: steps\n"
    "  logging_steps: 1\n  per_device_train_batch_size: 1\n",
    edited(
        "formatter:\n",
        "  split:\n    held_out: 0.5\n"
        "evaluation: {before: false, every: 0, after: false}\nformatter:\n",
    ),
)


@pytest.fixture
def striking(shell: Shell) -> Shell:
    """A shell whose recipe evaluates and saves after each of its four steps."""
    shell.write("r.yaml", RECIPE + "plugins: [striking.py]\n")
    shutil.copy(Path(__file__).with_name("striking.py"), shell.folder)
    return shell


BEFORE = {
    "reading": "data.sources=[{reader: striking}]",
    "encoding": "formatter={name: striking}",
    "loading": "model={factory: striking}",
}


@pytest.mark.parametrize("override", BEFORE.values(), ids=BEFORE)
def test_before_the_first_step_nothing_is_written(striking: Shell, override: str) -> None:
    before = snapshot(striking.folder)
    said = striking("r.yaml", override)
    assert (said.status, said.err) == (INTERRUPTED, AT_FIRST)
    assert snapshot(striking.folder) == before


@pytest.mark.parametrize("phase", ["reading", "encoding", "loading"])
def test_sigterm_before_the_first_step_is_as_ctrl_c(
    striking: Shell, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr(signal, "SIGINT", signal.SIGTERM)
    handler = signal.getsignal(signal.SIGTERM)
    before = snapshot(striking.folder)
    said = striking("r.yaml", BEFORE[phase])
    assert (said.status, said.err) == (TERMINATED, AT_FIRST)
    assert snapshot(striking.folder) == before
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize(("phase", "kept"), [("training", 3), ("evaluating", 2), ("checkpoint", 4)])
def test_once_ends_the_run_with_a_checkpoint(striking: Shell, phase: str, kept: int) -> None:
    striking.write(
        "r.yaml", (striking.folder / "r.yaml").read_text().replace("steps: 4", "steps: 5")
    )
    said = striking("r.yaml", f"callbacks=[{{name: striking, phase: {phase}}}]")
    assert (said.status, said.err) == (INTERRUPTED, "")
    assert "SIGINT: saving a checkpoint after this step; once more ends the run at once" in said.out
    last = said.out.splitlines()[-1]
    assert last.startswith(f"stopped               after step {kept} of 5; go on with: finqa-sft ")
    assert last.endswith(
        f""" 'callbacks=[{{"name": "striking", "phase": "{phase}", "times": 1, "file": ""}}]'"""
        " output.dir=run trainer.resume_from_checkpoint=true"
    )
    run = striking.folder / "run"
    assert manifest(run)["status"] == "interrupted by SIGINT"
    assert max(int(path.name.partition("-")[2]) for path in run.glob("checkpoint-*")) == kept
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    if phase == "training":
        command = shlex.split(last.partition("go on with: ")[2])
        assert striking(*command[1:]).status == 0
        assert len(losses(run)) == 5


@pytest.mark.parametrize(("phase", "kept"), [("training", 2), ("evaluating", 1), ("checkpoint", 2)])
def test_twice_ends_the_run_at_once_and_leaves_nothing_half_written(
    striking: Shell, phase: str, kept: int
) -> None:
    said = striking("r.yaml", f"callbacks=[{{name: striking, phase: {phase}, times: 2}}]")
    assert (said.status, said.err) == (
        INTERRUPTED,
        f"interrupted; run/checkpoint-{kept} is kept; go on from there with "
        "trainer.resume_from_checkpoint=true\n",
    )
    run = striking.folder / "run"
    assert manifest(run)["status"] == "interrupted by SIGINT"
    checkpoints = {f"checkpoint-{step + 1}" for step in range(kept)}
    assert {path.name for path in run.iterdir()} == {
        "README.md", "metrics.jsonl", "run.json", *checkpoints
    }  # fmt: skip
    if phase == "checkpoint":
        assert striking("r.yaml", "trainer.resume_from_checkpoint=true").status == 0
        assert len(losses(run)) == 4


def test_sigterm_twice_has_a_status_of_its_own(
    striking: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "SIGINT", signal.SIGTERM)
    said = striking("r.yaml", "callbacks=[{name: striking, phase: training, times: 2}]")
    assert (said.status, said.err) == (
        TERMINATED,
        "interrupted; run/checkpoint-2 is kept; go on from there with "
        "trainer.resume_from_checkpoint=true\n",
    )
    assert manifest(striking.folder / "run")["status"] == "interrupted by SIGTERM"


def test_twice_without_a_checkpoint_says_how_to_start_again(striking: Shell) -> None:
    twice = "callbacks=[{name: striking, phase: training, times: 2}]"
    said = striking("r.yaml", twice, "trainer.save_strategy=no")
    assert (said.status, said.err) == (
        INTERRUPTED,
        "interrupted; no checkpoint had been saved; start again with output.overwrite=true\n",
    )


def test_while_the_adapter_is_saved_it_is_saved_to_its_end(striking: Shell) -> None:
    said = striking("r.yaml", "callbacks=[{name: striking, phase: adapter}]")
    assert (said.status, said.err) == (INTERRUPTED, "")
    assert said.out.endswith("stopped               after all 4 steps; nothing is left to do\n")
    assert manifest(striking.folder / "run")["status"] == "finished"


def test_twice_while_the_adapter_is_saved_leaves_no_half_of_it(striking: Shell) -> None:
    said = striking("r.yaml", "callbacks=[{name: striking, phase: adapter, times: 2}]")
    assert (said.status, said.err) == (
        INTERRUPTED,
        "interrupted; run/checkpoint-4 is kept; go on from there with "
        "trainer.resume_from_checkpoint=true\n",
    )
    run = striking.folder / "run"
    assert not list(run.glob("adapter*"))
    before = snapshot(run)
    said = striking("r.yaml", "trainer.resume_from_checkpoint=true")
    assert said.out.endswith(
        "adapter               run/adapter\n"
        "record                run/run.json\n"
        "stopped               after all 4 steps; nothing is left to do\n"
    )
    assert (said.status, manifest(run)["status"]) == (0, "finished")
    assert manifest(run)["result"]["losses"] == losses(run)
    assert "| status | finished after 4 steps |" in (run / "adapter" / "README.md").read_text()
    after = snapshot(run)
    assert {name for name in before if before[name] != after[name]} == {"README.md", "run.json"}
    assert {path.name for path in (run / "adapter").iterdir()} == {
        path.name for path in (run / "checkpoint-4").iterdir()
    } - {
        "manifest.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"
    } | {"finqa_sft.json"}  # fmt: skip


IMPORTING = """\
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{name})

sys.meta_path.insert(0, Finder())
from finqa_sft.cli.main import entry
entry()
"""


@pytest.mark.parametrize(
    ("module", "number", "said"),
    [
        ("finqa_sft.cli.train", signal.SIGINT, "interrupted\n"),
        ("finqa_sft.builtin", signal.SIGINT, AT_FIRST),
        ("finqa_sft.builtin", signal.SIGTERM, AT_FIRST),
        ("transformers", signal.SIGINT, AT_FIRST),
        ("transformers", signal.SIGTERM, AT_FIRST),
    ],
)
def test_while_modules_are_imported(
    shell: Shell, module: str, number: signal.Signals, said: str
) -> None:
    before = snapshot(shell.folder)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING.format(module=module, name=number.name), "r.yaml"],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert (done.returncode, done.stderr) == (128 + number, said)
    assert snapshot(shell.folder) == before
