"""`finqa-sft predict RUN --out FILE [--data FILE] [key.path=value ...]`."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from finqa_sft.cli.common import tell
from finqa_sft.cli.trained import (
    add_data_arguments,
    add_trained_arguments,
    asked_data,
    chosen_trained,
)
from finqa_sft.evaluation.answering import decoding_of
from finqa_sft.evaluation.evaluate import answer_into, dependencies
from finqa_sft.evaluation.processes import joined
from finqa_sft.evaluation.store import PredictionStore
from finqa_sft.evaluation.trained import load_answerer
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.preparation.report import number
from finqa_sft.ranks import is_main
from finqa_sft.signals import handled, interrupt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_trained_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="where predictions go, as JSON lines",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace predictions of another model or setting"
    )


def run(arguments: argparse.Namespace) -> int:
    """Answer questions; a file that was interrupted goes on where it was."""
    with handled(signal.SIGTERM, by=interrupt):
        trained, plugins = chosen_trained(arguments)
        quiet_libraries()
        joined()
        questions = asked_data(arguments, trained.recipe, plugins, answered=False).questions
        decoding = decoding_of(trained.recipe, longest_answer=trained.longest_answer)
        store = PredictionStore(
            arguments.out,
            dependencies(
                trained.recipe, weights=trained.folder, decoding=decoding, questions=questions
            ),
        )
        predictions = answer_into(
            store,
            lambda: load_answerer(trained),
            questions,
            overwrite=arguments.overwrite,
            say=tell,
        )
    if is_main():
        problems = sum(bool(predicted.problem) for predicted in predictions.values())
        more = f"; {number(problems, 'question')} did not fit: no answer" if problems else ""
        print(f"{number(len(predictions), 'prediction')} in {arguments.out}{more}")
    return 0
