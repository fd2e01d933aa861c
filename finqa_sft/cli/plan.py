"""`finqa-sft plan RECIPE [--gpu NAME --gpus N] [--json] [key.path=value ...]`."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from finqa_sft.cli.common import (
    add_recipe_arguments,
    load_recipe,
    positive,
    print_below,
    print_rows,
    tell,
)
from finqa_sft.models.memory import size
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.planning.fit import MOST
from finqa_sft.planning.gpus import Gpu, find_gpu
from finqa_sft.preparation.rows import SIZE_KEYS
from finqa_sft.signals import handled, interrupt

if TYPE_CHECKING:
    from finqa_sft.planning.plan import Plan, Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--gpu", metavar="NAME", help="a GPU to plan for (default: common ones)")
    parser.add_argument(
        "--gpus", type=positive, default=1, metavar="N", help="GPUs that train together"
    )
    parser.add_argument(
        "--tokens-per-second",
        type=positive,
        metavar="X",
        help="what all GPUs together compute, to tell the time",
    )
    parser.add_argument(
        "--like", type=Path, metavar="RUN", help="a finished run, which was as fast as this will be"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print what the recipe needs."""
    gpu = find_gpu(arguments.gpu) if arguments.gpu is not None else None
    with handled(signal.SIGTERM, by=interrupt):
        recipe, _ = load_recipe(arguments)
        quiet_libraries()
        from finqa_sft.planning.epoch import Throughput, measured_throughput
        from finqa_sft.planning.plan import plan_recipe

        throughput = measured_throughput(arguments.like) if arguments.like else None
        if arguments.tokens_per_second:
            throughput = Throughput(arguments.tokens_per_second, "stated")
        plan = plan_recipe(recipe, gpu=gpu, gpus=arguments.gpus, throughput=throughput, say=tell)
    if arguments.json:
        print(json.dumps(plan.record(), indent=2, ensure_ascii=False))
        return 0
    print_rows(_facts(plan))
    print_below(_memory(plan))
    print_below(_notes(plan))
    print(
        f"\nwhat fits, with the largest {SIZE_KEYS[plan.request.rows.kind]} that does in brackets"
    )
    print_rows(_gpus(plan))
    print_below(_changes(plan, gpu))
    print_below(_epoch(plan))
    return 0


def _facts(plan: Plan) -> Iterator[Sequence[str]]:
    """What is planned for."""
    request, trainer = plan.request, plan.request.trainer
    yield (
        "base",
        f"{request.factory.options.base}: {plan.setting.bones.parameters:,} parameters, "
        f"{plan.trained_parameters:,} trained",
    )
    rows = request.rows
    yield "batch", f"{_sized(plan, rows.size)}, rows of at most {rows.longest:,} tokens"
    shares = request.shares
    paths = f", paths {shares.paths:.1f} times the tokens" if rows.kind == "shared_context" else ""
    yield (
        "",
        f"{'at most ' if shares.source == 'data' else ''}{shares.supervised:.1%} supervised{paths} "
        f"({'counted in the data' if shares.source == 'data' else 'assumed'})",
    )
    checkpointing = "with" if trainer.gradient_checkpointing else "without"
    yield "training", f"{trainer.optim}, {checkpointing} gradient checkpointing"


def _sized(plan: Plan, count: int) -> str:
    """The size of a batch in words."""
    if plan.request.rows.kind == "shared_context":
        return f"{count:,} tokens"
    return f"{count:,} row{'s' if count != 1 else ''} ({plan.request.rows.tokens(count):,} tokens)"


