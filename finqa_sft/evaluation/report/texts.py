"""Texts of others on a page: what cannot be seen is made visible, what is too long is cut."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    r"""The text with control, formatting and unpaired surrogate characters as escapes.

    What turns the direction of writing, has no width or cannot be encoded is seen as `\u202e`;
    lines, tabs and spaces of every width stay.
    """
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(
        c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else _escape(c)
        for c in text
    )


def clipped(text: str, longest: int) -> str:
    """The text, or its beginning and end with a note of how much is left out between them.

    Args:
        text: Any text.
        longest: Most characters, the note aside.
    """
    if len(text) <= longest:
        return text
    end = longest // 4
    start = longest - end
    left_out = f"{len(text) - longest:,}"
    return f"{text[:start]}\n[… {left_out} characters not shown here …]\n{text[len(text) - end :]}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
