"""Tokens, steps and time of an epoch, where the recipe's data can be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import DataError, ModelError, OutputError
from finqa_sft.planning.request import Request
from finqa_sft.preparation.batches import Batches, Layout
from finqa_sft.preparation.prepare import prepared_recipe
from finqa_sft.preparation.rows import Shares, longest_of, shares_of
from finqa_sft.recipe import Recipe
from finqa_sft.wording import one_line

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a recipe's data is to its collator.

    Attributes:
        batches: Steps.
        layout: Tokens and questions.
        shares: What the tokens of its rows are.
        longest: Tokens of the longest row that the collator made.
    """

    batches: Batches
    layout: Layout
    shares: Shares
    longest: int

    @property
    def tokens(self) -> float:
        """Tokens of the whole run."""
        return self.layout.tokens * self.batches.steps / self.batches.steps_an_epoch

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **self.layout.record(),
            **self.batches.record(),
            "longest_row": self.longest,
            "tokens_in_all": round(self.tokens),
        }


def read_epoch(
    recipe: Recipe, request: Request, *, processes: int, say: Callable[[str], None]
) -> Epoch | str:
    """Prepare a recipe's data and arrange it, as the run does.

    Args:
        recipe: The recipe.
        request: Has found the base, of which no weights are needed.
        processes: Processes that train together.
        say: Is told every few seconds how far the work is.

    Returns:
        Why the data cannot be read, where it is not at hand: a shipped recipe names files that its
        user has yet to get, and the base's tokenizer may be on the Hub alone.
    """
    try:
        prepared = prepared_recipe(recipe, factory=request.factory, say=say)
        collator = recipe.collator.build(prepared.encoder.tokenizer)
        arranged: Dataset = collator.arrange(prepared.data.training.rows)
    except (DataError, ModelError) as error:
        return one_line(error)
    batches = Batches.of(request.trainer, rows=len(arranged), processes=processes)
    layout = Layout.of(prepared.data.training, arranged, batches)
    return Epoch(batches, layout, shares_of(arranged), longest_of(arranged))


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast a training is.

    Attributes:
        tokens_per_second: Tokens as the collator arranges them, of all processes together.
        source: Who says so.
    """

    tokens_per_second: float
    source: str

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def measured_throughput(run: Path) -> Throughput:
    """What an earlier run has reached, with its evaluations and checkpoints.

    Args:
        run: The run's folder.

    Raises:
        OutputError: It holds no record of a finished run that began at its first step.
    """
    path = run / "run.json"
    try:
        manifest: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"--like {run}: {path} cannot be read: {one_line(error)}; name the folder of a run"
        ) from error
    try:
        return _throughput(run, manifest)
    except (AttributeError, KeyError, TypeError) as error:
        raise OutputError(
            f"--like {run}: {path} is not as a run of this version wrote it "
            f"({type(error).__name__}: {error}); name another run"
        ) from error


def _throughput(run: Path, manifest: Mapping[str, Any]) -> Throughput:
    """What a run has reached, from its record."""
    status, batches = manifest["status"], manifest["batches"]
    done = manifest.get("result", {}).get("steps", 0)
    seconds = manifest.get("timings", {}).get("training_s", 0)
    if status != "finished" or not done or not seconds:
        raise OutputError(
            f"--like {run}: its status is {status!r}; name a run that has finished its training"
        )
    set_values = {value["key"]: value["value"] for value in manifest["recipe"]["values"]}
    if set_values.get("trainer.resume_from_checkpoint"):
        raise OutputError(
            f"--like {run}: it was resumed, and its time is that of the last part alone; name a "
            "run that was not interrupted"
        )
    tokens = manifest["layout"]["tokens"] * done / batches["steps_an_epoch"]
    where = f"{batches['processes']} × {manifest['hardware']['device']}"
    return Throughput(tokens / seconds, f"measured in {run} on {where}")
