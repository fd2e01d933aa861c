"""The folder of things that are built once and used by many runs."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from finqa_sft.errors import ModelError

_CANNOT_SAVE = re.compile(r"Error while serializing\b.*\bos error (\d+)", re.DOTALL)
"""What safetensors says where a file cannot be written, with the number of the system's error."""


def cache_root() -> Path:
    """`FINQA_SFT_CACHE`, or `~/.cache/finqa_sft`."""
    return Path(os.environ.get("FINQA_SFT_CACHE") or "~/.cache/finqa_sft").expanduser()


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cached folder of that name, built if it is not there.

    `build` fills a folder beside the final one, which is then renamed: a folder that is there is
    whole. The lock spares several processes the same work; without it (some network file systems
    ignore locks) the first to rename wins and the others take its folder.

    Args:
        name: Must say everything that the contents depend on.
        build: Fills the empty folder that it is given.

    Raises:
        ModelError: The cache folder cannot be written.
    """
    folder = cache_root() / name
    if folder.is_dir():
        return folder
    from safetensors import SafetensorError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not folder.is_dir():
                _build_beside(folder, build)
    except (FileExistsError, NotADirectoryError) as error:
        raise _cannot_write(folder, _file_in_the_way(folder) or str(error)) from error
    except OSError as error:
        raise _cannot_write(folder, error.strerror or str(error)) from error
    except SafetensorError as error:
        found = _CANNOT_SAVE.match(str(error))
        if found is None:
            raise
        raise _cannot_write(folder, os.strerror(int(found[1]))) from error
    return folder


def _cannot_write(folder: Path, problem: str) -> ModelError:
    return ModelError(
        f"cannot write {folder}: {problem}; set FINQA_SFT_CACHE to a folder that can be written "
        "and has room"
    )


def _file_in_the_way(folder: Path) -> str:
    """Which file stands where the folder, or one above it, must be; empty if none does."""
    files = (place for place in (folder, *folder.parents) if place.is_file())
    return next((f"{file} is a file" for file in files), "")


def _build_beside(folder: Path, build: Callable[[Path], None]) -> None:
    """Build in a temporary folder of the same file system and rename it."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.name + ".") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        build(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            shutil.rmtree(made)
