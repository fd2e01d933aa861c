"""What a recipe's answers are scored by, and whether the best checkpoint can be told by it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from finqa_sft.plugins.records import MetricRecord
from finqa_sft.recipe.resolved import Chosen
from finqa_sft.recipe.schema import EvaluationRules
from finqa_sft.wording import did_you_mean

BEST = "metric_for_best_model"
"""The trainer's field that names what the best checkpoint is told by."""

_SCORE = re.compile(r"(?:eval_)?([^/]+)/([^/]+)")
NLL = "eval_nll"
"""The loss of held-out rows a token, as logs name it."""


def metric_names(readers: Iterable[Sequence[str]]) -> list[str]:
    """The metrics of several readers, each once: the first of each reader before any second.

    So the one that is last in all lists, such as `answer`, which takes every question, stays last.
    """
    columns = zip_longest(*readers)
    return list(dict.fromkeys(name for column in columns for name in column if name))


def is_score(name: object) -> bool:
    """Whether a name is that of a figure of a metric, as `eval_finqa/execution`."""
    return isinstance(name, str) and _SCORE.fullmatch(name) is not None


def is_nll(name: object) -> bool:
    """Whether a name is that of the loss a token, of which less is better."""
    return name in (NLL, NLL.removeprefix("eval_"))


def best_problem(
    trainer: Mapping[str, Any],
    evaluation: EvaluationRules,
    metrics: Sequence[Chosen[MetricRecord]],
    *,
    evaluates: bool,
) -> tuple[str, str] | None:
    """What is wrong with the figure that the best checkpoint is to be told by.

    Args:
        trainer: The recipe's `trainer` section.
        evaluation: When answers are scored.
        metrics: What they are scored by.
        evaluates: Whether the recipe holds questions out, or names sources of such.

    Returns:
        The key at fault and a sentence, or None where nothing is wrong.
    """
    if trainer.get("save_total_limit") == 2 and (
        trainer.get(BEST) or trainer.get("load_best_model_at_end")
    ):
        return (
            "trainer.save_total_limit",
            "must be at least 3 where the best checkpoint is kept too, got 2: the trainer removes "
            "the one before the newest is known to be whole",
        )
    name = str(trainer.get(BEST))
    if (is_score(name) or is_nll(name)) and not evaluates:
        return (
            f"trainer.{BEST}",
            f"{name} is of held-out questions, and there are none; set data.split.held_out or "
            "evaluation.sources",
        )
    if not is_score(name):
        return None
    figures = [
        f"eval_{metric.record.name}/{figure.name}"
        for metric in metrics
        for figure in metric.build().figures
    ]
    full = name if name.startswith("eval_") else f"eval_{name}"
    if full not in figures:
        hint = did_you_mean(full, figures) or f"there are {', '.join(figures)}"
        return f"trainer.{BEST}", f"no answer is scored by {name!r}; {hint}"
    if evaluation.every != 1:
        return (
            "evaluation.every",
            f"trainer.{BEST} is {name}, which has to be known at each of the trainer's "
            "evaluations; set 1",
        )
    return None
