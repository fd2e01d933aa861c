"""What of a recipe memory depends on, ready to be varied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.bases import resolve_base
from finqa_sft.models.devices import Device
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.full import FullFactory
from finqa_sft.models.needs import Setting
from finqa_sft.models.sharded import unshareable
from finqa_sft.models.sharding import Sharding
from finqa_sft.planning.gpus import GIB
from finqa_sft.preparation.rows import ASSUMED, Rows, Shares, rows_of
from finqa_sft.recipe import Recipe
from finqa_sft.recipe.fsdp import optimizer_problem
from finqa_sft.recipe.trainer_fields import Default


@dataclass(frozen=True, slots=True)
class TrainerValues:
    """Values of the recipe's `trainer` section, or the trainer's own defaults.

    Attributes:
        optim: The optimizer.
        optim_args: Its options.
        gradient_checkpointing: Whether layers are computed again in the backward pass.
        per_device_train_batch_size: Rows a process and forward.
        gradient_accumulation_steps: Forwards an optimizer step.
        dataloader_drop_last: Whether a last batch that is not full is left out.
        max_steps: Optimizer steps of the whole run; 0 or less for whole epochs.
        num_train_epochs: Epochs.
    """

    optim: str
    optim_args: str | None
    gradient_checkpointing: bool
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    dataloader_drop_last: bool
    max_steps: int
    num_train_epochs: float

    @classmethod
    def of(cls, recipe: Recipe) -> TrainerValues:
        """Take them from a recipe."""
        from transformers import TrainingArguments

        values = trainer_values(recipe)
        optim = values["optim"]
        if optim is Default.COMPUTED:
            optim = TrainingArguments.default_optim
        chosen = {name: values[name] for name in cls.__annotations__}
        return cls(**chosen | {"optim": str(optim)})


def trainer_values(recipe: Recipe) -> dict[str, Any]:
    """The fields of the trainer, as the recipe, the collator or the trainer itself sets them."""
    return {
        value.path.removeprefix("trainer."): value.value
        for value in recipe.values()
        if value.path.startswith("trainer.")
    }


@dataclass(frozen=True, slots=True)
class Request:
    """A recipe as far as memory goes.

    Attributes:
        factory: Knows the model.
        trainer: The trainer's values.
        rows: What a process is given at a time.
        shares: What its tokens are.
    """

    factory: BuiltinFactory
    trainer: TrainerValues
    rows: Rows
    shares: Shares = ASSUMED

    @classmethod
    def of(cls, recipe: Recipe) -> Request:
        """Take a recipe; of its base the config alone is read.

        Raises:
            ModelError: The base is not found, or the model factory is another package's.
        """
        factory = recipe.model.build()
        if not isinstance(factory, BuiltinFactory):
            raise ModelError(
                f"the model factory {recipe.model.name!r} of {recipe.model.component.provider} "
                "cannot be planned for: only qlora, lora and full say what they hold in memory"
            )
        options = factory.options
        factory.base = resolve_base(options.base, revision=options.revision, weights="not read")
        trainer = TrainerValues.of(recipe)
        rows = rows_of(recipe, per_device=trainer.per_device_train_batch_size)
        return cls(factory, trainer, rows)

    def setting(self, *, bfloat16: bool) -> tuple[Setting, str | None]:
        """How the model is trained on a GPU.

        Args:
            bfloat16: Whether the GPU computes in bfloat16.

        Returns:
            The setting, and what the recipe has to be changed to for it, if anything.

        Raises:
            HardwareError: Such a GPU cannot train it with any compute dtype.
        """
        factory = self.factory
        try:
            return self._setting(factory, bfloat16=bfloat16), None
        except HardwareError:
            if isinstance(factory, FullFactory) and factory.options.weights_dtype == "bfloat16":
                raise
        other = varied(factory, compute_dtype="float16")
        return self._setting(other, bfloat16=bfloat16), "compute_dtype float16"

    def _setting(self, factory: BuiltinFactory, *, bfloat16: bool) -> Setting:
        return Setting.of(
            _on_a_gpu(factory, bfloat16=bfloat16),
            optim=self.trainer.optim,
            optim_args=self.trainer.optim_args,
            checkpointing=self.trainer.gradient_checkpointing,
        )

    def require_divisible(self, sharding: Sharding) -> None:
        """Refuse what cannot be divided so, as loading it would.

        Raises:
            ModelError: Says why, and what to set.
        """
        if not sharding.divides:
            return
        wanted = self.factory.options.compute_dtype
        problem = unshareable(
            self.factory.options,
            sharding.name,
            compute=None if wanted == "auto" else wanted,
        )
        if problem:
            raise ModelError(" ".join(problem))
        if sharding.name == "fsdp" and (fault := optimizer_problem(self.trainer.optim)):
            raise ModelError(f"trainer.optim {fault}")

    def sized(self, size: int) -> Request:
        """The same with another size of a batch."""
        return replace(self, rows=replace(self.rows, size=size))


def varied(factory: BuiltinFactory, **changes: Any) -> BuiltinFactory:
    """A factory with other options on the same base, which is not looked up again.

    Args:
        factory: The factory.
        changes: Options that change.
    """
    kind: type[Any] = type(factory)
    other: BuiltinFactory = kind(factory.options.model_copy(update=changes))
    other.base, other.skeleton = factory.base, factory.skeleton
    return other


def _on_a_gpu(factory: BuiltinFactory, *, bfloat16: bool) -> BuiltinFactory:
    """A factory that finds itself on a GPU; how large it is is looked at elsewhere."""
    there = varied(factory)
    there.device = Device("cuda", None, "GPU", GIB, GIB, bfloat16)
    return there
