"""What holds for the whole of the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from finqa_sft.plugins.manager import Plugins
from finqa_sft.recipe import load_recipe, shipped_recipes

SOURCES = sorted((ROOT / "finqa_sft").rglob("*.py"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
    ],
    ids=" ".join,
)
def test_the_house_style_holds(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_go_one_way() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_right_and_begins_with_its_command(name: str) -> None:
    path = shipped_recipes()[name]
    recipe = load_recipe(path, [], Plugins.load({"FINQA_SFT_PLUGINS": ""}))
    assert recipe.name == name
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert name in first
    assert "finqa" in first
    assert second.startswith("# ")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_accelerate_configuration_is_one(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert f"--config_file recipes/accelerate/{path.name}" in first
    if config.distributed_type == "DEEPSPEED":
        file = yaml.safe_load(path.read_text())["deepspeed_config"]["deepspeed_config_file"]
        assert (ROOT / file).is_file()
