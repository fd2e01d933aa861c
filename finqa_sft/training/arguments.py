"""The `SFTConfig` of a run: whose word counts for which field."""

from __future__ import annotations

from typing import Any

from finqa_sft.models.base import ModelFactory
from finqa_sft.recipe import Recipe

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
    trainer = {k: v for k, v in recipe.trainer.items() if k != "resume_from_checkpoint"}
    return {
        **QUIET,
        **({"eval_strategy": "epoch"} if evaluates else {}),
        **factory.sft_args(),
        **trainer,
        **recipe.collator.record.sft_args,
        "output_dir": str(recipe.output.dir),
    }
