"""What can be merged, and what is written beside merged weights: a model card, how it is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finqa_sft.errors import ModelError, OutputError
from finqa_sft.evaluation.trained import CARD, Trained, asking_card
from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.memory import BYTES, size
from finqa_sft.models.merging.plan import MergedDtype, MergePlan, Weights
from finqa_sft.models.merging.verification import Measured
from finqa_sft.models.options import ComputeDtype
from finqa_sft.recipe.recorded import recipe_record
from finqa_sft.training.templating import render
from finqa_sft.writing import replace_text


@dataclass(frozen=True, slots=True)
class Mergeable:
    """An adapter that a run has left, and what it was trained with.

    Attributes:
        factory: The model factory of the run.
        folder: The adapter.
        trained_in: The dtype that the base was held in, or unpacked to.
        where: The device that it was trained on; empty where no record of the run says it, and
            `trained_in` is taken from the recipe and this device.
    """

    factory: AdapterFactory
    folder: Path
    trained_in: ComputeDtype
    where: str


def mergeable(trained: Trained) -> Mergeable:
    """What a run has left, if that is an adapter.

    Args:
        trained: What was found in the run's folder.

    Raises:
        ModelError: The run has trained all weights, or with a factory whose adapters are not known.
        OutputError: The run's record is damaged.
    """
    recipe, folder = trained.recipe, trained.folder
    factory = recipe.model.build()
    if folder is None or (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} is a whole model already: the run has trained all weights, and there is no "
            "adapter to merge; use that folder as it is"
        )
    if not isinstance(factory, AdapterFactory):
        raise ModelError(
            f"model.factory {recipe.model.name} is not known to make LoRA adapters beside a base; "
            "merge what it has left with its own means"
        )
    # This device need not compute in the dtype of the run.
    here = type(factory)(factory.options.model_copy(update={"compute_dtype": "auto"}))
    if trained.run is not None:
        record = _record(trained.run / "run.json")
        _require_the_same_base(here.described()["quantisation"], record.get("quantisation"))
        # What `auto` came to on the device of the run.
        return Mergeable(here, folder, record["compute_dtype"], record["device"])
    wanted = factory.options.compute_dtype
    return Mergeable(here, folder, here.compute_dtype if wanted == "auto" else wanted, "")


def _require_the_same_base(wanted: str, trained: Any) -> None:
    """Refuse a base in other bits than those that the adapter was trained beside.

    Raises:
        ModelError: It is.
    """
    if trained is not None and wanted != trained:
        raise ModelError(
            f"the adapter was trained beside a base with quantisation {trained}, and the overrides "
            f"ask for {wanted}; take them out"
        )


def _record(path: Path) -> Mapping[str, Any]:
    """What a run's record says of its model."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model"]
        if record["compute_dtype"] not in BYTES or not isinstance(record["device"], str):
            raise ValueError(f"a model in {record['compute_dtype']!r} on {record['device']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path} is not as a run of this version wrote it ({type(error).__name__}: {error}); "
            "restore it, or copy the adapter with its finqa_sft.json elsewhere and name that with "
            "--adapter"
        ) from error
    return record


def write_asking_card(trained: Trained, folder: Path, *, out: Path, dtype: MergedDtype) -> None:
    """Write how the merged model is asked, as beside a model that was trained whole.

    Args:
        trained: What the run has left.
        folder: The folder to write to.
        out: Where the merged model will be.
        dtype: Its dtype.
    """
    record = recipe_record(trained.recipe)
    model = {
        "model.factory": "full",
        "model.base": str(out.absolute()),
        "model.weights_dtype": dtype,
    }
    values = [value for value in record["values"] if not value["key"].startswith("model.")]
    values += [
        {"key": key, "value": value, "origin": "override", "line": None}
        for key, value in model.items()
    ]
    text = asking_card({**record, "values": values}, longest_answer=trained.longest_answer)
    (folder / CARD).write_text(text, encoding="utf-8")


def write_model_card(
    folder: Path,
    *,
    trained: Trained,
    adapter: Mergeable,
    plan: MergePlan,
    measured: Measured | None,
) -> None:
    """Write what the merged model is made of, and what its verification found.

    Args:
        folder: The merged model.
        trained: What the run has left.
        adapter: The adapter.
        plan: What was written.
        measured: What was found; None where nothing was verified.
    """
    # Imports transformers.
    from finqa_sft.training.record import versions

    described = adapter.factory.described()
    card = render(
        "merged_card.md.jinja",
        {
            "name": trained.recipe.name,
            "base": adapter.factory.base,
            "formatter": trained.recipe.formatter.name,
            "adapter": described["adapter"],
            "whole": described.get("trained_whole", ""),
            "weights": described_weights(plan.weights, adapter),
            "dtype": plan.dtype,
            "size": size(plan.size),
            "measured": measured,
            "versions": versions(),
        },
    )
    replace_text(folder / "README.md", card)


def described_weights(weights: Weights, adapter: Mergeable) -> str:
    """Over which weights, in words."""
    quantisation = adapter.factory.described()["quantisation"]
    if weights == "dequantised":
        return f"dequantised ({quantisation}), as the adapter was trained beside them"
    if adapter.factory.quantised:
        return f"the base's own; the adapter was trained beside quantised ones ({quantisation})"
    return "the base's own"
