"""Token ids of texts, each part of a text tokenised once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finqa_sft.encoding.boundaries import known_cuts
from finqa_sft.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REMEMBERED_CHARACTERS = 2_000_000
"""Hundreds of pages, in some 20 MB; the questions of one document are encoded one after another."""

_TRIAL = (
    "Sales rose.\nIt's 12\n\n| a | 5.1 |\n|---|\n\n\n3 \n\t\nÀ l'été\n9\r\nB\n\nC's  d\n é\n/e\n"
    "We'LL\u00a0\nX\n\n\u0301y ,\n\nZ"
)


class Tokens:
    """A tokenizer with a memory of parts: a page that comes with six questions is tokenised once.

    A text is cut at places where tokens never reach across (`finqa_sft.encoding.boundaries`), and
    the parts that came before keep their tokens. The ids are always those of the whole text.

    Attributes:
        reuses: Whether any place is known where this tokenizer's texts can be cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, reuse: bool = True) -> None:
        self._tokenizer = tokenizer
        self._memory: dict[str, list[int]] = {}
        self._remembered = 0
        self._cuts = known_cuts(tokenizer) if reuse else None
        # The proof stands on what the library does today; a text full of borders says if it still
        # does.
        if self._cuts is not None and self.ids(_TRIAL) != self._tokenised([_TRIAL])[0]:
            self._cuts = None
        self.reuses = self._cuts is not None

    def ids(self, text: str) -> list[int]:
        """Ids of a text in which the special tokens already stand.

        Raises:
            DataError: The text is no valid Unicode.
        """
        _require_unicode(text)
        if self._cuts is None:
            return self._tokenised([text])[0]
        parts = list(self._cuts.apart(text))
        new = [part for part in dict.fromkeys(parts) if part not in self._memory]
        if new:
            self._memory.update(zip(new, self._tokenised(new), strict=True))
            self._remembered += sum(map(len, new))
        ids: list[int] = []
        for part in parts:
            ids += self._memory[part]
        if self._remembered > REMEMBERED_CHARACTERS:
            self._forget()
        return ids

    def _forget(self) -> None:
        """Forget the older half, by characters."""
        for part in list(self._memory):
            if self._remembered <= REMEMBERED_CHARACTERS // 2:
                break
            del self._memory[part]
            self._remembered -= len(part)

    def _tokenised(self, texts: list[str]) -> list[list[int]]:
        # Verbose, it would warn of texts longer than the model takes; those are cut or left out
        # later.
        encoded = self._tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the memory, for other processes."""
        return {**self.__dict__, "_memory": {}, "_remembered": 0}


def _require_unicode(text: str) -> None:
    """Refuse half of a surrogate pair, which JSON can hold and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"a message holds {text[error.start]!r}, half of a character, after "
            f"{text[max(error.start - 20, 0) : error.start]!r}; mend the text, or leave the row out"
        ) from error
