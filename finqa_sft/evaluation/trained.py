"""What a run has left: its recipe, and the adapter or model to ask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finqa_sft.encoding import Encoder
from finqa_sft.errors import OutputError, RecipeError
from finqa_sft.evaluation.answering import Answerer, answerer
from finqa_sft.evaluation.folder import unreadable
from finqa_sft.plugins.manager import Plugins
from finqa_sft.recipe import Recipe
from finqa_sft.recipe.recorded import recipe_record, recorded_recipe

CARD = "finqa_sft.json"
"""Beside an adapter or model: how it is asked."""

FIXED = ("model.", "formatter.", "data.cleaning.")
"""What a model was trained with, and must be asked with: sections of the recipe."""

_ASKED_BY = (*FIXED, "data.", "evaluation.", "plugins")
"""What of a recipe is needed to ask what it trained, and to ask it the same questions again."""

_WEIGHTS = ("adapter_config.json", "config.json")
_MANIFEST = "run.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run has left.

    Attributes:
        recipe: The recipe of the run, with overrides of now.
        folder: The adapter or model; None for the base as it was.
        longest_answer: Tokens of the longest answer that was taught.
        run: The run's folder, where the adapter or model lies in one.
    """

    recipe: Recipe
    folder: Path | None
    longest_answer: int
    run: Path | None


def asking_card(recipe: Mapping[str, Any], *, longest_answer: int) -> str:
    """What is written beside an adapter or model, so that it can be asked without its run.

    Args:
        recipe: What `recipe_record` gave.
        longest_answer: Tokens of the longest answer that was taught.
    """
    values = [value for value in recipe["values"] if value["key"].startswith(_ASKED_BY)]
    card = {"recipe": {**recipe, "values": values}, "longest_answer": longest_answer}
    return json.dumps(card, indent=2, ensure_ascii=False, default=str) + "\n"


def find_trained(place: Path, plugins: Plugins, *, overrides: Sequence[str] = ()) -> Trained:
    """Find what is to be asked, with the recipe that its run has recorded.

    Args:
        place: A run's folder, or that of an adapter, a model or a checkpoint.
        plugins: The components at hand.
        overrides: Values of the recipe to replace, each `key.path=value`.

    Raises:
        OutputError: There is no such folder, or nothing in it that a run has left.
        RecipeError: The run's recipe does not hold with what is installed now.
    """
    left = _found(place)
    recipe = recorded_recipe(left.record, plugins, overrides)
    return Trained(recipe, left.folder, left.longest_answer, left.run)


def trained_by(recipe: Recipe) -> Trained:
    """What the run of a recipe has left in its output folder, to be asked as the recipe says.

    Raises:
        OutputError: There is no run.
        RecipeError: The recipe has changed since in what prompts and model are made by.
    """
    folder = recipe.output.dir
    if not (folder / _MANIFEST).is_file():
        raise OutputError(
            f"{folder} holds no run of {recipe.name} yet; train it, set output.dir to where it is, "
            "or ask the base with --base"
        )
    left = _found(folder)
    # As it is read back from a file, where a tuple is a list and a path a text.
    record = json.loads(json.dumps(recipe_record(recipe), default=str))
    before, now = _fixed_values(left.record), _fixed_values(record)
    files = {key: path for key, path in _fixed_options(recipe) if isinstance(path, Path)}
    for key in now | before:
        was, is_now = before.get(key), now.get(key)
        if key in files and isinstance(was, str):
            # From the folder that the training ran in.
            changed = _is_another(Path(left.record["folder"], was), files[key])
        else:
            changed = was != is_now
        if changed:
            raise RecipeError(
                f"{folder} was trained with {key}={was}, and the recipe says {is_now} now; ask "
                f"{folder} itself, which knows its recipe, or restore the value"
            )
    return Trained(recipe, left.folder, left.longest_answer, left.run)


