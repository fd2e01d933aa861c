"""What makes a checkpoint whole, and which one a run goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from bad_input import Shell, shell
from runs import losses, manifest, run, write_recipe

from finqa_sft.errors import OutputError
from finqa_sft.training.checkpoints import (
    MANIFEST,
    checkpoints,
    flaw,
    newest,
    require_whole,
    resumable,
    write_manifest,
)

__all__ = ["shell"]


def saved(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "global_step").mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(b"moments" * 9)
    (checkpoint / "global_step" / "rank0.pt").write_bytes(b"part" * step)
    write_manifest(checkpoint, step=step)
    return checkpoint


def test_a_manifest_names_every_file_with_size_and_hash(tmp_path: Path) -> None:
    found = json.loads((saved(tmp_path, 3) / MANIFEST).read_text())
    assert found == {
        "step": 3,
        "processes": 1,
        "files": {
            "global_step/rank0.pt": {"bytes": 12, "sha256": sha256(b"part" * 3).hexdigest()},
            "optimizer.pt": {"bytes": 63, "sha256": sha256(b"moments" * 9).hexdigest()},
        },
    }


def unfinished(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).unlink()


def cut_manifest(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).write_text((checkpoint / MANIFEST).read_text()[:-9])


def shorter(checkpoint: Path) -> None:
    (checkpoint / "optimizer.pt").write_bytes(b"moments" * 8)


def gone(checkpoint: Path) -> None:
    (checkpoint / "global_step" / "rank0.pt").unlink()


def other(checkpoint: Path) -> None:
    content = bytearray((checkpoint / "optimizer.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / "optimizer.pt").write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (unfinished, "it was not saved to its end"),
        (cut_manifest, "it was not saved to its end"),
        (shorter, "optimizer.pt is missing or damaged"),
        (gone, "global_step/rank0.pt is missing or damaged"),
        (other, "optimizer.pt is damaged"),
    ],
)
def test_what_is_not_as_it_was_saved_is_a_flaw(
    tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    checkpoint = saved(tmp_path, 3)
    assert flaw(checkpoint, contents=True) is None
    harm(checkpoint)
    assert flaw(checkpoint, contents=True) == said
    # Reading the files takes as long as they are large; a look does not see this one.
    assert (flaw(checkpoint) is None) == (harm is other)
    with pytest.raises(OutputError) as error:
        require_whole(checkpoint)
    assert str(error.value) == (
        f"{checkpoint} cannot be resumed: {said}; copy it again, or name an earlier checkpoint in "
        "trainer.resume_from_checkpoint"
    )


def test_further_files_are_no_flaw(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, 3)
    (checkpoint / "notes.txt").write_text("mine")
    assert flaw(checkpoint, contents=True) is None


def test_checkpoints_are_looked_at_from_the_newest_to_the_first_without_a_flaw(
    tmp_path: Path,
) -> None:
    for step in (2, 10, 4, 8):
        saved(tmp_path, step)
    (tmp_path / "checkpoint-notes").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == [
        "checkpoint-10", "checkpoint-8", "checkpoint-4", "checkpoint-2"
    ]  # fmt: skip
    unfinished(tmp_path / "checkpoint-10")
    other(tmp_path / "checkpoint-8")
    assert newest(tmp_path) == tmp_path / "checkpoint-8"
    assert list(resumable(tmp_path)) == [
        (tmp_path / "checkpoint-10", "it was not saved to its end"),
        (tmp_path / "checkpoint-8", "optimizer.pt is damaged"),
        (tmp_path / "checkpoint-4", None),
    ]


def test_a_run_goes_on_from_the_newest_checkpoint_that_is_whole(
    tmp_path: Path, shell: Shell
) -> None:
    recipe = write_recipe(tmp_path)
    steps = ("trainer.save_steps=1", "trainer.max_steps=4", "data.split.held_out=0")
    words = (*steps, "trainer.eval_strategy=no")
    run(recipe, *words)
    folder = tmp_path / "run"
    expected = losses(folder)
    unfinished(folder / "checkpoint-4")
    other(folder / "checkpoint-3")
    shutil.rmtree(folder / "adapter")
    said = shell("small.yaml", *words, "output.dir=run", "trainer.resume_from_checkpoint=true")
    assert said.status == 0
    assert said.out.splitlines()[:2] == [
        "run/checkpoint-4 is passed over: it was not saved to its end; going on from "
        "run/checkpoint-2",
        "run/checkpoint-3 is passed over: optimizer.pt is damaged; going on from run/checkpoint-2",
    ]
    assert losses(folder) == expected
    assert manifest(folder)["status"] == "finished"
    # Both were saved again.
    assert [flaw(path, contents=True) for path in checkpoints(folder)] == [None] * 4


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    run(recipe, "trainer.max_steps=3", "trainer.eval_strategy=no", "data.split.held_out=0")
    file = tmp_path / "run" / "run.json"
    content = json.loads(file.read_text())
    assert content["identity"]["the number of processes"] == 1
    assert content["identity"]["what shares the run out"] == "none"
    content["identity"] |= {"the number of processes": 2, "what shares the run out": "zero3"}
    file.write_text(json.dumps(content))
    with pytest.raises(OutputError) as error:
        run(
            recipe, "trainer.eval_strategy=no", "data.split.held_out=0",
            "trainer.resume_from_checkpoint=true",
        )  # fmt: skip
    assert str(error.value) == (
        "a checkpoint cannot be resumed with other values of these: the number of processes was 2 "
        "and is 1, what shares the run out was zero3 and is none. Restore them, or start anew in "
        "another output.dir"
    )
