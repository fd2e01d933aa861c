"""The progress bars of datasets, which belong in terminals alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bars_in_terminals() -> Iterator[None]:
    """Hide the bars inside, unless a person watches."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hides = not (sys.stderr.isatty() or are_progress_bars_disabled())
    if hides:
        disable_progress_bars()
    try:
        yield
    finally:
        if hides:
            enable_progress_bars()