def _memory(plan: Plan) -> Iterator[Sequence[str]]:
    """Memory of a process by part, a division a column."""
    needs = [column.need for column in plan.columns.values()]

    def row(name: str, values: Sequence[int | None]) -> tuple[str, ...]:
        return (name, *("-" if value is None else size(value) for value in values))

    def parts(found: Sequence[dict[str, int]], total: str = "") -> Iterator[tuple[str, ...]]:
        for name in dict.fromkeys(name for one in found for name in one):
            values = [one.get(name, 0) for one in found]
            if any(values):
                yield row(name, [value or None for value in values])
        if total:
            yield row(total, [sum(one.values()) or None for one in found])

    yield ("memory of a GPU", *plan.columns)
    yield from parts([need.kept if need else {} for need in needs], "= stays")
    yield from parts([need.backward if need else {} for need in needs], "= on top, in a pass")
    yield from parts([need.step if need else {} for need in needs], "= or on top, in a step")
    yield row("while it is loaded", [need.loading if need else None for need in needs])
    totals = [column.total or None for column in plan.columns.values()]
    yield row(
        "allowed for (assumed)",
        [
            total - need.peak if need and total else None
            for need, total in zip(needs, totals, strict=True)
        ],
    )
    yield row("= in all", totals)
    turned = "without" if plan.request.trainer.gradient_checkpointing else "with"
    others = [column.turned for column in plan.columns.values()]
    activations = [need.backward["activations"] if need else None for need in others]
    yield row(f"activations {turned} gradient checkpointing", activations)
    others_in_all = [column.turned_total or None for column in plan.columns.values()]
    yield row(f"= in all {turned} gradient checkpointing", others_in_all)
    hosts = [need.host if need else {} for need in needs]
    if any(hosts):
        yield row("memory of the host", [sum(host.values()) or None for host in hosts])


def _notes(plan: Plan) -> Iterator[Sequence[str]]:
    """What is not in the numbers, and what they are worth."""
    for name, column in plan.columns.items():
        if column.why_not:
            yield f"not {name}", column.why_not
    needs = [column.need for column in plan.columns.values() if column.need]
    unknown = {what for need in needs for what in need.unknown}
    for what in [*sorted(unknown), *plan.notes]:
        yield "not counted", what
    yield "accuracy on GPUs", "not measured"


def _gpus(plan: Plan) -> Iterator[Sequence[str]]:
    """What fits where, and the largest batch with which it does."""
    names = list(plan.columns)
    yield ("GPU", "memory", *names, "")
    for gpu, verdicts in plan.verdicts.items():
        said = {verdict.only_with for verdict in verdicts.values() if verdict.only_with}
        fits = any(verdict.fits or verdict.longest for verdict in verdicts.values())
        yield (
            gpu,
            size(find_gpu(gpu).memory),
            *(_verdict(plan, verdicts[name]) for name in names),
            f"fits only with {', '.join(said)}" if said and fits else "",
        )


def _verdict(plan: Plan, verdict: Verdict) -> str:
    """Whether it fits, in a cell."""
    if verdict.why_not:
        return "no"
    if not verdict.longest:
        return "no (0)"
    most = plan.request.rows.tokens(verdict.longest) >= MOST
    return f"{'yes' if verdict.fits else 'no'} ({'at least ' if most else ''}{verdict.longest:,})"


def _changes(plan: Plan, gpu: Gpu | None) -> Iterator[Sequence[str]]:
    """What to change where it does not fit on the GPU that was named."""
    if gpu is None:
        return
    name, verdict = next(iter(plan.verdicts[gpu.name].items()))
    if verdict.fits:
        return
    if verdict.why_not:
        yield f"not on {gpu.name}", verdict.why_not
        return
    yield f"does not fit on {gpu.name} ({name}); what to change", "in all", ""
    for change in plan.changes:
        yield change.keys, size(change.total), "fits" if change.fits else "less, and still too much"
    if not any(change.fits for change in plan.changes):
        yield "a smaller base, or more and larger GPUs", "", ""


def _epoch(plan: Plan) -> Iterator[Sequence[str]]:
    """Tokens, steps and time."""
    epoch = plan.epoch
    if isinstance(epoch, str):
        yield "epoch", f"not counted: {epoch}"
    else:
        layout, batches = epoch.layout, epoch.batches
        yield "epoch", f"{layout.questions:,} questions, {layout.tokens:,} tokens"
        yield (
            "",
            f"{batches.rows:,} rows, longest {epoch.longest:,}; {batches.rows_a_step} a step, "
            f"{batches.steps_an_epoch:,} steps",
        )
        yield "run", f"{batches.steps:,} steps, {round(epoch.tokens):,} tokens"
    yield "time", _time(plan)


def _time(plan: Plan) -> str:
    """How long it takes, by a throughput that somebody stated or measured."""
    if plan.throughput is None:
        return "state --tokens-per-second, or --like RUN"
    speed = f"{plan.throughput.tokens_per_second:,.0f} tokens a second, {plan.throughput.source}"
    if plan.seconds is None:
        return f"not known, as the tokens are not; {speed}"
    epoch, run = (timedelta(seconds=round(seconds)) for seconds in plan.seconds)
    return f"{epoch} an epoch, {run} in all, at {speed}"
