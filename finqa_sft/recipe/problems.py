"""What can be wrong with a recipe, where it stands, and how it is said.

All problems of a recipe are collected and printed at once, one line each, in the order of the file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic_core import ErrorDetails

from finqa_sft.errors import RecipeError

Key: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a recipe: section names and list indices, outermost first."""

_FEW = 8
"""Up to so many choices are listed rather than guessed at."""

_LONG = 200
"""Characters of a value that are shown."""

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a recipe file; lines and columns count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        key: The key at fault, dotted; empty where the file is no YAML.
        text: What is wrong and what to write instead.
        position: Where it stands in the file, or None for an override.
    """

    key: str
    text: str
    position: Position | None = None

    @property
    def place(self) -> str:
        """The position as it is printed."""
        return "override" if self.position is None else str(self.position)


def dotted(key: Key) -> str:
    """The key as people write it: `data.sources.0.reader`."""
    return ".".join(str(piece) if piece != "" else "''" for piece in key)


def recipe_error(name: str, problems: Iterable[Problem]) -> RecipeError:
    """One error that lists all problems, by line, those of overrides last.

    Args:
        name: The recipe as the user called it.
        problems: At least one.
    """
    ordered = sorted(problems, key=lambda p: (p.position is None, p.position or Position(0, 0)))
    rows = [(problem.place, _printable(problem.key), problem.text) for problem in ordered]
    places = max(len(place) for place, _, _ in rows)
    keys = max(len(key) for _, key, _ in rows)
    lines = [
        "  ".join(filter(None, (f"  {place:<{places}}", f"{key:<{keys}}", _printable(text))))
        for place, key, text in rows
    ]
    count = f"{len(lines)} problem{'' if len(lines) == 1 else 's'}"
    return RecipeError("\n".join([f"{name}: {count}", *lines]))


def _printable(text: str) -> str:
    """The text on one line: line ends and what a terminal would obey are written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def spelled(value: object) -> str:
    """A value as it would stand in a recipe, kept short."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a section"
        case list():
            return "a list"
        case str() if len(value) > _LONG:
            return f"{value[:_LONG]!r} and {len(value) - _LONG} more characters"
        case int() if len(str(value)) > _LONG:
            return f"a number of {len(str(value))} digits"
        case _:
            return repr(value)


def expected(phrases: Sequence[str], value: object) -> str:
    """Say that a value is of the wrong type.

    Args:
        phrases: What would be right, such as `a whole number`.
        value: What stands there.
    """
    hint = ""
    if "text" in phrases and isinstance(value, int | float):
        hint = "; put it in quotes"
    elif "text" in phrases and isinstance(value, dict):
        hint = "; a text with a colon needs quotes, within those of a shell"
    elif isinstance(value, str) and _NUMBER.fullmatch(value) and "number" in " ".join(phrases):
        hint = "; leave out the quotes"
    words = [word for phrase in phrases for word in phrase.split(" or ")]
    return f"expected {_either(words)}, got {spelled(value)}{hint}"


def no_such(value: str, names: Sequence[str]) -> str:
    """Say that a word is none of the choices: the nearest one, or all where they are few."""
    near = [name for name in names if name.startswith(f"{value}_")]
    near = near or difflib.get_close_matches(value, names, n=1)
    if near and len(names) > _FEW:
        return f"no {spelled(value)}; did you mean {_either(near[:3])}?"
    return f"no {spelled(value)}; there {'is' if len(names) == 1 else 'are'} {', '.join(names)}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What pydantic found, in a recipe's terms.

    Attributes:
        key: Where, within the data that was validated.
        text: What is wrong; empty for an unknown key, which the caller has more to say about.
        kind: A value that will not do, a key that is missing, or one that does not exist.
    """

    key: Key
    text: str
    kind: Literal["value", "missing", "unknown"] = "value"