def _fixed_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a model was trained with, by key."""
    return {v["key"]: v["value"] for v in record["values"] if v["key"].startswith(FIXED)}


def _is_another(old: Path, new: Path) -> bool:
    """Whether a file holds something else than the earlier one, or is called otherwise.

    The name counts where the earlier one is gone: a whole project may have been moved.
    """
    if not old.is_file() or not new.is_file():
        return old.name != new.name
    return old.read_bytes() != new.read_bytes()


def _fixed_options(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """The values by key that `FIXED` stands for, paths as such."""
    options = {
        "model": recipe.model.options.model_dump(),
        "formatter": recipe.formatter.options.model_dump(),
    }
    for value in recipe.values():
        if value.path.startswith(FIXED):
            node: Any = options
            for piece in value.path.split("."):
                node = node.get(piece) if isinstance(node, dict) else None
            yield value.path, node if isinstance(node, Path) else value.value


def fixed_values(recipe: Recipe) -> dict[str, Any]:
    """What a model is trained with and asked with, by key; of files, a hash of what they hold."""
    return {
        key: hashlib.sha256(value.read_bytes()).hexdigest()[:16]
        if isinstance(value, Path) and value.is_file()
        else value
        for key, value in _fixed_options(recipe)
    }


@dataclass(frozen=True, slots=True)
class _Left:
    """What lies in a folder: the result, how it is asked, and the run that it lies in."""

    folder: Path
    record: Mapping[str, Any]
    longest_answer: int
    run: Path | None


def _found(place: Path) -> _Left:
    """What lies in a folder."""
    try:
        return _found_there(place)
    except OSError as error:
        raise unreadable(error) from error


def _found_there(place: Path) -> _Left:
    if not place.is_dir():
        what = "a file" if place.exists() else "no such folder"
        raise OutputError(
            f"{place}: {what}; name the folder of a run, such as runs/NAME, or of its adapter"
        )
    if (place / _MANIFEST).is_file():
        results = (place / name for name in ("adapter", "model"))
        folder = next((result for result in results if result.is_dir()), None)
        if folder is None:
            raise OutputError(
                f"{place} holds neither adapter/ nor model/: the run has not ended; name one of "
                "its checkpoints with --adapter, or resume it"
            )
        return _read(folder, place)
    if any((place / name).is_file() for name in _WEIGHTS):
        return _read(place, place.parent)
    raise OutputError(
        f"{place} holds no {_MANIFEST}, adapter_config.json or config.json; name the folder of a "
        "run, such as runs/NAME, or of its adapter"
    )


def _read(folder: Path, run: Path) -> _Left:
    """How a result is asked, by its card or by the record of its run."""
    card, manifest = folder / CARD, run / _MANIFEST
    path = card if card.is_file() else manifest
    if not path.is_file():
        raise OutputError(
            f"{folder} has no {CARD} in it that says how it was taught to answer; copy that file "
            "with the adapter, or name the folder of the run"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        of = content if path == card else content["data"]["training"]
        longest, record = int(of["longest_answer"]), content["recipe"]
        _ = Path(record["folder"], record["name"])
        for value in record["values"]:
            _ = value["key"].split("."), value["value"], value["origin"], value["line"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path} is not as a run of this version wrote it ({type(error).__name__}: {error}); "
            "restore it, or train again"
        ) from error
    return _Left(folder, record, longest, run if manifest.is_file() else None)


def load_answerer(trained: Trained) -> Answerer:
    """Load the model that a run has left, with all that is needed to ask it.

    Raises:
        ModelError: The adapter or model cannot be loaded, or its base.
        HardwareError: There is too little memory.
    """
    recipe = trained.recipe
    factory = recipe.model.build()
    encoder = Encoder(factory.load_tokenizer())
    return answerer(
        recipe,
        factory.load_trained(trained.folder),
        encoder=encoder,
        formatter=recipe.formatter.build(),
        longest_answer=trained.longest_answer,
    )
