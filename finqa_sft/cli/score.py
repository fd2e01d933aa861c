"""`finqa-sft score --gold FILE --predictions FILE [--metric NAME] [key=value ...]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from finqa_sft.cli.common import load_plugins, print_below, print_rows
from finqa_sft.cli.sources import found_reader, reader_of_file, with_options
from finqa_sft.documents import Question
from finqa_sft.errors import DataError, OutputError
from finqa_sft.evaluation.gold import read_gold, require_answers
from finqa_sft.evaluation.predictions import PredictionFile, read_predictions
from finqa_sft.evaluation.scoring import Evaluation, Scored, score_predictions
from finqa_sft.evaluation.summary import breakdown_rows, count_rows, metric_rows, summary
from finqa_sft.plugins.manager import Component, Plugins
from finqa_sft.plugins.records import MetricRecord, ReaderRecord
from finqa_sft.recipe.overrides import apply_overrides
from finqa_sft.recipe.problems import Problem, recipe_error
from finqa_sft.recipe.resolved import Chosen
from finqa_sft.writing import replace_text

_METRIC_OPTIONS = "metric"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    parser.add_argument(
        "--gold", type=Path, required=True, metavar="FILE", help="questions with their answers"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON lines with id and answer or program, or FinQA's, ConvFinQA's or TAT-QA's own "
        "format",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="a metric; may be given several times (default: those of the reader)",
    )
    parser.add_argument(
        "--reader", metavar="NAME", help="how to read the gold file (default: as it looks)"
    )
    parser.add_argument(
        "--per-question",
        type=Path,
        metavar="FILE",
        help="write what became of each question, a JSON object a line; replaces the file",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    # Without a default, argparse takes a list that may be empty for a required one.
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="options of the reader, as question=frage, and of metrics, as "
        "metric.answer.tolerance=0.01",
    )


def run(arguments: argparse.Namespace) -> int:
    """Score the predictions and print what came out."""
    target: Path | None = arguments.per_question
    if target is not None:
        _check_target(target, sources=(arguments.gold, arguments.predictions))
    reader, metrics = _chosen(arguments, load_plugins())
    gold = read_gold(reader)
    require_answers(gold)
    file = read_predictions(arguments.predictions)
    _check_ids(gold, file)
    evaluation = score_predictions(
        gold,
        file.predictions,
        {metric.name: metric.build() for metric in metrics},
        duplicates=file.duplicates,
    )
    _check_metrics(evaluation, named=arguments.metric)
    if target is not None:
        _write(target, evaluation)
    numbers = summary(evaluation)
    if arguments.json:
        about = {
            "gold": str(arguments.gold),
            "reader": reader.name,
            "predictions": str(arguments.predictions),
        }
        print(json.dumps({**about, **numbers}, indent=2, ensure_ascii=False))
        return 0
    print_rows(metric_rows(numbers))
    print(f"\nin percent, over all gold questions; intervals: {numbers['interval']}")
    print_below(breakdown_rows(numbers))
    print_below(count_rows(numbers))
    for line in _remarks(evaluation, numbers):
        print(line)
    return 0


def _chosen(
    arguments: argparse.Namespace, plugins: Plugins
) -> tuple[Chosen[ReaderRecord], list[Chosen[MetricRecord]]]:
    """The reader and the metrics, with their options.

    Raises:
        RecipeError: An option is unknown or wrong; all are named.
        PluginError: There is no such reader or metric.
        DataError: The gold file does not look like any reader's.
    """
    applied = apply_overrides({}, arguments.overrides)
    problems = list(applied.problems)
    given = dict(applied.data)
    of_metrics = given.pop(_METRIC_OPTIONS, {})
    component = found_reader(arguments.gold, name=arguments.reader, plugins=plugins)
    reader = reader_of_file(component, arguments.gold, given, problems)
    names = list(dict.fromkeys(arguments.metric)) or list(component.record.metrics)
    metrics: list[Chosen[MetricRecord] | None] = []
    for metric in names:
        found = cast("Component[MetricRecord]", plugins.find("metrics", metric))
        own = of_metrics.get(metric, {}) if isinstance(of_metrics, dict) else {}
        prefix = f"{_METRIC_OPTIONS}.{metric}"
        metrics.append(with_options(metric, found, own, problems, prefix=prefix))
    problems += _stray_options(of_metrics, names)
    if problems:
        raise recipe_error("options", problems)
    return cast("Chosen[ReaderRecord]", reader), [metric for metric in metrics if metric]


def _stray_options(of_metrics: object, names: Sequence[str]) -> Iterator[Problem]:
    """Options of metrics that are not used here."""
    if not isinstance(of_metrics, dict):
        yield Problem(_METRIC_OPTIONS, f"metrics are named by --metric; options: {_example(names)}")
        return
    for name in of_metrics:
        if name not in names:
            there = f"metrics here are {', '.join(names)}"
            yield Problem(f"{_METRIC_OPTIONS}.{name}", f"{there}; write {_example(names)}")


def _example(names: Sequence[str]) -> str:
    return f"{_METRIC_OPTIONS}.{names[0]}.OPTION=VALUE"


def _check_ids(gold: Sequence[Question], file: PredictionFile) -> None:
    """See that the predictions are of these questions.

    Raises:
        DataError: None is.
    """
    if not any(question.id in file.predictions for question in gold):
        id = next(iter(file.predictions))
        raise DataError(
            f"no prediction is of a gold question: a prediction's id is {id!r}, a question's "
            f"{gold[0].id!r}; use the ids of the gold file"
        )


def _check_metrics(evaluation: Evaluation, *, named: Sequence[str]) -> None:
    """See that metrics apply to anything: those that were asked for each, else any.

    Raises:
        DataError: They do not.
    """
    used = {name for one in evaluation.scored for name in one.scores}
    idle = [name for name in named if name not in used]
    if idle or not used:
        names = ", ".join(idle or evaluation.figures)
        raise DataError(
            f"{names} applies to none of the {len(evaluation.scored)} gold questions; leave out "
            "--metric for those that fit, or name another one"
        )


def _remarks(evaluation: Evaluation, numbers: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the table should see besides: ids that do not fit, notes of metrics."""
    missing = [one.question.id for one in evaluation.scored if one.predicted is None]
    for what, ids in (
        ("question without a prediction", missing),
        ("prediction without a question", evaluation.extra),
        ("prediction that stands twice; the first one counts", evaluation.duplicates),
    ):
        if ids:
            yield f"first {what}: {ids[0]}"
    for metric, notes in numbers["notes"].items():
        if notes["n"]:
            noted = "1 note" if notes["n"] == 1 else f"{notes['n']:,} notes, the first of them"
            yield f"{metric}: {noted}:"
            yield from (f"  {note['id']}: {note['note']}" for note in notes["first"])


