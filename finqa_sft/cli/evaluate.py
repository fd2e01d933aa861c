"""`finqa-sft evaluate RUN [--out DIR] [--against DIR] [--json] [key.path=value ...]`."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

from finqa_sft.cli.common import print_below, print_rows, tell
from finqa_sft.cli.trained import (
    add_data_arguments,
    add_trained_arguments,
    asked_data,
    chosen_trained,
)
from finqa_sft.errors import DataError
from finqa_sft.evaluation.answering import decoding_of
from finqa_sft.evaluation.evaluate import (
    answer_into,
    dependencies,
    earlier_predictions,
    earlier_run,
    facts,
    logged,
    write_results,
)
from finqa_sft.evaluation.folder import EvaluationFolder, predictions_in
from finqa_sft.evaluation.gold import require_answers
from finqa_sft.evaluation.processes import joined
from finqa_sft.evaluation.scoring import score_predictions
from finqa_sft.evaluation.store import PredictionStore
from finqa_sft.evaluation.summary import breakdown_rows, count_rows, metric_rows
from finqa_sft.evaluation.trained import load_answerer
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.ranks import is_main
from finqa_sft.signals import handled, interrupt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_trained_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where results go; RUN/evaluation if left out"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="DIR",
        help="another run, evaluation or file of predictions to compare with; what the base "
        "answered before the training if left out",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results of another model or setting"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Answer the held-out questions, score the answers and write a report."""
    with handled(signal.SIGTERM, by=interrupt):
        trained, plugins = chosen_trained(arguments)
        recipe, run = trained.recipe, trained.run
        against = predictions_in(arguments.against) if arguments.against else None
        quiet_libraries()
        joined()
        data = asked_data(arguments, recipe, plugins)
        questions = data.questions
        require_answers(questions)
        name = "evaluation" if trained.folder else "evaluation-base"
        folder = EvaluationFolder(arguments.out or (run or Path()) / name)
        before = EvaluationFolder((run or Path()) / "evaluation").before
        # Before the work, which a file that is none of predictions would make useless.
        earlier = earlier_predictions(against or before)
        if against and not any(question.id in earlier for question in questions):
            raise DataError(
                f"{against} has no prediction of a question that is asked here; name predictions "
                "of the same questions"
            )
        decoding = decoding_of(recipe, longest_answer=trained.longest_answer)
        needs = dependencies(recipe, weights=trained.folder, decoding=decoding, questions=questions)
        predictions = answer_into(
            PredictionStore(folder.predictions, needs),
            lambda: load_answerer(trained),
            questions,
            overwrite=arguments.overwrite,
            say=tell,
        )
        if not is_main():
            return 0
        found = write_results(
            folder,
            score_predictions(questions, predictions, data.metrics),
            title=recipe.name if trained.folder else f"{recipe.name}, the base alone",
            facts=facts(recipe, result=trained.folder, decoding=decoding),
            log=logged(run / "metrics.jsonl") if run and trained.folder else (),
            against=earlier_run(
                earlier,
                questions,
                data.metrics,
                title=str(arguments.against or "before training"),
            ),
        )
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    print_rows(metric_rows(found))
    print_below(breakdown_rows(found))
    print_below([*count_rows(found), ("report", str(folder.report))])
    return 0
