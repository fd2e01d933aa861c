"""Walks through the tree of a recipe: sections, lists of them, values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finqa_sft.recipe.problems import Key


def matching(node: Any, pattern: tuple[str, ...], key: Key) -> Iterator[tuple[Key, Any]]:
    """The places that a pattern of `SLOTS` stands for.

    Args:
        node: The tree below a key.
        pattern: Names of sections; `[]` for each item of a list.
        key: Where the tree is.

    Yields:
        Keys, and what stands there.
    """
    if not pattern:
        yield key, node
    elif pattern[0] == "[]" and isinstance(node, list):
        for index, item in enumerate(node):
            yield from matching(item, pattern[1:], (*key, index))
    elif isinstance(node, dict) and pattern[0] in node:
        yield from matching(node[pattern[0]], pattern[1:], (*key, pattern[0]))


def leaves(node: Any, key: Key, *, into_lists: bool = False) -> Iterator[tuple[Key, Any]]:
    """The values below a node; a list is one value unless it holds sections.

    Args:
        node: The tree below a key.
        key: Where the tree is.
        into_lists: Whether the items of every list are values of their own.

    Yields:
        Keys, and the values there.
    """
    match node:
        case dict() if node:
            for name, value in node.items():
                yield from leaves(value, (*key, name), into_lists=into_lists)
        case list() if into_lists or any(isinstance(item, dict) for item in node):
            for index, item in enumerate(node):
                yield from leaves(item, (*key, index), into_lists=into_lists)
        case _:
            yield key, node


def at(node: Any, key: Key) -> Any:
    """The value at a key."""
    for piece in key:
        node = node[piece]
    return node
