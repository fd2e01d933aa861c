"""Prepared data for people: rows with what is learnt, counts by reason, lengths as bars."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.text import Text

from finqa_sft.budget import MARKER
from finqa_sft.encoding import Encoder
from finqa_sft.preparation.counts import Counts, place
from finqa_sft.preparation.parts import Example, Part
from finqa_sft.preparation.statistics import fates
from finqa_sft.wording import visible

REASONS_SHOWN = 10
PLACE_CHARACTERS = 200
BARS = 8
BAR_WIDTH = 40

GIVEN, LEARNT, OMITTED = "dim", "bold green", "yellow"
"""How a row is coloured: what the model is given, what it learns, where something is left out."""

LEARNT_IS = {True: "is bright", False: "stands between ⟦ and ⟧"}
"""How to find what is learnt, with colours and without."""


def is_coloured(console: Console) -> bool:
    """Whether a console shows colours."""
    return console.color_system is not None and not console.no_color


def row_title(example: Example) -> Text:
    """Whose row it is, how long, and what its document lost."""
    row = example.row
    learnt = sum(label >= 0 for label in row["labels"])
    said = (
        f"{place(example.question)}, document {example.question.document.id}: "
        f"{len(row['input_ids'])} tokens, {learnt} supervised"
    )
    if example.left_out:
        said += f"; {number(len(example.left_out), 'part')} of the document left out"
    return Text(visible(said), "bold")


def row_text(example: Example, encoder: Encoder, *, coloured: bool) -> Text:
    """The row as the model reads it; what it learns stands out.

    Args:
        example: The row.
        encoder: Decodes it.
        coloured: Whether styles are seen; without them, ⟦ ⟧ stand around what is learnt.
    """
    text = Text()
    for piece, learnt in encoder.spans(example.row):
        shown = visible(piece)
        text.append(f"⟦{shown}⟧" if learnt and not coloured else shown, LEARNT if learnt else GIVEN)
    if example.left_out:
        text.highlight_words([MARKER], OMITTED)
    return text


def omitted_text(example: Example, *, at_most: int | None = None) -> Text:
    """The parts of the document that the row does not show, or the first of them, a line each."""
    parts = example.left_out[:at_most]
    return Text("\n").join(Text(visible(f"− {part}"), OMITTED) for part in parts)


def shortened(text: Text, characters: int) -> Text:
    """The beginning and the end of a long text."""
    half = characters // 2
    if len(text) <= characters:
        return text
    return Text.assemble(text[:half], (" … ", OMITTED), text[-half:])


def count_lines(counts: Counts) -> Iterator[tuple[str, str]]:
    """A word for the margin and what it says, a line a reason, the most frequent first."""
    for word, counter in (
        ("left out", counts.left_out),
        ("cleaned", counts.cleaned),
        ("changed", counts.changed),
        ("noticed", counts.noticed),
    ):
        reasons = [(reason, n) for reason, n in counter.most_common() if n]
        for reason, n in reasons[:REASONS_SHOWN]:
            places = counts.places.get(reason)
            first = f"; first {_cut(places[0], PLACE_CHARACTERS)}" if places else ""
            yield word, visible(f"{n} × {reason}{first}")
        if len(reasons) > REASONS_SHOWN:
            yield word, f"{number(len(reasons) - REASONS_SHOWN, 'more reason')}, in run.json"


def fate_lines(part: Part) -> Iterator[str]:
    """The questions of one side by what became of them."""
    for fate, n in fates(part).items():
        if n:
            yield f"{n} × {fate}"


def length_bars(part: Part, *, max_length: int) -> Iterator[str]:
    """How many rows there are of each length, as bars, from the first filled one to the last."""
    edges = np.linspace(0, max_length, BARS + 1).round().astype(int)
    # A bin holds its lower edge and not its upper one; a row of 8 tokens belongs to 1–8.
    heights, _ = np.histogram(part.lengths - 1, bins=edges)
    filled = np.flatnonzero(heights)
    digits = len(str(max_length))
    for n in range(filled[0], filled[-1] + 1) if filled.size else ():
        low, high, height = edges[n], edges[n + 1], heights[n]
        bar = "█" * -(-int(height) * BAR_WIDTH // max(int(heights.max()), 1))
        yield f"{low + 1:>{digits}}–{high:<{digits}} {bar} {height}"


def number(count: int, thing: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {thing}{'s' if count != 1 else ''}"


def _cut(text: str, characters: int) -> str:
    half = characters // 2
    return f"{text[:half]} […] {text[-half:]}" if len(text) > characters else text
