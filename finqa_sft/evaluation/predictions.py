"""What was predicted for each question, and the files that hold it."""

from __future__ import annotations

from dataclasses import dataclass

from finqa_sft.formatters.base import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What a model, or any other system, said to one question.

    Attributes:
        id: The question's id.
        prediction: What it said. Its program names rows as the document that was read does.
        tokens: How many tokens were generated, the end of the turn included; None if not known.
        finished: Whether it came to its end by itself, not by the limit of new tokens.
        problem: Why the question could not be asked; empty where it was.
        left_out: How many parts of the document the prompt did not show.
        samples: All completions, where several were drawn and voted.
        votes: How many of the samples came to this prediction.
    """

    id: str
    prediction: Prediction
    tokens: int | None = None
    finished: bool = True
    problem: str = ""
    left_out: int = 0
    samples: tuple[str, ...] = ()
    votes: int = 1
