"""What holds of every encoded row, and the error where it does not."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from finqa_sft.encoding.rows import IGNORED, EncodedRow
from finqa_sft.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Guarantee(StrEnum):
    """What holds of every row that `Encoder.encode` gives."""

    SUPERVISED = "some token is supervised"
    """A row without any supervised token would train nothing, in silence."""

    SAYS = "what is supervised is the answer and the end of its turn"
    """The supervised tokens decode to the completion's text and the token that ends the turn, with
    nothing between them or around them but white space and further special tokens."""

    GIVEN = "no token of the prompt is supervised"
    """The model is not taught to write documents and questions."""

    SAME_PROMPT = "the prompt is what generation starts from"
    """Token for token: `encode_prompt` of the prompt gives the row's unsupervised tokens."""


class BrokenGuarantee(DataError):
    """A row of which a guarantee does not hold.

    Attributes:
        guarantee: The one that is broken.
    """

    def __init__(self, guarantee: Guarantee, what: str) -> None:
        """Say which guarantee is broken, and what was found.

        Args:
            guarantee: The one that is broken.
            what: What was found, and what can be done.
        """
        super().__init__(guarantee, what)
        self.guarantee = guarantee
        self._what = what

    def __str__(self) -> str:
        return f"a row is not as it must be ({self.guarantee}): {self._what}"


class RowCheck:
    """Checks rows of one tokenizer.

    Some tokenizers decode to other white space than they were given: a space is added or taken off
    at the beginning, or put right before punctuation. Some normalise characters before anything
    else. For all but byte-level ones, both sides are normalised and compared without white space.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers.decoders import ByteLevel
        from transformers import PreTrainedTokenizerFast

        self._tokenizer = tokenizer
        self._exact = False
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            backend = tokenizer.backend_tokenizer
            added = backend.get_added_tokens_decoder().values()
            self._exact = (
                backend.normalizer is None
                and isinstance(backend.decoder, ByteLevel)
                and not any(token.lstrip or token.rstrip for token in added)
            )

    def decode(self, ids: list[int]) -> str:
        """Ids as text, special tokens and white space as they are."""
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def require(self, row: EncodedRow, *, prompt: list[int], says: str) -> None:
        """Check the guarantees; a few microseconds.

        Args:
            row: What was encoded.
            prompt: The ids that generation starts from.
            says: The text to supervise, with the end of its turn.

        Raises:
            BrokenGuarantee: One does not hold.
        """
        ids, labels = row["input_ids"], row["labels"]
        begin = len(prompt)
        if ids[:begin] != prompt:
            raise BrokenGuarantee(
                Guarantee.SAME_PROMPT,
                f"it begins with {self.decode(ids[:begin])[-80:]!r}, generation with "
                f"{self.decode(prompt)[-80:]!r}",
            )
        if labels[:begin].count(IGNORED) != begin:
            first = next(label for label in labels[:begin] if label != IGNORED)
            raise BrokenGuarantee(
                Guarantee.GIVEN, f"{self.decode([first])!r} of the prompt is supervised"
            )
        learnt = [label for label in labels[begin:] if label != IGNORED]
        if not learnt:
            raise BrokenGuarantee(
                Guarantee.SUPERVISED, f"nothing stands after {self.decode(prompt)[-80:]!r}"
            )
        decoded = self.decode(learnt)
        if decoded != says and (self._exact or self._bare(decoded) != self._bare(says)):
            raise BrokenGuarantee(
                Guarantee.SAYS,
                f"its tokens decode to {decoded!r} and not to {says!r}; where a character was "
                "lost, write the answer without it, or leave the row out",
            )

    def _bare(self, text: str) -> str:
        from transformers import PreTrainedTokenizerFast

        if isinstance(self._tokenizer, PreTrainedTokenizerFast):
            normalizer = self._tokenizer.backend_tokenizer.normalizer
            text = text if normalizer is None else normalizer.normalize_str(text)
        # U+2581 is how tokenizers of the SentencePiece kind write a space.
        return "".join(text.replace("\u2581", " ").split())
