"""What a run watches while it trains: signals, non-finite gradients, metrics, progress."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from finqa_sft.errors import TrainingError
from finqa_sft.recipe.scored import NLL, is_score
from finqa_sft.signals import handled, interrupt
from finqa_sft.training.folder import finite

LOSSES = ("loss", "eval_loss", NLL)
"""What is logged of the loss: the trainer's two, and the one a token."""


class Interruption(TrainerCallback):
    """Turns Ctrl-C and SIGTERM into a checkpoint and an orderly end after the current step.

    Attributes:
        received: The signal, once all processes know of it or the training is over.
    """

    def __init__(self, console: Console) -> None:
        """Take the console that says what happens."""
        self.received: signal.Signals | None = None
        self._pending = 0
        self._process = os.getpid()
        self._console = console

    @property
    def pending(self) -> bool:
        """Whether this process has received a signal."""
        return bool(self._pending)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the two signals inside."""
        with handled(signal.SIGINT, signal.SIGTERM, by=self._note):
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
        if self._pending:
            interrupt(number)
        self._pending = number
        name = signal.Signals(number).name
        self._console.print(
            f"{name}: saving a checkpoint after this step; once more ends the run at once"
        )


class FiniteValues(TrainerCallback):
    """Stops the run before a step that would spoil the weights, and a run whose weights are spoilt.

    The trainer's own filter hides a non-finite loss from the log; gradients are looked at here
    before each optimizer step instead.
    """

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Look at the adapter's gradients.

        Raises:
            TrainingError: One of them is not finite.
        """
        if args.fp16:
            # The gradient scaler expects overflows, and skips such steps by itself.
            return
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if gradients and not math.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise _not_finite(state.global_step + 1, "the gradients are")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Look at the logged losses, the only ones to see where DeepSpeed owns the gradients.

        Raises:
            TrainingError: One is not finite.
        """
        for name in LOSSES:
            if not math.isfinite(kwargs["logs"].get(name, 0.0)):
                raise _not_finite(state.global_step, f"the {name} is")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the weights that are about to be saved.

        Raises:
            TrainingError: One of them is not finite.
        """
        trained = [p.detach() for p in kwargs["model"].parameters() if p.requires_grad]
        if trained and not math.isfinite(torch.nn.utils.get_total_norm(trained)):
            raise _not_finite(state.global_step, "the weights are")


def _not_finite(step: int, what: str) -> TrainingError:
    return TrainingError(
        f"step {step}: {what} not finite; no such adapter is saved, and earlier checkpoints can be "
        "resumed. Lower trainer.learning_rate, set trainer.max_grad_norm, or use bfloat16 instead "
        "of float16"
    )


class MetricsFile(TrainerCallback):
    """Writes every log entry as one line of JSON."""

    def __init__(self, path: Path) -> None:
        """Take the file's path."""
        self._path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with what the checkpoint knows, so that a resumed run repeats no line."""
        if state.is_world_process_zero:
            lines = [json.dumps(finite(entry)) + "\n" for entry in state.log_history]
            self._path.write_text("".join(lines), encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Append the entry."""
        if state.is_world_process_zero:
            with self._path.open("a", encoding="utf-8") as file:
                entry = finite({**kwargs["logs"], "step": state.global_step})
                file.write(json.dumps(entry) + "\n")


class ProgressReport(TrainerCallback):
    """A live bar in a terminal, and a plain line for each log entry."""

    def __init__(self, console: Console) -> None:
        """Take the console to write to."""
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training")
        self._began = 0.0
        self._first = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._began = time.monotonic()
        self._first = state.global_step
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Write a line: step, what was measured, time a step."""
        logs = kwargs["logs"]
        shown = [f"{key} {logs[key]:.4f}" for key in LOSSES if key in logs]
        shown += [
            f"{key.removeprefix('eval_')} {value:.1%}"
            for key, value in logs.items()
            if is_score(key)
        ]
        if not shown:
            return
        if "mean_token_accuracy" in logs:
            shown.append(f"token accuracy {logs['mean_token_accuracy']:.3f}")
        if "learning_rate" in logs:
            shown.append(f"lr {logs['learning_rate']:.2e}")
        done = state.global_step - self._first
        if "loss" in logs and done:
            seconds = (time.monotonic() - self._began) / done
            left = seconds * (state.max_steps - state.global_step)
            shown.append(f"{seconds:.2f} s/step, {left:.0f} s left")
        step = f"{state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}"
        self._console.print(f"step {step}  {'  '.join(shown)}", highlight=False, markup=False)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Name the checkpoint."""
        folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        self._console.print(f"saved {folder}", highlight=False, markup=False)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar inside, and take it down also after an error."""
        with self._bar:
            yield
