"""`run.json` and the model card: what a run was, in full."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Any

import psutil

from finqa_sft import __version__
from finqa_sft.evaluation.trained import CARD, asking_card
from finqa_sft.models.base import ModelFactory
from finqa_sft.models.devices import sharded_by
from finqa_sft.plugins.manager import KINDS, Plugins
from finqa_sft.preparation import PreparedData
from finqa_sft.preparation.batches import Batches, Layout
from finqa_sft.ranks import is_main, world_size
from finqa_sft.recipe import Recipe
from finqa_sft.recipe.recorded import recipe_record
from finqa_sft.signals import signal_of
from finqa_sft.training.distributed import Distributed, held, state_elements
from finqa_sft.training.folder import RunFolder
from finqa_sft.training.templating import render

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

STACK = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "pluggy",
    "pydantic",
)
"""Distributions whose versions can change a result."""


FIXED_BY_CHECKPOINT = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "data_seed",
    "gradient_accumulation_steps",
    "label_smoothing_factor",
    "learning_rate",
    "loss_type",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "max_grad_norm",
    "neftune_noise_alpha",
    "optim",
    "per_device_train_batch_size",
    "seed",
    "warmup_steps",
    "weight_decay",
)
"""Trainer fields that a resumed run must share with its checkpoint: another value would have no
effect, put the run at another place of the data, or make other steps than an unbroken run."""


def identity(recipe: Recipe, data: PreparedData, args: SFTConfig) -> dict[str, Any]:
    """What must be the same where a checkpoint is resumed, mostly by key of the recipe."""
    fixed = {f"trainer.{name}" for name in FIXED_BY_CHECKPOINT}
    same = {
        value.path: value.value
        for value in recipe.values()
        if value.path.startswith(("model.", "collator.")) or value.path in fixed
    }
    return {
        "data": data.fingerprint,
        "the number of processes": world_size(),
        "what shares the run out": sharded_by(args),
        **same,
    }


class RunRecord:
    """Collects what a run was; written when training begins and when it ends, however it ends.

    Attributes:
        interrupted: The signal that ended the run early, if one did.
        memory: What was predicted of memory, and what was seen; see
            `finqa_sft.models.measured.MemoryWatch.record`.
    """

    def __init__(
        self,
        recipe: Recipe,
        plugins: Plugins,
        factory: ModelFactory,
        *,
        data: PreparedData,
        identity: Mapping[str, Any],
        batches: Batches,
        layout: Layout,
        folder: RunFolder,
        result: Path,
    ) -> None:
        """Note everything that is known before the first step."""
        self.interrupted: Signals | None = None
        self.memory: dict[str, Any] = {}
        self._folder = folder
        self._result = result
        self._began = False
        self._log: list[dict[str, Any]] = []
        described = factory.describe()
        self._manifest: dict[str, Any] = {
            "status": "running",
            "began": _now(),
            "recipe": recipe_record(recipe),
            "components": {
                "formatter": recipe.formatter.record.name,
                "collator": recipe.collator.record.name,
                "model_factory": recipe.model.record.name,
            },
            "plugins": plugin_table(plugins),
            "plugin_failures": [str(failure) for failure in plugins.failures],
            "versions": versions(),
            "model": described,
            "data": data_record(data),
            "identity": dict(identity),
            "batches": batches.record(),
            "layout": layout.record(),
            "git": git_state(recipe.path.parent),
            "hardware": {
                "device": described["device"],
                "processes": world_size(),
                "cpu_count": psutil.cpu_count(),
                "memory_bytes": psutil.virtual_memory().total,
                "system": f"{platform.system()} {platform.machine()}",
            },
        }

    def begin(self, trainer: SFTTrainer, measured: dict[str, Any]) -> None:
        """Write the record for the first time, in place of an earlier run's.

        Args:
            trainer: At the beginning of its training.
            measured: What the collator's check found.
        """
        manifest = self._manifest
        manifest["seed"] = trainer.args.seed
        manifest["trainer_arguments"] = trainer.args.to_dict()  # type: ignore[no-untyped-call]
        manifest["distributed"] = Distributed.of(trainer).record() | held(trainer)
        manifest["layout"]["check"] = measured
        self._began = True
        if is_main():
            self._folder.write_manifest(manifest)

    @contextmanager
    def kept(self, trainer: SFTTrainer) -> Iterator[None]:
        """Write the record at the end if it has begun, and the model card after a good end."""
        manifest = self._manifest
        began = time.monotonic()
        status = "failed"
        try:
            yield
            if trainer.optimizer is not None:
                states = state_elements(trainer.optimizer)
                manifest["distributed"]["optimizer_elements"] = states
            status = f"interrupted by {self.interrupted.name}" if self.interrupted else "finished"
        except KeyboardInterrupt as interruption:
            status = f"interrupted by {signal_of(interruption).name}"
            raise
        finally:
            log = self._log = trainer.state.log_history
            steps = trainer.state.global_step
            manifest |= ended(status, result=self._result, steps=steps, log=log)
            manifest["timings"] = {"training_s": round(time.monotonic() - began, 3)}
            if self.memory:
                manifest["memory"] = self.memory
            if self._began and is_main():
                self._folder.write_manifest(manifest)
        if is_main():
            write_cards(manifest, log=log, folder=self._folder, result=self._result)

    def evaluated(self, scores: Mapping[str, Any]) -> None:
        """Add what the answers to held-out questions score, to the record and the model card."""
        self._manifest["scores"] = dict(scores)
        self._folder.write_manifest(self._manifest)
        write_cards(self._manifest, log=self._log, folder=self._folder, result=self._result)


def ended(status: str, *, result: Path, steps: int, log: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of a run's end.

    Args:
        status: How it ended.
        result: The folder of what was trained.
        steps: Optimizer steps done.
        log: The trainer's log history.
    """
    return {
        "status": status,
        "ended": _now(),
        "result": {
            "folder": result.name,
            "steps": steps,
            "losses": [entry["loss"] for entry in log if "loss" in entry],
            "eval_losses": [entry["eval_loss"] for entry in log if "eval_loss" in entry],
        },
    }


