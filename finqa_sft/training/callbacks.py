"""What a run watches while it trains: checkpoints, non-finite gradients, metrics, progress."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
from finqa_sft.training.checkpoints import checkpoint_of, write_manifest
from finqa_sft.training.folder import finite

LOSSES = ("loss", "eval_loss", NLL)
"""What is logged of the loss: the trainer's two, and the one a token."""


class CheckpointManifests(TrainerCallback):
    """Adds its manifest to each checkpoint, once all processes have written their part."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write it."""
        step = state.global_step
        write_manifest(checkpoint_of(Path(args.output_dir or "."), step=step), step=step)


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
        folder = checkpoint_of(Path(args.output_dir or "."), step=state.global_step)
        self._console.print(f"saved {folder}", highlight=False, markup=False)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar inside, and take it down also after an error."""
        with self._bar:
            yield
