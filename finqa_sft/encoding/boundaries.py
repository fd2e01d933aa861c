r"""Places where a text can be cut so that its parts, tokenised apart, give the tokens of the whole.

A cut is only made where that is proved. A tokenizer of the `tokenizers` library works in steps
(added tokens split the text; then, in each piece, normalizer, pre-tokenizer, model), so a cut is
exact if no step looks across it. With s the text and p the place of the cut:

*Before an added token.* Added tokens split the text first, leftmost and longest first, and every
later step sees one piece at a time, so the token is a border already. That needs tokens that are
found in the raw text (`normalized: false`), that take no white space before them (`lstrip`), and
none that depends on its neighbours (`single_word`). All tokens found in this step are searched for
together, so that overlapping ones are found as the library finds them.

*At a line break before an ASCII letter or a `|`* (paragraphs, and the rows of a markdown table),
for pre-tokenizers that are known to the letter:

- GPT-2's pattern, alone or after `Digits`: the cut is right before the last line break, so
  s[p] = "\n" and s[p+1] is no white space. White space that ends at p is one piece of its own in
  the whole, since `\s+(?!\S)` gives back exactly the last character, s[p]; at the end of the left
  part `\s+(?!\S)` takes the same characters. All other alternatives stop at a line break. None
  looks back, so the right part begins as it does in the whole. `Digits` splits off digits before
  that; s[p] and s[p+1] are none, so they stay in one piece, for which the same holds.
- The patterns of Llama 3, Qwen2, o200k and Tekken: the cut is right after the line
  break, s[p-1] = "\n". Only three of their alternatives take a line break. `[\r\n]*` (and
  `[\r\n/]*`) after punctuation, and `\s*[\r\n]+`, take all that follow and end at p, in the whole
  as in the left part: s[p] is neither a line break nor "/". `\s+` is tried after `\s*[\r\n]+`,
  which never fails on white space with a line break in it. No alternative looks back.

No cut is made where an added token begins right after the line break: the text ends there for all
later steps, and a token may take white space before it. No added token may have a line break in
it, or (for the first kind of cut) take white space after it. Of normalizers, NFC changes nothing
across a cut between two ASCII characters; others make the text be tokenised whole. So do unknown
pre-tokenizers, and those with none, where a merge can reach across anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finqa_sft.encoding.words import any_of

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `ByteLevel` splits by when it uses its own pattern (tokenizers, `byte_level.rs`)."""

_SHORT_FORMS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

LLAMA3 = (
    rf"{_SHORT_FORMS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
"""The `Split` pattern in the tokenizer.json of Llama 3, also of cl100k."""

QWEN2 = LLAMA3.replace("{1,3}", "")
"""The `Split` pattern in the tokenizer.json of Qwen2, Qwen2.5 and Qwen3."""

O200K = (
    rf"{_CASED[0]}{_SHORT_FORMS}?|{_CASED[1]}{_SHORT_FORMS}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
"""The `Split` pattern in the tokenizer.json of gpt-oss (o200k)."""

TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
"""The `Split` pattern in the tokenizer.json of Mistral NeMo (Tekken)."""

SPLITS = {GPT2: "before", **dict.fromkeys((LLAMA3, QWEN2, O200K, TEKKEN), "after")}
"""Known `Split` patterns, and on which side of a line break their texts can be cut."""

_LETTER = re.compile(r"[A-Za-z|]")

LINE = rf"\n(?={_LETTER.pattern})"
"""A line break before which (GPT-2) or after which (the others) a text can be cut."""


@dataclass(frozen=True)
class Cuts:
    """Where a tokenizer's texts can be cut.

    Attributes:
        places: Finds line breaks and added tokens.
        whole: Added tokens before which a text must not be cut.
        lines: "before" or "after" a line break, or "" where lines are left whole.
    """

    places: re.Pattern[str]
    whole: frozenset[str]
    lines: str

    def apart(self, text: str) -> Iterator[str]:
        """The text in parts; joined, they are the text."""
        begin = 0
        for found in self.places.finditer(text):
            if found[0] in self.whole:
                continue
            end = found.end() if found[0] == "\n" and self.lines == "after" else found.start()
            if end > begin:
                yield text[begin:end]
                begin = end
        yield text[begin:]


def known_cuts(tokenizer: PreTrainedTokenizerBase) -> Cuts | None:
    """Where texts of a tokenizer can be cut, or None where nothing is known of it."""
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.split_special_tokens:
        return None
    backend: Tokenizer = tokenizer.backend_tokenizer
    # With dropout, the same text gives other tokens each time.
    if not isinstance(backend.model, BPE) or backend.model.dropout:
        return None
    added = list(backend.get_added_tokens_decoder().values())
    if any(token.single_word for token in added):
        return None
    raw = [token for token in added if not token.normalized]
    patterns = [any_of(token.content for token in raw)]
    lines = _lines(backend, added)
    if lines:
        begins = any_of(token.content for token in added if _LETTER.match(token.content))
        patterns.append(f"{LINE}(?!{begins})")
    whole = frozenset(token.content for token in raw if token.lstrip)
    return Cuts(re.compile("|".join(patterns)), whole, lines)


def _lines(backend: Tokenizer, added: list[AddedToken]) -> str:
    """On which side of a line break texts can be cut."""
    lines = _known(_state(backend.pre_tokenizer))
    normalizer = _state(backend.normalizer).get("type")
    if normalizer not in (None, "NFC") or (normalizer and any(t.normalized for t in added)):
        return ""
    for token in added:
        if "\n" in token.content or (token.rstrip and lines == "before"):
            return ""
    return lines


def _known(pre_tokenizer: dict[str, Any]) -> str:
    """On which side of a line break a pre-tokenizer can be cut."""
    match pre_tokenizer:
        case {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, last]}:
            return "before" if _is_byte_level(last, use_regex=True) else ""
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                last,
            ],
        } if pattern in SPLITS:
            return SPLITS[pattern] if _is_byte_level(last, use_regex=False) else ""
        case _:
            return "before" if _is_byte_level(pre_tokenizer, use_regex=True) else ""


def _is_byte_level(step: dict[str, Any], *, use_regex: bool) -> bool:
    # `add_prefix_space` would put a space before every part.
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": found}:
            return bool(found == use_regex)
        case _:
            return False


def _state(component: Any) -> dict[str, Any]:
    """The settings of a tokenizer's component, as tokenizer.json writes them; {} of none."""
    if component is None:
        return {}
    settings: dict[str, Any] = json.loads(component.__getstate__())
    return settings
