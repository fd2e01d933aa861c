"""What a run is predicted to hold in memory, to stand beside what it is seen to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finqa_sft.models.base import ModelFactory
from finqa_sft.models.devices import is_fsdp
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.needs import ALONE, Need, Setting, need
from finqa_sft.models.sharding import Sharding
from finqa_sft.preparation.rows import largest_batch
from finqa_sft.ranks import world_size
from finqa_sft.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig


def predicted(
    recipe: Recipe, factory: ModelFactory, args: SFTConfig, arranged: Dataset
) -> Need | None:
    """What each process of a run needs of its device.

    Args:
        recipe: The recipe.
        factory: What made the model.
        args: The trainer's arguments.
        arranged: The rows that are trained on, as the collator arranged them.

    Returns:
        None for the model factory of another package, and under FSDP, which are not planned for.
    """
    if not isinstance(factory, BuiltinFactory) or is_fsdp(args):
        return None
    from transformers.training_args import OptimizerNames

    setting = Setting.of(
        factory,
        optim=OptimizerNames(args.optim).value,
        optim_args=args.optim_args,
        checkpointing=args.gradient_checkpointing,
    )
    plugin = args.deepspeed_plugin
    sharding = ALONE if plugin is None else Sharding.of(plugin.deepspeed_config)
    batch = largest_batch(recipe, arranged, per_device=args.per_device_train_batch_size)
    return need(setting, batch, sharding=sharding, processes=world_size())
