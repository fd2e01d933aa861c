"""Plots of a report: SVG that takes its colours from the page and keeps its text as text."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from finqa_sft.evaluation.report.texts import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for those of the page, which change with light and dark.
_INK = "#010101"
_LINE = "#020202"
_SERIES = ("#030301", "#030302", "#030303", "#030304")
_OF_PAGE = {
    _INK: "currentColor",
    _LINE: "var(--line)",
    **{colour: f"var(--plot-{number})" for number, colour in enumerate(_SERIES, start=1)},
}
_MARKERS = "os^D"
_LONGEST_LABEL = 34
_MOST_GROUPS = 14
_LOSSES = ("loss", "eval_loss", "eval_nll")


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with what it shows in words.

    Attributes:
        title: Its heading.
        words: The same for those who do not see it.
        svg: The drawing.
    """

    title: str
    words: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a plot.

    Attributes:
        label: The group.
        value: From 0 to 1.
        low: Lower end of the interval.
        high: Upper end.
        n: How many questions are in the group.
    """

    label: str
    value: float
    low: float
    high: float
    n: int


def curves(log: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Losses, and each metric's figures, over the steps of a run.

    Args:
        log: The lines of `metrics.jsonl`.
    """
    metrics: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for entry in log for key in entry):
        if key.startswith("eval_") and "/" in key:
            metrics.setdefault(key.removeprefix("eval_").partition("/")[0], []).append(key)
    plots = [_curves("Loss", _LOSSES, log)]
    plots += [_curves(metric, keys, log, share=True) for metric, keys in metrics.items()]
    return [plot for plot in plots if plot is not None]


def bars(title: str, groups: Iterable[Bar]) -> Plot:
    """One bar a group, with its interval; in the order given; the largest where there are many."""
    given = list(groups)
    largest = sorted(given, key=lambda group: -group.n)[:_MOST_GROUPS]
    chosen = [group for group in given if group in largest]
    figure, axes = _axes(height=0.55 + 0.3 * len(chosen))
    positions = range(len(chosen))
    axes.barh(positions, [group.value for group in chosen], color=_SERIES[0], height=0.62)
    for position, group in zip(positions, chosen, strict=True):
        axes.plot([group.low, group.high], [position] * 2, color=_INK, linewidth=1.2)
        at = min(max(group.high, group.value) + 0.02, 1.02)
        axes.text(at, position, f"{group.value:.0%}", va="center", color=_INK, fontsize=8)
    labels = [f"{_label(group.label)} ({group.n:,})" for group in chosen]
    axes.set_yticks(positions, labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    _in_percent(axes.xaxis)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    words = "; ".join(
        f"{visible(group.label)}: {group.value:.1%} of {group.n:,}" for group in chosen
    )
    return Plot(title, f"{title}: {words}", _svg(figure, axes, salt=title))


def _curves(
    title: str, keys: Sequence[str], log: Sequence[Mapping[str, Any]], *, share: bool = False
) -> Plot | None:
    """The values of some keys over the steps; None where the log has none of them."""
    series = {key: found for key in keys if (found := _points(key, log))}
    if not series:
        return None
    figure, axes = _axes(height=2.5)
    words = []
    for number, (key, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        name = key.partition("/")[2] or key
        axes.plot(
            steps,
            values,
            color=_SERIES[number % len(_SERIES)],
            linewidth=1.5,
            marker=_MARKERS[number % len(_MARKERS)] if len(points) <= 40 else "",
            markersize=3.5,
            label=_label(name),
        )
        words.append(f"{name} from {values[0]:.4g} at step {steps[0]:,} to {values[-1]:.4g}")
        words[-1] += f" at step {steps[-1]:,}"
    if share:
        axes.set_ylim(-0.02, 1.02)
        _in_percent(axes.yaxis)
    axes.set_xlabel("step")
    axes.grid(color=_LINE, linewidth=0.8)
    legend = axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return Plot(title, f"{visible(title)}: {'; '.join(words)}", _svg(figure, axes, salt=title))


def _points(key: str, log: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """The step and the value of each entry that has both, as finite numbers."""
    return [
        (entry["step"], entry[key])
        for entry in log
        if all(
            isinstance(value, int | float) and math.isfinite(value)
            for value in (entry.get("step"), entry.get(key))
        )
    ]


def _axes(*, height: float) -> tuple[Figure, Axes]:
    """An empty plot, 4.6 inches wide: its text can be read on a narrow screen too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(length=0, labelsize=8, labelcolor=_INK)
    axes.xaxis.label.set(color=_INK, fontsize=8)
    axes.set_axisbelow(True)
    return figure, axes


def _in_percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def _label(text: str) -> str:
    """A label of one line that is not too long."""
    line = " ".join(visible(text).split())
    return line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1]}…"


def _svg(figure: Figure, axes: Axes, *, salt: str) -> Markup:
    """The drawing as an element of a page: the same bytes for the same values."""
    from matplotlib import rc_context

    for text in axes.get_yticklabels():
        # A dollar in a group's name opens no formula.
        text.set_parse_math(False)
    written = io.StringIO()
    # Parts that a drawing refers to by their ids have other ids in other drawings.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}), warnings.catch_warnings():
        # The browser draws the text, with fonts of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(
            written,
            format="svg",
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page has many drawings, and an id only once; rules of style are the page's.
    svg = re.sub(r'<g id="[a-z][\w.]*_\d+"', "<g", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1)
    svg = re.sub(r"(?<=px;) font-family: [^;]*;", "", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    for colour, of_page in _OF_PAGE.items():
        svg = svg.replace(f": {colour}", f": {of_page}")
    return Markup(svg)
