"""Resuming where no step is left: the result is taken from the checkpoint, if it is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finqa_sft.errors import OutputError
from finqa_sft.ranks import is_main
from finqa_sft.training.checkpoints import MANIFEST, trainer_state
from finqa_sft.training.folder import RunFolder
from finqa_sft.training.record import ended, write_cards

_OF_THE_TRAINER = shutil.ignore_patterns(
    MANIFEST, "trainer_state.json", "optimizer*", "scheduler*", "scaler*", "rng_state*"
)
"""What a checkpoint holds besides a model or adapter and its tokenizer."""


def is_finished(checkpoint: Path, *, steps: int) -> bool:
    """Whether a checkpoint was saved after the last step of a run.

    Args:
        checkpoint: A complete checkpoint.
        steps: Optimizer steps of the run.

    Raises:
        OutputError: The run ends before the checkpoint.
    """
    done = int(trainer_state(checkpoint)["global_step"])
    if done > steps:
        raise OutputError(
            f"{checkpoint} was saved after step {done}, and the run ends after step {steps}; raise "
            "trainer.max_steps or trainer.num_train_epochs, or name an earlier checkpoint in "
            "trainer.resume_from_checkpoint"
        )
    return done == steps


def finish(
    folder: RunFolder, checkpoint: Path, *, changed: Mapping[str, Any], takes_best: bool = False
) -> Path:
    """Take the result from a run's last checkpoint, or its best, unless the run has saved it.

    Args:
        folder: The run's folder.
        checkpoint: Its last checkpoint.
        changed: What is to be replaced in `run.json` if the run had not finished.
        takes_best: Whether the result is that of the best checkpoint.

    Returns:
        The folder of the result.

    Raises:
        OutputError: The checkpoint is another folder's, or its weights lie in shards, or the best
            one is gone.
    """
    if not folder.holds(checkpoint):
        raise OutputError(
            f"{checkpoint} was saved after the last step of this run, so nothing is left to train; "
            f"use what {checkpoint.parent} holds, or raise trainer.max_steps or "
            "trainer.num_train_epochs"
        )
    adapts = (checkpoint / "adapter_config.json").is_file()
    result = folder.adapter if adapts else folder.model
    if not is_main():
        return result
    manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    state = trainer_state(checkpoint)
    saved = manifest.get("result", {}).get("steps")
    if manifest["status"] == "finished" and saved == state["global_step"] and result.is_dir():
        return result
    source = checkpoint
    if takes_best and state["best_model_checkpoint"]:
        source = folder.path / Path(state["best_model_checkpoint"]).name
    if not source.is_dir():
        raise OutputError(
            f"{source}, the best checkpoint of this run, is gone, so {result} cannot be taken from "
            "it; copy it back, or train again with output.overwrite=true"
        )
    if not any(source.glob("*.safetensors")):
        raise OutputError(
            f"{source} was saved after the last step of this run, and holds the weights in shards "
            f"only, so {result} cannot be taken from it; go on from an earlier checkpoint, "
            "named in trainer.resume_from_checkpoint"
        )
    log = state["log_history"]
    manifest |= changed
    manifest |= ended("finished", result=result, steps=state["global_step"], log=log)
    with folder.replaced(result) as partial:
        shutil.copytree(source, partial, ignore=_OF_THE_TRAINER)
    folder.write_manifest(manifest)
    write_cards(manifest, log=log, folder=folder, result=result)
    return result
