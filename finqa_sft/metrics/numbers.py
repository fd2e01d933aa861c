"""Numbers as people and models write them, with their unit and how exactly they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from finqa_sft.programs.arguments import CURRENCIES, DIGITS, MINUS_SIGNS, SCALE_WORDS

MAX_CHARACTERS = 1_000
"""Longer texts are no numbers."""

_ABBREVIATIONS = {"k": 3, "m": 6, "mm": 6, "mn": 6, "mln": 6, "b": 9, "bn": 9, "tn": 12}
_SHARES = {
    **dict.fromkeys(("%", "percent", "percentagepoint", "pp", "ppt"), -2),
    **dict.fromkeys(("bp", "basispoint"), -4),
}
_POWERS = {**SCALE_WORDS, **_ABBREVIATIONS, **_SHARES}
_AS_MINUS = str.maketrans(dict.fromkeys(MINUS_SIGNS, "-"))
_CURRENCY = rf"(?:(?:US)?[{CURRENCIES}]|(?:USD|EUR|GBP|JPY|INR)\b)?\s*"
_WRITTEN = re.compile(
    r"(?:(?:about|around|roughly|approximately|approx\.)\s+|[~\u2248]\s*)?"
    rf"(?P<sign>[-+]?)\s*{_CURRENCY}(?P<opening>\(?)\s*(?P<inner>[-+]?)\s*{_CURRENCY}"
    rf"(?P<digits>{DIGITS})(?P<exponent>e[-+]?[0-9]{{1,3}})?\s*(?P<percent>%?)\s*"
    rf"(?P<closing>\)?)\s*(?P<word>%|per\s?cent(?:age points?)?\b|basis points?\b|(?:pp|ppt|bp)s?\b"
    rf"|(?:{'|'.join(SCALE_WORDS)})s?\b|(?:{'|'.join(_ABBREVIATIONS)})\b)?\s*"
    r"(?:(?:US )?dollars|USD|euros?|EUR|pounds|GBP|yen|JPY|rupees|INR|x|times)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class WrittenNumber:
    """A number as it is written.

    Attributes:
        value: The number itself: 0.142 for "14.2%", 46400000 for "$46.4 million".
        unit: What its last digit counts: 0.001 for "14.2%", 100000 for "$46.4 million".
    """

    value: Decimal
    unit: Decimal


def written_number(text: str, *, scale: object = "") -> WrittenNumber | None:
    """Read a text that is one number and nothing else; None if it is not.

    Thousands commas, currencies, "about" and the like do not matter, nor the "x" of a multiple;
    "(5)" is -5, as in financial tables. A text that says its scale itself is not scaled a second
    time: "%", "percent", "pp", "bps", "thousand", "million", "billion", "trillion", "k", "m", "bn".
    A decimal comma is not read.

    Args:
        text: "14.2%", "$ (1,234)", "approximately 46.4 million USD", "1.5e-05".
        scale: What the number counts in, if the text does not say: "percent", "million", ...
    """
    if len(text) > MAX_CHARACTERS:
        return None
    found = _WRITTEN.fullmatch(text.strip().translate(_AS_MINUS))
    if found is None or bool(found["opening"]) != bool(found["closing"]):
        return None
    if sum(map(bool, (found["sign"], found["inner"]))) > 1 or (found["sign"] and found["opening"]):
        return None
    word = "".join((found["word"] or "").lower().split()).removesuffix("s")
    if found["percent"] and word:
        return None
    said = found["percent"] or word or (scale if isinstance(scale, str) else "")
    digits = Decimal(found["digits"].replace(",", "") + (found["exponent"] or ""))
    is_negative = "-" in (found["sign"], found["inner"]) or (
        bool(found["opening"]) and not found["inner"]
    )
    exponent = digits.as_tuple().exponent
    assert isinstance(exponent, int)
    power = _POWERS.get(said, 0)
    return WrittenNumber(
        value=(-digits if is_negative else digits).scaleb(power),
        unit=Decimal(1).scaleb(exponent + power),
    )
