"""The folder of things that are built once and used by many runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from finqa_sft.errors import ModelError


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
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not folder.is_dir():
                _build_beside(folder, build)
    except OSError as error:
        raise ModelError(
            f"cannot write {folder}: {error.strerror or error}; set FINQA_SFT_CACHE to a folder "
            "that can be written and has room"
        ) from error
    return folder


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
