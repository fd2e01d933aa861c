"""Scores of plain answers, for data that has no official script."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

from finqa_sft.formatters.values import decimal_text
from finqa_sft.metrics.numbers import WrittenNumber, written_number
from finqa_sft.programs.arguments import MINUS_SIGNS
from finqa_sft.readers.tatqa import SPAN_SEPARATOR

DEFAULT_TOLERANCE = 1e-4
"""A hundredth of a percent: room for programs' results, which are rounded to 5 digits."""

_WHOLE_NUMBERS = Decimal("0.01")
"""How far what rounds to a whole number may be from it, as a share of it."""

_ARTICLES = frozenset(("a", "an", "the"))
_MARKS = string.punctuation + "\u2018\u2019\u201c\u201d\u2026\u2022"
_AS_MINUS = str.maketrans(dict.fromkeys(MINUS_SIGNS, "-"))
_INNER_SPACE = re.compile(r"(?<=[($])\s+|\s+(?=[)%])")


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """How an answer compares with the gold one.

    Attributes:
        exact: Whether they are the same text, but for case, punctuation at the ends of words,
            articles, and how numbers are written.
        numeric: Whether both are one number, and the same.
        f1: How many words they share: the harmonic mean of precision and recall.
    """

    exact: bool
    numeric: bool
    f1: float

    @property
    def correct(self) -> bool:
        """Whether it is right in one way or the other."""
        return self.exact or self.numeric


def score_answer(
    answer: object,
    *,
    gold: object,
    tolerance: float = DEFAULT_TOLERANCE,
    scale: object = "",
    gold_scale: object = "",
) -> AnswerScore:
    """Compare an answer with the gold one; nothing raises.

    Two numbers are the same if they differ by no more than the larger of two amounts: `tolerance`
    times the gold number, and half of what the gold number's last digit counts. So the gold answer
    "14.2%" takes 0.14212, which rounds to it, and "14.21212%" does not take 14.2%. A plain whole
    number may be a count as well as a rounded amount: what rounds to it has to be within 1% of it,
    so that "1,235" takes 1234.6, "3" does not take 3.4, and "0" takes nothing else.

    Args:
        answer: Text, a number, true or false (yes or no), or a list of them; several spans may also
            be one text with " | " between them. Their order does not matter.
        gold: The gold answer, alike.
        tolerance: How far numbers may be apart, as a share of the gold number.
        scale: What the answer counts in where it does not say so itself: "percent", "thousand",
            "million", "billion". 14.2 in percent is 0.142.
        gold_scale: What the gold answer counts in.
    """
    spans, golds = _spans(answer), _spans(gold)
    words, gold_words = list(map(_words, spans)), list(map(_words, golds))
    is_exact = (
        bool(spans)
        and (scale or "") == (gold_scale or "")
        and Counter(map(" ".join, words)) == Counter(map(" ".join, gold_words))
    )
    return AnswerScore(
        exact=is_exact,
        numeric=len(spans) == len(golds) == 1
        and _is_same(
            written_number(spans[0], scale=scale),
            written_number(golds[0], scale=gold_scale),
            tolerance=Decimal(tolerance),
        ),
        f1=1.0 if is_exact else _f1(list(chain(*words)), list(chain(*gold_words))),
    )


def _is_same(
    number: WrittenNumber | None, gold: WrittenNumber | None, *, tolerance: Decimal
) -> bool:
    if number is None or gold is None:
        return False
    rounding = gold.unit / 2
    if gold.unit == 1:
        rounding = min(rounding, _WHOLE_NUMBERS * abs(gold.value))
    return abs(number.value - gold.value) <= max(tolerance * abs(gold.value), rounding)


def _f1(words: Sequence[str], gold_words: Sequence[str]) -> float:
    common = (Counter(words) & Counter(gold_words)).total()
    return 2 * common / (len(words) + len(gold_words)) if common else 0.0


def _spans(answer: object) -> list[str]:
    """The spans of an answer as text; empty ones are left out."""
    values = answer if isinstance(answer, list | tuple) else [answer]
    spans = (_trimmed(span) for value in values for span in _text(value).split(SPAN_SEPARATOR))
    return [span for span in spans if span]


def _trimmed(span: str) -> str:
    r"""A span without white space around it, and without a `\n` that is two characters.

    Some answers in FinQA's files end so.
    """
    span = span.strip()
    end = len(span)
    while span.endswith("\\n", 0, end):
        end -= 2
        while end and (span[end - 1].isspace() or span[end - 1] == "\\"):
            end -= 1
    return span[:end]


def _text(value: object) -> str:
    """A value as text; what is no answer, as null or an object, is the empty text."""
    match value:
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{Decimal(value):f}"
        case float() if math.isfinite(value):
            return f"{Decimal(repr(value)):f}"
        case _:
            return ""


def _words(span: str) -> list[str]:
    """A span's words as they are compared; of a span without any, the span itself."""
    folded = unicodedata.normalize("NFKC", span).casefold().translate(_AS_MINUS)
    words = [_word(word) for word in _INNER_SPACE.sub("", folded).split()]
    return [word for word in words if word and word not in _ARTICLES] or [folded]


def _word(word: str) -> str:
    """A word without punctuation at its ends; a number plainly: -1234.5 for "(1,234.50)"."""
    for form in (word, word.rstrip(".,;:!?")):
        if number := written_number(form):
            percent = "%" if "%" in form else ""
            return decimal_text(number.value.scaleb(2) if percent else number.value) + percent
    return word.strip(_MARKS)
