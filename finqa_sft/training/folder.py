"""The output folder of a run: taken by one run at a time, never overwritten unasked."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from finqa_sft.errors import OutputError
from finqa_sft.evaluation.folder import EvaluationFolder
from finqa_sft.ranks import is_main
from finqa_sft.writing import replace_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_CHECKPOINT = re.compile(r"checkpoint-\d+")


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
            if checkpoint is None or not is_complete(checkpoint):
                raise OutputError(
                    f"no complete checkpoint in {checkpoint or self.path}; leave out "
                    "trainer.resume_from_checkpoint to start from the beginning"
                )
            require_whole(checkpoint)
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

    def kept(self) -> str:
        """What of a run that ended early can be used."""
        last = self.last_checkpoint()
        return f"{last} is kept" if last else "no checkpoint had been saved"

    def way_on(self) -> str:
        """How a run that ended early goes on, from its last checkpoint or from the beginning."""
        if self.last_checkpoint():
            return "go on from there with trainer.resume_from_checkpoint=true"
        return "start again with output.overwrite=true"

    def remove_unfinished(self) -> None:
        """Remove checkpoints that were not saved to their end."""
        if not is_main():
            return
        for path in self._checkpoints():
            if not is_complete(path):
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

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        return max(filter(is_complete, self._checkpoints()), key=_step, default=None)

    def _checkpoints(self) -> list[Path]:
        """The folders that the trainer saves to."""
        return sorted(p for p in self.path.glob("*") if _CHECKPOINT.fullmatch(p.name))

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
        return [path for path in named if path.exists()] + self._checkpoints()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest in one step, so that it is never half written."""
        text = json.dumps(finite(manifest), indent=2, ensure_ascii=False, default=str)
        replace_text(self.manifest, text + "\n")


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was saved to its end; the trainer writes `trainer_state.json` last."""
    try:
        trainer_state(checkpoint)
    except (OSError, ValueError):
        return False
    return True


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What the trainer wrote of itself into a checkpoint: `global_step`, `log_history` and more."""
    text = (checkpoint / "trainer_state.json").read_text(encoding="utf-8")
    state: dict[str, Any] = json.loads(text)
    return state


def require_whole(checkpoint: Path) -> None:
    """Refuse a complete checkpoint that was damaged since, as by copying a part of it.

    Raises:
        OutputError: Names the file that is missing or cut off.
    """
    weights = set(checkpoint.glob("*.safetensors"))
    if (checkpoint / "adapter_config.json").is_file():
        weights.add(checkpoint / "adapter_model.safetensors")
    elif (checkpoint / "optimizer.pt").is_file():
        # DeepSpeed and FSDP keep weights in folders of their own, too.
        weights |= _model_weights(checkpoint)
    for path in sorted(weights):
        _require_weights(path)
    # DeepSpeed and FSDP keep the optimizer in folders of their own.
    if not any([*checkpoint.glob("optimizer*"), *checkpoint.glob("global_step*")]):
        raise OutputError(
            f"{checkpoint} holds no state of the optimizer, so the run cannot go on as it was; "
            "leave out trainer.resume_from_checkpoint, and trainer.save_only_model where runs are "
            "to be resumed"
        )
    for path in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
        if not zipfile.is_zipfile(path):
            raise _damaged(path)


def _model_weights(checkpoint: Path) -> set[Path]:
    """The files that the weights of a whole model are in: one, or those that an index names."""
    index = checkpoint / "model.safetensors.index.json"
    if not index.is_file():
        return {checkpoint / "model.safetensors"}
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, KeyError) as error:
        raise _damaged(index) from error
    return {checkpoint / shard for shard in shards}


def _require_weights(path: Path) -> None:
    """Refuse a safetensors file that is not there, or shorter than its own header says."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        whole = path.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, MemoryError):
        whole = False
    if not whole:
        raise _damaged(path)


def _damaged(path: Path) -> OutputError:
    return OutputError(
        f"{path} is missing or damaged, so {path.parent} cannot be resumed; copy it again, or "
        "name an earlier checkpoint in trainer.resume_from_checkpoint"
    )


def _step(checkpoint: Path) -> int:
    """The step that a checkpoint was saved after."""
    return int(checkpoint.name.rpartition("-")[2])


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
    try:
        before = json.loads(manifest.read_text(encoding="utf-8"))["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{manifest} is not as a run wrote it, so nothing says what {checkpoint} was trained "
            "on; restore it, or start anew without trainer.resume_from_checkpoint"
        ) from error
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
