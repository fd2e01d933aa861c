"""SIGTERM ends a command as Ctrl-C does: nothing half written, a word on what is left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_LATER = 0.01
"""Seconds after which a signal is raised once more that could not end anything."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C raises `KeyboardInterrupt`."""


def interrupt(number: int, frame: FrameType | None = None) -> None:
    """End what goes on, as the handler of a signal.

    Raises:
        KeyboardInterrupt: `Terminated` for SIGTERM.
    """
    if frame is not None and frame.f_code.co_name == "__del__":
        # Python drops what is raised there: once more, a moment later.
        threading.Timer(_LATER, signal.raise_signal, [number]).start()
        return
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def signal_of(interruption: KeyboardInterrupt) -> signal.Signals:
    """The signal that an exception stands for."""
    return signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT


@contextmanager
def handled(
    *numbers: signal.Signals, by: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals inside; the earlier handlers are put back afterwards.

    Outside of the main thread, where Python allows no handlers, signals stay as they were.

    Args:
        numbers: The signals.
        by: The handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, by) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
