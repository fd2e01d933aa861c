"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
from pathlib import Path


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
