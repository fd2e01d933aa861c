"""A plugin file: a callback that keeps the adapter's gradients of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finqa_sft.options import NoOptions
from finqa_sft.plugins import CallbackRecord, hookimpl


def gradient_log(file: Path) -> Any:
    """A callback that writes a list of {parameter: gradient}, one a step, when training ends."""
    import torch
    from transformers import TrainerCallback

    class GradientLog(TrainerCallback):
        steps: list[dict[str, torch.Tensor]]

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.steps = []

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.steps.append(
                {
                    name: parameter.grad.detach().clone()
                    for name, parameter in kwargs["model"].named_parameters()
                    if parameter.grad is not None
                }
            )

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            torch.save(self.steps, file)

    return GradientLog()


def build(options: NoOptions, output_dir: Path) -> Any:
    return gradient_log(output_dir / "gradients.pt")


@hookimpl
def finqa_sft_callbacks() -> list[CallbackRecord]:
    return [CallbackRecord(name="gradient_log", summary="keeps gradients", build=build)]
