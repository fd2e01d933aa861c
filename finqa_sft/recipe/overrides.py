"""`key.path=value` on the command line: the same values as in a recipe, written over it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finqa_sft.recipe.problems import Key, Problem, dotted, spelled
from finqa_sft.recipe.schema import SLOTS
from finqa_sft.recipe.yaml_loader import NotYamlError, load_text


@dataclass(frozen=True, slots=True)
class Overridden:
    """A recipe's data with its overrides applied.

    Attributes:
        data: A copy; what was given is not changed.
        keys: The keys that overrides have set. All below them is theirs as well.
        problems: Overrides that could not be applied.
    """

    data: dict[str, Any]
    keys: frozenset[Key]
    problems: tuple[Problem, ...]


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> Overridden:
    """Write overrides over a recipe's data; of two for one key the later one counts.

    Args:
        data: The recipe's data.
        overrides: Each `key.path=value`. The value is YAML, as in a recipe; a number in the path
            is the index of an item that the list has.
    """
    result = copy.deepcopy(data)
    keys: set[Key] = set()
    problems: list[Problem] = []
    for text in overrides:
        try:
            path, value = _parse(text)
            keys.add(_set(result, path, value))
        except _CannotApplyError as error:
            problems.append(Problem(error.key, error.text))
    return Overridden(result, frozenset(keys), tuple(problems))


class _CannotApplyError(Exception):
    """An override cannot be applied."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(key, text)
        self.key = key
        self.text = text


def _parse(text: str) -> tuple[tuple[str, ...], Any]:
    """Split an override into its path and its value."""
    name, equals, value = text.partition("=")
    path = tuple(name.split("."))
    if name.startswith("-"):
        raise _CannotApplyError(text, f"overrides have no dashes; write {text.lstrip('-')}")
    if not equals or not all(path):
        raise _CannotApplyError(text, "not an override; write key.path=value")
    if value.lstrip().startswith(("{{", "{%")):
        raise _CannotApplyError(
            name, f"a template needs quotes of its own; write {name}='\"{{{{ ... }}}}\"'"
        )
    try:
        located = load_text(value)
    except NotYamlError as error:
        raise _CannotApplyError(name, str(error)) from error
    if located.problems:
        first = located.problems[0]
        raise _CannotApplyError(".".join(filter(None, (name, first.key))), first.text)
    return path, located.data


def _set(data: dict[str, Any], path: Sequence[str], value: Any) -> Key:
    """Write a value in place, making the sections on its way; the key under which it stands."""
    node: Any = data
    key: Key = ()
    for depth, piece in enumerate(path):
        last = depth == len(path) - 1
        match node:
            case dict():
                at: str | int = piece
                if not last and node.get(piece) is None:
                    _refuse_item((*key, piece), path)
                    node[piece] = {}
            case list():
                at = _index(piece, node, key, path)
            case _:
                raise _CannotApplyError(
                    dotted(tuple(path)),
                    f"{dotted(key)} is {spelled(node)} and has nothing below it",
                )
        key = (*key, at)
        if last:
            node[at] = value
        else:
            node = node[at]
    return key


def _refuse_item(key: Key, path: Sequence[str]) -> None:
    """Refuse to make a section of what must be a list of components.

    Args:
        key: Where the recipe has nothing yet.
        path: The path of the override, which leads through that key.
    """
    section = SLOTS.get((*map(str, key), "[]"))
    if section is not None:
        raise _CannotApplyError(
            dotted(tuple(path)),
            f"the recipe has no list {dotted(key)}; write {dotted(key)}="
            f"[{{{section.name_key}: ...}}] with all that belongs to it",
        )


def _index(piece: str, items: list[Any], key: Key, path: Sequence[str]) -> int:
    """The index that a piece of a path names."""
    if piece.isascii() and piece.isdigit() and int(piece) < len(items):
        return int(piece)
    match len(items):
        case 0:
            there = "it is empty"
        case 1:
            there = f"there is {dotted(key)}.0"
        case count:
            there = f"there are {dotted(key)}.0 to {dotted(key)}.{count - 1}"
    raise _CannotApplyError(
        dotted(tuple(path)), f"no item {piece!r} in the list {dotted(key)}; {there}"
    )
