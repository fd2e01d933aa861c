"""FSDP as a recipe or a launcher asks for it, and what a run would not train or not save with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finqa_sft.models.devices import launches_fsdp
from finqa_sft.models.optimizers import BITSANDBYTES
from finqa_sft.recipe.deepspeed import read_config

WHOLE = "FULL_STATE_DICT"
"""The state that is saved as one file, as a run without FSDP saves it."""

OPTIMIZER = (
    "{optim} does not work under FSDP: bitsandbytes' optimizers cannot step tensors that processes "
    "share; set it to adamw_torch_fused"
)


@dataclass(frozen=True, slots=True)
class Fsdp:
    """How FSDP was asked for.

    Attributes:
        version: `1` or `2`.
        state_dict_type: How weights are saved.
        offloads: Whether shares stay in the host's memory between their uses.
    """

    version: str
    state_dict_type: str
    offloads: bool

    @classmethod
    def of_recipe(cls, trainer: Mapping[str, Any]) -> Fsdp | None:
        """What a recipe asks for; None where it does not.

        Source: transformers 5.24, `TrainingArguments._process_fsdp_args`.

        Args:
            trainer: The recipe's `trainer` section, its files found.

        Raises:
            RecipeError: The file that `fsdp_config` names cannot be read.
        """
        asked = trainer.get("fsdp")
        if not asked:
            return None
        config = trainer.get("fsdp_config") or {}
        if not isinstance(config, Mapping):
            config = read_config(Path(config), of="FSDP")
        found = {name.removeprefix("fsdp_"): value for name, value in config.items()}
        words = asked if isinstance(asked, list) else str(asked).split()
        return cls(
            version=str(found.get("version", 2)),
            state_dict_type=str(found.get("state_dict_type", WHOLE)),
            offloads=bool(found.get("cpu_offload")) or "offload" in words,
        )

    @classmethod
    def of_launcher(cls) -> Fsdp | None:
        """What `accelerate launch` asks for, as the environment tells; None where it does not.

        Source: accelerate 1.15, `FullyShardedDataParallelPlugin.__post_init__`.
        """
        if not launches_fsdp():
            return None
        version = os.environ.get("FSDP_VERSION", "1")
        usual = "SHARDED_STATE_DICT" if version == "2" else WHOLE
        kind = os.environ.get("FSDP_STATE_DICT_TYPE", usual).upper()
        return cls(
            version=version,
            # It takes torch's number of it, too.
            state_dict_type=WHOLE if kind == "1" else kind,
            offloads=os.environ.get("FSDP_OFFLOAD_PARAMS", "").lower() in ("1", "true"),
        )

    def problems(self) -> Iterator[str]:
        """What is wrong with the configuration: fields of it, and what to set them to."""
        if self.version != "2":
            yield (
                f"has version {self.version} of FSDP, which fails when a checkpoint is saved; set "
                "fsdp_version to 2"
            )
        if self.state_dict_type != WHOLE:
            yield (
                f"has state_dict_type {self.state_dict_type}, with which no adapter and no model "
                f"is saved; set fsdp_state_dict_type to {WHOLE}"
            )


def optimizer_problem(optim: str) -> str | None:
    """What is wrong with an optimizer under FSDP, if anything.

    Args:
        optim: As in `trainer.optim`.
    """
    return OPTIMIZER.format(optim=optim) if optim in BITSANDBYTES else None
