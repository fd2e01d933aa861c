"""Finds plugins, asks them for their records, and keeps who provides what.

Raw pluggy leaves gaps that matter when strangers' packages meet (seen in pluggy 1.6 and 1.7): of
two distributions with one entry-point name the second is dropped without a word, a failed
`register()` can leave a plugin half registered, and an exception in a hook names no plugin. So
entry points are loaded here one at a time, keyed by distribution and entry point, and each hook is
called for one plugin at a time.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Generic, TypeVar

import pluggy

import finqa_sft
from finqa_sft.errors import FinqaSftError, PluginError
from finqa_sft.plugins.checks import check_answer, check_hooks, check_record
from finqa_sft.plugins.discovery import (
    Provider,
    import_file,
    installed_plugins,
    limited_to,
    normalised,
)
from finqa_sft.plugins.hookspecs import PROJECT, HookSpecs
from finqa_sft.plugins.records import (
    CallbackRecord,
    CollatorRecord,
    ComponentRecord,
    FormatterRecord,
    MetricRecord,
    ModelFactoryRecord,
    ReaderRecord,
)
from finqa_sft.wording import one_line

__all__ = ["KINDS", "SINGULAR", "Component", "Failure", "Plugins", "Provider"]

R_co = TypeVar("R_co", bound=ComponentRecord, covariant=True)

KINDS: Mapping[str, type[ComponentRecord]] = {
    "readers": ReaderRecord,
    "formatters": FormatterRecord,
    "collators": CollatorRecord,
    "model_factories": ModelFactoryRecord,
    "metrics": MetricRecord,
    "callbacks": CallbackRecord,
}
"""The kinds of component, each with its record; the hook of a kind is `finqa_sft_<kind>`."""

SINGULAR: Mapping[str, str] = {kind: kind.replace("_", " ").removesuffix("s") for kind in KINDS} | {
    "model_factories": "model factory"
}

_BETWEEN = tuple(
    f"{Path(str(module.__file__)).parent}{os.sep}" for module in (finqa_sft, importlib, pluggy)
)
"""Folders of code that stands between us and a plugin that is being loaded."""


@dataclass(frozen=True, slots=True)
class Component(Generic[R_co]):
    """A record together with its provider."""

    kind: str
    record: R_co
    provider: Provider

    @property
    def full_name(self) -> str:
        """The unambiguous name: `distribution:name`, or `file.py:name`."""
        return f"{self.provider.prefix}:{self.record.name}"

    def answers_to(self, name: str) -> bool:
        """Whether a recipe means this component by a bare or full name."""
        prefix, _, bare = name.rpartition(":")
        return bare == self.record.name and (
            not prefix or normalised(prefix) == normalised(self.provider.prefix)
        )

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add the component's name and provider to any unexpected exception raised inside.

        Raises:
            PluginError: In place of SystemExit, which would end the run without a word.
        """
        who = f"the {SINGULAR[self.kind]} {self.record.name!r} of {self.provider}"
        try:
            yield
        except FinqaSftError:
            raise
        except SystemExit as error:
            raise PluginError(f"{who} ended the run: {_problem(error)}") from error
        except Exception as error:
            note = f"raised in {who}"
            # Once, where what is built inside of a component is called inside of it too.
            if note not in vars(error).get("__notes__", ()):
                error.add_note(note)
            raise


@dataclass(frozen=True, slots=True)
class Failure:
    """A plugin that was left out, and why."""

    provider: Provider
    problem: str

    def __str__(self) -> str:
        return f"plugin {self.provider.key} ({self.provider}) was left out: {self.problem}"


