"""Finds plugins, asks them for their records, and keeps who provides what.

Raw pluggy leaves gaps that matter when strangers' packages meet (seen in pluggy 1.6 and 1.7): of
two distributions with one entry-point name the second is dropped without a word, a failed
`register()` can leave a plugin half registered, and an exception in a hook names no plugin. So
entry points are loaded here one at a time, keyed by distribution and entry point, and each hook is
called for one plugin at a time.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

import pluggy

import finqa_sft
from finqa_sft.errors import FinqaSftError, PluginError
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

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OWN = "finqa-sft"


@dataclass(frozen=True, slots=True)
class Provider:
    """Who a plugin comes from.

    Attributes:
        distribution: Name of the installed distribution, or the path of a plugin file.
        version: Version of the distribution; empty for a file.
        entry_point: Name of the entry point within the distribution; empty for a file.
    """

    distribution: str
    version: str = ""
    entry_point: str = ""

    @property
    def key(self) -> str:
        """Names the plugin uniquely: `distribution:entry-point`, or the file's path."""
        parts = (self.distribution, self.entry_point)
        return ":".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class Component(Generic[R_co]):
    """A record together with its provider."""

    kind: str
    record: R_co
    provider: Provider

    @property
    def full_name(self) -> str:
        """The unambiguous name: `distribution:name`."""
        return f"{self.provider.distribution}:{self.record.name}"

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add the component's name and provider to any unexpected exception raised inside."""
        try:
            yield
        except FinqaSftError:
            raise
        except Exception as error:
            error.add_note(
                f"raised in the {SINGULAR[self.kind]} {self.record.name!r} of {self.provider}"
            )
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
        plugins.add(Provider(PROJECT, finqa_sft.__version__, "builtin"), builtin.load)

        found = sorted(_entry_points(), key=lambda pair: pair[0].key)
        wanted = environ.get("FINQA_SFT_PLUGINS")
        if wanted is not None:
            names = {_normalised(name) for name in wanted.split(",") if name.strip()}
            missing = names - {_normalised(provider.distribution) for provider, _ in found}
            if missing:
                raise PluginError(
                    f"FINQA_SFT_PLUGINS names {', '.join(sorted(missing))}, but no such installed "
                    f"distribution has an entry point in the group {PROJECT}; install it or "
                    "correct the variable."
                )
            found = [pair for pair in found if _normalised(pair[0].distribution) in names]
        for provider, entry_point in found:
            plugins.add(provider, entry_point.load)
        return plugins

    def add_file(self, path: Path) -> None:
        """Load a plugin from a Python file.

        Raises:
            PluginError: The file is missing or broken. A file that a recipe names is never left
                out.
        """
        provider = Provider(str(path))
        before = len(self.failures)
        self.add(provider, lambda: _import_file(path))
        if len(self.failures) > before:
            failure = self.failures[-1]
            raise PluginError(f"plugin file {path}: {failure.problem}")

    def add(self, provider: Provider, load: Callable[[], object]) -> None:
        """Load one plugin and take its records; a broken one is left out and noted.

        Raises:
            PluginError: The plugin is broken and this manager is strict.
        """
        try:
            plugin = load()
            records = self._register(plugin, provider)
        # A stranger's module can raise anything while it is imported or asked; it is reported with
        # its name, and the rest goes on.
        except Exception as error:
            failure = Failure(provider, f"{type(error).__name__}: {error}")
            if self._strict:
                raise PluginError(str(failure)) from error
            self.failures.append(failure)
            return
        for kind, record in records:
            self._components[kind].append(Component(kind, record, provider))

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
        matches = [c for c in self._components[kind] if name in (c.record.name, c.full_name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            providers = " and ".join(f"{c.full_name} ({c.provider})" for c in matches)
            raise PluginError(
                f"{word} {name!r} is offered by {providers}; write one of these names"
            )
        names = self.names(kind)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        left_out = "".join(f"; {failure}" for failure in self.failures)
        known = f"there are {', '.join(names)}" if names else "none is installed"
        raise PluginError(f"no {word} {name!r}; {known}{hint}{left_out}")

    def _register(self, plugin: object, provider: Provider) -> list[tuple[str, ComponentRecord]]:
        """Register with pluggy and collect the records; undone when anything is wrong."""
        try:
            self._manager.register(plugin, name=provider.key)
            unknown = [
                caller.name
                for caller in self._manager.get_hookcallers(plugin) or []
                if not caller.has_spec()
            ]
            if unknown:
                raise PluginError(_unknown_hook(unknown[0]))
            return [pair for kind in KINDS for pair in self._ask(plugin, kind)]
        except Exception:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise

    def _ask(self, plugin: object, kind: str) -> list[tuple[str, ComponentRecord]]:
        """Call one hook of one plugin and check what it returns."""
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        hook = f"finqa_sft_{kind}"
        results: list[Sequence[object]] = self._manager.subset_hook_caller(hook, others)()
        pairs = []
        for record in (record for result in results for record in result):
            if not isinstance(record, KINDS[kind]):
                raise PluginError(
                    f"{hook} returned a {type(record).__name__}; expected {KINDS[kind].__name__}"
                )
            if not _NAME.fullmatch(record.name):
                raise PluginError(
                    f"{hook} returned the name {record.name!r}; names are lower-case letters, "
                    "digits and underscores, a letter first"
                )
            if record.config.model_config.get("extra") != "forbid":
                raise PluginError(
                    f"{hook}: the options of {record.name!r} accept unknown keys; derive "
                    f"{record.config.__name__} from finqa_sft.options.Options"
                )
            pairs.append((kind, record))
        return pairs


def _entry_points() -> Iterator[tuple[Provider, EntryPoint]]:
    """Every entry point of the group, with its distribution, but for our own."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name is None or _normalised(name) in seen:
            # A stale copy further down sys.path is not what an import would find.
            continue
        seen.add(_normalised(name))
        if _normalised(name) == _OWN:
            continue
        for entry_point in distribution.entry_points:
            if entry_point.group == PROJECT:
                yield Provider(name, distribution.version, entry_point.name), entry_point


def _normalised(name: str) -> str:
    """A distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _import_file(path: Path) -> ModuleType:
    """Import a Python file under a name of its own."""
    if not path.is_file():
        raise PluginError("no such file; correct the path under plugins")
    name = "finqa_sft_plugin_" + re.sub(r"\W", "_", str(path))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError("not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _unknown_hook(name: str) -> str:
    """Say that a hook does not exist, and which might be meant."""
    hooks = [f"finqa_sft_{kind}" for kind in KINDS]
    near = difflib.get_close_matches(name, hooks, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(hooks)}"
    return f"no hook {name!r}; {hint}"
