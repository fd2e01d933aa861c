"""What a run says before its first step: everything that was resolved, and why."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finqa_sft import __version__
from finqa_sft.documents import Question
from finqa_sft.encoding import Encoder
from finqa_sft.models.devices import is_fsdp
from finqa_sft.models.measured import compared
from finqa_sft.preparation import PreparedData
from finqa_sft.preparation.batches import Batches, Layout
from finqa_sft.preparation.report import (
    LEARNT_IS,
    count_lines,
    is_coloured,
    number,
    row_text,
    shortened,
)
from finqa_sft.recipe import Chosen, Recipe
from finqa_sft.recipe.scored import BEST
from finqa_sft.recipe.written import overridden_values, written_override
from finqa_sft.training.distributed import Distributed
from finqa_sft.training.folder import RunFolder

if TYPE_CHECKING:
    from transformers import TrainerState
    from trl.trainer.sft_config import SFTConfig

WORTH_IT = 1.15
"""Below this many times fewer tokens, rows without padding do as well as shared context."""

PREVIEWED_ROWS = 2
PREVIEWED_CHARACTERS = 700


def recipe(console: Console, recipe: Recipe) -> None:
    """Name the recipe and its components with their providers."""
    title = (f"finqa_sft {__version__}", "bold")
    console.print(Text.assemble(title, f"  recipe {recipe.name} ({recipe.path})"))
    table = Table.grid(padding=(0, 2))
    chosen: list[tuple[str, Chosen[Any]]] = [
        ("model factory", recipe.model),
        *(("reader", source) for source in recipe.sources),
        *(("reader, held out", source) for source in recipe.evaluation_sources),
        ("formatter", recipe.formatter),
        ("collator", recipe.collator),
        *(("callback", callback) for callback in recipe.callbacks),
        *(("metric", metric) for metric in recipe.metrics),
    ]
    for kind, choice in chosen:
        # As text: a path may hold what rich takes for markup.
        table.add_row(f"  {kind}", choice.record.name, Text(str(choice.component.provider)))
    console.print(table)
    needs = dict(recipe.collator.record.sft_args)
    if recipe.collator.record.attn_implementation:
        needs["attention"] = recipe.collator.record.attn_implementation
    _line(console, "collator needs", ", ".join(f"{k}={v}" for k, v in needs.items()) or "nothing")


def data(console: Console, data: PreparedData, *, encoder: Encoder) -> None:
    """Count the data by reason, and show the first rows with what is supervised."""
    for name, part in (("training", data.training), ("held out", data.held_out)):
        s = part.summary
        if s["questions"]:
            _line(
                console,
                name,
                f"{number(s['questions'], 'question')} on {number(s['documents'], 'document')}, "
                f"{s['tokens']} tokens "
                f"(longest row {s['longest']}), {s['supervised_share']:.1%} supervised",
            )
    for word, text in count_lines(data.counts):
        _line(console, word, text)
    for note in encoder.notes:
        _line(console, "encoding", note)
    coloured = is_coloured(console)
    for place, example in enumerate(islice(data.training.examples, PREVIEWED_ROWS), start=1):
        _line(console, f"row {place}", f"what is learnt {LEARNT_IS[coloured]}")
        shown = shortened(row_text(example, encoder, coloured=coloured), PREVIEWED_CHARACTERS)
        for line in shown.split("\n", allow_blank=True):
            console.print(Text.assemble("  ", line))


def askable(console: Console, questions: Sequence[Question], args: SFTConfig) -> Sequence[Question]:
    """The questions that the run itself can ask: none where FSDP divides the model.

    Each process generates answers of its own, as many as it has; under FSDP every step of every
    process needs the parts of all others.
    """
    if not questions or not is_fsdp(args):
        return questions
    _line(
        console,
        "not asked",
        "under FSDP the run asks no questions; `finqa-sft evaluate` does when it has ended",
    )
    return ()


def batches(console: Console, b: Batches) -> None:
    """Spell the batch arithmetic out."""
    _line(
        console,
        "batches",
        f"{number(b.per_device, 'row')} × {b.accumulation} accumulated × {b.processes} "
        f"process{'es' if b.processes != 1 else ''} = {number(b.rows_a_step, 'row')} a step; "
        f"{b.steps_an_epoch} steps an epoch, {b.steps} in all",
    )


def layout(console: Console, of: Layout, *, is_arranged: bool) -> None:
    """Say what an optimizer step learns from, and what sharing documents saves.

    Args:
        console: Where to say it.
        of: The layout.
        is_arranged: Whether the collator made other rows of the questions.
    """
    _line(
        console,
        "a step",
        f"{of.questions_a_step:.1f} questions with {of.supervised_a_step:.0f} supervised tokens in "
        "the mean",
    )
    if not is_arranged:
        return
    _line(
        console,
        "an epoch",
        f"{of.tokens} tokens, "
        + (
            f"{of.token_ratio:.2f} times fewer than the {of.tokens_apart} of one row a question"
            if of.tokens != of.tokens_apart
            else "as many as one row a question has"
        ),
    )
    if of.token_ratio < WORTH_IT:
        _line(console, "", "the collator flattened is as good for questions with little in common")


def checked(console: Console, measured: Mapping[str, Any]) -> None:
    """Say what the collator's check of the model found."""
    if measured:
        facts = (f"{name.replace('_', ' ')} {_short(value)}" for name, value in measured.items())
        _line(console, "collator checked", ", ".join(facts))


