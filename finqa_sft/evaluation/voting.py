"""Self-consistency: of several completions, the answer that most of them come to.

Source: X. Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models,
ICLR 2023. Here values vote, and not texts: programs are executed first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from finqa_sft.documents import Question
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.computed import computed_prediction
from finqa_sft.metrics.numbers import written_number

_DIGITS = 5
"""Values that agree in so many digits behind the point are one, as programs round them."""

_EXACT = 10**20
"""Larger numbers are compared as they are: rounded to so many digits they would not be exact."""


def vote(predictions: Sequence[Prediction], question: Question) -> tuple[Prediction, int]:
    """The first prediction that comes to what most of them come to, and how many do.

    Predictions agree if they come to the same number, rounded to 5 digits, or to the same words in
    the same scale. One without a value, or with a program that cannot be executed, has no vote
    unless none has a better one. Of several values with as many votes, the one that was said first
    wins.

    Args:
        predictions: At least one, in the order in which they were drawn.
        question: The question that was asked; its gold labels are not looked at.
    """
    ballots = [_value(prediction, question) for prediction in predictions]
    counts = Counter(ballot for ballot in ballots if ballot is not None) or Counter(ballots)
    # Of equal counts, the first one that was met comes first.
    ((winner, votes),) = counts.most_common(1)
    return predictions[ballots.index(winner)], votes


def _value(prediction: Prediction, question: Question) -> Hashable | None:
    """What a prediction votes for; None where it has no vote."""
    computed = computed_prediction(prediction, question)
    if computed.problem or not computed.text:
        return None
    value: Hashable = " ".join(computed.text.split()).casefold()
    if number := written_number(computed.text):
        value = round(number.value, _DIGITS) if abs(number.value) < _EXACT else number.value
    return value, computed.scale
