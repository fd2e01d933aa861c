"""Whether the fields of a dataclass hold what their annotations say."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_SURROGATE = re.compile("[\ud800-\udfff]")


def misfits(value: object, kind: Any, *, path: str = "") -> Iterator[str]:
    """What is of another type than annotated, or is text that no file can hold.

    Args:
        value: Any value.
        kind: Its annotation: a class, a union, a `Literal` or `tuple[X, ...]`.
        path: What the value is called.
    """
    made_of: type = type(value)
    choices = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    fitting = [choice for choice in choices if isinstance(value, _classes(choice))]
    if not fitting:
        name = " | ".join(_name(choice) for choice in choices)
        yield f"{path} is {_shown(value)}, not of type {name}"
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from misfits(item, get_args(fitting[0])[0], path=f"{path}[{number}]")
    elif isinstance(value, str) and not is_unicode(value):
        yield f"{path} is {_shown(value)}, with half of a surrogate pair"
    elif dataclasses.is_dataclass(value):
        for field, hint in _hints(made_of).items():
            yield from misfits(getattr(value, field), hint, path=f"{path}.{field}".lstrip("."))


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: a surrogate by itself cannot."""
    return _SURROGATE.search(text) is None


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass, which take long to evaluate."""
    return get_type_hints(kind)


def _classes(kind: Any) -> tuple[type, ...]:
    """The classes whose instances an annotation allows."""
    if kind is float:
        return (int, float)
    # Which of its values a Literal takes is not a matter of type.
    return (str if get_origin(kind) is Literal else get_origin(kind) or kind,)


def _name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"tuple[{_name(get_args(kind)[0])}, ...]"
    return " | ".join(map(_name, get_args(kind))) or str(_classes(kind)[-1].__name__)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
