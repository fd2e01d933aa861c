"""Cleaning questions and settling labels that disagree, as a recipe's `data` section says."""

from __future__ import annotations

from collections.abc import Sequence

from finqa_sft.cleaning import Cleaner
from finqa_sft.cleaning.targets import agreement, labels_told, settle
from finqa_sft.documents import Question
from finqa_sft.errors import DataError
from finqa_sft.preparation.counts import Counts, first_places, place
from finqa_sft.programs import derivation_problem
from finqa_sft.recipe.schema import DataRules


class Mender:
    """Mends questions of all sources alike, and counts what it does."""

    def __init__(self, rules: DataRules, counts: Counts) -> None:
        """Take the rules, and where to count."""
        self._rules = rules
        self._counts = counts
        self._cleaner = Cleaner(rules.cleaning)

    def mended(self, questions: Sequence[Question]) -> list[Question]:
        """The questions that remain, cleaned and settled.

        Raises:
            DataError: Labels disagree, and the recipe calls that an error.
        """
        cleaned = [self._cleaner.clean(question) for question in questions]
        self._enter_account()
        for question in cleaned:
            self._notice_derivation(question)
        return self._settled(cleaned)

    def _enter_account(self) -> None:
        """Copy what the cleaner has counted so far."""
        counts = self._counts
        counts.cleaned = self._cleaner.counts.copy()
        for what, n in self._cleaner.noticed.items():
            counts.noticed[f"cleaning: {what}"] = n
        changes: dict[str, list[str]] = {}
        for change in self._cleaner.changes:
            changes.setdefault(change.rule, []).append(change.told())
        for rule, places in changes.items():
            counts.places[rule] = first_places(places)

    def _notice_derivation(self, question: Question) -> None:
        """Count a derivation that gave no program, by the reason."""
        if question.derivation and question.program is None and question.executed_answer:
            problem = derivation_problem(
                question.derivation, answer=question.executed_answer, scale=question.scale
            )
            if problem:
                reason = f"no program: {problem}"
                self._counts.note(self._counts.noticed, reason, place(question))

    def _settled(self, questions: Sequence[Question]) -> list[Question]:
        """The questions after the policy for labels that disagree."""
        policy, counts = self._rules.disagreements, self._counts
        settled: list[Question] = []
        refused: list[str] = []
        for question in questions:
            found = agreement(question)
            if policy == "error" and found.disagrees:
                refused.append(f"{place(question)}: {found.value}: {labels_told(question)}")
                continue
            kept = settle(question, policy)
            if kept is None:
                counts.note(counts.left_out, found.value, place(question))
                continue
            if kept is not question:
                counts.note(counts.changed, f"{found.value}: corrected", place(question))
            elif found.disagrees:
                told = f"{place(question)}: {labels_told(question)}"
                counts.note(counts.noticed, found.value, told)
            settled.append(kept)
        if refused:
            shown = "\n".join(f"  {line}" for line in first_places(refused))
            more = len(refused) - len(first_places(refused))
            raise DataError(
                f"the labels of {len(refused)} questions disagree:\n{shown}"
                + (f"\n  and {more} more" if more else "")
                + "\nMend them, or set data.disagreements to keep, drop or correct"
            )
        return settled
