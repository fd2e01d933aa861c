"""What is known of a question's answer: whether a text states it, and twins with another one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from finqa_sft.documents import SCALES, Question
from finqa_sft.errors import ProgramError
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.values import number_text
from finqa_sft.programs import parse_program

_PERCENT = re.compile(r"%|\bper ?cent\b", re.IGNORECASE)
_UNIT = re.compile(
    r"[$€£¥₹]|%|\b(?:[A-Z]{2,3}|usd|eur|gbp|chf|jpy)(?![A-Za-z])"
    r"|\b(?:(?i:per ?cent|(?:thousand|million|billion)s?))\b"
)
_NUMBER = re.compile(r"([-+(]*)([\d.,']*\d)\)?")
_MINUS = str.maketrans("\u2212\u2013", "--")
_OTHER_DIGITS = str.maketrans("0123456789", "1234567891")


def is_gold(prediction: Prediction, question: Question) -> bool:
    """Whether a prediction states something, and all that it states is known of the question."""
    answer, program = prediction.answer, prediction.program
    if answer is None and program is None:
        return False
    executed = _executed_text(question)
    is_percent = question.scale == "percent"
    # What a program computes as a fraction may be stated in the percent that the question asks for.
    fractions = readings(executed) if is_percent and executed is not None else set()
    shares = [f"{fraction * 100:f}" for fraction in fractions]
    known = (question.answer, executed, question.program, *shares)
    golds = [gold for gold in known if gold is not None]
    return (answer is None or any(agree(answer, gold, percent=is_percent) for gold in golds)) and (
        program is None
        or (question.program is not None and _same_program(program, question.program))
    )


def stated_scales(question: Question) -> set[str]:
    """The scales that a completion may state: the question's, one in its answer's text, none."""
    words = set(re.findall(r"[a-z]+", question.answer.lower()))
    in_answer = {scale for scale in SCALES if scale in words or f"{scale}s" in words}
    percent = {"percent"} if _PERCENT.search(question.answer) else set()
    return {"", question.scale} | in_answer | percent


def gold_text(question: Question) -> str:
    """What is known of the answer, as an error shows it."""
    executed = _executed_text(question)
    parts = {"answer": question.answer, "program": question.program, "executed": executed}
    return ", ".join(f"{name} {value!r}" for name, value in parts.items() if value is not None)


def agree(stated: str, gold: str, *, percent: bool = False) -> bool:
    """Whether two texts say the same: as numbers where both are, else as text.

    Numbers may be written in any style and rounded to one decimal or more; text in any case.

    Args:
        stated: What a completion says.
        gold: What it should say.
        percent: `gold` counts in percent, even without a sign that says so.
    """
    if _folded(stated) == _folded(gold):
        return True
    numbers = readings(f"{gold}%" if percent and not _PERCENT.search(gold) else gold)
    return any(_rounds(one, other) for one in readings(stated) for other in numbers)


def readings(text: str) -> set[Decimal]:
    """The numbers that a text can stand for; none where it is no number.

    "1.234" is 1.234 in one country and 1234 in another, "5%" is 5 or 0.05, "(5)" is -5.
    """
    folded = unicodedata.normalize("NFKC", text).translate(_MINUS)
    bare = "".join(_UNIT.sub(" ", folded).split())
    match = _NUMBER.fullmatch(bare)
    if match is None:
        return set()
    sign = -1 if {"-", "("} & set(match[1]) else 1
    values = set()
    for point, separator in (".,", ",."):
        whole, _, fraction = match[2].partition(point)
        mark = re.escape(separator)
        grouped = rf"\d*|\d{{1,3}}(?:[{mark}']\d{{2,3}})*[{mark}']\d{{3}}"
        if re.fullmatch(grouped, whole) and re.fullmatch(r"\d*", fraction):
            values.add(sign * Decimal(f"{re.sub(r'[^0-9]', '', whole) or 0}.{fraction or 0}"))
    return values | ({value / 100 for value in values} if _PERCENT.search(folded) else set())


def other_answers(question: Question) -> Iterator[Question]:
    """The question with another answer of the same style: other digits, another sign, no for yes.

    Answer, program and executed answer change together. Of an answer in words there is none.
    """
    answer, executed = question.answer.strip(), question.executed_answer
    if answer.lower() in ("yes", "no"):
        other, step = (
            ("no", "greater(1, 2)") if answer.lower() == "yes" else ("yes", "greater(2, 1)")
        )
        yield replace(
            question,
            answer=other,
            executed_answer=executed and other,
            program=question.program and step,
        )
        return
    numbers = readings(answer)
    if not numbers or isinstance(executed, str):
        return
    value = float(min(numbers, key=abs)) if executed is None else executed
    digits = number_text(abs(value)).translate(_OTHER_DIGITS)
    yield replace(
        question,
        answer=answer.translate(_OTHER_DIGITS),
        executed_answer=None if executed is None else float(digits) * (-1 if value < 0 else 1),
        program=question.program and f"add({'-' * (value < 0)}{digits}, 0)",
    )
    is_negative = answer[0] in "-(\u2212"
    negated = answer.strip("-()\u2212 ") if is_negative else f"-{answer}"
    if value and readings(negated):
        yield replace(
            question,
            answer=negated,
            executed_answer=None if executed is None else -value,
            program=question.program and f"subtract(0, {number_text(value)})",
        )


def plain(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def _folded(text: str) -> str:
    return plain(unicodedata.normalize("NFKC", text)).casefold()


def _rounds(stated: Decimal, gold: Decimal) -> bool:
    """Whether a number is another one, or the other one rounded to one decimal or more."""
    if stated == gold:
        return True
    exponent = int(stated.as_tuple().exponent)
    same_sign = stated * gold > 0
    return same_sign and exponent < 0 and abs(stated - gold) <= Decimal(5).scaleb(exponent - 1)


def _executed_text(question: Question) -> str | None:
    executed = question.executed_answer
    return number_text(executed) if isinstance(executed, int | float) else executed


def _same_program(stated: str, gold: str) -> bool:
    if plain(stated) == plain(gold):
        return True
    try:
        return parse_program(stated) == parse_program(gold)
    except ProgramError:
        return False
