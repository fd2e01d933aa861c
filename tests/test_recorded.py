"""Recipes that are read back from a run's record are what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluated import MARKS

from finqa_sft.errors import PluginError, RecipeError
from finqa_sft.plugins.manager import Plugins
from finqa_sft.recipe import Recipe, load_recipe
from finqa_sft.recipe.recorded import recipe_record, recorded_recipe
from finqa_sft.recipe.shipped import shipped_recipes

OVERRIDES: list[list[str]] = [
    [],
    ["trainer.learning_rate=3e-5", "trainer.lr_scheduler_kwargs={num_cycles: 2}"],
    ["data.sources=[{reader: columns, files: own.csv, question: q}]", "evaluation.samples=3"],
    ["model.lora.target_modules=[q_proj, v_proj]", "model.lora.modules_to_save=[lm_head]"],
    ["evaluation.metrics=[{name: answer, tolerance: 0.01}, {name: tatqa}]"],
    ["callbacks=[{name: early_stopping, patience: 3}]", "notes={who: me, when: [1, 2.5, null]}"],
    ["notes='1e3'", "formatter.system='yes: no'", "data.split.held_out=0.25"],
]  # fmt: skip


def plugins() -> Plugins:
    return Plugins.load({"FINQA_SFT_PLUGINS": ""})


def record_of(recipe: Recipe) -> dict[str, Any]:
    """The record, as it is written to a file and read again."""
    found: dict[str, Any] = json.loads(json.dumps(recipe_record(recipe), default=str))
    return found


def values(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        json.dumps({v.path: v.value for v in recipe.values()}, default=str)
    )
    return found


@pytest.mark.parametrize("overrides", OVERRIDES, ids=str)
@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_read_back_has_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, overrides: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        recipe = load_recipe(name, overrides, plugins())
    except RecipeError as error:
        pytest.skip(f"is none: {error}")
    again = recorded_recipe(record_of(recipe), plugins())
    same, known = values(again), values(recipe)
    # They are told apart by nothing but the folder that relative paths start from.
    assert {key: moved(value, tmp_path) for key, value in known.items()} == {
        key: moved(value, tmp_path) for key, value in same.items()
    }
    assert again.name == recipe.name
    assert [metric.name for metric in again.metrics] == [metric.name for metric in recipe.metrics]
    # And once more.
    third = recorded_recipe(record_of(again), plugins())
    assert values(third) == same


def moved(value: Any, folder: Path) -> Any:
    """A value without the folder before its paths."""
    if isinstance(value, str):
        return value.removeprefix(f"{folder}/")
    return [moved(one, folder) for one in value] if isinstance(value, list) else value


RECIPE = """\
plugins: [marks.py]
data:
  sources:
    - {reader: columns, files: [a.csv, sub/b.csv], question: frage}
    - {reader: filings, pages: 2, weight: 2}
evaluation:
  sources:
    - {reader: columns, files: c.csv}
  metrics:
    - name: told
      figures: [0.5, 1]
formatter:
  name: program
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "own.yaml").write_text(RECIPE)
    (folder / "marks.py").write_text(MARKS)
    for name in ("a.csv", "sub/b.csv", "c.csv"):
        (folder / name).write_text("question,frage,context,answer\nq,q,c,1\n")
    return folder


def test_paths_are_found_from_another_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "sub")
    recipe = load_recipe("../own.yaml", ["data.sources.0.files=[b.csv]"], plugins())
    record = record_of(recipe)
    monkeypatch.chdir(tmp_path)
    again = recorded_recipe(record, plugins())
    found = [path.resolve() for path in again.sources[0].options.model_dump()["files"]]
    assert found == [project / "sub" / "b.csv"]
    (held_out,) = again.evaluation_sources
    assert [path.resolve() for path in held_out.options.model_dump()["files"]] == [
        project / "c.csv"
    ]
    assert again.sources[1].weight == 2
    assert again.metrics[0].options.model_dump() == {"figures": (0.5, 1.0), "questions": 9}


def test_overrides_of_now_start_from_the_folder_of_now(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    record = record_of(load_recipe("own.yaml", [], plugins()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.csv").write_text("question,context,answer\nq,c,1\n")
    words = ["evaluation.sources.0.files=new.csv", "evaluation.samples=4"]
    again = recorded_recipe(record, plugins(), words)
    assert again.evaluation_sources[0].options.model_dump()["files"] == (Path("new.csv"),)
    assert again.evaluation.samples == 4


def test_a_wrong_override_of_a_recorded_recipe_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    record = record_of(load_recipe("own.yaml", [], plugins()))
    with pytest.raises(RecipeError) as error:
        recorded_recipe(record, plugins(), ["evaluation.sample=4"])
    assert "did you mean evaluation.samples?" in str(error.value)


def test_a_plugin_file_that_is_gone_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    record = record_of(load_recipe("own.yaml", [], plugins()))
    (project / "marks.py").unlink()
    with pytest.raises(PluginError, match=r"plugin file .*marks\.py: "):
        recorded_recipe(record, plugins())


def test_a_default_of_then_holds_where_that_of_now_is_another(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    record = record_of(load_recipe("own.yaml", [], plugins()))
    then: dict[str, Any] = {
        "formatter.system": "Other.",
        "data.cleaning.empty_rows": False,
        "data.sources.1.seed": 9,
    }
    for value in record["values"]:
        if value["key"] in then:
            assert value["origin"] == "default"
            value["value"] = then[value["key"]]
    again = recorded_recipe(record, plugins())
    assert {key: value for key, value in values(again).items() if key in then} == then
    # An override of now has the last word.
    again = recorded_recipe(record, plugins(), ["data.sources.1.seed=3"])
    assert values(again)["data.sources.1.seed"] == 3
    assert values(again)["formatter.system"] == "Other."
