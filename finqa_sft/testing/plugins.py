"""What holds for the records of a plugin, as a check."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from finqa_sft.errors import PluginError
from finqa_sft.plugins.manager import KINDS, SINGULAR, Plugins, Provider
from finqa_sft.plugins.records import CollatorRecord, MetricRecord
from finqa_sft.recipe.trainer_fields import trainer_fields
from finqa_sft.testing.contract import Checked, Rule
from finqa_sft.testing.metrics import check_built


class PluginRule(Rule):
    """What holds for every plugin."""

    LOADS = (
        "it loads",
        "The plugin manager would leave the whole plugin out; see what it says.",
    )
    OFFERS = (
        "it offers a component",
        "Mark a function named finqa_sft_<kind> with @hookimpl and return its records.",
    )
    SUMMARY = (
        "a component has a summary",
        "Set the record's summary; `finqa-sft plugins` shows it.",
    )
    OPTIONS = (
        "every option says what it is",
        "Write a docstring under the field; the JSON schema of recipes shows it.",
    )
    BUILDS = (
        "build takes what the record's kind gives it",
        "Give build the arguments in the documentation of the record.",
    )
    SFT_ARGS = (
        "a collator's sft_args are fields of SFTConfig",
        "Correct the name, or leave the field out.",
    )
    REASONS = (
        "a collator's reasons are for fields of its sft_args",
        "Correct the name, or leave the reason out.",
    )
    LIGHT = (
        "offering components imports nothing heavy",
        "Import torch and its kin inside build, so that `finqa-sft check` stays quick.",
    )


ARGUMENTS = dict.fromkeys(KINDS, ("config",)) | {
    "collators": ("config", "tokenizer"),
    "callbacks": ("config", "output_dir"),
}
"""What `build` is given, by kind of component."""

HEAVY = ("torch", "transformers", "trl", "datasets", "peft", "bitsandbytes")


def check_plugin(plugin: ModuleType) -> None:
    """Check the hooks of a plugin's module and the records that they return.

    The module is loaded as the plugin manager loads it, strictly. Metrics are built, unless they
    have options without defaults, and tried as `check_metric` does; whether gold labels are right
    is left to that check. Nothing else is built.

    Raises:
        ContractError: A rule of `PluginRule` is broken, or a metric breaks one of `MetricRule`.
    """
    name = plugin.__name__
    checked = Checked("plugin", name)
    plugins = Plugins(strict=True)
    try:
        plugins.add(Provider(name), lambda: plugin)
    except PluginError as error:
        checked.require(PluginRule.LOADS, False, str(error))
    offered = [(kind, component.record) for kind in KINDS for component in plugins.components(kind)]
    checked.require(PluginRule.OFFERS, bool(offered), "no hook returns a record")
    for kind, record in offered:
        named = f"the {SINGULAR[kind]} {record.name!r}"
        _check_record(checked, kind, record, named)
    if plugin.__spec__ is not None and plugin.__spec__.origin is not None:
        _check_imports(checked, plugin.__name__, Path(plugin.__spec__.origin))


def _check_record(checked: Checked, kind: str, record: Any, named: str) -> None:
    checked.require(
        PluginRule.SUMMARY,
        bool(record.summary.strip()),
        f"{named} has the summary {record.summary!r}",
    )
    silent = [key for key, field in record.config.model_fields.items() if not field.description]
    checked.require(
        PluginRule.OPTIONS,
        not silent,
        f"{record.config.__name__} of {named} says nothing of {', '.join(silent)}",
    )
    arguments = ARGUMENTS[kind]
    signature = inspect.signature(record.build)
    try:
        signature.bind(*arguments)
    except TypeError:
        checked.require(
            PluginRule.BUILDS,
            False,
            f"build of {named} takes {signature}, and is given ({', '.join(arguments)})",
        )
    if isinstance(record, CollatorRecord):
        unknown = sorted(record.sft_args.keys() - trainer_fields().keys())
        checked.require(
            PluginRule.SFT_ARGS, not unknown, f"SFTConfig has no {', '.join(unknown)} ({named})"
        )
        free = sorted(record.reasons.keys() - record.sft_args.keys())
        checked.require(PluginRule.REASONS, not free, f"{named} does not need {', '.join(free)}")
    if isinstance(record, MetricRecord):
        _check_metric(checked, record, named)


def _check_metric(checked: Checked, record: MetricRecord, named: str) -> None:
    """Build a metric, if its options have defaults, and try it."""
    if any(field.is_required() for field in record.config.model_fields.values()):
        return
    with checked.unraised(PluginRule.BUILDS, f"build of {named}"):
        metric = record.build(record.config())
    check_built(metric)


_IMPORT = """
import importlib.util, sys
from finqa_sft.plugins.manager import Plugins, Provider

def load():
    spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

Plugins(strict=True).add(Provider("plugin"), load)
print(*sorted(set(sys.argv[3:]) & set(sys.modules)))
"""


def _check_imports(checked: Checked, name: str, path: Path) -> None:
    """Load the plugin in a process of its own and look at what came with it."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, name, str(path), *HEAVY],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    checked.require(
        PluginRule.LOADS, done.returncode == 0, f"in a process of its own: {done.stderr.strip()}"
    )
    heavy = done.stdout.split()
    checked.require(PluginRule.LIGHT, not heavy, f"it imports {', '.join(heavy)}")
