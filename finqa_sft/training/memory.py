"""What a run is predicted to hold in memory, to stand beside what it is seen to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finqa_sft.models.base import ModelFactory
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.needs import ALONE, Need, Setting, need
from finqa_sft.models.sharding import OFFLOADED, FullyShard, zero_of
from finqa_sft.preparation.rows import largest_batch
from finqa_sft.ranks import world_size
from finqa_sft.recipe import Recipe
from finqa_sft.training.distributed import Distributed

if TYPE_CHECKING:
    from datasets import Dataset
    from trl.trainer.sft_trainer import SFTTrainer


def predicted(
    recipe: Recipe, factory: ModelFactory, trainer: SFTTrainer, arranged: Dataset
) -> Need | None:
    """What each process of a run needs of its device.

    Args:
        recipe: The recipe.
        factory: What made the model.
        trainer: Its constructor has ended.
        arranged: The rows that are trained on, as the collator arranged them.

    Returns:
        None for the model factory of another package, which is not planned for.
    """
    if not isinstance(factory, BuiltinFactory):
        return None
    from transformers.training_args import OptimizerNames

    args = trainer.args
    setting = Setting.of(
        factory,
        optim=OptimizerNames(args.optim).value,
        optim_args=args.optim_args,
        checkpointing=bool(args.gradient_checkpointing),
    )
    active = Distributed.of(trainer)
    sharding = ALONE
    if active.kind == "deepspeed":
        plugin: Any = args.deepspeed_plugin
        sharding = zero_of(plugin.deepspeed_config)
    elif active.kind == "fsdp":
        offloads = frozenset(OFFLOADED if active.offloaded else ())
        sharding = FullyShard(offloads, args.gradient_accumulation_steps > 1)
    batch = largest_batch(recipe, arranged, per_device=args.per_device_train_batch_size)
    return need(setting, batch, sharding=sharding, processes=world_size())
