"""All processes of a run resolve the same recipe, components, base and data, or all of them end."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from finqa_sft.errors import HardwareError, OutputError
from finqa_sft.evaluation.processes import gathered, waited
from finqa_sft.models.base import ModelFactory
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation import PreparedData
from finqa_sft.ranks import is_main, local_world_size, rank, world_size
from finqa_sft.recipe import Recipe, Value
from finqa_sft.training.record import plugin_table, versions
from finqa_sft.training.telling import FAILED

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

SHOWN = 3
"""So many differences are named."""

SECONDS_TO_SEE = 10
"""After which a file that another machine has made must be there, on a network's disk too."""


def resolved(
    recipe: Recipe, plugins: Plugins, data: PreparedData, factory: ModelFactory, args: SFTConfig
) -> dict[str, str]:
    """What must be the same in all processes, as texts by what they are.

    Paths may differ from machine to machine: what they lead to is compared.

    Args:
        recipe: The recipe.
        plugins: All components.
        data: What was read.
        factory: Will make the model.
        args: The trainer's arguments.
    """
    facts = {value.path: str(value.value) for value in recipe.values() if not _is_path(value)}
    facts |= {f"version of {name}": number for name, number in versions().items()}
    # A file is its own provider, by its path.
    facts |= {
        f"provider of {one['kind']} {one['name']}": Path(one["provider"]).name
        for one in plugin_table(plugins)
    }
    facts |= {f"plugin file {path.name}": _hash(path.read_bytes()) for path in recipe.plugins}
    facts["training data"] = data.fingerprint
    facts["held-out data"] = data.held_out.digest().hex()[:16]
    if isinstance(factory, BuiltinFactory):
        facts["base"] = factory.base.fingerprint()
    if args.deepspeed_plugin is not None:
        config = json.dumps(args.deepspeed_plugin.deepspeed_config, sort_keys=True, default=str)
        facts["DeepSpeed configuration"] = _hash(config.encode())
    return facts


def _is_path(value: Value) -> bool:
    """Whether a value leads to something on this machine, or is where the run writes."""
    if value.path == "output.dir":
        return True
    found = value.value if isinstance(value.value, list | tuple) else [value.value]
    is_named = value.path in ("model.base", "trainer.deepspeed", "trainer.fsdp_config")
    return any(_exists(str(one), named=is_named) for one in found)


def _exists(text: str, *, named: bool) -> bool:
    """Whether a text is the path of something; one word may be a folder's name by accident."""
    if "\n" in text or not (named or "/" in text or "\\" in text):
        return False
    try:
        return Path(text).exists()
    except OSError:
        # Too long for a name.
        return False


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def require_agreement(args: SFTConfig, facts: Mapping[str, str]) -> None:
    """Refuse to train where a process has resolved something else than the first one.

    All processes call it at the same time, and all refuse.

    Args:
        args: The trainer's arguments, by which processes find each other.
        facts: What this process has resolved.

    Raises:
        HardwareError: Names the process, its machine and the first differences; or says what has
            ended a process on another machine.
    """
    # Makes the processes known to each other.
    _ = args.device
    every = gathered([(rank(), socket.gethostname(), dict(facts))])
    for number, host, theirs in every:
        if FAILED in theirs:
            raise HardwareError(f"process {number} (on {host}) has ended: {theirs[FAILED]}")
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


def require_common(folder: Path, args: SFTConfig) -> None:
    """Refuse to train on several machines whose output folder is not one and the same.

    All processes call it at the same time, and all refuse.

    Args:
        folder: The output folder; there is one where the first process is.
        args: The trainer's arguments, which may ask for a folder on each machine.

    Raises:
        OutputError: A machine does not see it.
    """
    if world_size() == local_world_size() or args.save_on_each_node:
        return
    name, *_ = gathered([uuid4().hex])
    token = folder / f".{name}"
    if is_main():
        token.touch()
    waited()
    until = time.monotonic() + SECONDS_TO_SEE
    while not token.exists() and time.monotonic() < until:
        time.sleep(0.2)
    every = gathered([(socket.gethostname(), token.exists())])
    if is_main():
        token.unlink()
    for host, sees in every:
        if not sees:
            raise OutputError(
                f"the first machine writes to {folder}, and {host} has another folder there, so "
                "that checkpoints would be in parts; set output.dir to a folder that all machines "
                "share"
            )
