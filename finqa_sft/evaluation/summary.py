"""The numbers of an evaluation: figures with intervals, by kinds of question, and faults."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from finqa_sft.documents import SCALES, Paragraph, Question, Table
from finqa_sft.errors import ProgramError
from finqa_sft.evaluation.intervals import METHOD, estimate
from finqa_sft.evaluation.scoring import Evaluation, Scored
from finqa_sft.programs import parse_program

NOTES_SHOWN = 5
"""So many notes of a metric are kept, each with the question's id."""

_LENGTHS = (250, 500, 1_000, 2_000)
"""Words at which one group of document lengths ends and the next begins."""

_LONG_PROGRAM = 4
"""Programs of so many steps and more are one group."""


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """What an evaluation comes to, as plain JSON values.

    - `questions`, `documents`: how many were scored; `right`: how many questions are.
    - `missing`, `not_asked`, `not_scored`, `extra`, `duplicates`: gold questions without a
      prediction, those that could not be asked, those that no metric applies to; ids of predictions
      that no gold question has, and that stand twice.
    - `interval`: how the intervals are made.
    - `metrics`: by metric and figure `value`, `low`, `high` and `n`: the mean over all gold
      questions that the metric applies to. `of_predictions` is the mean over the predictions alone,
      which is what FinQA's script divides by, and `predictions` how many these are, null and 0
      where there are none.
    - `breakdowns`: by metric and property of the questions, `value`, `low`, `high` and `n` of each
      group for the metric's first figure. Groups without questions are left out.
    - `faults`: how often each kind of error stands, the most frequent first.
    - `notes`: by metric, how many scores have a note, and the first of them.
    """
    scored = evaluation.scored
    faults = Counter(one.verdict.fault.value for one in scored if one.verdict.fault)
    return {
        "questions": len(scored),
        "documents": len({one.question.document.id for one in scored}),
        "right": sum(one.verdict.right for one in scored),
        "missing": sum(one.predicted is None for one in scored),
        "not_asked": sum(
            one.predicted is not None and bool(one.predicted.problem) for one in scored
        ),
        "not_scored": sum(not one.scores for one in scored),
        "extra": len(evaluation.extra),
        "duplicates": len(evaluation.duplicates),
        "interval": METHOD,
        "metrics": {name: _figures(evaluation, name) for name in evaluation.figures},
        "breakdowns": {name: _breakdowns(evaluation, name) for name in evaluation.figures},
        "faults": dict(faults.most_common()),
        "notes": {name: _notes(scored, name) for name in evaluation.figures},
    }


