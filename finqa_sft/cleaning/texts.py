"""The rules for text, in their order, over paragraphs, cells, questions and answers."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from finqa_sft.cleaning.account import Account
from finqa_sft.cleaning.numbers import drop_doubles, plain_minus, plain_spaces
from finqa_sft.cleaning.options import CleaningOptions
from finqa_sft.cleaning.quotes import count_dashes, is_nil_or_year, repair_quotes
from finqa_sft.errors import ProgramError
from finqa_sft.programs import Program, Step, execute_program

Kind: TypeAlias = Literal["words", "value", "cell"]
"""Words are running text and labels; a value is an answer; a cell is one that programs compute
with, so that a rule may not change its figure."""

_SUSPECT = re.compile(r"[^\x00-\x27\x29-\x7f]|201|2022")
"""What every change, and all that is counted and left, begins with."""

_Steps: TypeAlias = list[tuple[str, str, str]]
"""Rule, text before and text after."""


class TextRules:
    """Applies the rules for text that are switched on."""

    def __init__(self, options: CleaningOptions, account: Account) -> None:
        """Take the switches, and the account to keep."""
        self._options = options
        self._account = account

    def clean(self, text: str, *, place: str, stripped: bool, kind: Kind = "words") -> str:
        """A text with all rules applied; one that would end up empty stays as it is.

        Args:
            text: The text.
            place: What to call it in the account.
            stripped: Whether its page surely lost its quotation marks.
            kind: What the text is.
        """
        if not _SUSPECT.search(text):
            return text
        cleaned, steps = self._apply(text, stripped=stripped, kind=kind)
        for rule, before, after in steps:
            self._account.changed(rule, place, before, after)
        self.look(cleaned, stripped=stripped, kind=kind)
        return cleaned

    def result(self, text: str, *, stripped: bool, kind: Kind = "words") -> str:
        """What `clean` makes of a text, without an entry in the account."""
        if not _SUSPECT.search(text):
            return text
        return self._apply(text, stripped=stripped, kind=kind)[0]

    def look(self, text: str, *, stripped: bool, kind: Kind = "words") -> None:
        """Enter what may be a lost character or a year, and is left."""
        if not self._options.stripped_quotes or not _SUSPECT.search(text):
            return
        _, left = repair_quotes(text, stripped=stripped)
        self._account.saw("quote_or_year", left > 0)
        nil = kind == "cell" and is_nil_or_year(text, stripped=stripped)
        self._account.saw("dash_or_year", nil or count_dashes(text) > 0)

    def _apply(self, text: str, *, stripped: bool, kind: Kind) -> tuple[str, _Steps]:
        """Apply the rules until none changes anything, as one may open the way for another."""
        steps: _Steps = []
        cleaned, before = text, None
        while cleaned != before:
            before = cleaned
            if self._options.spaces_and_minus:
                after = plain_spaces(cleaned)
                after = after if kind == "words" else plain_minus(after)
                cleaned = _step(steps, "spaces_and_minus", cleaned, after)
            if self._options.stripped_quotes:
                after, _ = repair_quotes(cleaned, stripped=stripped)
                cleaned = _step(steps, "stripped_quotes", cleaned, after)
            if self._options.doubled_negatives:
                cleaned = _step(steps, "doubled_negatives", cleaned, drop_doubles(cleaned))
        if not cleaned or (kind == "cell" and steps and not _same_figure(text, cleaned)):
            return text, []
        return cleaned, steps


def _step(steps: _Steps, rule: str, before: str, after: str) -> str:
    if after != before:
        steps.append((rule, before, after))
    return after


def _same_figure(before: str, after: str) -> bool:
    """Whether programs that could compute with a cell compute the same with it still."""
    figure = _figure(before)
    return figure is None or figure == _figure(after)


def _figure(cell: str) -> float | str | None:
    """The number that table operators read in a cell."""
    try:
        return execute_program(Program((Step("table_sum", ("row", "none")),)), (("row", cell),))
    except ProgramError:
        return None
