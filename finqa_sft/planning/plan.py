"""A plan on one screen: a recipe in, what it needs and takes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.memory import FRAGMENTS
from finqa_sft.models.needs import Need, Setting
from finqa_sft.models.optimizers import is_paged
from finqa_sft.models.sharding import Sharding
from finqa_sft.models.stored import trained
from finqa_sft.planning.changes import Change, changes, fit_of
from finqa_sft.planning.divisions import divisions
from finqa_sft.planning.epoch import Epoch, Throughput, read_epoch
from finqa_sft.planning.fit import CONTEXT, SENDING, Fit
from finqa_sft.planning.gpus import GIB, GPUS, Gpu
from finqa_sft.planning.request import Request, trainer_values
from finqa_sft.preparation.rows import SIZE_KEYS
from finqa_sft.recipe import Recipe
from finqa_sft.wording import one_line

BEFORE_ALL = Gpu("a GPU with bfloat16", GIB, bfloat16=True)
"""What memory by part is worked out for where no GPU is named."""

FSDP_KEYS = "--config_file recipes/accelerate/fsdp_qlora.yaml"
"""What has `accelerate launch` ask for FSDP."""

MORE = (2, 8)
"""GPUs that are tried in place of one."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a process needs under one division.

    Attributes:
        need: With the recipe's batches; None where the model cannot be divided so.
        total: Bytes of a GPU, what is allowed for included.
        turned: What it needs with gradient checkpointing the other way round.
        turned_total: The total then.
        why_not: Why it cannot be, if so.
    """

    need: Need | None
    total: int = 0
    turned: Need | None = None
    turned_total: int = 0
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether training fits on a GPU under one division.

    Attributes:
        fits: Whether it does with the recipe's batches.
        longest: The largest size of a batch that does; 0 where none does.
        only_with: What the recipe has to be changed to for this GPU, if anything.
        why_not: Why it cannot be, if so.
    """

    fits: bool
    longest: int
    only_with: str | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe needs.

    Attributes:
        request: The recipe as far as memory goes.
        setting: How it is trained on a GPU with bfloat16.
        processes: GPUs that train together.
        gpu: The GPU that was named, if any.
        columns: What a process needs, by division; the recipe's own comes first.
        verdicts: By GPU, then by division.
        changes: What to change where it does not fit on the GPU that was named.
        epoch: Tokens and steps, or why they are not known.
        throughput: How fast it trains, where that is known.
        notes: What is not counted.
    """

    request: Request
    setting: Setting
    processes: int
    gpu: Gpu | None
    columns: dict[str, Column]
    verdicts: dict[str, dict[str, Verdict]]
    changes: list[Change]
    epoch: Epoch | str
    throughput: Throughput | None
    notes: tuple[str, ...]

    @property
    def trained_parameters(self) -> int:
        """How many parameters are trained."""
        return sum(tensor.elements for tensor in trained(self.setting.stored))

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Seconds of an epoch and of the run, where the throughput is known, and the data."""
        if self.throughput is None or isinstance(self.epoch, str):
            return None
        speed = self.throughput.tokens_per_second
        return self.epoch.layout.tokens / speed, self.epoch.tokens / speed

    def record(self) -> dict[str, Any]:
        """As plain values for JSON; memory in bytes, of one process."""
        request, trainer = self.request, self.request.trainer
        return {
            "base": request.factory.options.base,
            "parameters": self.setting.bones.parameters,
            "trained_parameters": self.trained_parameters,
            "compute_dtype": self.setting.compute,
            "gpus": self.processes,
            "gpu": self.gpu.name if self.gpu else None,
            "batch": {
                "key": SIZE_KEYS[request.rows.kind],
                "size": request.rows.size,
                "tokens": request.rows.tokens(request.rows.size),
                "longest_row": request.rows.longest,
                "supervised_share": request.shares.supervised,
                "tokens_of_paths": request.shares.paths,
                "source": request.shares.source,
            },
            "optimizer": trainer.optim,
            "gradient_checkpointing": trainer.gradient_checkpointing,
            "allowance": {
                "context": CONTEXT,
                "sending": SENDING if self.processes > 1 else 0,
                "fragments": FRAGMENTS,
                "source": "assumed",
            },
            "memory": {name: _column_record(column) for name, column in self.columns.items()},
            "fits": {
                gpu: {
                    name: {
                        "fits": verdict.fits,
                        "longest": verdict.longest,
                        "only_with": verdict.only_with,
                        "why_not": verdict.why_not or None,
                    }
                    for name, verdict in verdicts.items()
                }
                for gpu, verdicts in self.verdicts.items()
            },
            "usable": {gpu.name: gpu.memory for gpu in GPUS if gpu.name in self.verdicts},
            "changes": [change.record() for change in self.changes],
            "epoch": self.epoch.record() if isinstance(self.epoch, Epoch) else None,
            "epoch_not_known": self.epoch if isinstance(self.epoch, str) else None,
            "throughput": self.throughput.record() if self.throughput else None,
            "seconds": dict(zip(("epoch", "run"), self.seconds, strict=True))
            if self.seconds
            else None,
            "not_counted": list(self.notes),
            "accuracy_on_gpus": "not measured",
        }


