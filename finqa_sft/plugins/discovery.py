"""Where plugins come from: entry points of installed distributions, and files."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

from finqa_sft.errors import PluginError
from finqa_sft.plugins.hookspecs import PROJECT

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

    @property
    def prefix(self) -> str:
        """What recipes write before the colon: the distribution, or the file without its folder."""
        return self.distribution if self.entry_point else Path(self.distribution).name

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


def installed_plugins() -> list[tuple[Provider, EntryPoint]]:
    """Every entry point of the group with its distribution, but for our own, sorted by name.

    `entry_points` looks at each distribution once, the one that an import would find.
    """
    found = []
    for entry_point in importlib.metadata.entry_points(group=PROJECT):
        distribution = entry_point.dist
        if distribution is not None and normalised(distribution.name) != _OWN:
            provider = Provider(distribution.name, distribution.version, entry_point.name)
            found.append((provider, entry_point))
    return sorted(found, key=lambda pair: pair[0].key)


def limited_to(
    wanted: str, found: list[tuple[Provider, EntryPoint]]
) -> list[tuple[Provider, EntryPoint]]:
    """Those of the installed plugins that `FINQA_SFT_PLUGINS` names.

    Args:
        wanted: Names of distributions, comma-separated.
        found: What is installed.

    Raises:
        PluginError: A distribution is named that offers no plugin.
    """
    names = {normalised(name) for name in wanted.split(",") if name.strip()} - {_OWN}
    at_hand = {normalised(provider.distribution): provider.distribution for provider, _ in found}
    missing = sorted(names - at_hand.keys())
    if missing:
        near = difflib.get_close_matches(missing[0], at_hand, n=1)
        hint = (
            f"did you mean {at_hand[near[0]]}?" if near else "install it or correct the variable."
        )
        raise PluginError(
            f"FINQA_SFT_PLUGINS names {', '.join(missing)}, but no such installed distribution "
            f"has an entry point in the group {PROJECT}; {hint}"
        )
    return [pair for pair in found if normalised(pair[0].distribution) in names]


def import_file(path: Path) -> ModuleType:
    """Import a Python file under a name of its own.

    Raises:
        PluginError: There is no such file, or it is not one of Python.
    """
    if path.is_dir():
        raise PluginError("a folder; name the Python file in it")
    if not path.is_file():
        raise PluginError("no such file; correct the path under plugins")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"finqa_sft_plugin_{re.sub(r'[^a-zA-Z0-9_]', '_', path.stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if path.suffix != ".py" or spec is None or spec.loader is None:
        raise PluginError("not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pydantic look the module of a class up to resolve its annotations.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def normalised(name: str) -> str:
    """A distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
