"""One regular expression for any of many words, and what words begin with."""

from __future__ import annotations

import re
from collections.abc import Iterable


def any_of(words: Iterable[str]) -> str:
    """A pattern that matches the longest of some words at a place; of none, one that never does.

    The words share their beginnings, so that thousands of them are found as fast as a few: some
    tokenizers have that many added tokens.
    """
    beginnings = sorted({word for word in words if word})
    return _pattern(beginnings) if beginnings else r"(?!)"


def _pattern(words: list[str]) -> str:
    """Alternatives by first character; words are sorted, so those of one beginning are together."""
    ends_here = words[0] == ""
    groups: dict[str, list[str]] = {}
    for word in words[ends_here:]:
        groups.setdefault(word[0], []).append(word)
    branches = []
    for group in groups.values():
        shared = common_beginning(group[0], group[-1])
        rest = [word[len(shared) :] for word in group]
        branches.append(re.escape(shared) + (_pattern(rest) if rest != [""] else ""))
    if len(branches) == 1 and not ends_here:
        return branches[0]
    # Greedy: a longer word is taken before one that ends here.
    return f"(?:{'|'.join(branches)})" + ("?" if ends_here else "")


def common_beginning(first: str, last: str) -> str:
    """What two words begin with; in sorted words, all between them begin with it too."""
    length = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        length += 1
    return first[:length]
