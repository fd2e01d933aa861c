"""`finqa-sft train RECIPE [key.path=value ...]`."""

from __future__ import annotations

import argparse
import signal

from finqa_sft.cli.common import add_recipe_arguments, load_recipe
from finqa_sft.signals import handled, interrupt
from finqa_sft.training.telling import told_to_other_machines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_recipe_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train; a run that a signal ended exits with 128 plus the signal's number."""
    try:
        with handled(signal.SIGTERM, by=interrupt):
            with told_to_other_machines():
                recipe, plugins = load_recipe(arguments)
            from finqa_sft.training.run import train

            outcome = train(recipe, plugins=plugins)
    except KeyboardInterrupt as interruption:
        if interruption.args:
            raise
        text = "before the first step: nothing was written; start again with the same command"
        raise type(interruption)(text) from interruption
    return 128 + outcome.interrupted if outcome.interrupted else 0
