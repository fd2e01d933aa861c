"""DeepSpeed configurations that a recipe names: where they are, and where they differ from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from finqa_sft.errors import RecipeError
from finqa_sft.models.sharding import OFFLOADED
from finqa_sft.recipe.problems import spelled
from finqa_sft.recipe.shipped import shipped_configs
from finqa_sft.recipe.trainer_fields import Default, trainer_fields
from finqa_sft.wording import did_you_mean

AGREES: Mapping[str, str] = MappingProxyType(
    {
        "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
        "gradient_accumulation_steps": "gradient_accumulation_steps",
        "gradient_clipping": "max_grad_norm",
    }
)
"""Values of a DeepSpeed configuration that the trainer holds too: they must agree, or be "auto"
(transformers 5.24, `integrations/deepspeed.py`, `trainer_config_process`). Those that depend on the
device or on the number of processes are left to the trainer."""


def trainer_file(field: str, text: str, *, folder: Path) -> tuple[str, str | None]:
    """The file that a field of the trainer names.

    A file beside the recipe comes before a shipped DeepSpeed configuration of that name.

    Args:
        field: The trainer's field.
        text: A path, or the name of a shipped DeepSpeed configuration.
        folder: What a path is relative to.

    Returns:
        The path, or the text where it need not be one, and what is wrong with it.
    """
    path = folder / Path(text).expanduser()
    shipped = shipped_configs("deepspeed") if field == "deepspeed" else {}
    if path.exists() and not (text in shipped and path.is_dir()):
        return str(path), None
    if text in shipped:
        return str(shipped[text]), None
    if text.endswith((".json", ".yaml")):
        return text, f"no such file: {path}"
    if not shipped:
        return text, None
    hint = did_you_mean(text, shipped) or f"there are {', '.join(shipped)}"
    return text, f"no file and no shipped configuration is named {text!r}; {hint}"


def read_config(path: Path, *, of: str = "DeepSpeed") -> Mapping[str, Any]:
    """A configuration of DeepSpeed, or of FSDP.

    Args:
        path: Where it is.
        of: What it configures, for messages.

    Raises:
        RecipeError: It cannot be read, or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read as a {of} configuration: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is no {of} configuration, which is a JSON object")
    return content


def stage_of(config: Mapping[str, Any]) -> int:
    """The ZeRO stage of a DeepSpeed configuration; 0 where it has none."""
    zero = config.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, dict) else 0
    return stage if isinstance(stage, int) else 0


def summary_of(path: Path) -> str:
    """What a shipped configuration does, in a few words."""
    config = read_config(path)
    stage = stage_of(config)
    offloads = any(name.startswith("offload_") for name in config["zero_optimization"])
    where = ", kept in the memory of the host" if offloads else ""
    return f"ZeRO-{stage}{where}: trainer.deepspeed: {path.stem}"


BATCHES = ("train_micro_batch_size_per_gpu", "train_batch_size")

NUMBERS = (
    "reduce_bucket_size",
    "stage3_prefetch_bucket_size",
    "stage3_param_persistence_threshold",
    "stage3_max_live_parameters",
)

GATHERS = "stage3_gather_16bit_weights_on_model_save"


def flaws(config: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    """What is wrong with a DeepSpeed configuration whatever the recipe's trainer says.

    Args:
        config: The configuration.
        whole: Whether a model is trained whole, and not an adapter.
    """
    zero = config.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, Mapping) else None
    if not isinstance(zero, Mapping) or type(stage) is not int or stage not in range(4):
        yield "has no zero_optimization with a stage of 0, 1, 2 or 3"
        return
    for name in NUMBERS:
        value = zero.get(name, "auto")
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float)):
            yield f'has {spelled(value)} in zero_optimization.{name}; write a number or "auto"'
    for name in (f"offload_{what}" for what in OFFLOADED):
        if not isinstance(zero.get(name, {}), Mapping):
            yield (
                f"has {spelled(zero[name])} in zero_optimization.{name}; write "
                '{"device": "cpu"}, or leave it out'
            )
    for name, field in (("optimizer", "trainer.optim"), ("scheduler", "trainer.lr_scheduler_type")):
        if name in config:
            yield (
                f"has a section {name}, which would replace {field} silently; take it out and set "
                f"{field}"
            )
    if not any(name in config for name in BATCHES):
        yield f'says no size of batches; add "{BATCHES[0]}": "auto"'
    if whole and stage == 3 and zero.get(GATHERS) is not True:
        yield (
            "would save parts of the trained model and no model; set zero_optimization."
            f"{GATHERS} to true, or zero3_save_16bit_model where accelerate's configuration names "
            "no file"
        )


def disagreements(
    config: Mapping[str, Any], trainer: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Values of a DeepSpeed configuration that are others than the trainer's.

    Args:
        config: The configuration.
        trainer: The recipe's `trainer` section, and what the collator sets of it.

    Yields:
        The key, and what is wrong with it.
    """
    fields = trainer_fields()
    for name, field in AGREES.items():
        value = _at(config, name)
        held = trainer[field] if field in trainer else fields[field].default
        if value in (None, "auto", held) or held is Default.COMPUTED:
            continue
        yield (
            "trainer.deepspeed",
            f"sets {name} to {spelled(value)}, and trainer.{field} is {spelled(held)}; write "
            '"auto" in the DeepSpeed configuration',
        )


def _at(config: Any, name: str) -> Any:
    """The value at a dotted name, or None."""
    for piece in name.split("."):
        if not isinstance(config, dict):
            return None
        config = config.get(piece)
    return config