def plan_recipe(
    recipe: Recipe,
    *,
    gpu: Gpu | None,
    gpus: int,
    throughput: Throughput | None,
    say: Callable[[str], None],
) -> Plan:
    """Plan a recipe: of its base the config alone is read, and its data where that is at hand.

    Args:
        recipe: The recipe.
        gpu: A GPU; None for all that are known.
        gpus: How many train together.
        throughput: How fast it trains, where that is known.
        say: Is told every few seconds how far the reading of the data is.

    Raises:
        ModelError: The base is not found, or the adapter does not fit it.
        RecipeError: The recipe names a DeepSpeed configuration that cannot be read.
    """
    request = Request.of(recipe)
    ways = divisions(recipe, gpus=gpus)
    # What does not fit the base is said before data is read.
    setting, _ = request.setting(bfloat16=True)
    epoch = read_epoch(recipe, request, processes=gpus, say=say)
    if isinstance(epoch, Epoch):
        request = replace(request, shares=epoch.shares)
    there = gpu or BEFORE_ALL
    columns = {name: _column(request, there, how, gpus) for name, how in ways.items()}
    verdicts = _verdicts(request, (gpu,) if gpu else GPUS, ways, gpus)
    found: list[Change] = []
    if gpu:
        name, now = next(iter(ways.items()))
        verdict = verdicts[gpu.name][name]
        if not verdict.fits and not verdict.why_not:
            others = _others(recipe, now=now, gpus=gpus)
            found = changes(request, gpu, now=now, processes=gpus, others=others)
    return Plan(
        request=request,
        setting=setting,
        processes=gpus,
        gpu=gpu,
        columns=columns,
        verdicts=verdicts,
        changes=found,
        epoch=epoch,
        throughput=throughput,
        notes=tuple(_not_counted(recipe, request)),
    )


def _others(recipe: Recipe, *, now: Sharding, gpus: int) -> dict[str, tuple[Sharding, int]]:
    """How else training could be divided, by what is to be set: among more GPUs if there is one."""
    found = {}
    for count in (gpus,) if gpus > 1 else MORE:
        words = "" if gpus > 1 else f"--gpus {count} "
        for name, how in divisions(recipe, gpus=count).items():
            # With more GPUs, what divides most.
            if how.divides >= (now.divides if gpus > 1 else 3) and how != now:
                way = FSDP_KEYS if name == "fsdp" else f"trainer.deepspeed={name}"
                found[words + way] = how, count
    return found


def _column(request: Request, gpu: Gpu, how: Sharding, processes: int) -> Column:
    """What a process needs under one division."""
    trainer, size = request.trainer, request.rows.size
    turned = replace(trainer, gradient_checkpointing=not trainer.gradient_checkpointing)
    try:
        fit = fit_of(request, gpu, sharding=how, processes=processes)
        other = fit_of(replace(request, trainer=turned), gpu, sharding=how, processes=processes)
    except (HardwareError, ModelError) as error:
        return Column(None, why_not=one_line(error))
    return Column(fit.need(size), fit.total(size), other.need(size), other.total(size))


def _verdicts(
    request: Request, gpus: Sequence[Gpu], ways: dict[str, Sharding], processes: int
) -> dict[str, dict[str, Verdict]]:
    """What fits where; GPUs that compute alike need the same."""

    @cache
    def fitting(bfloat16: bool, name: str) -> tuple[Fit | str, str | None]:
        there = Gpu("", 0, bfloat16)
        try:
            fit = fit_of(request, there, sharding=ways[name], processes=processes)
        except (HardwareError, ModelError) as error:
            return one_line(error), None
        return fit, request.setting(bfloat16=bfloat16)[1]

    def verdict(gpu: Gpu, name: str) -> Verdict:
        fit, only_with = fitting(gpu.bfloat16, name)
        if isinstance(fit, str):
            return Verdict(False, 0, why_not=fit)
        fits = fit.total(request.rows.size) <= gpu.memory
        return Verdict(fits, fit.longest(gpu.memory), only_with)

    return {gpu.name: {name: verdict(gpu, name) for name in ways} for gpu in gpus}


def _not_counted(recipe: Recipe, request: Request) -> list[str]:
    """What takes memory, or saves it, and is not in the plan."""
    values, factory = trainer_values(recipe), request.factory
    notes = []
    if recipe.evaluation.every or recipe.evaluation.after or recipe.evaluation.before:
        notes.append("the cache of answers that are generated in between")
    if _experts(factory) and not factory.learning.whole:
        notes.append("adapters that PEFT puts on experts which are stored as one tensor")
    if not factory.skeleton.layers:
        notes.append(f"activations of model type {factory.base.config.model_type!r}")
    if is_paged(request.trainer.optim):
        notes.append("that the driver can move the state of a paged optimizer to the host")
    notes += [
        f"the effect of trainer.{name}"
        for name in ("activation_offloading", "torch_compile", "use_liger_kernel")
        if values.get(name)
    ]
    checkpointing = values.get("gradient_checkpointing_kwargs") or {}
    notes += [
        f"the effect of trainer.gradient_checkpointing_kwargs.{name}"
        for name in ("every_n_layers", "offload", "selective")
        if checkpointing.get(name)
    ]
    return notes


def _experts(factory: BuiltinFactory) -> bool:
    return any(layer.experts for layer in factory.skeleton.layers)


def _column_record(column: Column) -> dict[str, Any]:
    if column.need is None or column.turned is None:
        return {"why_not": column.why_not}
    need = column.need
    return {
        "kept": need.kept,
        "backward": need.backward,
        "step": need.step,
        "host": need.host,
        "loading": need.loading,
        "steady": need.steady,
        "training": need.training,
        "peak": need.peak,
        "total": column.total,
        "backward_with_checkpointing_the_other_way": column.turned.backward,
        "total_with_checkpointing_the_other_way": column.turned_total,
        "not_known": list(need.unknown),
    }
