"""The questions of a report, each with what its page shows beside the texts themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from finqa_sft.documents import Document, Evidence, Question
from finqa_sft.evaluation.comparison import Comparison
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.report.pages import places
from finqa_sft.evaluation.scoring import Evaluation, Scored
from finqa_sft.formatters.values import number_text

Change: TypeAlias = Literal["better", "worse", "same", ""]

_MOST_SAMPLES = 12

_HASH = re.compile(r"[0-9a-f-]{16}")
"""A part of ids that say nothing to a person: uids, and those made of a page's content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One question of a report.

    Attributes:
        number: Its place in the report, from 1.
        scored: The question with its prediction and scores.
        other: The same of the run that is compared with, where it has the question.
        change: Whether it got better or worse than there; empty where nothing is compared.
        page: Index of its document among the report's pages.
        gold: The places that the answer rests on, as the page's script reads them.
        used: The places that the prediction works with.
    """

    number: int
    scored: Scored
    other: Scored | None
    change: Change
    page: int
    gold: str
    used: str

    @property
    def right(self) -> str:
        """`yes` or `no`; empty where no metric applies."""
        return ("yes" if self.scored.verdict.right else "no") if self.scored.scores else ""

    @property
    def label(self) -> str:
        """What the question is called: by its id, or by its row where the id is a hash."""
        question = self.scored.question
        return (question.source if _HASH.search(question.id) else "") or question.id

    @property
    def verdict(self) -> str:
        """Right, or the kind of error."""
        return phrase(self.scored)

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """What was said and what was expected, side by side; rows that say nothing are left out.

        Each row has a cell of the run, of the gold labels, and of the other run if there is one.
        """
        question = self.scored.question
        executed = _executed(question)
        n_places = len(question.evidence)
        gold = [
            "",
            question.answer,
            question.program or "",
            self.scored.verdict.expected,
            executed if executed != self.scored.verdict.expected else "",
            question.scale,
            question.derivation or "",
            f"{n_places} marked in the document" if n_places else "",
        ]
        names = (
            *("Submitted", "Answer", "Program", "Comes to", "Executed"),
            *("Scale", "Derivation", "Evidence"),
        )
        columns = [_said(self.scored), gold]
        if self.change:
            columns.append(_said(self.other))
        rows = dict(zip(names, map(list, zip(*columns, strict=True)), strict=True))
        if rows["Comes to"] == rows["Answer"]:
            # Nothing was computed, here or there.
            del rows["Comes to"]
        return [(name, cells) for name, cells in rows.items() if any(cells)]

    @property
    def remarks(self) -> list[str]:
        """What else is to be known of how the prediction came about."""
        predicted = self.scored.predicted
        return [] if predicted is None else list(_remarks(predicted))

    @property
    def samples(self) -> list[tuple[str, int]]:
        """The different completions that were voted on, the most frequent first."""
        predicted = self.scored.predicted
        return Counter(predicted.samples).most_common(_MOST_SAMPLES) if predicted else []


def entries(
    evaluation: Evaluation,
    *,
    against: Evaluation | None = None,
    comparison: Comparison | None = None,
) -> tuple[list[Entry], list[tuple[Document, set[Evidence]]]]:
    """The questions, and their documents: each once, with the places that matter to any question.

    Args:
        evaluation: What is reported.
        against: What it is compared with.
        comparison: What changed between the two.
    """
    others = {scored.question.id: scored for scored in against.scored} if against else {}
    changes: dict[str, Change] = {}
    if comparison is not None:
        changes = {scored.question.id: "same" for scored in evaluation.scored}
        changes |= dict.fromkeys(comparison.better, "better")
        changes |= dict.fromkeys(comparison.worse, "worse")
    numbers: dict[Document, int] = {}
    marked: list[tuple[Document, set[Evidence]]] = []
    found: list[Entry] = []
    for scored in evaluation.scored:
        question = scored.question
        page = numbers.setdefault(question.document, len(numbers))
        if page == len(marked):
            marked.append((question.document, set()))
        marked[page][1].update(question.evidence, scored.used)
        found.append(
            Entry(
                number=len(found) + 1,
                scored=scored,
                other=others.get(question.id),
                change=changes.get(question.id, ""),
                page=page,
                gold=places(question.evidence),
                used=places(scored.used),
            )
        )
    return found, marked


def phrase(scored: Scored) -> str:
    """Right, or the kind of error, in the words of reports."""
    verdict = scored.verdict
    if verdict.fault is not None:
        return verdict.fault.value
    if not scored.scores:
        return "not scored"
    return "right" if verdict.right else "wrong"


def _executed(question: Question) -> str:
    executed = question.executed_answer
    if isinstance(executed, str | None):
        return executed or ""
    return number_text(executed)


def _said(scored: Scored | None) -> list[str]:
    """One column of what was said; empty where nothing was."""
    if scored is None or scored.predicted is None:
        return [""] * 8
    prediction, submission = scored.predicted.prediction, scored.predicted.submission
    return [
        "" if submission is None else str(submission.value),
        prediction.answer or "",
        prediction.program or "",
        scored.verdict.computed,
        "",
        prediction.scale,
        "",
        "\n".join(prediction.evidence),
    ]


def _remarks(predicted: Predicted) -> Iterator[str]:
    if predicted.samples:
        yield f"{predicted.votes} of {len(predicted.samples)} samples came to this"
    if predicted.tokens is not None:
        yield f"{predicted.tokens:,} token{'' if predicted.tokens == 1 else 's'} generated"
    if not predicted.finished:
        yield "the limit of new tokens ended it"
    if predicted.left_out:
        parts = "part" if predicted.left_out == 1 else "parts"
        yield f"the prompt left out {predicted.left_out:,} {parts} of the document"
