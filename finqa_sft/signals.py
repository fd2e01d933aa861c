"""SIGTERM ends a command as Ctrl-C does: nothing half written, a word on what is left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C raises `KeyboardInterrupt`."""


def interrupt(number: int, frame: FrameType | None = None) -> None:
    """End what goes on, as the handler of a signal.

    Raises:
        KeyboardInterrupt: Always; `Terminated` for SIGTERM.
    """
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def signal_of(interruption: KeyboardInterrupt) -> signal.Signals:
    """The signal that an exception stands for."""
    return signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` inside; the earlier handler is put back afterwards.

    Outside of the main thread, where Python allows no handlers, it stays as it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