class Plugins:
    """All components at hand, by kind and name.

    Attributes:
        failures: Plugins that were left out.
    """

    def __init__(self, *, strict: bool = False) -> None:
        """Start without plugins.

        Args:
            strict: Raise at the first broken plugin instead of leaving it out.
        """
        self.failures: list[Failure] = []
        self._strict = strict
        self._components: dict[str, list[Component[ComponentRecord]]] = {k: [] for k in KINDS}
        self._unused: list[Provider] = []
        self._files: dict[str, Path] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(HookSpecs)

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> Plugins:
        """Load the built-in components and those of every installed distribution.

        Args:
            environ: `FINQA_SFT_PLUGINS` limits the distributions (comma-separated names; empty for
                none but the built-in), `FINQA_SFT_STRICT_PLUGINS=1` makes a broken plugin an error.

        Raises:
            PluginError: A plugin is broken and the environment asks for strictness, or
                `FINQA_SFT_PLUGINS` names a distribution that offers no plugin.
        """
        plugins = cls(strict=environ.get("FINQA_SFT_STRICT_PLUGINS", "") not in ("", "0"))
        builtin = EntryPoint("builtin", "finqa_sft.builtin", PROJECT)
        plugins._take(Provider(PROJECT, finqa_sft.__version__, builtin.name), builtin.load())
        installed = installed_plugins()
        wanted = environ.get("FINQA_SFT_PLUGINS")
        used = installed if wanted is None else limited_to(wanted, installed)
        plugins._unused = [pair[0] for pair in installed if pair not in used]
        for provider, entry_point in used:
            plugins.add(provider, entry_point.load)
        return plugins

    def add_file(self, path: Path) -> None:
        """Load a plugin from a Python file.

        Raises:
            PluginError: The file is missing, broken or here already. A file that a recipe names is
                never left out.
        """
        known = self._files.get(path.name)
        if known is not None:
            problem = (
                "listed twice; leave one out"
                if known == path.resolve()
                else f"of the same name as {known}, so that {path.name}:NAME could be either; "
                "rename one"
            )
            raise PluginError(f"plugin file {path}: {problem}")
        error = self._load(Provider(str(path)), lambda: import_file(path))
        if error is not None:
            raise PluginError(f"plugin file {path}: {_problem(error)}") from error
        self._files[path.name] = path.resolve()

    def add(self, provider: Provider, load: Callable[[], object]) -> None:
        """Load one plugin and take its records; a broken one is left out and noted.

        Raises:
            PluginError: The plugin is broken and this manager is strict.
        """
        error = self._load(provider, load)
        if error is not None:
            failure = Failure(provider, _problem(error))
            if self._strict:
                raise PluginError(str(failure)) from error
            self.failures.append(failure)

    def components(self, kind: str) -> tuple[Component[ComponentRecord], ...]:
        """All components of a kind: the built-in ones first, then by distribution."""
        return tuple(self._components[kind])

    def names(self, kind: str) -> tuple[str, ...]:
        """The bare names of a kind, each once."""
        return tuple(dict.fromkeys(c.record.name for c in self._components[kind]))

    def find(self, kind: str, name: str) -> Component[ComponentRecord]:
        """The component that a recipe names.

        Args:
            kind: One of `KINDS`.
            name: A bare name, or `distribution:name`.

        Raises:
            PluginError: No component, or more than one, has that name.
        """
        word = SINGULAR[kind]
        matches = [c for c in self._components[kind] if c.answers_to(name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            *others, last = [f"{c.full_name} ({c.provider})" for c in matches]
            raise PluginError(
                f"{word} {name!r} is offered by {', '.join(others)} and {last}; write one of "
                "these names"
            )
        names = self.names(kind)
        known = f"there are {', '.join(names)}" if names else "none is installed"
        hint = f"; {nearest}" if (nearest := self._nearest(kind, name)) else ""
        left_out = "".join(f"; {failure}" for failure in self.failures)
        if self._unused:
            unused = ", ".join(dict.fromkeys(map(str, self._unused)))
            left_out += f"; FINQA_SFT_PLUGINS leaves out {unused}"
        raise PluginError(f"no {word} {name!r}; {known}{hint}{left_out}")

    def _nearest(self, kind: str, name: str) -> str:
        """What a name that no component has might stand for."""
        prefix, _, bare = name.rpartition(":")
        alike = list(self.names(kind))
        if prefix:
            theirs = normalised(prefix)
            alike = [
                c.full_name
                for c in self._components[kind]
                if bare == c.record.name or theirs == normalised(c.provider.prefix)
            ]
        near = difflib.get_close_matches(name, alike, n=1)
        if prefix and not near:
            return f"is {prefix} installed, and does it offer one?"
        return f"did you mean {near[0]}?" if near else ""

    def _load(self, provider: Provider, load: Callable[[], object]) -> BaseException | None:
        """Load one plugin and take its records, or give back what prevents it."""
        try:
            # Standard output belongs to the command, whose JSON another program may read.
            with redirect_stdout(sys.stderr):
                self._take(provider, load())
        except KeyboardInterrupt:
            raise
        # A stranger's module can raise anything while it is imported or asked, `sys.exit()`
        # included; it is reported with its name, and the rest goes on.
        except BaseException as error:
            return error
        return None

    def _take(self, provider: Provider, plugin: object) -> None:
        """Register a plugin with pluggy and take its records; nothing is left if it is broken."""
        hooks = [f"finqa_sft_{kind}" for kind in KINDS]
        check_hooks(plugin, manager=self._manager, hooks=hooks)
        try:
            self._manager.register(plugin, name=provider.key)
            found = [component for kind in KINDS for component in self._ask(plugin, kind, provider)]
            self._refuse_twins(found)
        except BaseException:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise
        for component in found:
            self._components[component.kind].append(component)

    def _ask(
        self, plugin: object, kind: str, provider: Provider
    ) -> Iterator[Component[ComponentRecord]]:
        """Call one hook of one plugin and check what it returns."""
        hook, expected = f"finqa_sft_{kind}", KINDS[kind]
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        caller = self._manager.subset_hook_caller(hook, others)
        # pluggy leaves out of its results what is None.
        answers = caller() or [None] * len(caller.get_hookimpls())
        for answer in answers:
            check_answer(hook, answer, expected=expected)
            for record in answer:
                check_record(kind, record)
                yield Component(kind, record, provider)

    def _refuse_twins(self, found: list[Component[ComponentRecord]]) -> None:
        """Refuse a second component of one name from one provider: nothing could name it.

        Raises:
            PluginError: There is one.
        """
        taken = {(c.kind, c.full_name) for every in self._components.values() for c in every}
        for component in found:
            if (component.kind, component.full_name) in taken:
                raise PluginError(
                    f"a second {SINGULAR[component.kind]} {component.record.name!r} of "
                    f"{component.provider}; no recipe could tell them apart"
                )
            taken.add((component.kind, component.full_name))


def _problem(error: BaseException) -> str:
    """An exception in one line, with the last place in the plugin's code that led to it."""
    text = one_line(error)
    if isinstance(error, FinqaSftError):
        return text
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    between = (*_BETWEEN, "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(between)]
    if not theirs:
        return named
    folder = Path(theirs[0].filename).parent
    is_package = (folder / "__init__.py").is_file()
    home = f"{folder}{os.sep}" if is_package else theirs[0].filename
    place = [frame for frame in theirs if frame.filename.startswith(home)][-1]
    return f"{named} ({place.filename}:{place.lineno})"
