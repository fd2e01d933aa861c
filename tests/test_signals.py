"""A signal ends a command wherever it strikes."""

from __future__ import annotations

import signal
import time

import pytest

from finqa_sft.signals import Terminated, handled, interrupt


class Struck:
    """Is struck by a signal while it is given up, where Python drops exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def give_up_and_wait() -> None:
    struck = Struck()
    del struck
    for _ in range(1000):
        time.sleep(0.01)


def test_a_signal_within_a_finalizer_is_not_lost() -> None:
    with handled(signal.SIGTERM, by=interrupt), pytest.raises(Terminated):
        give_up_and_wait()
