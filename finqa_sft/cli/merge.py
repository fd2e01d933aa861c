"""`finqa-sft merge RUN --out DIR [--weights original|dequantised] [--dtype bfloat16|float32]`."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from finqa_sft.cli.common import print_rows, tell
from finqa_sft.cli.trained import chosen_trained
from finqa_sft.encoding import Encoder
from finqa_sft.errors import ModelError
from finqa_sft.evaluation.sample import sample_prompts
from finqa_sft.models.memory import size
from finqa_sft.models.merging.plan import MergedDtype, MergePlan, Weights
from finqa_sft.models.merging.verification import Measured, Nearness, Verifier
from finqa_sft.models.merging.writing import full_disk_told, new_folder, require_new, write_model
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.preparation.report import number
from finqa_sft.signals import handled, interrupt
from finqa_sft.training.merged import (
    Mergeable,
    described_weights,
    mergeable,
    write_asking_card,
    write_model_card,
)

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]B)", re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="the folder of a run, as runs/NAME, or the recipe that it was trained by",
    )
    parser.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="the folder of an adapter or a checkpoint, in place of RUN",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="where the model goes: a new folder, or an empty one",
    )
    parser.add_argument(
        "--weights",
        choices=get_args(Weights),
        help="over the base's own weights, or over the quantised ones that the adapter was trained "
        "beside (default: dequantised where the base was quantised, which is the nearer)",
    )
    parser.add_argument(
        "--dtype",
        choices=get_args(MergedDtype),
        default="bfloat16",
        help="what the weights are stored in (default: bfloat16)",
    )
    parser.add_argument(
        "--max-shard-size",
        type=_bytes,
        default="5GB",
        metavar="SIZE",
        help="most bytes of a weight file, as 500MB or 5GB (default: 5GB); so much is in memory",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="do not load base, adapter and merged model to compare what they say",
    )
    # Without a default, argparse takes a list that may be empty for a required one.
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key.path=value",
        help="replace values of the run's recipe, as model.base where the base was moved",
    )
    parser.set_defaults(base=False)


def run(arguments: argparse.Namespace) -> int:
    """Merge, write and verify."""
    with handled(signal.SIGTERM, by=interrupt):
        trained, _ = chosen_trained(arguments)
        adapter = mergeable(trained)
        quiet_libraries()
        factory, out = adapter.factory, arguments.out
        weights = _weights(arguments.weights, adapter)
        require_new(out, needed=0)
        plan = MergePlan(
            factory,
            adapter.folder,
            weights=weights,
            dtype=arguments.dtype,
            trained_in=adapter.trained_in,
        )
        require_new(out, needed=plan.size)
        tokenizer = factory.load_tokenizer()
        # Gives the tokenizer the chat template of the training.
        encoder = Encoder(tokenizer)
        verifier, prompts = None, []
        if not arguments.no_verify:
            verifier = Verifier(plan)
            verifier.check()
            prompts = sample_prompts(trained.recipe, encoder)
        try:
            with new_folder(out) as folder:
                files = write_model(plan, folder, max_shard_size=arguments.max_shard_size, say=tell)
                with full_disk_told(out):
                    tokenizer.save_pretrained(folder)
                write_asking_card(trained, folder, out=out, dtype=arguments.dtype)
                write_model_card(folder, trained=trained, adapter=adapter, plan=plan, measured=None)
        except KeyboardInterrupt as interruption:
            text = f"before {out} was whole: nothing of it is left; start again with that command"
            raise type(interruption)(text) from interruption
        print_rows(_made(adapter, plan, files=files, out=out))
        if verifier is None:
            print_rows([("verified", "no")])
            return 0
        try:
            measured = verifier.measure(out, prompts, say=tell)
        except KeyboardInterrupt as interruption:
            text = f"{out} is whole, and was not verified"
            raise type(interruption)(text) from interruption
        write_model_card(out, trained=trained, adapter=adapter, plan=plan, measured=measured)
    print_rows(_found(measured))
    if complaint := measured.merged.complaint(measured.tolerance):
        raise ModelError(
            f"{out} does not say what the base with its adapter says: {complaint}. It is kept; "
            f"{_remedy(arguments.dtype)}"
        )
    return 0


def _bytes(text: str) -> int:
    """A size in the units that other tools split by.

    Raises:
        ArgumentTypeError: The text is none.
    """
    found = _SIZE.fullmatch(text.strip())
    count = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if not count:
        raise argparse.ArgumentTypeError(f"expected a size such as 500MB or 5GB, not {text!r}")
    return count


def _weights(wanted: Weights | None, adapter: Mergeable) -> Weights:
    """Over which weights; by themselves, the nearer to what was trained.

    Raises:
        ModelError: The base was not quantised.
    """
    quantised = adapter.factory.quantised
    if wanted == "dequantised" and not quantised:
        raise ModelError(
            "--weights dequantised is for runs on a quantised base, and the base of this one was "
            "not; leave --weights out"
        )
    return wanted or ("dequantised" if quantised else "original")


def _remedy(dtype: MergedDtype) -> str:
    if dtype == "bfloat16":
        return "bfloat16 may round away what the adapter changes: merge with --dtype float32"
    return "base or adapter may have changed meanwhile: merge again"


def _made(
    adapter: Mergeable, plan: MergePlan, *, files: int, out: Path
) -> Iterator[tuple[str, str]]:
    """What was written, for a person."""
    described = adapter.factory.described()
    yield "base", adapter.factory.base.name
    yield "adapter", f"{described['adapter']}, in {number(len(plan.adapter.layers), 'layer')}"
    if plan.adapter.whole:
        yield "trained whole", ", ".join(plan.adapter.whole)
    yield "weights", described_weights(plan.weights, adapter)
    if plan.weights == "dequantised":
        yield from _quantised(adapter)
    yield "model", f"{out}: {size(plan.size)} in {plan.dtype}, {number(files, 'weight file')}"


def _quantised(adapter: Mergeable) -> Iterator[tuple[str, str]]:
    """What is not certain of the quantised weights."""
    here = str(adapter.factory.device)
    if not adapter.where:
        yield (
            "quantised",
            f"from {adapter.trained_in}; no run.json says so: set model.compute_dtype if it was "
            "another",
        )
    elif adapter.where != here:
        yield (
            "quantised",
            f"from {adapter.trained_in}, here on {here}, in the run on {adapter.where}; whether "
            "both give the same codes was not measured",
        )


def _found(measured: Measured) -> Iterator[tuple[str, str]]:
    """What the verification found, for a person."""
    near, tolerance = measured.merged, measured.tolerance
    yield (
        "verified",
        f"{number(measured.prompts, 'prompt')} on generated pages, {near.tokens} tokens, products "
        f"in {measured.computed_in}",
    )
    against = "base with adapter"
    yield (
        against,
        f"deviation {_percent(near.deviation)}, where rounding explains "
        f"{_percent(tolerance.deviation)}; {_effect(near.kept)}",
    )
    yield "", _in_probabilities(near)
    if (trained := measured.trained) is not None:
        yield "as trained", f"deviation {_percent(trained.deviation)}, {_effect(trained.kept)}"
        yield "", _in_probabilities(trained)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"


def _effect(kept: float | None) -> str:
    return "the adapter changes nothing" if kept is None else f"{kept:.1%} of the adapter's effect"


def _in_probabilities(near: Nearness) -> str:
    return (
        f"KL {near.divergence:.2g} nats a token, same most likely token {near.agreement:.1%}, "
        f"largest difference of a logit {near.largest:.2g}"
    )
