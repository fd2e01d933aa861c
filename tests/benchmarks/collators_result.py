"""What `collators.py` found, in numbers: medians and spreads, ratios turn by turn, and goals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collators_plan import LEGS
from measuring import FORMULA, Memory, peak_of

SPEED_GOAL = 0.85
MEMORY_GOAL = 1.05
BUILDING_GOAL = 0.02
ENOUGH = 7
"""Pairs from which on a goal counts as met or not."""

Found = Mapping[str, Any]
"""What a leg measured in a turn."""


def summarised(
    plan: Found,
    checks: Mapping[str, Found],
    rounds: Sequence[Mapping[str, Found]],
    *,
    folder: Path,
    peak: float | None,
) -> dict[str, Any]:
    """All that is not about the machine.

    Args:
        plan: What `written_plan` wrote.
        checks: What each leg found of the step that all have in common.
        rounds: For each turn, what each leg measured.
        folder: Where the gradients of that step lie.
        peak: What the GPU can do at most, 10^12 operations a second; None to look it up.

    Raises:
        ValueError: Legs did not see the same questions.
    """
    require_the_same_questions(plan, rounds)
    legs = {name: [turn[name] for turn in rounds] for name in plan["legs"]}
    first = next(iter(legs.values()))[0]
    on_gpu = not first["model"]["device"].startswith("cpu")
    operations = peak * 1e12 if peak else peak_of(first["model"]["device"]) if on_gpu else None
    measured = {name: figures(found, operations) for name, found in legs.items()}
    return {
        "pairs": len(rounds),
        "questions": plan["questions"],
        "trained_model": {
            **first["model"],
            "dtype": first["dtype"],
            "gradient_checkpointing": first["gradient_checkpointing"],
        },
        "tokens_per_batch": plan["tokens_per_batch"],
        "warm_up_steps": plan["warm_up"],
        "legs": {
            name: {
                "attention": found[0]["attention"],
                "batches": batches(plan["legs"][name], found[0]),
                **{key: spread(values) for key, values in measured[name].items()},
            }
            for name, found in legs.items()
        },
        "ratios": ratios(measured, plan),
        "same_step": same_step(plan, checks, folder),
        "goals": goals(measured, plan),
        "peak_memory_is": Memory.described(on_gpu=on_gpu),
        "products_are": FORMULA,
        "mfu_peak_operations_per_second": operations,
        "turns": [
            {name: {key: measured[name][key][n] for key in measured[name]} for name in turn}
            for n, turn in enumerate(rounds)
        ],
    }


def require_the_same_questions(plan: Found, rounds: Sequence[Mapping[str, Found]]) -> None:
    """Refuse legs that lost a question or a supervised token."""
    wanted = tuple(plan["questions"]["chosen"][key] for key in ("questions", "supervised_tokens"))
    for turn in rounds:
        for name, found in turn.items():
            seen = found["seen"]["questions"], found["seen"]["supervised"]
            if seen != wanted:
                raise ValueError(
                    f"the leg {name} saw {seen[0]} questions with {seen[1]} supervised tokens, of "
                    f"{wanted[0]} with {wanted[1]}"
                )


def batches(sizes: Found, found: Found) -> dict[str, Any]:
    """How large the batches and steps of a leg were."""
    seen = found["seen"]
    return {
        "rows_a_batch": sizes["rows_a_batch"],
        "batches_a_step": sizes["batches_a_step"],
        "batches": seen["batches"],
        "steps": found["steps"],
        "questions_a_step": round(seen["questions"] / found["steps"], 2),
        "tokens": seen["tokens"],
        "tokens_with_padding": seen["computed"],
        "tokens_a_batch_with_padding": round(seen["computed"] / seen["batches"], 1),
        "tokens_of_the_largest_batch": seen["largest"],
    }


def figures(found: Sequence[Found], operations: float | None) -> dict[str, list[float]]:
    """The figures of a leg, one a turn."""
    values: dict[str, list[float]] = {
        "seconds": [one["seconds"] for one in found],
        "seconds_a_step": [one["seconds"] / one["steps"] for one in found],
        "building_share": [one["building_seconds"] / one["seconds"] for one in found],
        "products_per_second": [one["products"] / one["seconds"] for one in found],
    }
    for name in ("questions", "tokens", "supervised"):
        values[f"{name}_per_second"] = [one["seen"][name] / one["seconds"] for one in found]
    if found[0]["model"]["device"] == "cpu":
        values["processor_seconds"] = [one["processor_seconds"] for one in found]
        values["questions_per_processor_second"] = [
            one["seen"]["questions"] / one["processor_seconds"] for one in found
        ]
    if operations:
        values["mfu"] = [one["products"] / one["seconds"] / operations for one in found]
    if found[0]["arrange_seconds"] is not None:
        values["arrange_seconds"] = [one["arrange_seconds"] for one in found]
    if found[0]["peak_memory"] is not None:
        values["peak_memory_bytes"] = [one["peak_memory"] for one in found]
        values["peak_memory_bytes_a_token"] = [
            one["peak_memory"] / one["seen"]["largest"] for one in found
        ]
        values["memory_before_bytes"] = [one["memory_before"] for one in found]
    return values


def ratios(measured: Mapping[str, Mapping[str, list[float]]], plan: Found) -> dict[str, Any]:
    """The legs of this project over the others, turn by turn."""
    keys = (
        "questions_per_second",
        "questions_per_processor_second",
        "peak_memory_bytes",
        "peak_memory_bytes_a_token",
    )
    # From stock to shared context: each over those before it.
    order = [name for name in LEGS if name in plan["legs"]]
    return {
        f"{name} / {other}": {
            key: spread(by_turn(measured[name][key], measured[other][key]))
            for key in keys
            if key in measured[name]
        }
        for at, name in enumerate(order)
        for other in order[:at]
        if not name.startswith("stock")
    }


def by_turn(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Ratios of what was measured in the same turn."""
    return [a / b for a, b in zip(one, other, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values
    return {
        "median": significant(statistics.median(values)),
        "lowest": significant(min(values)),
        "lower_quartile": significant(quartiles[0]),
        "upper_quartile": significant(quartiles[-1]),
        "highest": significant(max(values)),
    }


def significant(value: float) -> float:
    """Five digits that count."""
    return float(f"{value:.5g}")


def same_step(plan: Found, checks: Mapping[str, Found], folder: Path) -> dict[str, Any]:
    """Loss and gradients of one step of the same questions in every leg."""
    import torch

    reference = next(name for name in ("padded", *LEGS) if name in checks)
    loss = checks[reference]["loss"]
    expected = torch.load(folder / f"{reference}.pt")
    largest = float(expected.abs().max())

    def differs(name: str) -> float:
        found = torch.load(folder / f"{name}.pt")
        return float((found - expected).abs().max()) / largest

    return {
        "questions": len(plan["step_rows"]),
        "compared_with": reference,
        "losses": {name: check["loss"] for name, check in checks.items()},
        "loss_differences": {
            name: significant(abs(check["loss"] - loss)) for name, check in checks.items()
        },
        "gradient_differences_to_the_largest": {
            name: significant(differs(name)) for name in checks
        },
    }


def goals(measured: Mapping[str, Mapping[str, list[float]]], plan: Found) -> list[dict[str, Any]]:
    """What is aimed at, and whether it is met; null where too little was measured to say."""
    shared = measured.get("shared_context")
    if shared is None:
        return []
    turns = len(shared["seconds"])

    def goal(text: str, value: float, *, wanted: float, at_least: bool) -> dict[str, Any]:
        met = value >= wanted if at_least else value <= wanted
        return {
            "goal": text,
            "value": significant(value),
            "wanted": f"{'at least' if at_least else 'at most'} {significant(wanted)}",
            "met": met if turns >= ENOUGH else None,
            **({} if turns >= ENOUGH else {"why_null": f"{turns} of {ENOUGH} pairs"}),
        }

    found = []
    if stock := measured.get("stock_padded"):
        ratio = plan["questions"]["chosen"]["token_ratio"]
        faster = by_turn(shared["questions_per_second"], stock["questions_per_second"])
        found.append(
            goal(
                f"questions/s of shared_context over stock padded: {SPEED_GOAL} x the token ratio "
                f"without padding, {ratio}",
                statistics.median(faster),
                wanted=SPEED_GOAL * ratio,
                at_least=True,
            )
        )
    other = "stock_padded" if "stock_padded" in measured else "padded"
    padded = measured.get(other)
    key = "peak_memory_bytes_a_token"
    if padded and key in shared:
        found.append(
            goal(
                f"peak memory of shared_context over {other.replace('_', ' ')}, each by the tokens "
                "of its largest batch, as these are not quite equal",
                statistics.median(by_turn(shared[key], padded[key])),
                wanted=MEMORY_GOAL,
                at_least=False,
            )
        )
    found.append(
        goal(
            "building of batches of shared_context, as a share of its steps",
            statistics.median(shared["building_share"]),
            wanted=BUILDING_GOAL,
            at_least=False,
        )
    )
    return found
