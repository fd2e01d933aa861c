"""All processes of a run must have resolved the same: recipe, components, versions, data."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import HardwareError
from finqa_sft.evaluation.processes import gathered
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation import PreparedData
from finqa_sft.ranks import rank
from finqa_sft.recipe import Recipe
from finqa_sft.training.record import plugin_table, versions

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

SHOWN = 3
"""So many differences are named."""


def resolved(recipe: Recipe, plugins: Plugins, data: PreparedData, **more: Any) -> dict[str, str]:
    """What must be the same in all processes, as texts by what they are.

    Paths may differ from machine to machine: what they lead to is compared.

    Args:
        recipe: The recipe.
        plugins: All components.
        data: What was read.
        more: Anything else.
    """
    facts = {value.path: str(value.value) for value in recipe.values() if not _is_path(value.value)}
    facts |= {f"version of {name}": number for name, number in versions().items()}
    facts |= {
        f"provider of {one['kind']} {one['name']}": one["provider"] for one in plugin_table(plugins)
    }
    facts["training data"] = data.fingerprint
    facts["held-out data"] = data.held_out.digest().hex()[:16]
    return facts | {name.replace("_", " "): str(value) for name, value in more.items()}


def _is_path(value: object) -> bool:
    return "/" in str(value) or "\\" in str(value)


def require_agreement(args: SFTConfig, facts: Mapping[str, str]) -> None:
    """Refuse to train where a process has resolved something else than the first one.

    All processes call it at the same time, and all refuse.

    Args:
        args: The trainer's arguments, by which processes find each other.
        facts: What this process has resolved.

    Raises:
        HardwareError: Names the process, its machine and the first differences.
    """
    # Makes the processes known to each other.
    _ = args.device
    every = gathered([(rank(), socket.gethostname(), dict(facts))])
    _, _, first = every[0]
    for number, host, theirs in every:
        differs = [key for key in {**first, **theirs} if first.get(key) != theirs.get(key)]
        if not differs:
            continue
        shown = ", ".join(
            f"{key} {theirs.get(key, 'missing')} instead of {first.get(key, 'missing')}"
            for key in differs[:SHOWN]
        )
        more = f", and {len(differs) - SHOWN} more" if len(differs) > SHOWN else ""
        raise HardwareError(
            f"process {number} (on {host}) has {shown}{more}, so it would train something else "
            "than the others; give all machines the same recipe, files and packages"
        )
