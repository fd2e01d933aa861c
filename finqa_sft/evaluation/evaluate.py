"""An evaluation as a whole: answer all questions, score the answers, write the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finqa_sft import __version__
from finqa_sft.documents import Question
from finqa_sft.errors import OutputError
from finqa_sft.evaluation.answering import Answerer, share
from finqa_sft.evaluation.folder import EvaluationFolder, unreadable
from finqa_sft.evaluation.predictions import Predicted, read_predictions
from finqa_sft.evaluation.processes import gathered
from finqa_sft.evaluation.report import ReportedRun, write_report
from finqa_sft.evaluation.scoring import Evaluation, score_predictions
from finqa_sft.evaluation.store import PredictionStore, digest_of_questions, digest_of_weights
from finqa_sft.evaluation.summary import summary
from finqa_sft.evaluation.trained import fixed_values
from finqa_sft.generation.decoding import Decoding
from finqa_sft.metrics.base import Metric
from finqa_sft.plugins.records import MetricRecord
from finqa_sft.ranks import is_main, rank, world_size
from finqa_sft.recipe import Chosen, Recipe
from finqa_sft.writing import replace_text

SAYS_EVERY = 10.0
"""Seconds between two lines on how far the work is."""

Say = Callable[[str], None]


def built_metrics(chosen: Iterable[Chosen[MetricRecord]]) -> dict[str, Metric]:
    """Metrics by the names that recipes use."""
    return {metric.name: metric.build() for metric in chosen}


def dependencies(
    recipe: Recipe, *, weights: Path | None, decoding: Decoding, questions: Sequence[Question]
) -> dict[str, Any]:
    """What predictions depend on: the model, how it is asked, and about what.

    Args:
        recipe: The recipe that it was trained by.
        weights: The adapter or model; None for the base.
        decoding: How completions are generated.
        questions: All questions.
    """
    return {
        "weights": digest_of_weights(weights),
        "questions": digest_of_questions(questions),
        **{f"decoding.{key}": value for key, value in asdict(decoding).items()},
        **fixed_values(recipe),
    }


def facts(recipe: Recipe, *, result: Path | None, decoding: Decoding) -> dict[str, str]:
    """What a reader of a report wants to know of the model and how it was asked."""
    samples = (
        f"{decoding.samples} samples at temperature {decoding.temperature} and top-p "
        f"{decoding.top_p}; the executed answers vote"
    )
    return {
        "recipe": f"{recipe.name} ({recipe.path})",
        "base": str(recipe.model.options.model_dump().get("base", "")),
        "adapter or model": "the base as it was" if result is None else str(result),
        "formatter": recipe.formatter.record.name,
        "decoding": "greedy" if decoding.samples == 1 else samples,
        "new tokens at most": str(decoding.max_new_tokens),
        "finqa_sft": __version__,
    }


def logged(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; none where there is no such file.

    A line that was not written to its end, as the last one of a killed run, is passed over.

    Raises:
        OutputError: The file cannot be read.
    """
    if not path.is_file():
        return []
    entries: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise unreadable(error) from error
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def answer_into(
    store: PredictionStore,
    answerer: Callable[[], Answerer],
    questions: Sequence[Question],
    *,
    overwrite: bool = False,
    say: Say | None = None,
    way_on: str = "the same command",
) -> dict[str, Predicted]:
    """Answer all questions, those left that were not answered before, and write the file.

    The processes of a launcher share the documents; each must call this.

    Args:
        store: Where predictions go.
        answerer: Makes what answers; not called where nothing is left to answer.
        questions: All questions.
        overwrite: Whether predictions of something else may be replaced.
        say: Is told every few seconds how far the work is.
        way_on: The command that goes on where this is interrupted.

    Raises:
        OutputError: The file cannot be written, or holds predictions of something else.
    """
    with store.open(overwrite=overwrite) as done:
        known = {question.id for question in questions}
        done = {id: predicted for id, predicted in done.items() if id in known}
        # All processes must agree on whether a model is needed.
        done = {one.id: one for one in gathered(list(done.values()))}
        if say and done:
            say(f"{len(done)} of {len(questions)} questions were answered before")
        mine: list[Predicted] = []
        if len(done) < len(questions):
            mine = _answer(store, answerer(), questions, done=done, say=say, way_on=way_on)
        predictions = done | {one.id: one for one in gathered(mine)}
        if is_main():
            store.finish([predictions[question.id] for question in questions])
    return predictions


def _answer(
    store: PredictionStore,
    answerer: Answerer,
    questions: Sequence[Question],
    *,
    done: Mapping[str, Predicted],
    say: Say | None,
    way_on: str,
) -> list[Predicted]:
    """Answer this process's share of what is left."""
    share_of_mine = share(questions, rank=rank(), of=world_size())
    left = sum(question.id not in done for question in share_of_mine)
    began = said = time.monotonic()
    mine: list[Predicted] = []
    try:
        with store.adding() as file:
            for predicted in answerer.answer(share_of_mine, done=done):
                mine.append(predicted)
                store.add(file, predicted)
                now = time.monotonic()
                if say and now - said > SAYS_EVERY and len(mine) < left:
                    said = now
                    # This is the first of a batch, whose others are answered too.
                    ready = min(len(mine) + answerer.at_once - 1, left)
                    seconds = (now - began) / ready * (left - ready)
                    say(f"{ready} of {left} questions answered, {seconds:.0f} s left")
    except KeyboardInterrupt as interruption:
        raise type(interruption)(
            f"{len(done) + len(mine)} of {len(questions)} questions are answered and kept; "
            f"{way_on} goes on from there"
        ) from interruption
    return mine


def write_results(
    folder: EvaluationFolder,
    evaluation: Evaluation,
    *,
    title: str,
    facts: Mapping[str, str],
    log: Sequence[Mapping[str, Any]] = (),
    against: ReportedRun | None = None,
) -> dict[str, Any]:
    """Write scores and report, and give the scores.

    Args:
        folder: Where they go.
        evaluation: What is reported.
        title: Names the run in the report.
        facts: What a reader wants to know of the run, by name.
        log: The lines of the run's `metrics.jsonl`.
        against: Another run to compare with.

    Raises:
        OutputError: A file cannot be written.
    """
    scores = summary(evaluation)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        replace_text(folder.scores, json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise OutputError(
            f"cannot write {folder.scores}: {error.strerror}; make room for it, or name another "
            "folder with --out"
        ) from error
    run = ReportedRun(title=title, evaluation=evaluation, log=log, facts=facts)
    write_report(folder.report, run, against=against)
    return scores


def earlier_predictions(path: Path) -> Mapping[str, Predicted]:
    """Another run's predictions; none where there is no such file.

    Raises:
        DataError: The file is not one of predictions.
    """
    return read_predictions(path).predictions if path.is_file() else {}


def earlier_run(
    found: Mapping[str, Predicted],
    questions: Sequence[Question],
    metrics: Mapping[str, Metric],
    *,
    title: str,
) -> ReportedRun | None:
    """Another run's predictions of the same questions, scored; None where it has none of them.

    Questions that it has no prediction of are left out of it.
    """
    asked = [question for question in questions if question.id in found]
    if not asked:
        return None
    evaluation = score_predictions(asked, found, metrics)
    return ReportedRun(title=title, evaluation=evaluation)
