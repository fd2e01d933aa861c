"""The `SFTConfig` of a run: whose word counts for which field."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import FinqaSftError, RecipeError
from finqa_sft.models.base import ModelFactory
from finqa_sft.ranks import world_size
from finqa_sft.recipe import Recipe
from finqa_sft.recipe.scored import BEST, is_nll

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

BY_DEVICE = ("bf16", "fp16", "use_cpu")
"""Fields that a model factory sets as the device at hand needs it, unless the recipe does."""

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
    for callback in recipe.callbacks:
        if callback.record.name != "early_stopping":
            continue
        if not recipe.trainer.get(BEST):
            raise RecipeError(
                f"the callback {callback.name} has no figure to go by; set trainer.{BEST}, as "
                "eval_finqa/execution or eval_nll"
            )
        strategy = recipe.trainer.get("eval_strategy", "epoch")
        if not evaluates or strategy == "no":
            raise RecipeError(
                f"the callback {callback.name} goes by evaluations, and this run has none; hold "
                "documents out with data.split.held_out, or leave trainer.eval_strategy out"
            )
    trainer = {k: v for k, v in recipe.trainer.items() if k != "resume_from_checkpoint"}
    return {
        **run_defaults(evaluates=evaluates),
        # The trainer takes more for better in all figures but those that end in "loss".
        **({"greater_is_better": False} if is_nll(recipe.trainer.get(BEST)) else {}),
        **factory.sft_args(),
        **trainer,
        **recipe.collator.record.sft_args,
        "output_dir": str(recipe.output.dir),
    }


def run_defaults(*, evaluates: bool) -> dict[str, Any]:
    """The fields that every run sets by itself where the recipe does not."""
    return QUIET | ({"eval_strategy": "epoch"} if evaluates else {})


def require_sensible(trainer: Mapping[str, Any], *, evaluates: bool) -> None:
    """Refuse values that do not go together and would fail, or do nothing, minutes later.

    Args:
        trainer: The recipe's `trainer` section.
        evaluates: Whether there are held-out rows.

    Raises:
        RecipeError: Names the key and what to set instead.
    """
    if trainer.get("dataloader_persistent_workers") and not trainer.get("dataloader_num_workers"):
        raise RecipeError(
            "trainer.dataloader_persistent_workers keeps worker processes, and there are none; set "
            "trainer.dataloader_num_workers, or leave it out"
        )
    strategy = trainer.get("eval_strategy", "no")
    if strategy != "no" and not evaluates:
        raise RecipeError(
            f"trainer.eval_strategy is {strategy}, and nothing is held out to evaluate on; set "
            "data.split.held_out or evaluation.sources, or leave trainer.eval_strategy out"
        )


def require_possible(args: SFTConfig) -> None:
    """Refuse what this machine lacks: packages and devices that the trainer asks for too late.

    Args:
        args: The trainer's configuration.

    Raises:
        RecipeError: Names the field and what to install or leave out.
    """
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    report_to = [args.report_to] if isinstance(args.report_to, str) else args.report_to or []
    installed = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    # On the last two transformers does not say for sure.
    known = (*installed, "none", "all", "azure_ml", "flyte")
    missing = [name for name in report_to if name not in known]
    if missing:
        raise RecipeError(
            f"trainer.report_to names {missing[0]}, which is not installed; install it, or leave "
            "trainer.report_to out: every run writes metrics.jsonl"
        )
    if args.use_liger_kernel and importlib.util.find_spec("liger_kernel") is None:
        raise RecipeError(
            "trainer.use_liger_kernel is set, and liger-kernel is not installed; install it, or "
            "leave trainer.use_liger_kernel out"
        )
    if args.activation_offloading and args.device.type == "cpu":
        raise RecipeError(
            "trainer.activation_offloading moves activations from a GPU to the CPU, and this run "
            "is on the CPU; leave it out"
        )


def require_batches(args: SFTConfig, *, training: int, held_out: int) -> None:
    """Refuse rows that are less than one batch, where such a batch is dropped.

    Args:
        args: The trainer's configuration.
        training: Rows to train on.
        held_out: Rows to evaluate on.

    Raises:
        RecipeError: Nothing would be trained on, or nothing evaluated.
    """
    sides = (
        ("training", "train", training, args.per_device_train_batch_size),
        ("held-out", "eval", held_out, args.per_device_eval_batch_size),
    )
    for name, short, rows, per_device in sides:
        batch = per_device * world_size()
        if args.dataloader_drop_last and 0 < rows < batch:
            raise RecipeError(
                f"{rows} {name} rows are less than one batch of {batch}, and "
                "trainer.dataloader_drop_last drops what is less; lower "
                f"trainer.per_device_{short}_batch_size, or leave trainer.dataloader_drop_last out"
            )


def try_arguments(trainer: SFTTrainer, *, steps: int) -> None:
    """Try optimizer, scheduler and checkpointing on one number; the trainer makes them only later.

    Args:
        trainer: The trainer, ready to begin.
        steps: Optimizer steps of the whole run.

    Raises:
        Exception: What the trainer would raise when training begins.
    """
    import torch
    from torch.utils.checkpoint import checkpoint
    from transformers import get_scheduler

    args: Any = trainer.args
    model: Any = trainer.model
    optimizer, arguments = trainer.get_optimizer_cls_and_kwargs(args, model)
    if not arguments.keys() & {"params", "model", "optimizer_dict"}:
        # Those that want the model's own weights are left to the trainer.
        optimizer([torch.nn.Parameter(torch.zeros(1))], **arguments)
    if args.gradient_checkpointing:
        options = {"use_reentrant": True} | (args.gradient_checkpointing_kwargs or {})
        # Transformers takes these two for itself.
        options = {k: v for k, v in options.items() if k not in ("every_n_layers", "offload")}
        checkpoint(torch.clone, torch.zeros(1, requires_grad=True), **options)
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
            together, or where the Hub that `push_to_hub` names does not let them, with its words.
    """
    # The first is that of the HTTP library that the Hub's client happens to use.
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HTTPError,
        LocalTokenNotFoundError,
    )

    try:
        yield
    except FinqaSftError:
        raise
    except (ConnectionError, HTTPError, LocalTokenNotFoundError) as error:
        raise RecipeError(
            f"trainer.push_to_hub needs the Hub, which cannot be reached or refuses: {error}; "
            "leave it out, or log in with `hf auth login`"
        ) from error
    except (ValueError, TypeError, KeyError, ImportError, NotImplementedError) as error:
        raise RecipeError(f"the trainer refuses the recipe's trainer section: {error}") from error
