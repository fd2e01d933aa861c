"""What is asked of generation, and what it gives; plain values, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How completions are generated.

    Attributes:
        max_new_tokens: Most tokens of a completion, the end of the turn included.
        samples: Completions a prompt. One is decoded greedily; several are sampled.
        temperature: Of sampling; above 0.
        top_p: Share of the probability that samples are drawn from.
        seed: Makes sampling repeatable.
    """

    max_new_tokens: int
    samples: int = 1
    temperature: float = 0.7
    top_p: float = 0.95
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a completion is generated from.

    Attributes:
        ids: Its tokens.
        document: The id of the document in it. Prompts of a document are completed together; what
            they share is found by comparing tokens.
    """

    ids: list[int]
    document: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote.

    Attributes:
        text: Without the end of the turn and other control tokens.
        tokens: How many tokens were generated, the end of the turn included.
        finished: Whether the model ended its turn; else the limit of new tokens did.
    """

    text: str
    tokens: int
    finished: bool
