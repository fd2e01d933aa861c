"""How numbers and spaces are written: amounts written twice, minus signs, special spaces."""

from __future__ import annotations

import re

_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_NO_WIDTH = re.compile(
    # The two joiners spell words in some scripts, so they go only beside ASCII.
    "[\u00ad\u200b\u2060\ufeff]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
_MINUS = re.compile(r"^([ (]{0,2}[$€£¥]? ?)[−–‒﹣－] ?(?=[$€£¥]? ?\.?\d)")
_BRACKET = re.compile(r"""\( {0,3}"?([\d.,%\- ]{1,40})\)""")
_WINDOW = 60
"""How many characters in front of a bracket are looked at."""


def plain_spaces(text: str) -> str:
    """Special spaces as plain ones; characters without width and soft hyphens left out."""
    if text.isascii():
        return text
    return _SPACES.sub(" ", _NO_WIDTH.sub("", text)).strip()


def plain_minus(cell: str) -> str:
    """A minus sign or an en dash in front of a cell's number as "-"; ranges stay as they are."""
    return cell if cell.isascii() else _MINUS.sub(r"\1-", cell)


def drop_doubles(text: str) -> str:
    """Leave out a bracket that repeats the negative amount or the percentage in front of it."""
    if "(" not in text:
        return text
    kept = ""
    parts: list[str] = []
    position = 0
    for match in _BRACKET.finditer(text):
        piece = text[position : match.start()]
        window = (kept + piece[-_WINDOW:])[-_WINDOW:].rstrip()
        if _repeats(window, match[1].replace(" ", "")):
            parts.append(piece.rstrip())
            kept = window
        else:
            parts += (piece, match[0])
            kept = (window + " " + match[0])[-_WINDOW:]
        position = match.end()
    parts.append(text[position:])
    return "".join(parts)


def _repeats(before: str, number: str) -> bool:
    """Whether what stands before a bracket ends with the number in it.

    Args:
        before: The end of the text in front of the bracket.
        number: What stands in the bracket, without spaces.
    """
    if number == "%":
        return before.endswith("%")
    if not number[-1:].isdigit() and not number.endswith("%"):
        return False
    compact = before[:-1].rstrip() + "%" if before.endswith("%") else before
    if number.endswith("%"):
        if not compact.endswith(number):
            return False
        return not re.search(r"[\w.,]$", compact[: -len(number)])
    if not compact.endswith(f"-{number}"):
        return False
    return not re.search(r"[\w.,)%]$", compact[: -len(number) - 1].rstrip("-"))
