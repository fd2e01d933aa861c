"""What became of the rows: counted by reason, with the places of the first cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from finqa_sft.documents import Question

PLACES_KEPT = 20
"""Of each reason, the places of so many cases are kept."""

TOO_LONG = "longer than formatter.max_length without any paragraph or table row"
EVIDENCE_TOO_LONG = "longer than formatter.max_length with nothing but its evidence"
NO_DOCUMENT = "nothing of its document fits into formatter.max_length"
LENGTH_REASONS = (TOO_LONG, EVIDENCE_TOO_LONG, NO_DOCUMENT)
"""Why a question is left out for its length; what `data.too_long` is about."""

DOCUMENT_CUT = "document cut to formatter.max_length"
SEVERAL_CUTS = "document cut in several ways, as the evidence of all its questions does not fit"
PARAGRAPH_LEFT_OUT = "paragraph left out"
PARAGRAPH_SHORTENED = "paragraph shortened"
ROW_LEFT_OUT = "table row left out"
TAKEN_APART = "control token of the tokenizer in the text, taken apart"
DOCUMENT_RENAMED = "document renamed, as another source has one of its name"

STANDS_TWICE = "question that stands twice"
TWO_ANSWERS = "one question with different answers"
EVIDENCE_CUT = "held-out question whose evidence is cut off, as it would be when asked"
NOTHING_TO_CITE = "question without evidence, of which formatter.evidence has nothing to cite"
ANSWER_CUT = "question whose answer shows in its document, but in nothing that is left of it"


@dataclass
class Counts:
    """What became of the rows, by reason.

    Attributes:
        read: Rows read, by source.
        left_out: Questions left out, by reason.
        cleaned: Changes by the rules of `data.cleaning`, by rule.
        changed: Documents changed, by what was done.
        noticed: Questions trained on as they are that look like a mistake, by what is odd.
        places: Where the first cases of a reason are: file and row, and what is wrong there.
    """

    read: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def note(self, counter: Counter[str], reason: str, place: str) -> None:
        """Count a case, and keep its place if it is among the first."""
        counter[reason] += 1
        self.places[reason] = first_places([*self.places.get(reason, []), place])


def first_places(places: Sequence[str]) -> list[str]:
    """As many places as are kept of one reason."""
    return list(places[:PLACES_KEPT])


def place(question: Question) -> str:
    """Where a question stands, for a person who looks for it."""
    return question.source or f"question {question.id!r}"
