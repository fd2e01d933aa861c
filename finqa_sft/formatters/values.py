"""How values are written: numbers, and the scale that a number counts in."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal, TypeAlias, cast

from finqa_sft.documents import SCALES, Question, Scale
from finqa_sft.traces import numbers_in

Value: TypeAlias = Literal["executed", "written"]
"""Where a value comes from: from its program, or from the analyst."""

ScalePlace: TypeAlias = Literal["separate", "inside"]
"""Where a scale stands: on a line of its own, or in the answer."""

NO_SCALE = "none"
"""Stands for no scale where an answer looks as if it had one: `1.6%` under `scale: none`."""

_WORDS = "|".join(filter(None, SCALES))
_STATED = re.compile(rf"(?:({_WORDS})s?|{NO_SCALE}|(%))(?!\w)", re.IGNORECASE)


def taught_value(question: Question, *, value: Value) -> str:
    """The answer as a value, on one line.

    A number that its program gives as a fraction, and the analyst in percent, is taught in percent
    where that is the question's scale: 0.09111 becomes 9.111, not "0.09111 percent".
    """
    executed = question.executed_answer
    if value == "written" or executed is None or isinstance(executed, str):
        text = executed if value == "executed" and isinstance(executed, str) else question.answer
        return " ".join(text.split())
    number = Decimal(repr(executed))
    return decimal_text(number.scaleb(2) if _is_fraction_of_percent(question) else number)


def result_scale(question: Question) -> Scale:
    """The scale that the executed answer counts in: none where it is a fraction."""
    return "" if _is_fraction_of_percent(question) else question.scale


def on_one_line(program: str) -> str:
    """A program without line breaks; the spaces in its row labels stay."""
    return " ".join(filter(None, map(str.strip, program.splitlines())))


def number_text(number: float) -> str:
    """A number in plain decimal notation, as few digits as give it back: 407, 0.34719, -2.4."""
    return decimal_text(Decimal(repr(number)))


def decimal_text(number: Decimal) -> str:
    """The same of a decimal number."""
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").removesuffix(".")
    return text if text != "-0" else "0"


def with_scale(text: str, scale: Scale, *, place: ScalePlace) -> tuple[str, str]:
    """How an answer and its scale are written.

    Inside, an answer that ends in its scale already says it once, and one that ends in another one
    keeps its text and gets a line of its own, so that no scale is read that is not meant.

    Returns:
        The answer's line, and what the line of the scale says; empty where there is no such line.
    """
    if place == "separate":
        return text, scale
    value, said = _inside(text)
    if said and said != scale:
        return text, scale or NO_SCALE
    if scale == "percent" and re.search(r"[\d)]$", value):
        return f"{value}%", ""
    return f"{value} {scale}".rstrip(), ""


def split_scale(text: str, stated: str | None, *, place: ScalePlace) -> tuple[str, Scale]:
    """The answer and the scale that `with_scale` was given, but for a scale that is said twice.

    Args:
        text: The answer's line.
        stated: What the line of the scale says, or None where there is no such line.
        place: Where scales stand.
    """
    scale = stated_scale(stated)
    if scale is not None:
        return text, scale
    return _inside(text) if place == "inside" else (text, "")


def stated_scale(stated: str | None) -> Scale | None:
    """The scale that a line names, `none` being one without a name; None where it names none."""
    found = _STATED.match(stated.strip()) if stated is not None else None
    if found is None:
        return None
    return "percent" if found[2] else cast(Scale, (found[1] or "").lower())


def scale_lines(stated: str) -> list[str]:
    """The line of the scale, if there is one."""
    return [f"scale: {stated}"] if stated else []


def _inside(text: str) -> tuple[str, Scale]:
    """An answer, parted from the scale that it ends in."""
    if text.endswith("%"):
        value = text.removesuffix("%").rstrip()
        return (value, "percent") if value else (text, "")
    words = text.rsplit(maxsplit=1)
    scale = words[-1].lower().removesuffix("s") if len(words) == 2 else ""
    return (words[0], cast(Scale, scale)) if scale and scale in SCALES else (text, "")


def _is_fraction_of_percent(question: Question) -> bool:
    """Whether the scale is percent and the result nearer to the answer if taken for a fraction."""
    executed, written = question.executed_answer, numbers_in(question.answer)
    if question.scale != "percent" or not isinstance(executed, float | int) or not written:
        return False
    number = abs(Decimal(repr(executed)))
    return abs(number.scaleb(2) - written[0]) < abs(number - written[0])
