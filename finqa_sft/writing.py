"""Writing files so that nobody ever sees half of one, and so that they outlast a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def nearest_existing(path: Path) -> Path:
    """A path itself if it is there, or the nearest folder above it that is."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def replace_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8 with line feeds, in one step; one of that name is replaced.

    Where a link stands for the file, the link stays. A device or a pipe cannot be replaced, and is
    written to.

    Raises:
        OSError: It cannot be written; nothing is left of it then.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    partial = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def open_weights(folder: Path) -> None:
    """Let whoever may read a folder read the weights in it.

    safetensors writes files that only their owner may read, whatever the umask (0.8).
    """
    allowed = folder.stat().st_mode & 0o666
    for file in folder.glob("*.safetensors"):
        file.chmod(allowed)


def flush(path: Path) -> None:
    """See that what was written to a file, or which files a folder has, is on the disk.

    Where a system opens no folders, and cannot flush what was opened for reading, nothing is done.

    Raises:
        OSError: The disk could not take it.
    """
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
