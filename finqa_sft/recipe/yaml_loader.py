"""Reads YAML with the scalars of YAML 1.2 and remembers where every key and value stands.

PyYAML speaks YAML 1.1, where `no` is false, `2e-4` is text, `017` is fifteen and `1:30` is ninety.
Here `true` and `false` are the only booleans, numbers are decimal, and nothing else is converted.
See the core schema, https://yaml.org/spec/1.2.2/#103-core-schema, of which the octal and
hexadecimal integers are left out: they stay text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finqa_sft.errors import RecipeError
from finqa_sft.recipe.problems import Key, Position, Problem, dotted, recipe_error

_MAX_VALUES = 100_000
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Located:
    """The content of a YAML text.

    Attributes:
        data: Plain dicts, lists, strings, numbers, booleans and None.
        keys: Where each key, or item of a list, begins.
        values: Where each value begins.
        problems: Duplicate keys, keys that are not text, tags: all that does not keep the rest from
            being read.
    """

    data: Any
    keys: Mapping[Key, Position]
    values: Mapping[Key, Position]
    problems: tuple[Problem, ...] = ()


def load_yaml(path: Path) -> Located:
    """Read a recipe file.

    Raises:
        RecipeError: The file cannot be read, is not UTF-8, is not YAML, is empty, or holds
            something other than sections.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not UTF-8 text (byte {error.start + 1} is 0x{content[error.start]:02x}); "
            "save the file as UTF-8"
        ) from error
    try:
        located = load_text(text)
    except NotYamlError as error:
        raise recipe_error(str(path), [Problem("", str(error), error.position)]) from error
    if located.problems and not isinstance(located.data, dict):
        raise recipe_error(str(path), located.problems)
    if located.data is None:
        raise RecipeError(f"{path}: empty; a recipe has at least data and formatter")
    if not isinstance(located.data, dict):
        kind = "a list" if isinstance(located.data, list) else "a single value"
        raise RecipeError(f"{path}: holds {kind}; a recipe is made of sections such as `model:`")
    return located


class NotYamlError(RecipeError):
    """A text is not YAML.

    Attributes:
        position: Where reading stopped.
    """

    def __init__(self, text: str, position: Position) -> None:
        super().__init__(text, position)
        self.position = position

    def __str__(self) -> str:
        return str(self.args[0])


def load_text(text: str) -> Located:
    """Read one YAML document, which may be any value.

    Raises:
        NotYamlError: The text is not YAML, or is nested or repeated beyond reason.
    """
    builder = _Builder()
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None if node is None else builder.build(node, ())
    except yaml.MarkedYAMLError as error:
        raise NotYamlError(_syntax(error), _position(error.problem_mark)) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        position = Position(before.count("\n") + 1, error.position - before.rfind("\n"))
        character = f"U+{ord(text[error.position]):04X}"
        raise NotYamlError(
            f"not valid YAML: the character {character} is not allowed; is this a text file?",
            position,
        ) from error
    except RecursionError as error:
        raise NotYamlError("nested too deeply to be read", Position(1, 1)) from error
    return Located(data, builder.keys, builder.values, tuple(builder.problems))


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars as this module's docstring says."""


_SCALARS = {
    "null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    "int": (re.compile(r"[-+]?[0-9]+"), list("-+0123456789")),
    "float": (
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
        list("-+.0123456789"),
    ),
}
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), _first)


@dataclass
class _Builder:
    """Turns nodes into plain values."""

    keys: dict[Key, Position] = field(default_factory=dict)
    values: dict[Key, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _open: list[yaml.Node] = field(default_factory=list)

    def build(self, node: yaml.Node, key: Key) -> Any:
        """The value of a node that stands at `key`."""
        self.values[key] = position = _position(node.start_mark)
        if len(self.values) > _MAX_VALUES:
            raise NotYamlError(f"more than {_MAX_VALUES} values", position)
        if any(node is outer for outer in self._open):
            raise NotYamlError(f"{dotted(key)} contains itself", position)
        self._open.append(node)
        try:
            match node:
                case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                    return self._mapping(node, key)
                case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                    return self._sequence(node, key)
                case yaml.ScalarNode() if node.tag.removeprefix(_TAG) in ("str", *_SCALARS):
                    return self._scalar(node, key)
                case _:
                    tag = node.tag.replace(_TAG, "!!")
                    self._problem(key, f"the tag {tag} is not allowed; write plain values", node)
                    return None
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = name_node.value
            if not isinstance(name, str) or name_node.tag != _TAG + "str":
                shown = name if isinstance(name, str) else "?"
                text = "a key must be text; put it in quotes"
                self._problem((*key, shown), text, name_node)
                continue
            inner = (*key, name)
            if name in result:
                text = f"written twice; first in line {self.keys[inner].line}"
                self._problem(inner, text, name_node)
                continue
            if name == "<<":
                self._problem(inner, "merge keys are not part of YAML 1.2; write it out", name_node)
                continue
            self.keys[inner] = _position(name_node.start_mark)
            result[name] = self.build(value_node, inner)
        return result

    def _sequence(self, node: yaml.SequenceNode, key: Key) -> list[Any]:
        result = []
        for index, item in enumerate(node.value):
            inner = (*key, index)
            self.keys[inner] = _position(item.start_mark)
            result.append(self.build(item, inner))
        return result

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> str | int | float | bool | None:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        if kind == "str":
            return str(text)
        if not _SCALARS[kind][0].fullmatch(text):
            self._problem(key, f"{text!r} is not of type {kind}", node)
            return None
        match kind:
            case "null":
                return None
            case "bool":
                return bool(text.lower() == "true")
            case "int" if len(text) <= 4000:
                return int(text)
            case _:
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))

    def _problem(self, key: Key, text: str, node: yaml.Node) -> None:
        self.problems.append(Problem(dotted(key), text, _position(node.start_mark)))


def _position(mark: yaml.Mark | None) -> Position:
    return Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)


_HINTS = (
    ("'\\t'", "indent with spaces, not tabs"),
    ("alias", "put a text that begins with * in quotes"),
    ("scanning an anchor", "put a text that begins with & in quotes"),
    ("mapping values are not allowed", "put a text with a colon in quotes"),
    ("quoted scalar, found unexpected end", "close the quote"),
    ("found '<scalar>'", "write a quote within quotes twice"),
    ("found '<block mapping start>'", "indent the keys of a section alike"),
    ("'<stream end>'", "close the bracket or brace"),
    ("expected a single document", "take the line --- out"),
)
"""Words of PyYAML's complaints, and what to do then."""


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's complaint in one line, with where the faulty part begins and what to do."""
    begins = _position(error.context_mark)
    context = error.context
    if context and error.context_mark and begins != _position(error.problem_mark):
        context = f"{context} (from {begins})"
    said = ", ".join(part for part in (context, error.problem) if part)
    plain = ", ".join(part for part in (error.context, error.problem) if part)
    hints = [f"; {hint}" for words, hint in _HINTS if words in plain]
    return "".join(["not valid YAML: ", said, *hints[:1]])