def _check_target(target: Path, *, sources: Sequence[Path]) -> None:
    """See that what is written replaces nothing that is read, and no folder or device.

    Raises:
        OutputError: It would, or there can be no such file.
    """
    try:
        if target.is_dir():
            raise OutputError(f"{target} is a folder; name a file with --per-question")
        if target.exists() and not target.is_file():
            raise OutputError(f"{target} is a pipe or device; name a file with --per-question")
    except OSError as error:
        raise _unwritable(target, error) from error
    if target.resolve() in [source.resolve() for source in sources]:
        raise OutputError(f"{target} is read here; name another file with --per-question")


def _write(target: Path, evaluation: Evaluation) -> None:
    """Write one line a question, all at once.

    Raises:
        OutputError: The file cannot be written.
    """
    lines = [json.dumps(_row(one), ensure_ascii=False) + "\n" for one in evaluation.scored]
    try:
        replace_text(target, "".join(lines))
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {target}: {error.strerror}; name a file in a folder that can be written"
    )


def _row(scored: Scored) -> dict[str, Any]:
    """What became of a question, as plain values."""
    verdict = scored.verdict
    return {
        "id": scored.question.id,
        "figures": {
            name: {figure: float(value) for figure, value in score.figures.items()}
            for name, score in scored.scores.items()
        },
        "right": verdict.right,
        "fault": verdict.fault.value if verdict.fault else None,
        "why": verdict.why,
        "computed": verdict.computed,
        "expected": verdict.expected,
    }
