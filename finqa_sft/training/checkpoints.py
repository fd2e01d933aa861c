"""Checkpoints: what is written into each once it is whole, and which one a run can go on from.

The trainer writes a checkpoint file by file, from all processes. When all have written their part,
a manifest is added that names every file with its size and a hash of its contents: a checkpoint
without one was not saved to its end, one that differs from it was damaged since.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from finqa_sft.errors import OutputError
from finqa_sft.evaluation.processes import gathered, waited
from finqa_sft.ranks import is_local_main, local_rank, local_world_size, machine, world_size
from finqa_sft.writing import flush, open_weights, replace_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

MANIFEST = "manifest.json"

_CHECKPOINT = re.compile(r"checkpoint-\d+")


class FileFacts(BaseModel):
    """What a file of a checkpoint must be like.

    Attributes:
        bytes: Its size.
        sha256: Hash of its contents, in hexadecimal digits.
    """

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a whole checkpoint consists of.

    Attributes:
        step: Optimizer steps that were done.
        processes: How many processes wrote it.
        files: Each file, by its path in the checkpoint.
    """

    step: int
    processes: int
    files: dict[str, FileFacts]


def write_manifest(checkpoint: Path, *, step: int) -> None:
    """Write down what a checkpoint consists of, and see that all of it is on the disk.

    All processes call it, and share the reading of the files. Machines without a common disk have
    a manifest each, of what is there.

    Args:
        checkpoint: The folder.
        step: Optimizer steps that were done.
    """
    waited()
    names = sorted(
        str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()
    )
    mine = {
        name: _facts(checkpoint / name).model_dump()
        for name in names[local_rank() :: local_world_size()]
        if name != MANIFEST
    }
    every = gathered([(machine(), mine)])
    if not is_local_main():
        return
    files = {name: facts for of, share in every if of == machine() for name, facts in share.items()}
    manifest = Manifest(
        step=step,
        processes=world_size(),
        files={name: FileFacts(**files[name]) for name in sorted(files)},
    )
    open_weights(checkpoint)
    for folder in (checkpoint, *(path for path in checkpoint.rglob("*") if path.is_dir())):
        flush(folder)
    replace_text(checkpoint / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    flush(checkpoint / MANIFEST)
    flush(checkpoint)


def _facts(path: Path) -> FileFacts:
    """Size and hash of a file, which is on the disk afterwards."""
    flush(path)
    return FileFacts(bytes=path.stat().st_size, sha256=_hash(path))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(checkpoint: Path) -> Manifest | None:
    """The manifest of a checkpoint, or None where there is none that can be read."""
    try:
        return Manifest.model_validate_json((checkpoint / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def flaw(checkpoint: Path, *, contents: bool = False) -> str | None:
    """What keeps a checkpoint from being resumed, or None.

    Args:
        checkpoint: The folder.
        contents: Whether to read the files too; else their sizes are looked at.
    """
    manifest = manifest_of(checkpoint)
    if manifest is None:
        return "it was not saved to its end"
    for name, facts in manifest.files.items():
        path = checkpoint / name
        if not path.is_file() or path.stat().st_size != facts.bytes:
            return f"{name} is missing or damaged"
    for name, facts in manifest.files.items() if contents else ():
        if _hash(checkpoint / name) != facts.sha256:
            return f"{name} is damaged"
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, whole or not, the newest first."""
    found = (path for path in folder.glob("*") if _CHECKPOINT.fullmatch(path.name))
    return sorted(found, key=step_of, reverse=True)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint without a flaw, as far as the sizes of its files tell."""
    return next((path for path in checkpoints(folder) if flaw(path) is None), None)


def resumable(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Checkpoints from the newest on, each with its flaw, up to the first that has none.

    One process of each machine reads the files; the others look at their sizes.
    """
    for path in checkpoints(folder):
        found = flaw(path, contents=is_local_main())
        yield path, found
        if found is None:
            return


def checkpoint_of(folder: Path, *, step: int) -> Path:
    """Where the trainer saves a checkpoint after a step."""
    return folder / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was saved after."""
    return int(checkpoint.name.rpartition("-")[2])


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What the trainer wrote of itself into a checkpoint: `global_step`, `log_history` and more."""
    text = (checkpoint / "trainer_state.json").read_text(encoding="utf-8")
    state: dict[str, Any] = json.loads(text)
    return state


def require_whole(checkpoint: Path) -> None:
    """Refuse a checkpoint that was not saved to its end, or was damaged since.

    Raises:
        OutputError: Says what is wrong with it.
    """
    if not checkpoint.is_dir():
        raise OutputError(
            f"no complete checkpoint in {checkpoint}; leave out trainer.resume_from_checkpoint to "
            "start from the beginning"
        )
    found = flaw(checkpoint, contents=is_local_main())
    if found:
        raise OutputError(
            f"{checkpoint} cannot be resumed: {found}; copy it again, or name an earlier "
            "checkpoint in trainer.resume_from_checkpoint"
        )


def require_optimizer(checkpoint: Path) -> None:
    """Refuse a checkpoint without the state of the optimizer.

    Raises:
        OutputError: There is none.
    """
    # DeepSpeed and FSDP keep the optimizer in folders of their own.
    if not any([*checkpoint.glob("optimizer*"), *checkpoint.glob("global_step*")]):
        raise OutputError(
            f"{checkpoint} holds no state of the optimizer, so the run cannot go on as it was; "
            "leave out trainer.resume_from_checkpoint, and trainer.save_only_model where runs are "
            "to be resumed"
        )


def checkpoint_size(folder: Path, model: PreTrainedModel | PeftModel) -> int:
    """Bytes that a checkpoint takes: as the last one does, else about as what is trained tells.

    That is the trained weights and two averages of each, as Adam keeps them. Divided weights count
    in full.

    Args:
        folder: The run's folder.
        model: What is trained.
    """
    for path in checkpoints(folder):
        if manifest := manifest_of(path):
            return sum(facts.bytes for facts in manifest.files.values())
    weights = (weight for weight in model.parameters() if weight.requires_grad)
    # Under ZeRO-3 a weight is empty, and says what it is in whole.
    sizes = (int(vars(w).get("ds_numel", w.numel())) * w.element_size() for w in weights)
    return 3 * sum(sizes)


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
