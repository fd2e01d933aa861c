"""The callback `loss_table`. It is imported only by runs that name it, as it needs transformers."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainerCallback


class LossTable(TrainerCallback):
    """Writes step and loss of every log entry as a line of a CSV file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._path.write_text("step,loss\n", encoding="utf-8")

    def on_log(self, args, state, control, logs, **kwargs):
        if state.is_world_process_zero and "loss" in logs:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{state.global_step},{logs['loss']}\n")
