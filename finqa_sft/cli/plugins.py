"""`finqa-sft plugins [--json]`."""

from __future__ import annotations

import argparse
import json

from finqa_sft.cli.common import print_rows
from finqa_sft.plugins.manager import KINDS, SINGULAR, Plugins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """List every component, then what was left out."""
    plugins = Plugins.load()
    rows = [
        {
            "kind": SINGULAR[kind],
            "name": component.record.name,
            "full_name": component.full_name,
            "distribution": component.provider.distribution,
            "version": component.provider.version,
            "summary": component.record.summary,
        }
        for kind in KINDS
        for component in plugins.components(kind)
    ]
    failures = [str(failure) for failure in plugins.failures]
    if arguments.json:
        print(json.dumps({"components": rows, "left_out": failures}, indent=2, ensure_ascii=False))
        return 0
    print_rows(
        (row["kind"], row["name"], f"{row['distribution']} {row['version']}", row["summary"])
        for row in rows
    )
    for failure in failures:
        print(failure)
    return 0
