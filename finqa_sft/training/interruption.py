"""Ctrl-C and SIGTERM end a run in order: all processes stop, with a checkpoint, and in time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finqa_sft.ranks import is_launched, rank
from finqa_sft.signals import Terminated, handled, interrupt

SECONDS_OF_ECHO = 5.0
"""A launcher hands a signal on that its processes have had already where a scheduler sends it to
all; that is not a second one."""

SHARE_TO_SAVE, SHARE_TO_END = 0.8, 0.9
"""Of the grace period: after the first a checkpoint is no longer waited for, after the second
nothing is."""


class Interruption(TrainerCallback):
    """Turns Ctrl-C and SIGTERM into a checkpoint and an orderly end after the current step.

    Attributes:
        received: The signal, once all processes know of it or the training is over.
    """

    def __init__(self, console: Console, *, grace_period: float | None = None) -> None:
        """Take what is told, and how long there is.

        Args:
            console: Says what happens.
            grace_period: Seconds from SIGTERM until the process must have ended, if any.
        """
        self.received: signal.Signals | None = None
        self._pending = 0
        self._since = 0.0
        self._process = os.getpid()
        self._console = console
        self._grace = grace_period
        self._in_time = threading.Event()

    @property
    def pending(self) -> bool:
        """Whether this process has received a signal."""
        return bool(self._pending)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the two signals inside, and end in time."""
        with (
            handled(signal.SIGINT, signal.SIGTERM, by=self._note),
            self._timed() if self._grace else nullcontext(),
        ):
            yield
        if self._pending:
            # It came when the last step was done.
            self.received = signal.Signals(self._pending)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop if any process received a signal."""
        if self._is_noted(args):
            control.should_evaluate = False
            control.should_save = True
            control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make no further step for a signal that came during an evaluation."""
        # Under this strategy the evaluation's result decides whether to save; the next step stops.
        decides = args.save_strategy == "best"
        if state.global_step < state.max_steps and not decides and self._is_noted(args):
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Spend no grace time on the epoch's own evaluation and second save."""
        if self.received:
            control.should_evaluate = False
            control.should_save = False

    def _is_noted(self, args: TrainingArguments) -> bool:
        """Whether any process received a signal; all processes ask at the same time."""
        pending = self._pending
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # One process that stops alone would leave the others waiting for it.
            number = torch.tensor(pending, device=args.device)
            torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
            pending = int(number)
        if pending:
            self.received = signal.Signals(pending)
        return self.received is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal; a second one ends the process at once."""
        if os.getpid() != self._process:
            # The processes that load data have the handler too, and end with this one.
            return
        now = time.monotonic()
        if self._pending:
            if is_launched() and now - self._since < SECONDS_OF_ECHO:
                return
            interrupt(number)
        self._pending, self._since = number, now
        name = signal.Signals(number).name
        self._console.print(
            f"{name}: saving a checkpoint after this step; once more ends the run at once"
        )
        if self._grace and number == signal.SIGTERM:
            signal.setitimer(signal.ITIMER_REAL, self._grace * SHARE_TO_SAVE)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Give up in time after a SIGTERM inside, in the end from a thread of its own.

        Python hears of a signal between two steps of its own only. A thread that reads what the
        system writes of signals hears of it also while the main one waits in C.
        """
        heard, told = os.pipe()
        os.set_blocking(told, False)
        before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._see_to_the_end, args=(heard,), daemon=True).start()
        with handled(signal.SIGALRM, by=self._late):
            try:
                yield
                # All is saved; the clock goes on while the process takes its leave.
                self._in_time.set()
                if self._pending == signal.SIGTERM:
                    self._let_the_system_end_it()
            finally:
                signal.set_wakeup_fd(before)
                os.close(told)

    def _see_to_the_end(self, heard: int) -> None:
        """Wait for SIGTERM, and then for the process to be done in time."""
        while number := os.read(heard, 1):
            if number[0] == signal.SIGTERM:
                assert self._grace is not None
                if not self._in_time.wait(self._grace * SHARE_TO_END):
                    self._end()
        os.close(heard)

    def _late(self, number: int, frame: FrameType | None) -> None:
        """End what goes on; files that are half written have no manifest.

        Raises:
            Terminated: Always.
        """
        self._let_the_system_end_it()
        raise Terminated(
            f"no checkpoint could be saved within output.grace_period, {self._grace:g} s"
        )

    def _let_the_system_end_it(self) -> None:
        """Have the alarm kill the process: its threads are not heard while Python shuts down."""
        assert self._grace is not None
        left = self._since + self._grace * SHARE_TO_END - time.monotonic()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.01))

    def _end(self) -> None:
        """End the process where nothing else could: its thread waits for others, or for a disk."""
        print(
            f"process {rank()} did not end within output.grace_period, {self._grace:g} s; go on "
            "with trainer.resume_from_checkpoint=true",
            file=sys.stderr,
            flush=True,
        )
        os._exit(128 + signal.SIGTERM)