def faults(
    errors: Iterable[ErrorDetails], strict_errors: Iterable[ErrorDetails], data: Any
) -> list[Fault]:
    """Translate pydantic's errors into plain words.

    A lax validation takes "10" for 10 and 1 for true. A strict one refuses that, but lists where
    tuples are meant as well, once a validator of the model's own has touched them. So the lax one
    counts, and of the strict one's errors those about numbers, text and booleans mixed up.

    Args:
        errors: What a lax validation found.
        strict_errors: What a strict one found.
        data: The data that was validated.
    """
    found: list[Fault] = []
    wrong: dict[Key, list[ErrorDetails]] = {}
    for details in errors:
        key, _ = _walk(details, data)
        match details["type"]:
            case "missing":
                found.append(Fault(key, "missing; it has no default", "missing"))
            case "extra_forbidden":
                found.append(Fault(key, "", "unknown"))
            case _:
                wrong.setdefault(key, []).append(details)
    mixed_up: dict[Key, list[ErrorDetails]] = {}
    for details in strict_errors:
        key, value = _walk(details, data)
        if details["type"] in _SCALARS and isinstance(value, str | float | int):
            mixed_up.setdefault(key, []).append(details)
    for key, every in mixed_up.items():
        if not any(details["type"] in _PHRASES for details in wrong.get(key, ())):
            wrong[key] = every
    for key, every in wrong.items():
        # Each member of a union complains; the one that got furthest has understood the most.
        if not any(other != key and other[: len(key)] == key for other in wrong):
            found.append(Fault(key, _wrong_value(every, _walk(every[0], data)[1])))
    return found


_SCALARS = frozenset({"bool_type", "float_type", "int_from_float", "int_type"})
"""pydantic's types of error for a number, text or boolean in another's place."""

_PHRASES = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "date_type": "a date",
    "dict_type": "a section",
    "float_parsing": "a number",
    "float_type": "a number",
    "frozen_set_type": "a list",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "a section",
    "model_type": "a section",
    "none_required": "null",
    "path_type": "a path",
    "set_type": "a list",
    "string_type": "text",
    "tuple_type": "a list",
}
"""pydantic's types of error that mean a wrong type, each with what would be right."""


def _wrong_value(errors: Sequence[ErrorDetails], value: object) -> str:
    """One text for all that was said about one value."""
    phrases: list[str] = []
    for details in errors:
        kind, context = details["type"], details.get("ctx", {})
        if kind in _PHRASES:
            phrases.append(_PHRASES[kind])
        elif kind in ("literal_error", "enum"):
            choices = re.findall(r"'([^']*)'", context["expected"])
            if isinstance(value, str) and choices and len(errors) == 1:
                return no_such(value, choices)
            phrases.extend(choices or [context["expected"]])
        elif kind in ("too_short", "too_long"):
            limit, word = (
                (context["min_length"], "least")
                if kind == "too_short"
                else (context["max_length"], "most")
            )
            items = "item" if limit == 1 else "items"
            return f"expected at {word} {limit} {items}, got {context['actual_length']}"
        elif kind in ("value_error", "assertion_error"):
            return str(context["error"])
        else:
            text = details["msg"].replace("Input should ", "must ", 1)
            return f"{text[0].lower()}{text[1:]}, got {spelled(value)}"
    return expected(list(dict.fromkeys(phrases)), value)


def _walk(details: ErrorDetails, data: Any) -> tuple[Key, Any]:
    """The part of an error's location that exists in the data, and the value there.

    pydantic mixes names of union members into its locations; they are passed over.
    """
    key: list[str | int] = []
    last = len(details["loc"]) - 1
    for index, piece in enumerate(details["loc"]):
        match data, piece:
            case dict(), str() if piece in data:
                data = data[piece]
            case list(), int() if piece < len(data):
                data = data[piece]
            case _ if not (details["type"] == "missing" and index == last):
                continue
        key.append(piece)
    return tuple(key), data


def _either(phrases: Sequence[str]) -> str:
    """`a, b or c`."""
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} or {phrases[-1]}"
