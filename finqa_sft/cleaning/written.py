"""Numbers as people write answers: "14.2%", "$ -5.2 million", "(1,234)"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

_NUMBER = re.compile(
    r"""(?<![\w.,])
    (?P<open>\(\s?)? (?P<minus>[-−–]\s?)? (?P<money>[A-Za-z]{0,3}[$€£¥]\s?)? (?P<inner>[-−(]\s?)?
    (?P<digits>\d{1,20}(?:,\d{3})*(?:\.\d{1,20})?|\.\d{1,20})
    (?P<percent>\s?(?:%|percent\b|per\ cent\b))? (?P<close>\s?\))? (?P<late>\s?%)?
    (?P<word>\s?(?:thousand|million|billion)s?\b)?""",
    re.VERBOSE | re.IGNORECASE,
)
_WORDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9}
_LONGEST = 1_000
"""Answers beyond this length are text, whatever numbers stand in them."""


@dataclass(frozen=True, slots=True)
class Written:
    """A number in an answer.

    Attributes:
        value: The number as written, with its sign: 14.2 for "14.2%".
        decimals: How many digits stand behind the point.
        is_percent: Whether a percent sign or the word follows.
        factor: What a word of scale behind it stands for: 1e6 for "million"; 1 without one.
        text: The whole answer.
        start: Where the number begins, with its sign, bracket or currency.
        end: Where it ends, with its percent sign or word of scale.
        money: The currency sign in front, with its space.
        mark: The percent sign or the word of scale behind it, with its space.
        digits: The digits as written, with their commas and point.
    """

    value: float
    decimals: int
    is_percent: bool
    factor: float
    text: str
    start: int
    end: int
    money: str
    mark: str
    digits: str

    @property
    def unit(self) -> float:
        """One unit of the last written digit."""
        return float(10.0**-self.decimals)

    def negated(self) -> str:
        """The answer with the other sign: "$ -5 million" for "$ 5 million", "5.2" for "(5.2)"."""
        sign = "" if self.value < 0 else "-"
        number = f"{self.money}{sign}{self.digits}{self.mark}"
        return f"{self.text[: self.start]}{number}{self.text[self.end :]}"


def written_number(text: str) -> Written | None:
    """The number in an answer: the only one, or the one that the answer begins with."""
    found = list(_NUMBER.finditer(text)) if len(text) <= _LONGEST else []
    if not found or (len(found) > 1 and found[0].start() > 0):
        return None
    match = found[0]
    opened = bool(match["open"]) or (match["inner"] or "").startswith("(")
    bracketed = opened and bool(match["close"])
    negative = bool(match["minus"]) or (match["inner"] or " ")[0] in "-−" or bracketed
    digits = match["digits"]
    mark = match["percent"] or match["late"] or ""
    word = (match["word"] or "").strip().lower().removesuffix("s")
    value = float(digits.replace(",", ""))
    # A bracket that is not a pair belongs to the words around the number.
    start = match.start() if bracketed or not match["open"] else match.end("open")
    end = match.end() if bracketed or not match["close"] else match.start("close")
    return Written(
        value=-value if negative else value,
        decimals=len(digits.partition(".")[2]),
        is_percent=bool(mark),
        factor=_WORDS.get(word, 1.0),
        text=text,
        start=start,
        end=end,
        money=match["money"] or "",
        mark=mark + ((match["word"] or "") if end == match.end() else ""),
        digits=digits,
    )


def plain_number(value: float) -> str:
    """A number without an exponent, in as few digits as give it back."""
    return f"{Decimal(repr(value)):f}".removesuffix(".0")
