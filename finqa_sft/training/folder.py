"""The output folder of a run: taken by one run at a time, never overwritten unasked."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from finqa_sft.errors import OutputError
from finqa_sft.ranks import is_main

_HARDLY_ANY = 2**20
"""Bytes; torch reports a full disk as a failed write without saying why."""

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class RunFolder:
    """Names of what a run leaves behind, and who may write it.

    Attributes:
        path: The folder.
        adapter: Where the trained adapter and its tokenizer go.
        manifest: `run.json`.
        metrics: One JSON object a logged step.
        card: The model card.
    """

    def __init__(self, path: Path) -> None:
        """Name the parts; nothing is created."""
        self.path = path
        self.adapter = path / "adapter"
        self.manifest = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.card = path / "README.md"
        self._lock = path / ".lock"

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Create the folder and keep other runs out of it; processes of one run share it.

        Raises:
            OutputError: The folder cannot be written, or another run is using it.
        """
        if not is_main():
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._lock)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"another run is writing to {self.path}; wait for it, or set output.dir to another "
                "folder"
            ) from error
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.path}: {error.strerror}; set output.dir to a folder that "
                "can be written"
            ) from error
        try:
            yield
        finally:
            lock.release()
            if [path.name for path in self.path.iterdir()] == [self._lock.name]:
                # Refused before anything was written: leave no trace.
                shutil.rmtree(self.path)

    def starting_point(self, *, resume: bool | str | None, overwrite: bool) -> Path | None:
        """Where the run begins: a checkpoint, or None for the beginning.

        Args:
            resume: True for the newest complete checkpoint, or the path of one.
            overwrite: Whether an earlier run in this folder may be replaced.

        Raises:
            OutputError: There is nothing to resume, or the folder holds a run and neither resuming
                nor replacing it was asked for.
        """
        checkpoint = None
        if resume:
            checkpoint = self.last_checkpoint() if resume is True else Path(str(resume))
            if checkpoint is None or not (checkpoint / "trainer_state.json").is_file():
                raise OutputError(
                    f"no complete checkpoint in {checkpoint or self.path}; leave out "
                    "trainer.resume_from_checkpoint to start from the beginning"
                )
            if self.holds(checkpoint):
                return checkpoint
        found = self._contents()
        if found and not self.manifest.is_file():
            raise OutputError(
                f"{self.path} holds {found[0].name}, which no run of finqa_sft wrote; set "
                "output.dir to another folder"
            )
        if found and not overwrite:
            raise OutputError(
                f"{self.path} already holds a run; continue it with "
                "trainer.resume_from_checkpoint=true, replace it with output.overwrite=true, "
                "or set output.dir to another folder"
            )
        return checkpoint

    @contextmanager
    def full_disk_explained(self) -> Iterator[None]:
        """Say what to do where writing fails for want of room.

        Raises:
            OutputError: In place of whatever a library raised, if the disk is full.
        """
        try:
            yield
        except Exception as error:
            free = shutil.disk_usage(self.path).free
            if "No space left" not in str(error) and free > _HARDLY_ANY:
                raise
            last = self.last_checkpoint()
            remedy = (
                f"free some and go on from {last} with trainer.resume_from_checkpoint=true"
                if last
                else "free some and start again, or set output.dir to a folder with more room"
            )
            raise OutputError(
                f"the disk of {self.path} is full ({free / 2**20:.0f} MiB left); {remedy}. "
                "trainer.save_total_limit keeps fewer checkpoints"
            ) from error

    def clear(self) -> None:
        """Remove an earlier run's files, and no others."""
        if not is_main():
            return
        for path in self._contents():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def holds(self, checkpoint: Path | None) -> bool:
        """Whether a checkpoint is one of this folder's, however its path is written."""
        return checkpoint is not None and checkpoint.resolve().parent == self.path.resolve()

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint.

        The trainer writes `trainer_state.json` last, so a folder without it was interrupted.
        """
        found = [
            (int(match[1]), path)
            for path in self.path.glob("checkpoint-*")
            if (match := _CHECKPOINT.fullmatch(path.name))
            and (path / "trainer_state.json").is_file()
        ]
        return max(found)[1] if found else None

    def _contents(self) -> list[Path]:
        """What stands here under the names that a run uses."""
        named = [self.manifest, self.metrics, self.card, self.adapter]
        checkpoints = [p for p in self.path.glob("*") if _CHECKPOINT.fullmatch(p.name)]
        return [path for path in named if path.exists()] + sorted(checkpoints)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest in one step, so that it is never half written."""
        text = json.dumps(finite(manifest), indent=2, ensure_ascii=False, default=str)
        partial = self.manifest.with_suffix(".json.part")
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, self.manifest)


def refuse_other_run(checkpoint: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to resume as another run than the one that the checkpoint is of.

    Args:
        checkpoint: The checkpoint; the manifest of its run lies beside it.
        identity: What must be the same, by key of the recipe.

    Raises:
        OutputError: Something changed; the first three changes are named.
    """
    manifest = checkpoint.parent / "run.json"
    if not manifest.is_file():
        raise OutputError(
            f"{manifest} is missing, so nothing says what {checkpoint} was trained on; start anew "
            "without trainer.resume_from_checkpoint"
        )
    before = json.loads(manifest.read_text(encoding="utf-8"))["identity"]
    now = json.loads(json.dumps(dict(identity), default=str))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "data" in changed:
        raise OutputError(
            f"the run of {checkpoint} was trained on other rows: the data, the formatter or the "
            "tokenizer changed since. Restore them, or start anew in another output.dir"
        )
    if changed:
        shown = ", ".join(f"{k} was {before.get(k)} and is {now.get(k)}" for k in changed[:3])
        raise OutputError(
            f"a checkpoint cannot be resumed with other values of these: {shown}. Restore them, or "
            "start anew in another output.dir"
        )


def finite(value: Any) -> Any:
    """Plain values with NaN and infinities as text, which JSON has no numbers for."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {key: finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [finite(inner) for inner in value]
        case _:
            return value
