"""Processes that resolved different things do not train together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import write_recipe
from small_models import small_model

from finqa_sft.errors import HardwareError
from finqa_sft.models.bases import BaseKind, ResolvedBase
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation.prepare import prepared_recipe
from finqa_sft.recipe import load_recipe
from finqa_sft.training import agreement
from finqa_sft.training.agreement import require_agreement, resolved

CALLBACKS = """\
from finqa_sft import hookimpl
from finqa_sft.plugins.records import CallbackRecord


@hookimpl
def finqa_sft_callbacks():
    return [CallbackRecord(name="mine", summary="", build=lambda options, folder: None)]
"""

ARGS: Any = SimpleNamespace(device="cpu")


def facts(folder: Path, *words: str, deepspeed: Any = None) -> dict[str, str]:
    plugins = Plugins.load({"FINQA_SFT_PLUGINS": ""})
    recipe = load_recipe(write_recipe(folder), words, plugins)
    plugin = deepspeed and SimpleNamespace(deepspeed_config=deepspeed)
    args: Any = SimpleNamespace(deepspeed_plugin=plugin)
    return resolved(recipe, plugins, prepared_recipe(recipe).data, recipe.model.build(), args)


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
    assert {"training data", "held-out data", "version of torch", "base"} <= own.keys()
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


def test_other_weights_of_a_base_are_another_base(tmp_path: Path) -> None:
    found = []
    for name, factor in (("one", 1.0), ("same", 1.0), ("other", 1.5)):
        model = small_model("llama")
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(factor)
        model.save_pretrained(tmp_path / name)
        config = model.config
        found.append(ResolvedBase(str(tmp_path / name), BaseKind.FOLDER, None, config))
    one, same, other = (base.fingerprint() for base in found)
    assert one == same != other
    hub = ResolvedBase("Qwen/A", BaseKind.HUB, "v1", config)
    assert hub.fingerprint() == "Qwen/A at v1"


def test_names_on_the_hub_and_what_files_hold_are_compared(tmp_path: Path) -> None:
    words = ["formatter.system=Yes/no."]
    words.append(f"plugins=[{tmp_path / 'mine.py'}]")
    (tmp_path / "mine.py").write_text(CALLBACKS)
    found = facts(tmp_path, *words, deepspeed={"stage": 1})
    (tmp_path / "mine.py").write_text(CALLBACKS + "# changed\n")
    again = facts(tmp_path, *words, deepspeed={"stage": 2})
    assert found["formatter.system"] == "Yes/no."
    differs = {name for name in found if found[name] != again[name]}
    assert differs == {"plugin file mine.py", "DeepSpeed configuration"}
    assert found["provider of callbacks mine"] == "mine.py"
    assert {n: v for n, v in found.items() if str(tmp_path) in v} == {}


def test_an_error_on_another_machine_ends_this_one_with_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, {}, {"failed": "own.csv: no such file"})
    with pytest.raises(HardwareError) as error:
        require_agreement(ARGS, {"a": "1"})
    assert str(error.value) == "process 2 (on bank-2) has ended: own.csv: no such file"
