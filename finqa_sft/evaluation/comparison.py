"""What changed between two evaluations of the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from finqa_sft.evaluation.intervals import Estimate, estimate
from finqa_sft.evaluation.scoring import Evaluation, Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a figure differs, over the questions that both evaluations have it for.

    Attributes:
        now: Its mean over these in the present evaluation.
        before: The same in the earlier one.
        change: How much higher it is now; the interval draws documents with both of their scores.
    """

    now: float
    before: float
    change: Estimate


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations, question by question.

    Attributes:
        better: Ids of questions that were wrong and are right now.
        worse: Ids of questions that were right and are wrong now.
        both_right: Ids of questions that are right in both.
        both_wrong: Ids of questions that are wrong in both.
        differences: By metric and figure. A metric or figure that only one evaluation has is not in
            it.
        only_now: Ids of questions that only the present evaluation has.
        only_before: Ids of questions that only the earlier one has, or has predictions of.
    """

    better: tuple[str, ...]
    worse: tuple[str, ...]
    both_right: tuple[str, ...]
    both_wrong: tuple[str, ...]
    differences: Mapping[str, Mapping[str, Difference]]
    only_now: tuple[str, ...] = ()
    only_before: tuple[str, ...] = ()

    @property
    def questions(self) -> int:
        """How many questions both evaluations have."""
        return sum(map(len, (self.better, self.worse, self.both_right, self.both_wrong)))


def compare(now: Evaluation, before: Evaluation) -> Comparison:
    """Compare two evaluations on the questions that both have; ids tell which these are.

    Args:
        now: The present evaluation; ids are listed in its order.
        before: An earlier one, or one of another model.
    """
    earlier = {one.question.id: one for one in before.scored}
    pairs = [(one, earlier[one.question.id]) for one in now.scored if one.question.id in earlier]
    present = {one.question.id for one in now.scored}.union(now.extra)

    def ids(*, right: bool, was_right: bool) -> tuple[str, ...]:
        return tuple(
            one.question.id
            for one, other in pairs
            if (one.verdict.right, other.verdict.right) == (right, was_right)
        )

    return Comparison(
        better=ids(right=True, was_right=False),
        worse=ids(right=False, was_right=True),
        both_right=ids(right=True, was_right=True),
        both_wrong=ids(right=False, was_right=False),
        differences=_differences(now, before, pairs),
        only_now=tuple(id for id in (one.question.id for one in now.scored) if id not in earlier),
        only_before=tuple(id for id in (*earlier, *before.extra) if id not in present),
    )


def _differences(
    now: Evaluation, before: Evaluation, pairs: list[tuple[Scored, Scored]]
) -> dict[str, dict[str, Difference]]:
    """The difference of every figure that both evaluations have."""
    found: dict[str, dict[str, Difference]] = {}
    for metric in now.figures:
        had = {figure.name for figure in before.figures.get(metric, ())}
        both = [pair for pair in pairs if metric in pair[0].scores and metric in pair[1].scores]
        documents = [one.question.document.id for one, _ in both]
        names = [figure.name for figure in now.figures[metric] if figure.name in had]
        for name in names if both else ():
            values = [
                (a.scores[metric].figures[name], b.scores[metric].figures[name]) for a, b in both
            ]
            found.setdefault(metric, {})[name] = Difference(
                now=fmean(value for value, _ in values),
                before=fmean(value for _, value in values),
                change=estimate([a - b for a, b in values], documents, is_share=False),
            )
    return found
