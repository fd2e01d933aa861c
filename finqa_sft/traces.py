"""Where an answer shows in a document: the numbers and names that it is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from finqa_sft.documents import Document, Question, Table
from finqa_sft.errors import ProgramError
from finqa_sft.programs import parse_program

_NUMBER = re.compile(r"(?<![\d.])(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_NO_NAMES = ("", "yes", "no")


@dataclass(frozen=True, slots=True)
class Traces:
    """What an answer is made of.

    Attributes:
        numbers: Numbers without their signs.
        names: Row labels and words, in lower case.
    """

    numbers: frozenset[Decimal]
    names: frozenset[str]

    def show_in_text(self, text: str) -> bool:
        """Whether a text holds one of the numbers, or one of the names as whole words."""
        if not self.numbers.isdisjoint(numbers_in(text)):
            return True
        folded = _folded(text)
        return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", folded) for name in self.names)

    def show_in_row(self, cells: Sequence[str]) -> bool:
        """Whether a table row has one of the names for a cell, or a number behind its label."""
        if self.names & set(map(_folded, cells)):
            return True
        return not self.numbers.isdisjoint(n for cell in cells[1:] for n in numbers_in(cell))

    def show_in(self, document: Document) -> bool:
        """Whether any paragraph or table row of a document holds one of them."""
        return any(
            any(map(self.show_in_row, block.rows[block.header_rows :]))
            if isinstance(block, Table)
            else self.show_in_text(block.text)
            for block in document.blocks
        )


def traces(question: Question) -> Traces:
    """What the program works with; without one the derivation's numbers, else the answer's."""
    numbers: list[Decimal] = []
    names: list[str] = []
    try:
        for step in parse_program(question.program or "").steps:
            if step.op.startswith("table_"):
                names.append(step.args[0])
                continue
            literals = (arg for arg in step.args if not arg.startswith(("#", "const_")))
            numbers += [number for arg in literals for number in numbers_in(arg)]
    except ProgramError:
        # A program that cannot be read says nothing of where its numbers stand.
        numbers, names = [], []
    if not (numbers or names):
        executed = question.executed_answer
        derivation = question.derivation or ""
        value = "" if executed is None or isinstance(executed, str) else repr(float(executed))
        numbers = numbers_in(derivation) or [*numbers_in(question.answer), *_exact(value)]
        # As TAT-QA's reader joins the spans of an answer, and TAT-QA's derivations what they count.
        names = [*question.answer.split(" | "), *derivation.split("##")]
    kept = {_folded(name) for name in names}.difference(_NO_NAMES)
    return Traces(frozenset(numbers), frozenset(kept))


def numbers_in(text: str) -> list[Decimal]:
    """The numbers in a text, without their signs: 5829 in "$ 5,829", twice 2 in "-2 ( 2 )"."""
    return [Decimal(match[0].replace(",", "")) for match in _NUMBER.finditer(text)]


def _exact(number: str) -> list[Decimal]:
    """A number as Python writes it, exponents included."""
    return [abs(Decimal(number))] if number else []


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