def model(console: Console, described: dict[str, Any]) -> None:
    """Say what the model factory made."""
    for key, value in described.items():
        _line(console, key.replace("_", " "), str(value))


def distributed(console: Console, shared: Distributed) -> None:
    """Say what shares the run out, as the trainer's accelerator has it."""
    _line(console, "processes", str(shared))


def memory(console: Console, found: Mapping[str, Any]) -> None:
    """Say what training held in memory, beside what was predicted."""
    _line(console, "memory", compared(found))


def result(
    console: Console,
    state: TrainerState,
    recipe: Recipe,
    *,
    folder: RunFolder,
    result: Path,
    stopped: bool,
    is_best: bool,
) -> None:
    """Say how the run ended, where things are, and what can be done next.

    Args:
        console: Where to say it.
        state: What the trainer knows at the end.
        recipe: The run's recipe.
        folder: The run's folder.
        result: What was trained.
        stopped: Whether a signal ended the run.
        is_best: Whether the result is that of the best checkpoint.
    """
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    if losses:
        _line(console, "loss", f"{losses[0]:.4f} at first, {losses[-1]:.4f} at last")
    if state.best_model_checkpoint and state.best_metric is not None:
        best = Path(state.best_model_checkpoint).name
        _line(
            console,
            "best",
            f"{best}, {recipe.trainer.get(BEST, 'eval_loss')} {state.best_metric:.4f}"
            + ("; the result is taken from it" if is_best else ""),
        )
    _places(console, folder=folder, result=result)
    if not stopped and state.global_step < state.max_steps:
        _line(console, "ended early", f"after step {state.global_step} of {state.max_steps}")
    if stopped and state.global_step >= state.max_steps:
        _nothing_left(console, steps=state.max_steps)
    elif stopped:
        _line(
            console,
            "stopped",
            f"after step {state.global_step} of {state.max_steps}; go on with: "
            f"{_resuming_command(recipe, folder)}",
        )


def scores(console: Console, rows: Iterable[Sequence[str]], *, report: Path) -> None:
    """Print the figures of the answers, and where the report is."""
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row("", *row)
    console.print(table)
    _line(console, "report", str(report))


def finished(
    console: Console, *, folder: RunFolder, result: Path, steps: int, is_scored: bool
) -> None:
    """Say that a resumed run had no step left, and where things are.

    Args:
        console: Where to say it.
        folder: The run's folder.
        result: What was trained.
        steps: All steps of the run.
        is_scored: Whether the run ends with scores.
    """
    _places(console, folder=folder, result=result)
    _nothing_left(console, steps=steps)
    if is_scored and not folder.evaluation.scores.is_file():
        _line(console, "not scored", f"finqa-sft evaluate {shlex.quote(str(folder.path))}")


def _places(console: Console, *, folder: RunFolder, result: Path) -> None:
    _line(console, result.name, str(result))
    _line(console, "record", str(folder.manifest))


def _nothing_left(console: Console, *, steps: int) -> None:
    _line(console, "stopped", f"after all {steps} steps; nothing is left to do")


def _resuming_command(recipe: Recipe, folder: RunFolder) -> str:
    """The command of this run with all of its overrides, to go on."""
    last = {"output.dir": str(folder.path), "trainer.resume_from_checkpoint": True}
    overrides = overridden_values(recipe.values()) | last
    words = [written_override(key, value) for key, value in overrides.items()]
    return shlex.join(["finqa-sft", "train", str(recipe.path), *words])


def _short(value: object) -> str:
    """A measured value with two digits that count."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _line(console: Console, word: str, text: str) -> None:
    """One line: a word in the margin and what it says."""
    console.print(Text.assemble((f"{word:<22}", "bold"), text))
