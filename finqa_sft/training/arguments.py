"""The `SFTConfig` of a run: whose word counts for which field."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import FinqaSftError, RecipeError
from finqa_sft.models.base import ModelFactory
from finqa_sft.recipe import Recipe

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer

BY_DEVICE = ("bf16", "fp16", "use_cpu")
"""Fields that a model factory sets as the device at hand needs it, unless the recipe does."""

_AT_LEAST_ONE = (
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
)
_POSITIVE = ("eval_steps", "logging_steps", "save_steps")

QUIET: dict[str, Any] = {
    # Banks run this: nothing is reported anywhere unless a recipe asks for it.
    "report_to": "none",
    # The run shows its own progress.
    "disable_tqdm": True,
    # The filter replaces a non-finite loss by the mean of earlier ones in the log.
    "logging_nan_inf_filter": False,
}


def sft_fields(recipe: Recipe, *, factory: ModelFactory, evaluates: bool) -> dict[str, Any]:
    """The fields of the trainer's configuration that differ from its own defaults.

    What comes later in this list wins: the run's quiet defaults, what the device needs, the recipe,
    what the collator needs (the recipe was checked against that before).

    Args:
        recipe: The resolved recipe.
        factory: Knows what the device needs.
        evaluates: Whether there are held-out rows; they are then evaluated every epoch unless the
            recipe says otherwise.
    """
    require_sensible(recipe.trainer, evaluates=evaluates)
    trainer = {k: v for k, v in recipe.trainer.items() if k != "resume_from_checkpoint"}
    return {
        **run_defaults(evaluates=evaluates),
        **factory.sft_args(),
        **trainer,
        **recipe.collator.record.sft_args,
        "output_dir": str(recipe.output.dir),
    }


def run_defaults(*, evaluates: bool) -> dict[str, Any]:
    """The fields that every run sets by itself where the recipe does not."""
    return QUIET | ({"eval_strategy": "epoch"} if evaluates else {})


def require_sensible(trainer: Mapping[str, Any], *, evaluates: bool) -> None:
    """Refuse values that have the right type and would fail, or do nothing, minutes later.

    Args:
        trainer: The recipe's `trainer` section.
        evaluates: Whether there are held-out rows.

    Raises:
        RecipeError: Names the key and what it may be.
    """
    for key in _AT_LEAST_ONE:
        if trainer.get(key, 1) < 1:
            raise RecipeError(f"trainer.{key} is {trainer[key]}; it must be at least 1")
    for key in _POSITIVE:
        value = trainer.get(key)
        if value is not None and value <= 0:
            raise RecipeError(f"trainer.{key} is {value}; it must be more than 0")
    if trainer.get("seed", 0) < 0:
        raise RecipeError(f"trainer.seed is {trainer['seed']}; it must be at least 0")
    strategy = trainer.get("eval_strategy", "no")
    if strategy != "no" and not evaluates:
        raise RecipeError(
            f"trainer.eval_strategy is {strategy}, and nothing is held out to evaluate on; set "
            "data.split.held_out or evaluation.sources, or leave trainer.eval_strategy out"
        )
    if trainer.get("deepspeed") and "LOCAL_RANK" not in os.environ:
        raise RecipeError(
            "trainer.deepspeed is set, and DeepSpeed needs a launcher: start with "
            "`accelerate launch -m finqa_sft RECIPE`"
        )


def try_optimizer(trainer: SFTTrainer, *, steps: int) -> None:
    """Ask for optimizer arguments and scheduler once; the trainer itself does so only later.

    Args:
        trainer: The trainer, ready to begin.
        steps: Optimizer steps of the whole run.

    Raises:
        Exception: What the trainer would raise when training begins.
    """
    import torch
    from transformers import get_scheduler

    args: Any = trainer.args
    model: Any = trainer.model
    trainer.get_optimizer_cls_and_kwargs(args, model)
    get_scheduler(
        args.lr_scheduler_type,
        optimizer=torch.optim.SGD([torch.zeros(1)]),
        num_warmup_steps=args.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,
    )


@contextmanager
def trainer_section_blamed() -> Iterator[None]:
    """Say that the recipe's `trainer` section is at fault where the trainer refuses it.

    Raises:
        RecipeError: In place of what `SFTConfig` or `SFTTrainer` raises for values that do not go
            together, with its words.
    """
    try:
        yield
    except FinqaSftError:
        raise
    except (ValueError, TypeError, KeyError, ImportError, NotImplementedError) as error:
        raise RecipeError(f"the trainer refuses the recipe's trainer section: {error}") from error
