"""What must hold of a plugin and of its records before anything of it is offered.

pluggy itself lets some of this pass: a hook's argument with a default never receives a value, a
hook that returns None counts as one that was not called, and a function without the mark
`@hookimpl` is no hook at all.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

import pluggy
from pydantic import BaseModel, RootModel

from finqa_sft.errors import PluginError
from finqa_sft.plugins.records import ComponentRecord

RESERVED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "readers": ("reader", "weight"),
        "formatters": ("name", "max_length"),
        "collators": ("name",),
        "model_factories": ("factory",),
        "callbacks": ("name",),
        "metrics": ("name",),
    }
)
"""Keys of the recipe's own, by kind of the component that its options stand beside."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_hooks(plugin: object, *, manager: pluggy.PluginManager, hooks: Sequence[str]) -> None:
    """See that every hook of a plugin is one that will be called, and as it is written.

    Args:
        plugin: A module, or an object with methods.
        manager: Knows which functions are marked as hooks.
        hooks: The names of all hooks.

    Raises:
        PluginError: Says what is wrong with which hook.
    """
    found = 0
    for attribute in dir(plugin):
        marked = manager.parse_hookimpl_opts(plugin, attribute)
        if marked is None:
            if attribute in hooks:
                raise PluginError(f"{attribute} is not marked: write @finqa_sft.hookimpl above it")
            continue
        found += 1
        name = marked["specname"] or attribute
        if name not in hooks:
            if marked["optionalhook"]:
                # A hook of another version of finqa_sft, as its author says.
                continue
            near = difflib.get_close_matches(name, hooks, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(hooks)}"
            raise PluginError(f"no hook {name!r}; {hint}")
        if marked["wrapper"] or marked["hookwrapper"]:
            raise PluginError(f"{name} is a hook wrapper; a plugin can only offer its own records")
        arguments = inspect.signature(getattr(plugin, attribute)).parameters
        if arguments:
            remedy = (
                "the plugin is a class; name an instance of it"
                if inspect.isclass(plugin)
                else "options are given to build"
            )
            raise PluginError(
                f"{name} takes no arguments, but asks for {', '.join(arguments)}; {remedy}"
            )
    if not found:
        raise PluginError(
            "offers nothing; expected functions marked @finqa_sft.hookimpl and named "
            f"{', '.join(hooks[:-1])} or {hooks[-1]}"
        )


def check_answer(hook: str, answer: object, *, expected: type[ComponentRecord]) -> None:
    """See that what a hook returned is a list of records.

    Raises:
        PluginError: Says what it is instead.
    """
    wanted = f"expected a list of {expected.__name__}"
    if not isinstance(answer, list | tuple):
        raise PluginError(f"{hook} returned {_kind_of(answer)}; {wanted}")
    for item in answer:
        if not isinstance(item, expected):
            raise PluginError(f"{hook} returned a list with {_kind_of(item)}; {wanted}")


def check_record(kind: str, record: Any) -> None:
    """See that a record can be listed, named in a recipe, and given its options.

    Args:
        kind: The kind of component.
        record: A record of that kind; what its fields hold is not known yet.

    Raises:
        PluginError: Says what is wrong with which record.
    """
    name = record.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"finqa_sft_{kind} returned the name {name!r}; names are lower-case letters, digits "
            "and underscores, a letter first"
        )
    if not isinstance(record.summary, str) or "\n" in record.summary:
        raise PluginError(f"the summary of {name!r} is {record.summary!r}; expected a line of text")
    if not callable(record.build):
        raise PluginError(
            f"build of {name!r} is {_kind_of(record.build)}; expected a function or a class"
        )
    if not (inspect.isclass(record.config) and issubclass(record.config, BaseModel)):
        raise PluginError(
            f"config of {name!r} is {record.config!r}; expected a class derived from "
            "finqa_sft.options.Options"
        )
    for model in _models(record.config, set()):
        if model.model_config.get("extra") != "forbid":
            raise PluginError(
                f"finqa_sft_{kind}: the options of {name!r} accept unknown keys; derive "
                f"{model.__name__} from finqa_sft.options.Options"
            )
    for field, info in record.config.model_fields.items():
        if (info.alias or field) in RESERVED.get(kind, ()):
            raise PluginError(
                f"{name!r} has an option {field}, a key that recipes use themselves beside it; "
                "call it otherwise"
            )


def _models(annotation: Any, seen: set[type]) -> Iterator[type[BaseModel]]:
    """The pydantic models with keys that a type holds, itself and those of its fields included."""
    for inner in get_args(annotation):
        yield from _models(inner, seen)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel) and annotation not in seen:
        seen.add(annotation)
        if not issubclass(annotation, RootModel):
            yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation, seen)


def _kind_of(value: object) -> str:
    """A value's type in words: None, an int, a ReaderRecord."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
