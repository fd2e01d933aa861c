"""TAT-QA's official scores: exact match, F1 and scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from finqa_sft.metrics.tatqa_text import answer_text, normalised, number_in, reads_as_number

_ONE_FIGURE = ("arithmetic", "count")


@dataclass(frozen=True, slots=True)
class TatQAScore:
    """What the official script makes of one prediction.

    Attributes:
        em: Whether the answers are the same: 1.0 or 0.0.
        f1: How many words they share, rounded to 2 digits; the exact match of numbers.
        scale: Whether the scale is the gold one: 1.0 or 0.0. Wrong where there is no answer.
        em_with_zero: The exact match if the number 0 is an answer, which the script takes for none.
        f1_with_zero: The F1 if it is.
        note: What the official script does in place of scoring; empty where it scores.
    """

    em: float
    f1: float
    scale: float
    em_with_zero: float
    f1_with_zero: float
    note: str = ""


def score_tatqa(
    answer: object,
    scale: object,
    *,
    gold_answer: object,
    gold_scale: str,
    answer_type: str,
) -> TatQAScore:
    """Score an answer and its scale as TAT-QA's script does.

    Give numbers as text: of the float 8e-05 the script reads "8", and the number 0 is no answer to
    it. Where it ends with an error all figures are 0; nothing raises.

    Args:
        answer: Text, a number, or a list of them.
        scale: "", "thousand", "million", "billion" or "percent".
        gold_answer: As in TAT-QA's files: a list of spans, a number, or text.
        gold_scale: One of the five scales.
        answer_type: "span", "multi-span", "arithmetic" or "count".
    """
    if not _is_zero(answer):
        return _figures(answer, scale, gold_answer, gold_scale, answer_type)
    counted = _figures("0", scale, gold_answer, gold_scale, answer_type)
    note = "the official script takes the number 0 for no answer"
    return replace(counted, em=0.0, f1=0.0, scale=0.0, note=note)


def _is_zero(answer: object) -> bool:
    return isinstance(answer, int | float) and not isinstance(answer, bool) and answer == 0


def _figures(
    answer: object, scale: object, gold_answer: object, gold_scale: str, answer_type: str
) -> TatQAScore:
    """The figures, all 0 where the script ends with an error; the number 0 is the caller's."""
    golds = _golds(gold_answer)
    if not answer or not golds:
        return TatQAScore(0.0, 0.0, 0.0, 0.0, 0.0)
    answers = list(answer) if isinstance(answer, list | tuple) else [answer]
    try:
        gold = normalised(answer_text(golds, gold_scale))
        readings = [answer_text(answers, scale), *_as_fraction(answers, scale)]
        em, f1 = max(_compared(normalised(reading), gold) for reading in readings)
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        note = f"the official script ends here with an error: {str(error)[:100]}"
        return TatQAScore(0.0, 0.0, 0.0, 0.0, 0.0, note=note)
    if answer_type in _ONE_FIGURE:
        f1 = em
    return TatQAScore(em, f1, float(scale == gold_scale), em, f1)


def _golds(answer: object) -> Sequence[object]:
    """The gold answers as a list of spans or one number."""
    if isinstance(answer, list | tuple):
        return answer
    return [str(answer)]


def _as_fraction(answers: Sequence[object], scale: object) -> list[str]:
    """How the script reads a lone number without scale besides: unrounded, for 0.2342 is 23.42%."""
    text = str(answers[0])
    if len(answers) > 1 or scale or "%" in text or not reads_as_number(text):
        return []
    number = number_in(text)
    return [] if number is None else [f"{number:.4f}"]


def _compared(text: str, gold: str) -> tuple[float, float]:
    """Exact match and F1 of two normalised texts, whose words count once each."""
    words, gold_words = set(text.split()), set(gold.split())
    common = len(words & gold_words)
    precision = common / len(words) if words else 1.0
    recall = common / len(gold_words) if gold_words else 1.0
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0.0
    # As numpy rounds to 2 digits, which the script does; Python's own way gives other digits.
    return float(text == gold), round(f1 * 100) / 100
