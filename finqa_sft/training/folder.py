"""The output folder of a run: taken by one run at a time, never overwritten unasked."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from finqa_sft.errors import OutputError
from finqa_sft.evaluation.folder import EvaluationFolder
from finqa_sft.ranks import is_main
from finqa_sft.training.checkpoints import (
    checkpoints,
    manifest_of,
    newest,
    require_optimizer,
    require_whole,
    resumable,
)
from finqa_sft.writing import open_weights, replace_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class RunFolder:
    """Names of what a run leaves behind, and who may write it.

    Attributes:
        path: The folder.
        adapter: Where a trained adapter and its tokenizer go.
        model: Where a model goes that was trained whole.
        manifest: `run.json`.
        metrics: One JSON object a logged step.
        card: The model card.
        evaluation: What held-out questions were answered, and how that scores.
    """

    def __init__(self, path: Path) -> None:
        """Name the parts; nothing is created."""
        self.path = path
        self.adapter = path / "adapter"
        self.model = path / "model"
        self.manifest = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.card = path / "README.md"
        self.evaluation = EvaluationFolder(path / "evaluation")
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
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; set output.dir to a folder")
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            with self._locked():
                yield
        finally:
            # Refused before anything was written: leave no trace.
            for path in missing:
                with suppress(OSError):
                    # Goes wrong where something was written, which is what is wanted.
                    path.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock; the file goes with it."""
        lock = FileLock(self._lock)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
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
            if os.name == "posix":
                # Elsewhere an open file cannot be removed, and the lock does it when released.
                self._lock.unlink(missing_ok=True)
            lock.release()

    def starting_point(
        self, *, resume: bool | str | None, overwrite: bool, say: Callable[[str], None]
    ) -> Path | None:
        """Where the run begins: a checkpoint, or None for the beginning.

        Args:
            resume: True for the newest checkpoint that is whole, or the path of one.
            overwrite: Whether an earlier run in this folder may be replaced.
            say: Is told which newer checkpoints are passed over.

        Raises:
            OutputError: There is nothing to resume, or the folder holds a run and neither resuming
                nor replacing it was asked for.
        """
        checkpoint = None
        if resume:
            checkpoint = self._newest(say) if resume is True else Path(str(resume))
            if resume is not True:
                require_whole(checkpoint)
            require_optimizer(checkpoint)
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

    def _newest(self, say: Callable[[str], None]) -> Path:
        """The newest checkpoint that is whole."""
        flaws = dict(resumable(self.path))
        for path, flaw in flaws.items():
            if flaw is None:
                for newer in takewhile(path.__ne__, flaws):
                    say(f"{newer} is passed over: {flaws[newer]}; going on from {path}")
                return path
        for path in filter(manifest_of, flaws):
            # It was whole once, and may be again.
            require_whole(path)
        raise OutputError(
            f"no complete checkpoint in {self.path}; leave out trainer.resume_from_checkpoint to "
            "start from the beginning"
        )

    def kept(self) -> str:
        """What of a run that ended early can be used."""
        last = newest(self.path)
        return f"{last} is kept" if last else "no checkpoint had been saved"

    def way_on(self) -> str:
        """How a run that ended early goes on, from its last checkpoint or from the beginning."""
        if newest(self.path):
            return "go on from there with trainer.resume_from_checkpoint=true"
        return "start again with output.overwrite=true"

    def remove_unfinished(self) -> None:
        """Remove checkpoints that were not saved to their end."""
        if not is_main():
            return
        for path in checkpoints(self.path):
            if manifest_of(path) is None:
                shutil.rmtree(path)

    def result(self, model: PeftModel | PreTrainedModel) -> Path:
        """Where what was trained goes: the adapter, or the model if there is none."""
        from peft import PeftModel

        return self.adapter if isinstance(model, PeftModel) else self.model

    @contextmanager
    def replaced(self, result: Path) -> Iterator[Path]:
        """A folder to save to, which takes the place of `result` once all is written."""
        partial = result.with_suffix(".part")
        try:
            yield partial
            if is_main():
                open_weights(partial)
                if result.exists():
                    shutil.rmtree(result)
                partial.rename(result)
        finally:
            if is_main() and partial.exists():
                shutil.rmtree(partial)

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

    def _contents(self) -> list[Path]:
        """What stands here under the names that a run uses."""
        named = [
            self.manifest,
            self.metrics,
            self.card,
            self.adapter,
            self.model,
            self.evaluation.path,
        ]
        return [path for path in named if path.exists()] + checkpoints(self.path)[::-1]

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest in one step, so that it is never half written."""
        text = json.dumps(finite(manifest), indent=2, ensure_ascii=False, default=str)
        replace_text(self.manifest, text + "\n")


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
