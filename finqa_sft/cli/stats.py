"""`finqa-sft stats RECIPE [--json] [key.path=value ...]`."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from finqa_sft.cli.common import add_recipe_arguments, load_recipe, print_rows
from finqa_sft.collators.shared_context import SharedContextOptions
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.preparation.prepare import prepared_recipe
from finqa_sft.preparation.statistics import data_statistics
from finqa_sft.signals import handled, interrupt

SIDES = ("training", "held_out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print what the data is like in numbers."""
    with handled(signal.SIGTERM, by=interrupt):
        recipe, _ = load_recipe(arguments)
        quiet_libraries()
        prepared = prepared_recipe(recipe)
        options = recipe.collator.options
        at_most = options.tokens_per_batch if isinstance(options, SharedContextOptions) else None
        with recipe.formatter.component.blamed():
            numbers = data_statistics(
                prepared.data,
                encoder=prepared.encoder,
                formatter=prepared.formatter,
                tokens_per_batch=at_most,
            )
    if arguments.json:
        print(json.dumps(numbers, indent=2, ensure_ascii=False))
        return 0
    sides = [name for name in SIDES if any(numbers[name]["fates"].values())]
    print_rows(_rows_of_sides(numbers, sides))
    print("\nboth sides")
    print_rows(_rows_of_both(numbers))
    return 0


def _rows_of_sides(numbers: dict[str, Any], sides: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """What each side has of its own: a side a column."""

    def row(what: str, *keys: str, form: str = "{:,}") -> tuple[str, ...]:
        found = []
        for side in sides:
            value: Any = numbers[side]
            for key in keys:
                value = value[key]
            found.append(form.format(value))
        return (what, *found)

    yield ("", *(side.replace("_", " ") for side in sides))
    yield row("documents", "documents")
    yield row("questions", "questions")
    if any(numbers[side]["repeated"] for side in sides):
        yield row("of these, repeated by a weight", "repeated")
    yield row("questions a document, mean", "questions_a_document", "mean", form="{:.1f}")
    yield row("questions a document, max", "questions_a_document", "max")
    for part in ("row", "document", "question", "completion"):
        for quantile in ("p50", "p95", "max"):
            yield row(f"tokens of a {part}, {quantile}", "lengths", part, quantile)
    yield row("supervised share", "supervised_share", form="{:.1%}")
    yield row("tokens an epoch, one row a question", "tokens_an_epoch", "one_row_a_question")
    yield row("tokens an epoch, one row a document", "tokens_an_epoch", "one_row_a_document")
    yield row("ratio of the two", "tokens_an_epoch", "ratio", form="{:.2f}")
    for fate in dict.fromkeys(fate for side in sides for fate in numbers[side]["fates"]):
        yield (fate, *(f"{numbers[side]['fates'].get(fate, 0):,}" for side in sides))


def _rows_of_both(numbers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is counted before the data is divided, or of both sides together."""
    dropped = {fate for side in SIDES for fate in numbers[side]["fates"]}
    for what in ("read", "left_out", "cleaned", "changed", "noticed"):
        for reason, n in numbers[what].items():
            if what != "left_out" or f"dropped: {reason}" not in dropped:
                yield f"{what.replace('_', ' ')}: {reason}", f"{n:,}"
