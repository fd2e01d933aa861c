"""The lines of a completion: each begins with a word that says what it is, or is the value alone.

    evidence: Net sales | $ 5,829 | 5,735
    program: subtract(5829, 5735), divide(#0, 5735)
    answer: 0.01639
    scale: percent

What small models do to them is passed over: another case or order, marks of lists, headings and
bold words, code fences, empty lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PLAIN = re.compile(r"(evidence|program|answer|scale): (.*)")
_ADORNED = re.compile(
    r"([\s>#*_`-]*)(?:\d+[.)][\s*_`]*)?"
    r"(evidence|program|answer|scale)[\s*_`]*:([\s*_`]*)(.*)",
    re.IGNORECASE,
)
_MARKS = "*_`"
_FENCE = re.compile(r"\s*```\w*\s*")
_THINKING = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


def generated_text(completion: str) -> str:
    """The completion without surrounding white space and without a reasoning block before it."""
    thinking = _THINKING.match(completion)
    return completion[thinking.end() if thinking else 0 :].strip()


def bare_line(value: str) -> str:
    """The line of a value that stands alone; with its word, if it would be read as another line."""
    is_other = _parted(value)[0] or _FENCE.fullmatch(value) or _THINKING.match(value)
    return f"answer: {value}" if is_other else value


def read_lines(text: str, *, bare: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the lines say.

    What follows a line's word is taken from the next line where nothing stands beside it. Of
    several answers the first counts, as of programs and scales: a model that runs on past its
    answer begins another one, and reading ends there.

    Args:
        text: The completion.
        bare: Whether a line without a word says something; otherwise it is passed over.

    Returns:
        What each word says, in the order of the lines, "" standing for no word; and what is cited.
    """
    said: dict[str, str] = {}
    cited: list[str] = []
    previous = ""
    for key, value in _lines(text):
        if not (key or bare):
            continue
        if key in said or (key == "evidence" and cited and previous != key):
            break
        previous = key
        if key == "evidence":
            cited.append(value)
        else:
            said[key] = value
    return said, tuple(cited)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The words that lines begin with, empty where there is none, each with what it says."""
    waiting = ""
    for line in text.split("\n"):
        if _FENCE.fullmatch(line) or not line.strip():
            continue
        key, value = _parted(line)
        if key and not value:
            waiting = key
        else:
            yield key or waiting, value
            waiting = ""


def _parted(line: str) -> tuple[str, str]:
    """The word that a line begins with, in lower case, and the rest; or no word, and the line."""
    if plain := _PLAIN.fullmatch(line.strip()):
        return plain[1], plain[2].strip()
    found = _ADORNED.fullmatch(line.strip())
    if found is None:
        return "", line.strip()
    value = found[4].strip()
    if any(mark in found[1] + found[3] for mark in _MARKS):
        value = value.rstrip(_MARKS).strip()
    return found[2].lower(), value
