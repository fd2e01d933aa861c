"""`finqa-sft recipes` and `finqa-sft recipes copy NAME [PATH]`."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from finqa_sft.cli.common import print_rows
from finqa_sft.errors import RecipeError
from finqa_sft.recipe.deepspeed import summary_of
from finqa_sft.recipe.shipped import find_recipe, shipped_configs, shipped_recipes, summary
from finqa_sft.wording import did_you_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser(
        "list", help="list the shipped recipes and launcher configurations (the default)"
    )
    copy = actions.add_parser("copy", help="copy one of them, to be changed")
    copy.add_argument("name", help="the name that the list has")
    copy.add_argument("path", nargs="?", type=Path, help="where to (default: its file's name)")


def run(arguments: argparse.Namespace) -> int:
    """List, or copy one."""
    if arguments.action == "copy":
        return _copy(arguments.name, arguments.path)
    print_rows(_rows())
    return 0


def _rows() -> Iterator[tuple[str, str]]:
    """Name and summary of everything that can be copied."""
    for name, path in shipped_recipes().items():
        yield name, summary(path)
    for name, path in shipped_configs("accelerate").items():
        yield f"accelerate/{name}", summary(path)
    for name, path in shipped_configs("deepspeed").items():
        yield f"deepspeed/{name}", summary_of(path)


def _copy(name: str, path: Path | None) -> int:
    source = _found(name)
    target = path or Path(source.name)
    if target.is_dir():
        target = target / source.name
    config = _deepspeed_config(source)
    # accelerate looks for it in the folder that it is started in; a full path is found from all.
    beside = target.absolute().parent / config.name if config else None
    for file in (target, beside):
        if file and file.exists():
            raise RecipeError(f"{file} exists already; name another file")
    try:
        shutil.copyfile(source, target)
        if config and beside:
            shutil.copyfile(config, beside)
            text = source.read_text(encoding="utf-8")
            # JSON's quotes are YAML's.
            named = json.dumps(str(beside), ensure_ascii=False)
            written = text.replace(f"recipes/deepspeed/{config.name}", named)
            target.write_text(written, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot write {error.filename}: {error.strerror}") from error
    print(target)
    if beside:
        print(beside)
    return 0


def _found(name: str) -> Path:
    """The file that a name in the list stands for, or a recipe's path.

    Raises:
        RecipeError: There is none.
    """
    for kind in ("accelerate", "deepspeed"):
        if name.startswith(f"{kind}/"):
            configs = shipped_configs(kind)
            short = name.removeprefix(f"{kind}/")
            if short not in configs:
                hint = did_you_mean(short, configs) or f"there are {', '.join(configs)}"
                raise RecipeError(f"no configuration {short!r} of {kind} is shipped; {hint}")
            return configs[short]
    return find_recipe(name)


def _deepspeed_config(source: Path) -> Path | None:
    """The DeepSpeed configuration that a shipped one of accelerate names, if it names one."""
    if source not in shipped_configs("accelerate").values() or source.suffix != ".yaml":
        return None
    config = yaml.safe_load(source.read_text(encoding="utf-8"))
    named = config.get("deepspeed_config", {}).get("deepspeed_config_file")
    return shipped_configs("deepspeed")[Path(named).stem] if named else None
