"""Sampling with random numbers of each completion's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class OwnDraws(LogitsProcessor):
    """Draws each row's next token with the row's own numbers; all other tokens become impossible.

    A greedy `generate` then takes the token that was drawn. So no common stream of random numbers
    is used, neither torch's own, which training goes on with, nor one that depends on which rows
    are in a batch and in which order.
    """

    def __init__(
        self, numbers: torch.Tensor, *, prompt: int, temperature: float, top_p: float
    ) -> None:
        """Take the numbers.

        Args:
            numbers: Uniform in [0, 1), `[rows, new tokens]`, float32.
            prompt: How many tokens stand before the first new one.
            temperature: Divides the logits; above 0.
            top_p: The most probable tokens that together have this share are drawn from.
        """
        self._numbers = numbers
        self._prompt = prompt
        self._temperature = temperature
        self._top_p = top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The drawn token at 0, all others at minus infinity.

        Args:
            input_ids: What was read and written so far, `[rows, tokens]`.
            scores: The logits, `[rows, vocabulary]`.
        """
        drawn = self._numbers[:, input_ids.shape[1] - self._prompt, None]
        probabilities, order = torch.softmax(scores.float() / self._temperature, dim=-1).sort(
            dim=-1, descending=True, stable=True
        )
        sums = probabilities.cumsum(dim=-1)
        kept = sums - probabilities < self._top_p
        share = (probabilities * kept).sum(dim=-1, keepdim=True)
        place = (sums <= drawn * share).sum(dim=-1, keepdim=True)
        place = place.minimum(kept.sum(dim=-1, keepdim=True) - 1)
        token = order.gather(-1, place)
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)


def own_numbers(
    ids: Sequence[int], *, sample: int, seed: int, count: int, device: torch.device
) -> torch.Tensor:
    """The numbers of a completion: they follow from its prompt, its sample and the seed.

    Args:
        ids: The prompt.
        sample: Which of the prompt's samples it is.
        seed: Of the evaluation.
        count: How many numbers.
        device: Where they are to be; they are made on the CPU, and the same everywhere.

    Returns:
        Uniform in [0, 1), `[count]`, float32.
    """
    told = repr((seed, sample, list(ids))).encode()
    own = int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big", signed=True)
    stream = torch.Generator().manual_seed(own)
    return torch.rand(count, generator=stream).to(device)
