"""The values that overrides have set, written as overrides once more."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from finqa_sft.recipe.resolved import Value
from finqa_sft.recipe.yaml_loader import NotYamlError, load_text


def overridden_values(values: Iterable[Value]) -> dict[str, Any]:
    """The values that overrides have set, by key.

    A list of sections that an override has made is one value: the recipe alone has no such items
    to set values in.
    """
    every = tuple(values)
    lists = {_list_of(v.path) for v in every} - {_list_of(v.path) for v in every if not _set(v)}
    found: dict[str, Any] = {}
    for value in filter(_set, every):
        name = _list_of(value.path)
        if name in lists and name:
            _put(found.setdefault(name, []), value.path.removeprefix(f"{name}."), value.value)
        else:
            found[value.path] = value.value
    return found


def written_override(key: str, value: Any) -> str:
    """`key.path=value`, which is read as just that value."""
    if isinstance(value, str) and _is_plain(value):
        return f"{key}={value}"
    return f"{key}={_flow(value)}"


def _flow(value: Any) -> str:
    """A value in YAML's flow style: JSON, but where the two differ."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_flow(key)}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, float) and math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    # YAML takes fewer characters as they are than JSON does.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _set(value: Value) -> bool:
    return value.origin == "override"


def _list_of(path: str) -> str:
    """The outermost list of sections that a key stands in; empty where there is none."""
    pieces = path.split(".")
    index = next((i for i, piece in enumerate(pieces) if piece.isdigit()), 0)
    return ".".join(pieces[:index])


def _put(items: list[Any], path: str, value: Any) -> None:
    """Write a value into the items of a list, whose values come in order."""
    index, *sections, last = path.split(".")
    if int(index) == len(items):
        items.append({})
    node = items[int(index)]
    for section in sections:
        node = node.setdefault(section, {})
    node[last] = value


def _is_plain(text: str) -> bool:
    """Whether a text without quotes is read as itself."""
    try:
        located = load_text(text)
    except NotYamlError:
        return False
    return located.data == text and not located.problems
