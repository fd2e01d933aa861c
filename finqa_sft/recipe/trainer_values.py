"""Values of trainer fields that have the right type and would fail, or do nothing, much later."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from finqa_sft.recipe.problems import no_such, spelled

AT_LEAST: Mapping[str, int] = MappingProxyType(
    {
        "dataloader_num_workers": 0,
        "eval_accumulation_steps": 1,
        "gradient_accumulation_steps": 1,
        "label_smoothing_factor": 0,
        "max_grad_norm": 0,
        "neftune_noise_alpha": 0,
        "per_device_eval_batch_size": 1,
        "per_device_train_batch_size": 1,
        "seed": 0,
        "weight_decay": 0,
    }
)
AT_MOST: Mapping[str, int] = MappingProxyType({"label_smoothing_factor": 1, "seed": 2**32 - 1})
POSITIVE = ("eval_steps", "learning_rate", "logging_steps", "num_train_epochs", "save_steps")

WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict.fromkeys(
        ("log_level", "log_level_replica"),
        ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    )
    # What an evaluation measures, besides the time that it takes and the scores of answers.
    | {"metric_for_best_model": ("loss", "nll", "mean_token_accuracy", "entropy")}
)
"""Fields whose words the trainer's annotations do not list."""


def check_trainer_value(name: str, value: Any) -> str | None:
    """What is wrong with a value of the right type, or None.

    Args:
        name: A field of `SFTConfig`.
        value: Not of a wrong type.
    """
    if value is None:
        return None
    if name in AT_LEAST and value < AT_LEAST[name]:
        return f"must be at least {AT_LEAST[name]}, got {spelled(value)}"
    if name in AT_MOST and value > AT_MOST[name]:
        return f"must be at most {AT_MOST[name]}, got {spelled(value)}"
    if name in POSITIVE and value <= 0:
        return f"must be more than 0, got {spelled(value)}"
    if name == "save_total_limit" and value < 2:
        return (
            f"must be at least 2, got {spelled(value)}: the trainer removes the checkpoint before "
            "the newest one is known to be whole"
        )
    # The trainer's own -1 stands for as many steps as the epochs have.
    if name == "max_steps" and value <= 0 and value != -1:
        return f"must be more than 0, or left out for whole epochs; got {spelled(value)}"
    # Scores, as finqa/execution, are looked at where the metrics are known.
    is_score = name == "metric_for_best_model" and "/" in value
    if name in WORDS and not is_score and value.removeprefix("eval_") not in WORDS[name]:
        return no_such(value, WORDS[name])
    return None
