"""Quotation marks and dashes of which only the character's hexadecimal number is left.

FinQA's pages lost the backslash of escapes such as U+2019, so that a page reads "company 2019s".
The mark of a year and the rest of a mark look alike: what is mended here cannot be a year.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from finqa_sft.cleaning.vocabulary import (
    AFTER_YEARS,
    CONJUNCTIONS,
    MONTHS,
    NO_OWNERS,
    NUMBERED,
    OWNERS,
)

_MARK = re.compile(
    r"""(?<![^\s(\[])(?:
      (?P<pair_opens>2018\ 2018(?=[A-Za-z][A-Za-z&]))
    | (?P<pair_closes>2019\ 2019(?!\w))
    | (?P<suffix>2019(?=(?:s|t|re|ve|ll)(?![\w&])))
    | (?P<elision>2019(?=[A-Za-z]{3}))
    | (?P<plural>2019(?=\ [a-z]))
    | (?P<opens>201c(?=\w|[$&(]|\s))
    | (?P<closes>201d(?=s?(?!\w)))
    )""",
    re.VERBOSE,
)
_CERTAIN = re.compile(r"(?<!\S)201c[A-Za-z]{2}|[A-Za-z] 2019s(?![\w&])|2018 2018[A-Za-z][A-Za-z&]")
_APOSTROPHES = frozenset(("suffix", "elision", "plural"))
_OPENING = frozenset(("pair_opens", "opens"))
_TWO_LETTERS = re.compile(r"[A-Za-z][A-Za-z&.]")
_WINDOW = 48
"""How many characters in front of a mark are looked at."""

_FIRST_WORD = re.compile(r"\s(\w+)")
_LAST_WORD = re.compile(r"([^\s]+)\s*$")
_ABBREVIATION = re.compile(
    r"\b(?:inc|corp|co|cos|ltd|plc|llc|bros|jr|sr|[A-Za-z](?:\.[A-Za-z])+) ?\.$", re.IGNORECASE
)
_DAY = re.compile(rf"\b(?:{'|'.join(sorted(MONTHS))}) \.? ?\d{{1,2}}$", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d")
_ELIDED = re.compile(r"(?<!\w)[odl]$", re.IGNORECASE)
_DASH = re.compile(r"(?<!\S)(?:201[34](?=[a-z]{3}|\s[A-Za-z(]|$)|2022(?=\s[A-Za-z]))")
_NIL = re.compile(r"(?:\$ )?201[34]")


def is_stripped(texts: Iterable[str]) -> bool:
    """Whether a page surely lost its quotation marks: one stands glued to a word."""
    return any("201" in text and _CERTAIN.search(text) for text in texts)


def repair_quotes(text: str, *, stripped: bool) -> tuple[str, int]:
    """Put quotation marks back where their number stands and cannot be a year or an identifier.

    Args:
        text: The text.
        stripped: Whether other text of the page surely lost its marks; only then is a closing mark
            without an opening one taken for a mark.

    Returns:
        The text, and how many places were left because they can be read either way.
    """
    if "201" not in text:
        return text, 0
    parts: list[str] = []
    position = left = pairs = quotes = 0
    last_close = text.rfind("201d")
    for match in _MARK.finditer(text):
        start, end, kind = match.start(), match.end(), match.lastgroup
        before = text[max(0, start - _WINDOW) : start].rstrip()
        after = text[end : end + _WINDOW]
        if kind == "pair_opens":
            pairs += 1
        elif kind == "pair_closes" and pairs:
            pairs -= 1
        elif kind == "opens" and _opens(before, after, closed=last_close > end):
            quotes += 1
        elif kind == "closes" and (quotes or (stripped and before and not _is_numbered(before))):
            quotes = max(0, quotes - 1)
        elif not _is_apostrophe(kind, before, after):
            left += _may_be_mark(kind, before, after) and (stripped or kind != "plural")
            continue
        piece = text[position:start]
        parts.append(piece if kind in _OPENING else piece.rstrip(" "))
        parts.append("'" if kind in _APOSTROPHES else '"')
        position = end + (kind == "opens" and after.startswith(" "))
    parts.append(text[position:])
    return "".join(parts), left


def count_dashes(text: str) -> int:
    """How many dashes and bullets may stand as "2013", "2014" or "2022" in running text.

    A number is counted where a word stands before it that a year seldom follows; a "2022" where a
    sentence or an entry of a list begins.
    """
    if "201" not in text and "2022" not in text:
        return 0
    return sum(_may_be_dash(text, match.start()) for match in _DASH.finditer(text))


def is_nil_or_year(cell: str, *, stripped: bool) -> bool:
    """Whether a figure's cell may hold a dash, for nil, that reads as 2013 or 2014."""
    return bool(_NIL.fullmatch(cell)) and (stripped or cell.startswith("$"))


def _may_be_dash(text: str, start: int) -> bool:
    before = text[max(0, start - _WINDOW) : start].rstrip()
    if text.startswith("2022", start):
        return not before or before[-1] in ".:;"
    word = _last_word(before)
    return word.isalpha() and word not in NO_OWNERS and not _DAY.search(f"{before} 1")


def _is_apostrophe(kind: str | None, before: str, after: str) -> bool:
    """Whether a mark that no quotation explains is an apostrophe."""
    if kind == "suffix":
        return _owns(before)
    if kind == "elision":
        return bool(_ELIDED.search(before))
    owners = OWNERS.get(_first_word(after)) if kind == "plural" else None
    return owners is not None and _last_word(before).endswith(tuple(owners))


def _may_be_mark(kind: str | None, before: str, after: str) -> bool:
    """Whether what is left may be a mark all the same: of plain years only after a plural."""
    if kind != "plural":
        return kind != "elision"
    word = _last_word(before)
    is_plural = word.endswith("s") and word not in NO_OWNERS
    return is_plural and _first_word(after) not in AFTER_YEARS


def _first_word(after: str) -> str:
    found = _FIRST_WORD.match(after)
    return found[1] if found else ""


def _last_word(before: str) -> str:
    found = _LAST_WORD.search(before)
    return found[1].lower().lstrip("(\"'").removeprefix("201c") if found else ""


def _owns(before: str) -> bool:
    """Whether an apostrophe can follow: a name or a noun ends here, not a phrase before a year."""
    if not before:
        return False
    if before[-1] == ".":
        return bool(_ABBREVIATION.search(before))
    if before.endswith(("201d", '"', ")", "&")):
        return True
    word = _last_word(before)
    if not before[-1].isalnum() or word in NO_OWNERS or _YEAR.fullmatch(word):
        return False
    return not _DAY.search(before)


def _is_numbered(before: str) -> bool:
    """Whether an identifier can follow, as in "section 201d" and "no. 201d"."""
    return _last_word(before.rstrip(" .")) in NUMBERED


def _opens(before: str, after: str, *, closed: bool) -> bool:
    """Whether "201c" opens a quotation: by what is around it, and whether one is closed later."""
    if after[:1].isspace():
        return closed and not _is_numbered(before)
    if _last_word(before.rstrip(" .")) in NUMBERED - CONJUNCTIONS:
        return False
    return closed or bool(_TWO_LETTERS.match(after))
