"""Arguments of a step: which ones can be computed with, and what near misses stand for."""

from __future__ import annotations

import re
from decimal import Decimal

from finqa_sft.errors import ProgramError
from finqa_sft.programs.plain import literal_value, reference

MINUS_SIGNS = "\u2212\u2013\u2014\ufe63\uff0d"
"""Characters that stand for "-": the minus sign, dashes, small and full-width hyphens."""

CURRENCIES = "$\u20ac\u00a3\u00a5\u20b9"

SCALE_WORDS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Words behind a number, with the power of ten that they stand for."""

DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
"""A number without sign: digits, in groups of three between commas or without commas."""

_AS_MINUS = str.maketrans(dict.fromkeys(MINUS_SIGNS, "-"))
_QUOTES = "\"'`*\u2018\u2019\u201c\u201d "
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:US)?[{CURRENCIES}]?\s*(?P<inner>[-+]?)\s*(?P<digits>{DIGITS})\s*"
    rf"(?P<percent>%|per ?cent)?(?:(?P<scale>{'|'.join(SCALE_WORDS)})s?)?",
    re.IGNORECASE,
)
_IN_PARENTHESES = re.compile(rf"[{CURRENCIES}]?\s*\(([^()]*)\)\s*(%?)")
_CONSTANT = re.compile(r"const(?:ant)?[_ ]?(m?[0-9][0-9,]*)", re.IGNORECASE)
_SPACED_REFERENCE = re.compile(r"#\s+([0-9]{1,4})")


def is_readable(arg: str) -> bool:
    """Whether an argument is a number, a constant or a reference, as the language writes them."""
    if "," in arg:
        return False
    if arg.startswith("#"):
        return reference(arg) is not None
    try:
        literal_value(arg)
    except ProgramError:
        return False
    return True


def mended_argument(written: str) -> tuple[str, str | None]:
    """What an argument stands for, and what had to be repaired, in words.

    Commas between thousands, currency signs, quotes and the like are left out; "(5)" is -5 as in
    financial tables; "5 percent" is "5%"; "5.3 million" is 5300000. What cannot be read stays as it
    is written.
    """
    arg = written.strip()
    if is_readable(arg):
        return arg, None
    mended = _mended(" ".join(arg.strip(_QUOTES).translate(_AS_MINUS).split()))
    if mended is None or not is_readable(mended):
        return arg, None
    return mended, f"read {arg!r} as {mended}"


def _mended(text: str) -> str | None:
    if match := _SPACED_REFERENCE.fullmatch(text):
        return f"#{match[1]}"
    if match := _CONSTANT.fullmatch(text):
        return f"const_{match[1].replace(',', '').lower()}"
    if match := _IN_PARENTHESES.fullmatch(text):
        inside = _number(match[1].strip() + match[2])
        return f"-{inside}" if inside and inside[0] != "-" else inside
    return _number(text)


def _number(text: str) -> str | None:
    match = _NUMBER.fullmatch(text)
    if match is None or (match["sign"] and match["inner"]):
        return None
    sign = "-" if "-" in (match["sign"], match["inner"]) else ""
    digits = match["digits"].replace(",", "")
    if match["percent"] and match["scale"]:
        return None
    if match["scale"]:
        digits = f"{Decimal(digits).scaleb(SCALE_WORDS[match['scale'].lower()]):f}"
    return f"{sign}{digits}{'%' if match['percent'] else ''}"
