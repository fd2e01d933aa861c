"""How TAT-QA's official script reads answers: numbers, scales and words, oddities included.

Source of the rules: `tatqa_metric.py` and `tatqa_utils.py` of github.com/NExTplusplus/TAT-QA.
Everything takes time in proportion to the text.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from typing import Any

_IGNORED_IN_NUMBERS = str.maketrans("", "", "'\"\\$\u20ac\u00a3\u00a5%(),[]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)|[+-]?\.\d+")
_IN_PARENTHESES = re.compile(r"\([\d.\s]+\)")
_BEFORE_PERCENT = re.compile(r"[\d.\s]%")
_WORD_BEHIND_DIGIT = re.compile(r"[\d.]\s?([a-zA-Z]+)")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_FACTORS = {
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "percent": 0.01,
}


def reads_as_number(text: str) -> bool:
    """Whether the first word is a number, and the second one, if there is one, a scale."""
    words = text.translate(_IGNORED_IN_NUMBERS).split()
    try:
        if not words or math.isnan(float(words[0])):
            return False
    except ValueError:
        return False
    return len(words) == 1 or factor(words[1]) != 1


def number_in(text: str) -> float | None:
    """The number that a text stands for, rounded to 4 digits; None where it begins with a point.

    Raises:
        ArithmeticError, ValueError: It has too many digits.
    """
    found = _NUMBER.search(text.translate(_IGNORED_IN_NUMBERS))
    if found is None or not found[1]:
        return None
    number = float(found[1]) if "." in found[1] else int(found[1])
    word = _WORD_BEHIND_DIGIT.search(text)
    stripped = text.strip()
    sign = -1 if _IN_PARENTHESES.search(stripped) else 1
    percent = 0.01 if _BEFORE_PERCENT.search(stripped) else 1
    return round(number * (factor(word[1]) if word else 1) * sign * percent, 4)


def factor(scale: object) -> float:
    """What the first known word within a scale multiplies by; 1 if there is none.

    Raises:
        TypeError: The scale is no text.
    """
    if not isinstance(scale, str):
        raise TypeError(f"the scale is {type(scale).__name__}, not text")
    lowered = scale.lower()
    return next((value for word, value in _FACTORS.items() if word in lowered), 1)


def answer_text(answers: Sequence[object], scale: object) -> str:
    """The one text that a list of answers is compared as: numbers in full, words with their scale.

    Raises:
        ArithmeticError, TypeError, ValueError: The answers cannot be sorted, or a number is too
            large, or has a scale that is no text.
    """
    unsorted: Sequence[Any] = answers
    return " ".join(_scaled(str(answer), scale) for answer in sorted(unsorted))


def _scaled(answer: str, scale: object) -> str:
    number = number_in(answer) if reads_as_number(answer) else None
    if number is None:
        return f"{answer} {scale}" if scale else answer
    return f"{number:.4f}" if "%" in answer else f"{round(number, 2) * factor(scale):.4f}"


def normalised(text: str) -> str:
    """A text as it is compared: lower case, without punctuation and articles, numbers as numbers.

    Raises:
        ArithmeticError, ValueError: A number has too many digits.
    """
    return " ".join(" ".join(map(_normalised_word, text.split(" "))).split())


def _normalised_word(word: str) -> str:
    word = word.lower()
    if not reads_as_number(word):
        word = word.translate(_PUNCTUATION)
    if reads_as_number(word):
        word = str(number_in(word))
    return _ARTICLE.sub(" ", word)