def write_cards(
    manifest: dict[str, Any], *, log: list[dict[str, Any]], folder: RunFolder, result: Path
) -> None:
    """Write the model card beside the record and into what was trained, with how it is asked."""
    card = model_card(manifest, log=log)
    for path in (folder.card, result / "README.md"):
        path.write_text(card, encoding="utf-8")
    longest = manifest["data"]["training"]["longest_answer"]
    text = asking_card(manifest["recipe"], longest_answer=longest)
    (result / CARD).write_text(text, encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it stands on."""
    return {
        "python": platform.python_version(),
        "finqa_sft": __version__,
        **{name: version(name) for name in STACK},
    }


def plugin_table(plugins: Plugins) -> list[dict[str, str]]:
    """Every component with its provider."""
    return [
        {
            "kind": kind,
            "name": component.record.name,
            "provider": str(component.provider),
            "summary": component.record.summary,
        }
        for kind in KINDS
        for component in plugins.components(kind)
    ]


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout that a folder lies in; None outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def data_record(data: PreparedData) -> dict[str, Any]:
    """Counts of both sides, of what was left out, changed or noticed, and where the first are."""
    return {
        "training": data.training.summary,
        "held_out": data.held_out.summary,
        "read": dict(data.counts.read),
        "left_out": {reason: n for reason, n in data.counts.left_out.items() if n},
        "cleaned": {rule: n for rule, n in data.counts.cleaned.items() if n},
        "changed": {reason: n for reason, n in data.counts.changed.items() if n},
        "noticed": dict(data.counts.noticed),
        "places": data.counts.places,
        "fingerprint": data.fingerprint,
    }


def model_card(manifest: dict[str, Any], *, log: list[dict[str, Any]]) -> str:
    """The model card, as markdown with the metadata block that model hubs read.

    Args:
        manifest: The finished manifest.
        log: The trainer's log history.
    """
    return render(
        "model_card.md.jinja",
        {
            "run": manifest,
            "is_adapter": manifest["result"]["folder"] == "adapter",
            "losses": [entry for entry in log if "loss" in entry],
            "evaluations": [entry for entry in log if "eval_loss" in entry],
            "scores": manifest.get("scores", {}).get("metrics", {}),
        },
    )


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
