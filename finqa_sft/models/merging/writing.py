"""Writing a merged model: shard by shard, into a folder that gets its name when it is whole."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from finqa_sft.errors import OutputError
from finqa_sft.models.memory import size
from finqa_sft.models.merging.plan import MergePlan
from finqa_sft.models.merging.tensors import INDEX, SIZES
from finqa_sft.wording import one_line
from finqa_sft.writing import flush, nearest_existing, open_weights

if TYPE_CHECKING:
    from torch import Tensor

GENERATION = "generation_config.json"


def require_new(out: Path, *, needed: int) -> None:
    """Refuse a folder that cannot be filled; nothing is touched.

    Args:
        out: The folder to be.
        needed: Bytes that it will hold.

    Raises:
        OutputError: It holds something, is no folder, is being filled, or there is no room.
    """
    try:
        place = _looked_at(out)
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise OutputError(
            f"cannot look at {out}: {error.strerror}; name another folder with --out"
        ) from error
    if needed > free:
        raise OutputError(
            f"{out} needs {size(needed)} and there are {size(free)} free; make room, or name a "
            "folder on another disk with --out"
        )


def _looked_at(out: Path) -> Path:
    """The folder that is there of a path to one that is to be made."""
    if out.is_dir():
        if any(out.iterdir()):
            raise OutputError(f"{out} is not empty; name another folder with --out, or empty it")
        mounted = out.resolve().is_mount()
        if mounted or out.samefile("."):
            what = "where a disk is mounted" if mounted else "the current folder"
            raise OutputError(f"{out} is {what}; name a folder in it with --out")
    elif out.exists() or out.is_symlink():
        raise OutputError(f"{out} is a file; name a folder with --out")
    partial = _partial(out)
    if partial.exists():
        raise OutputError(
            f"{partial} is there: another merge is filling it, or one was killed; wait for it, or "
            "remove that folder"
        )
    place = nearest_existing(out)
    if not place.is_dir():
        raise OutputError(f"{place} is a file; name a folder with --out")
    return place


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` once that has gone well; else nothing is left.

    Raises:
        OutputError: It cannot be written.
    """
    partial = _partial(out)
    made = [path for path in partial.absolute().parents if not path.exists()]
    try:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"cannot write {partial}: {error.strerror}; name a folder that can be written "
                "with --out"
            ) from error
        yield partial
        open_weights(partial)
        for file in (*partial.iterdir(), partial):
            flush(file)
        if out.exists():
            # Empty, as it was before; a folder cannot take the place of another everywhere.
            out.resolve().rmdir()
        partial.rename(out.resolve())
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for path in made:
            with suppress(OSError):
                # Goes wrong where something else was written there meanwhile.
                path.rmdir()
        raise


@contextmanager
def full_disk_told(out: Path) -> Iterator[None]:
    """Say in words of ours that a disk is full, where a library has only an exception of its own.

    Raises:
        OutputError: It is.
    """
    try:
        yield
    # tokenizers raises `Exception` itself.
    except Exception as error:
        if "No space left" not in str(error):
            raise
        raise OutputError(
            f"cannot write {out}: no space left on device; make room, or name a folder on another "
            "disk with --out"
        ) from error


def _partial(out: Path) -> Path:
    real = out.resolve()
    return real.with_name(f"{real.name}.part")


def write_model(
    plan: MergePlan, folder: Path, *, max_shard_size: int, say: Callable[[str], None]
) -> int:
    """Write config, generation config and weights.

    At most one shard is in memory, and what one tensor takes while it is made: about 12 bytes a
    value of the largest linear layer.

    Args:
        plan: What is to be written.
        folder: An empty folder.
        max_shard_size: Bytes of a file; a tensor that is larger has one of its own.
        say: Is told of each file.

    Returns:
        How many files hold the weights.

    Raises:
        ModelError: The adapter makes weights that are not finite.
        OutputError: The disk is full.
    """
    from huggingface_hub import split_state_dict_into_shards_factory
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    split = split_state_dict_into_shards_factory(
        plan.kinds,
        get_storage_size=lambda kind: kind.count * SIZES[kind.dtype],
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    files = split.filename_to_tensors
    for number, (file, names) in enumerate(files.items(), start=1):
        shard: dict[str, Tensor] = {name: plan.tensor(name) for name in names}
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OutputError(
                f"cannot write {folder / file}: {one_line(error)}; make room, or name a folder on "
                "another disk with --out"
            ) from error
        # Before the next one is made.
        del shard
        say(f"file {number} of {len(files)} written")
    if split.is_sharded:
        index = {
            "metadata": {
                "total_parameters": sum(kind.count for kind in plan.kinds.values()),
                **split.metadata,
            },
            "weight_map": dict(sorted(split.tensor_to_filename.items())),
        }
        text = json.dumps(index, indent=2) + "\n"
        (folder / INDEX).write_text(text, encoding="utf-8")
    _write_configs(plan, folder)
    return len(files)


def _write_configs(plan: MergePlan, folder: Path) -> None:
    """The base's config with the new dtype, and its generation config as it is."""
    import torch
    from transformers import GenerationConfig

    model = plan.model
    config = copy.deepcopy(model.config)
    dtype = getattr(torch, plan.dtype)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = dtype
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    given = plan.folder / GENERATION
    if given.is_file():
        shutil.copyfile(given, folder / GENERATION)
    else:
        GenerationConfig.from_model_config(model.config).save_pretrained(folder)
