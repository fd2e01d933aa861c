"""`finqa-sft doctor`: what this machine has, and what it lacks."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from finqa_sft.errors import FinqaSftError
from finqa_sft.plugins.manager import Plugins
from finqa_sft.writing import nearest_existing

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        state: "ok"; "note" for what limits but does not hinder; "missing" for what must be mended.
        subject: What was looked at.
        text: What was found.
        remedy: What to do, where something is to be done.
    """

    state: Literal["ok", "note", "missing"]
    subject: str
    text: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb takes no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 2 if something must be mended."""
    console = Console(soft_wrap=True)
    styles = {"ok": "green", "note": "yellow", "missing": "red"}
    missing = 0
    for finding in [*_distributions(), *_devices(), *_places(), *_plugins()]:
        missing += finding.state == "missing"
        line = Text.assemble(
            (f"{finding.state:<8}", styles[finding.state]), f"{finding.subject:<14}{finding.text}"
        )
        console.print(line)
        if finding.remedy:
            console.print(Text(f"{'':<22}{finding.remedy}"))
    console.print(f"{missing} to mend" if missing else "nothing to mend", highlight=False)
    return FinqaSftError.exit_status if missing else 0


def _distributions() -> Iterator[Finding]:
    """Installed versions against what the package declares."""
    for line in requires("finqa-sft") or []:
        requirement = Requirement(line)
        optional = requirement.marker is not None and "extra" in str(requirement.marker)
        if not optional and requirement.marker and not requirement.marker.evaluate():
            continue
        name, wanted = requirement.name, requirement.specifier
        try:
            installed = version(name)
        except PackageNotFoundError:
            if optional:
                remedy = f'for DeepSpeed configurations: pip install "{name}{wanted}"'
                yield Finding("note", name, "not installed", remedy)
            else:
                yield Finding("missing", name, "not installed", f'pip install "{name}{wanted}"')
            continue
        if wanted.contains(installed, prereleases=True):
            yield Finding("ok", name, installed)
        else:
            remedy = f'pip install --upgrade "{name}{wanted}"'
            yield Finding("missing", name, f"{installed}, but {wanted} is needed", remedy)


def _devices() -> Iterator[Finding]:
    """The device of a run, and its memory."""
    import psutil

    from finqa_sft.models.devices import find_device

    memory = psutil.virtual_memory()
    yield Finding(
        "ok",
        "memory",
        f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free, "
        f"{psutil.cpu_count()} processors",
    )
    try:
        device = find_device()
    except FinqaSftError as error:
        yield Finding("note", "device", str(error))
        return
    if device.type == "cpu":
        yield Finding(
            "note",
            "device",
            "no GPU; runs use the CPU, in float32",
            "enough for the quickstart and models of some 100 million parameters",
        )
        return
    yield Finding("ok", "device", f"{device}, {device.free_memory / GIB:.1f} GiB free")
    if not device.bfloat16:
        yield Finding("note", "bfloat16", "not on this GPU", "set model.compute_dtype: float16")


def _places() -> Iterator[Finding]:
    """Folders that runs write to."""
    from finqa_sft.models.cache import cache_root

    for subject, path, variable in (
        ("cache", cache_root(), "set FINQA_SFT_CACHE to a folder that can be written"),
        ("output", Path.cwd(), "change to a folder that can be written, or set output.dir"),
    ):
        existing = nearest_existing(path)
        free = shutil.disk_usage(existing).free
        if not os.access(existing, os.W_OK):
            yield Finding("missing", subject, f"{path} cannot be written", variable)
        elif free < GIB:
            yield Finding("missing", subject, f"{path}: {free / GIB:.1f} GiB free", variable)
        else:
            yield Finding("ok", subject, f"{path}, {free / GIB:.0f} GiB free")


def _plugins() -> Iterator[Finding]:
    """Plugins of other distributions."""
    for failure in Plugins.load().failures:
        yield Finding(
            "note",
            "plugin",
            str(failure),
            "its components cannot be used; update or uninstall the distribution",
        )
