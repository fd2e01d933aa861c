"""What the verbs share that ask a trained model: which one, and where its data comes from."""

from __future__ import annotations

import argparse
import errno
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from finqa_sft.cli.common import load_plugins
from finqa_sft.cli.sources import found_reader, reader_of_file
from finqa_sft.documents import Question
from finqa_sft.errors import DataError, RecipeError
from finqa_sft.evaluation.evaluate import built_metrics
from finqa_sft.evaluation.folder import unreadable
from finqa_sft.evaluation.gold import read_gold
from finqa_sft.evaluation.trained import Trained, find_trained, trained_by
from finqa_sft.metrics.base import Metric
from finqa_sft.plugins.manager import Component, Plugins
from finqa_sft.plugins.records import MetricRecord
from finqa_sft.preparation.counts import Counts
from finqa_sft.preparation.prepare import read_sides
from finqa_sft.readers.columns import ColumnsOptions
from finqa_sft.recipe import Chosen, Recipe, load_recipe
from finqa_sft.recipe.overrides import apply_overrides
from finqa_sft.recipe.problems import recipe_error
from finqa_sft.recipe.shipped import shipped_recipes
from finqa_sft.wording import did_you_mean

_WHICH = "the folder of a run, as runs/NAME, or the recipe that it was trained by"


def add_trained_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run, what may stand for it, and overrides."""
    parser.add_argument("run", nargs="?", metavar="RUN", help=_WHICH)
    parser.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="the folder of an adapter, a model or a checkpoint, in place of RUN",
    )
    parser.add_argument(
        "--base", action="store_true", help="ask the base as it was before the training"
    )
    # Without a default, argparse takes a list that may be empty for a required one.
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key.path=value",
        help="replace values of the run's recipe",
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a file of questions in place of those that the run holds out."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="questions to answer; those that the run holds out if left out",
    )
    parser.add_argument(
        "--reader", metavar="NAME", help="how to read that file (default: as it looks)"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of that reader, as question=frage; may be given several times",
    )


def chosen_trained(arguments: argparse.Namespace) -> tuple[Trained, Plugins]:
    """What the arguments name, with all plugins loaded.

    Raises:
        OutputError: There is no such run, or it has left nothing to ask.
        RecipeError: Both or none of run and adapter are named, or an override is wrong.
    """
    run, overrides = arguments.run, list(arguments.overrides)
    there = _existing(run)
    if run is not None and "=" in run and not there:
        # With --adapter, what comes first is an override.
        run, overrides = None, [run, *overrides]
    if (run is None) == (arguments.adapter is None):
        given = "both are given" if run else "none is given"
        raise RecipeError(f"name {_WHICH}, or an adapter with --adapter; {given}")
    plugins = load_plugins()
    if arguments.adapter is not None:
        trained = find_trained(arguments.adapter, plugins, overrides=overrides)
    elif there and there.is_dir():
        trained = find_trained(there, plugins, overrides=overrides)
    else:
        _require_named(run)
        recipe = load_recipe(run, overrides, plugins)
        if arguments.base:
            # The base needs no run.
            return Trained(recipe, None, 0, recipe.output.dir), plugins
        trained = trained_by(recipe)
    return replace(trained, folder=None) if arguments.base else trained, plugins


def _existing(name: str | None) -> Path | None:
    """What is there under a name; None where nothing is, as under a whole question.

    Raises:
        OutputError: It cannot be looked at.
    """
    if name is None:
        return None
    path = Path(name).expanduser()
    try:
        return path if path.exists() else None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise unreadable(error) from error


def _require_named(run: str) -> None:
    """Refuse what is the name neither of a run nor of a recipe.

    Raises:
        RecipeError: Says what is near, or what comes first.
    """
    path = Path(run).expanduser()
    if _existing(run) or path.suffix in (".yaml", ".yml") or run in shipped_recipes():
        return
    if run.endswith("?") or any(c.isspace() for c in run):
        raise RecipeError(f"{run!r} stands where RUN comes, {_WHICH}; a question comes after it")
    runs = [str(each.parent) for each in path.parent.glob("*/run.json")]
    hint = did_you_mean(run, [*runs, *shipped_recipes()])
    raise RecipeError(
        f"{run}: neither the folder of a run nor a recipe; {hint or f'RUN is {_WHICH}'}"
    )


@dataclass(frozen=True, slots=True)
class AskedData:
    """Questions to be answered.

    Attributes:
        questions: As they were read.
        metrics: What answers to them are scored by.
    """

    questions: list[Question]
    metrics: dict[str, Metric]


def asked_data(
    arguments: argparse.Namespace, recipe: Recipe, plugins: Plugins, *, answered: bool = True
) -> AskedData:
    """The questions of `--data`, else those that the recipe holds out.

    Args:
        arguments: Those of `add_data_arguments`.
        recipe: The recipe of the model that is asked.
        plugins: The components at hand.
        answered: Whether the answers are needed; if not, a table may lack their column.

    Raises:
        DataError: There is none, or a row cannot be read.
        RecipeError: An option of the reader is wrong.
    """
    if arguments.data is None:
        if arguments.reader or arguments.option:
            raise RecipeError("--reader and --option are for a file that --data names")
        questions = read_sides(recipe, Counts()).gold
        if not questions:
            raise DataError(
                f"the recipe {recipe.name} holds no question out; name a file with --data"
            )
        return AskedData(questions, built_metrics(recipe.metrics))
    applied = apply_overrides({}, arguments.option)
    problems = list(applied.problems)
    component = found_reader(arguments.data, name=arguments.reader, plugins=plugins)
    options = dict(applied.data)
    if not answered and component.record.config is ColumnsOptions:
        options.setdefault("answer", None)
    reader = reader_of_file(component, arguments.data, options, problems)
    if reader is None or problems:
        raise recipe_error("--option", problems)
    if any(value.path.startswith("evaluation.metrics.") for value in recipe.values()):
        # The recipe names them itself.
        return AskedData(read_gold(reader), built_metrics(recipe.metrics))
    names = reader.record.metrics
    metrics = [metric for metric in recipe.metrics if metric.record.name in names]
    lacking = [name for name in names if name not in [m.record.name for m in metrics]]
    for name in lacking:
        metric = cast("Component[MetricRecord]", plugins.find("metrics", name))
        metrics.append(Chosen(name, metric, metric.record.config()))
    metrics.sort(key=lambda metric: names.index(metric.record.name))
    return AskedData(read_gold(reader), built_metrics(metrics))
