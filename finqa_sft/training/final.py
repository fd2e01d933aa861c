"""The end of a run: all held-out questions are asked, and a report is written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from finqa_sft.documents import Question
from finqa_sft.evaluation.answering import Answerer
from finqa_sft.evaluation.evaluate import (
    answer_into,
    dependencies,
    earlier_predictions,
    earlier_run,
    facts,
    logged,
    write_results,
)
from finqa_sft.evaluation.scoring import score_predictions
from finqa_sft.evaluation.store import PredictionStore
from finqa_sft.evaluation.summary import metric_rows
from finqa_sft.metrics.base import Metric
from finqa_sft.ranks import is_main
from finqa_sft.recipe import Recipe
from finqa_sft.training.announce import scores
from finqa_sft.training.folder import RunFolder
from finqa_sft.training.record import RunRecord
from finqa_sft.training.scores import AnswerScores


def evaluate_result(
    recipe: Recipe,
    questions: Sequence[Question],
    metrics: Mapping[str, Metric],
    answerer: Answerer,
    *,
    watcher: AnswerScores,
    folder: RunFolder,
    result: Path,
    record: RunRecord,
    console: Console,
) -> None:
    """Ask what was trained all held-out questions, and leave predictions, scores and a report.

    Args:
        recipe: The run's recipe.
        questions: All held-out questions, as they were read.
        metrics: What answers are scored by.
        answerer: Asks the model at hand.
        watcher: Holds whole weights in each process.
        folder: The run's folder.
        result: The saved adapter or model.
        record: Takes the scores.
        console: Is told how far it is, and what came out.
    """
    target = folder.evaluation
    store = PredictionStore(
        target.predictions,
        dependencies(recipe, weights=result, decoding=answerer.decoding, questions=questions),
    )
    console.print(f"asking all {len(questions)} held-out questions")
    with watcher.whole_model():
        predictions = answer_into(
            store,
            lambda: answerer,
            questions,
            overwrite=True,
            say=console.print,
            way_on=f"finqa-sft evaluate {shlex.quote(str(folder.path))}",
        )
    if not is_main():
        return
    evaluation = score_predictions(questions, predictions, metrics)
    found = write_results(
        target,
        evaluation,
        title=recipe.name,
        facts=facts(recipe, result=result, decoding=answerer.decoding),
        log=logged(folder.metrics),
        against=earlier_run(
            earlier_predictions(target.before), questions, metrics, title="before training"
        ),
    )
    record.evaluated(found)
    scores(console, metric_rows(found), report=target.report)
