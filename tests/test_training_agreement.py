"""Processes that resolved different things do not train together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import write_recipe

from finqa_sft.errors import HardwareError
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation.prepare import prepared_recipe
from finqa_sft.recipe import load_recipe
from finqa_sft.training import agreement
from finqa_sft.training.agreement import require_agreement, resolved

ARGS: Any = SimpleNamespace(device="cpu")


def facts(folder: Path, *words: str) -> dict[str, str]:
    plugins = Plugins.load({"FINQA_SFT_PLUGINS": ""})
    recipe = load_recipe(write_recipe(folder), words, plugins)
    return resolved(recipe, plugins, prepared_recipe(recipe).data, checkpoint=None)


def told(monkeypatch: pytest.MonkeyPatch, *others: dict[str, str]) -> None:
    """Let the others have gathered that, process by process."""
    hosts = ("bank-1", "bank-1", "bank-2")

    def gathered(items: list[Any]) -> list[Any]:
        ((_, _, own),) = items
        return [(n, hosts[n], one) for n, one in enumerate([own, *others])]

    monkeypatch.setattr(agreement, "gathered", gathered)


def test_the_same_everywhere_is_agreed_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = facts(tmp_path)
    told(monkeypatch, dict(own), dict(own))
    require_agreement(ARGS, own)
    assert {"training data", "held-out data", "version of torch", "checkpoint"} <= own.keys()
    assert own["trainer.learning_rate"] == "0.001"


def test_a_machine_with_other_data_and_packages_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = facts(tmp_path)
    told(monkeypatch, own, own | {"version of torch": "2.1", "training data": "abc"})
    with pytest.raises(HardwareError) as error:
        require_agreement(ARGS, own)
    assert str(error.value) == (
        f"process 2 (on bank-2) has version of torch 2.1 instead of {own['version of torch']}, "
        f"training data abc instead of {own['training data']}, so it would train something else "
        "than the others; give all machines the same recipe, files and packages"
    )


def test_what_one_lacks_is_a_difference_and_few_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, {"e": "1"})
    with pytest.raises(HardwareError, match=r"has a missing instead of 1, .* instead of 1, and 2"):
        require_agreement(ARGS, dict.fromkeys("abcd", "1"))


@pytest.mark.parametrize(
    "words", [["data.sources.0.seed=5"], ["data.split.seed=3"], ["formatter.system=Say."]]
)
def test_other_rows_are_other_data(tmp_path: Path, words: list[str]) -> None:
    one, other = facts(tmp_path), facts(tmp_path, *words)
    assert one["training data"] != other["training data"]