def metric_rows(numbers: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The figures of a summary as rows of a table; where predictions are missing, also without."""
    figures = [
        (metric, name, figure)
        for metric, every in numbers["metrics"].items()
        for name, figure in every.items()
    ]
    incomplete = any(figure["predictions"] < figure["n"] for _, _, figure in figures)
    more = ("of predictions", "n") if incomplete else ()
    yield "metric", "figure", "value", "95% interval", "n", *more
    for metric, name, figure in figures:
        share = figure["of_predictions"]
        alone = "" if share is None else f"{100 * share:.2f}"
        more = (alone, f"{figure['predictions']:,}") if incomplete else ()
        yield metric, name, *_cells(figure), *more


def breakdown_rows(numbers: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The breakdowns of the first metric that applies to any question, as rows of a table.

    What does not part the questions into two groups or more is left out.
    """
    for metric, properties in numbers["breakdowns"].items():
        if not properties:
            continue
        parting = {name: groups for name, groups in properties.items() if len(groups) > 1}
        if parting:
            figure = next(iter(numbers["metrics"][metric]))
            yield f"{metric} {figure} by", "", "value", "95% interval", "n"
        for name, groups in parting.items():
            for label, group in groups.items():
                yield name, label, *_cells(group)
        return


def count_rows(numbers: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """What a summary counts as rows of a table; what did not occur is left out."""
    yield "questions", f"{numbers['questions']:,}"
    yield "documents", f"{numbers['documents']:,}"
    for key, words in _COUNTS.items():
        if numbers[key]:
            yield words, f"{numbers[key]:,}"
    for fault, n in numbers["faults"].items():
        yield f"wrong: {fault}", f"{n:,}"


_COUNTS = {
    "right": "right",
    "missing": "without a prediction",
    "not_asked": "not asked",
    "not_scored": "no metric applies",
    "extra": "predictions without a question",
    "duplicates": "predictions that stand twice",
}


def _cells(group: Mapping[str, Any]) -> tuple[str, str, str]:
    """A mean as percentages, its interval, and of how many questions it is."""
    low, high = (f"{100 * group[end]:.2f}" for end in ("low", "high"))
    return f"{100 * group['value']:.2f}", f"{low} to {high}", f"{group['n']:,}"


def _figures(evaluation: Evaluation, metric: str) -> dict[str, Any]:
    """Every figure of a metric."""
    scored = [one for one in evaluation.scored if metric in one.scores]
    found: dict[str, Any] = {}
    for figure in evaluation.figures[metric] if scored else ():
        values = [one.scores[metric].figures[figure.name] for one in scored]
        predicted = [v for v, one in zip(values, scored, strict=True) if one.predicted]
        found[figure.name] = {
            **_group(scored, values),
            "of_predictions": sum(predicted) / len(predicted) if predicted else None,
            "predictions": len(predicted),
            "summary": figure.summary,
        }
    return found


def _breakdowns(evaluation: Evaluation, metric: str) -> dict[str, Any]:
    """The first figure of a metric by each property of the questions."""
    figure = evaluation.figures[metric][0].name
    scored = [one for one in evaluation.scored if metric in one.scores]
    found: dict[str, Any] = {}
    for name, label_of in _PROPERTIES.items() if scored else ():
        groups: dict[tuple[int, str], list[Scored]] = {}
        for one in scored:
            groups.setdefault(label_of(one.question), []).append(one)
        found[name] = {
            label: _group(group, [one.scores[metric].figures[figure] for one in group])
            for (_, label), group in sorted(groups.items())
        }
    return found


def _group(scored: Sequence[Scored], values: Sequence[float]) -> dict[str, Any]:
    found = estimate(values, [one.question.document.id for one in scored])
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _notes(scored: Sequence[Scored], metric: str) -> dict[str, Any]:
    noted = [
        {"id": one.question.id, "note": score.note}
        for one in scored
        if (score := one.scores.get(metric)) and score.note
    ]
    return {"n": len(noted), "first": noted[:NOTES_SHOWN]}


def _answer_type(question: Question) -> tuple[int, str]:
    """The data set's own word, or else what the answer looks like."""
    if question.answer_type:
        return 0, question.answer_type
    if question.executed_answer in ("yes", "no"):
        return 0, "yes or no"
    if question.program or isinstance(question.executed_answer, int | float):
        return 0, "number"
    return 1, "not known"


def _program_length(question: Question) -> tuple[int, str]:
    if question.program is None:
        return 0, "no program"
    try:
        steps = len(parse_program(question.program).steps)
    except ProgramError:
        return _LONG_PROGRAM + 1, "not readable"
    if steps >= _LONG_PROGRAM:
        return _LONG_PROGRAM, f"{_LONG_PROGRAM} steps or more"
    return steps, "1 step" if steps == 1 else f"{steps} steps"


def _evidence(question: Question) -> tuple[int, str]:
    blocks = [question.document.blocks[evidence.block] for evidence in question.evidence]
    tables = sum(isinstance(block, Table) for block in blocks)
    if not blocks:
        return 3, "not known"
    if tables == len(blocks):
        return 0, "table"
    return (2, "both") if tables else (1, "text")


def _document_length(question: Question) -> tuple[int, str]:
    """Words of the page, those in its tables included."""
    words = sum(
        len(block.text.split())
        if isinstance(block, Paragraph)
        else sum(len(cell.split()) for row in block.rows for cell in row)
        for block in question.document.blocks
    )
    rank = bisect_right(_LENGTHS, words)
    if rank == len(_LENGTHS):
        return rank, f"{_LENGTHS[-1]:,} words or more"
    low = f"{_LENGTHS[rank - 1]:,} to " if rank else "up to "
    return rank, f"{low}{_LENGTHS[rank] - 1:,} words"


def _scale(question: Question) -> tuple[int, str]:
    return SCALES.index(question.scale), question.scale or "none"


_PROPERTIES: Mapping[str, Callable[[Question], tuple[int, str]]] = {
    "answer type": _answer_type,
    "program length": _program_length,
    "evidence": _evidence,
    "document length": _document_length,
    "scale": _scale,
}
"""What questions are grouped by: each gives a group's rank among the others, and its name."""
