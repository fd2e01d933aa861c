"""What stands above the questions of a report: scores, differences, kinds of error, plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finqa_sft.evaluation.report.entries import Entry
from finqa_sft.evaluation.report.plots import Bar, Plot, bars

_HEADLINE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFigure:
    """A figure with its interval.

    Attributes:
        metric: The metric's name.
        name: The figure's name.
        counts: What it counts.
        value: Over all questions.
        low: Lower end of the interval.
        high: Upper end.
        n: How many questions the metric applies to.
        of_predictions: The same over the questions that have a prediction; None without any.
    """

    metric: str
    name: str
    counts: str
    value: float
    low: float
    high: float
    n: int
    of_predictions: float | None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of error.

    Attributes:
        name: Its phrase.
        n: How many questions have it.
        share: The same as a part of the most frequent kind's number, in percent.
        there: How many questions of the other run have it.
    """

    name: str
    n: int
    share: float
    there: int


@dataclass(frozen=True, slots=True)
class Filter:
    """What questions can be chosen by.

    Attributes:
        value: A data attribute of questions and its value: `kind=scale`; empty for all.
        label: How it is called.
        n: How many questions it shows.
    """

    value: str
    label: str
    n: int


def shown_figures(numbers: Mapping[str, Any]) -> list[ShownFigure]:
    """The figures of a summary."""
    return [
        ShownFigure(
            metric=metric,
            name=name,
            counts=figure["summary"],
            value=figure["value"],
            low=figure["low"],
            high=figure["high"],
            n=figure["n"],
            of_predictions=figure["of_predictions"],
        )
        for metric, figures in numbers["metrics"].items()
        for name, figure in figures.items()
    ]


def kinds(here: Mapping[str, Any], there: Mapping[str, Any] | None) -> list[Kind]:
    """The kinds of error of a summary, the most frequent first."""
    before: Mapping[str, int] = there["faults"] if there else {}
    counts: Mapping[str, int] = here["faults"]
    most = max(counts.values(), default=1)
    found = [Kind(name, n, 100 * n / most, before.get(name, 0)) for name, n in counts.items()]
    return found + [Kind(name, 0, 0.0, n) for name, n in before.items() if name not in counts]


def filters(entries: Sequence[Entry], chosen: Sequence[Kind], *, compared: bool) -> list[Filter]:
    """What the questions of a report can be chosen by."""
    rights = Counter(entry.right for entry in entries)
    changes = Counter(entry.change for entry in entries)
    found = [
        Filter("", "all", len(entries)),
        Filter("right=yes", "right", rights["yes"]),
        Filter("right=no", "wrong", rights["no"]),
    ]
    if compared:
        found += [Filter(f"change={c}", c, changes[c]) for c in ("better", "worse")]
    found += [Filter(f"kind={kind.name}", kind.name, kind.n) for kind in chosen if kind.n]
    if rights[""]:
        found.append(Filter("right=", "not scored", rights[""]))
    return found


def breakdowns(numbers: Mapping[str, Any]) -> Iterator[Plot]:
    """A plot for each metric and property that parts the questions into two groups or more."""
    for metric, properties in numbers["breakdowns"].items():
        figure = next(iter(numbers["metrics"][metric]), "")
        for name, groups in properties.items():
            if len(groups) > 1:
                yield bars(
                    f"{metric} {figure} by {name}",
                    [
                        Bar(label, group["value"], group["low"], group["high"], group["n"])
                        for label, group in groups.items()
                    ],
                )


def counted(numbers: Mapping[str, Any]) -> list[str]:
    """What a summary counts beside right and wrong, as phrases; what did not occur is left out."""
    phrases = {
        "missing": "questions without a prediction",
        "not_asked": "questions not asked",
        "not_scored": "questions that no metric applies to",
        "extra": "predictions of other questions",
        "duplicates": "predictions that stand twice",
    }
    return [f"{words}: {numbers[key]:,}" for key, words in phrases.items() if numbers[key]]


def headline(figures: Sequence[ShownFigure]) -> Sequence[ShownFigure]:
    """The figures that stand at the top: the first metric's first ones."""
    return [figure for figure in figures if figure.metric == figures[0].metric][:_HEADLINE]
