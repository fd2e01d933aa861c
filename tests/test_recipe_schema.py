"""From a recipe to checked values, or to a list of everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from finqa_sft.errors import PluginError, RecipeError
from finqa_sft.options import Options, RecipePath
from finqa_sft.plugins.manager import Component, Provider
from finqa_sft.plugins.records import (
    CallbackRecord,
    CollatorRecord,
    ComponentRecord,
    FormatterRecord,
    MetricRecord,
    ModelFactoryRecord,
    ReaderRecord,
)
from finqa_sft.recipe import Recipe, Value, json_schema, load_recipe, read_recipe


class LoraOptions(Options):
    """An adapter."""

    r: int = Field(default=16, ge=1)
    """Rank."""

    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = (
        "all-linear"
    )
    """Which layers."""


class FactoryOptions(Options):
    """A base and its adapter."""

    base: str
    """The base."""

    lora: LoraOptions = LoraOptions()
    """The adapter."""

    dropout: float | None = None
    """Dropout."""

    chat_template: RecipePath | None = None
    """A template file."""


class FilesOptions(Options):
    """Files to read."""

    files: tuple[RecipePath, ...] = Field(min_length=1)
    """The files."""


class PagesOptions(Options):
    """Pages to make up."""

    pages: int = Field(default=100, gt=0, le=1000)
    """How many."""

    seed: int = 0
    """Chooses them."""


def one_or_several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


class LooseOptions(Options):
    """Options that a validator touches before they are checked."""

    files: Annotated[tuple[RecipePath, ...], BeforeValidator(one_or_several)] = (Path("a.csv"),)
    """Files."""

    folder: Path = Path("x")
    """A path with a default."""

    share: float = 0.5
    """A number."""

    limit: int | tuple[int, int] = 3
    """One number or two."""


class TableOptions(Options):
    """How tables are written."""

    table_style: Literal["markdown", "tsv", "json"] = "markdown"
    """The style."""

    @field_validator("table_style")
    @classmethod
    def _no_json(cls, style: str) -> str:
        if style == "json":
            raise ValueError("json tables need a context of their own; choose markdown")
        return style


class EveryOptions(Options):
    """When a callback runs."""

    every: int
    """Steps between."""


def never(*args: Any) -> Any:
    raise AssertionError("checking a recipe builds nothing")


RECORDS: dict[str, list[ComponentRecord]] = {
    "model_factories": [
        ModelFactoryRecord(name="qlora", summary="", config=FactoryOptions, build=never)
    ],
    "readers": [
        ReaderRecord(name="columns", summary="", config=FilesOptions, build=never),
        ReaderRecord(name="filings", summary="made up", config=PagesOptions, build=never),
        ReaderRecord(name="loose", summary="", config=LooseOptions, build=never),
    ],
    "formatters": [
        FormatterRecord(name="answer", summary="", build=never),
        FormatterRecord(name="program", summary="", config=TableOptions, build=never),
        FormatterRecord(name="steps", summary="", build=never),
    ],
    "collators": [
        CollatorRecord(
            name="padded", summary="", build=never, sft_args={"remove_unused_columns": False}
        ),
        CollatorRecord(
            name="shared", summary="", build=never, sft_args={"per_device_train_batch_size": 1}
        ),
    ],
    "callbacks": [CallbackRecord(name="touch", summary="", config=EveryOptions, build=never)],
    "metrics": [MetricRecord(name="answer", summary="", build=never)],
}
WORDS = {
    "model_factories": "model factory",
    "readers": "reader",
    "formatters": "formatter",
    "collators": "collator",
    "callbacks": "callback",
    "metrics": "metric",
}


class FakeRegistry:
    """Components without a plugin manager; `twice` is offered by two distributions."""

    def __init__(self) -> None:
        self.files: list[Path] = []

    def components(self, kind: str) -> tuple[Component[ComponentRecord], ...]:
        provider = Provider("finqa_sft", "0.1.0", "builtin")
        return tuple(Component(kind, record, provider) for record in RECORDS[kind])

    def find(self, kind: str, name: str) -> Component[ComponentRecord]:
        for component in self.components(kind):
            if component.record.name == name:
                return component
        if name == "twice":
            raise PluginError("formatter 'twice' is offered by a:twice (a 1) and b:twice (b 2)")
        names = ", ".join(component.record.name for component in self.components(kind))
        raise PluginError(f"no {WORDS[kind]} {name!r}; there are {names}")

    def add_file(self, path: Path) -> None:
        self.files.append(path)


GOOD = """\
model:
  base: tiny
data:
  sources:
    - reader: filings
formatter:
  name: program
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load() -> Callable[..., Recipe]:
    """Write a recipe and load it."""

    def write_and_load(text: str, *overrides: str, path: str = "recipes/r.yaml") -> Recipe:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return load_recipe(file, overrides, FakeRegistry())

    return write_and_load


@pytest.fixture
def refusal(load: Callable[..., Recipe]) -> Callable[..., list[str]]:
    """The lines that refuse a recipe, without its name and without alignment."""

    def lines(text: str, *overrides: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides)
        head, *rest = str(caught.value).splitlines()
        assert head == f"recipes/r.yaml: {len(rest)} problem{'s' * (len(rest) != 1)}"
        return [" ".join(line.split()) for line in rest]

    return lines


def test_all_problems_are_printed_at_once_with_their_places(load: Callable[..., Recipe]) -> None:
    text = """\
# QLoRA on pages that are made up


model:
  base: tiny

data:
  sources:
    - reader: filings

trainer:
  max_steps: 10
  bf16: true
  learning_rat: 2e-4
  seed: 1



# Adapters

lora_r: 8



formatter:

  name: programm
"""
    with pytest.raises(RecipeError) as caught:
        load(text, path="recipes/qlora_7b.yaml")
    assert str(caught.value) == (
        "recipes/qlora_7b.yaml: 3 problems\n"
        "  14:3  trainer.learning_rat  unknown key; did you mean trainer.learning_rate?\n"
        "  21:1  lora_r                unknown key; wrong place? there is model.lora.r\n"
        "  27:9  formatter.name        no formatter 'programm'; there are answer, program, steps"
    )


def test_a_minimal_recipe_is_filled_with_defaults(load: Callable[..., Recipe]) -> None:
    recipe = load(GOOD)
    assert recipe.path == Path("recipes/r.yaml")
    assert recipe.name == "r"
    assert recipe.model.name == recipe.model.record.name == "qlora"
    assert recipe.model.options == FactoryOptions(base="tiny")
    assert [source.options for source in recipe.sources] == [PagesOptions()]
    assert recipe.sources[0].weight == 1.0
    assert str(recipe.formatter.component.provider) == "finqa_sft 0.1.0"
    assert recipe.max_length == 2048
    assert recipe.collator.name == "padded"
    assert recipe.data.split.held_out == 0.0
    assert recipe.data.bad_rows == "error"
    assert recipe.output.dir == Path("runs/r")
    assert recipe.trainer == {}
    assert (recipe.evaluation_sources, recipe.callbacks, recipe.plugins) == ((), (), ())


def test_a_full_recipe_is_read(load: Callable[..., Recipe]) -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.py").write_text("")
    recipe = load("""\
model:
  factory: qlora
  base: org/model
  lora: {r: 8, target_modules: [q_proj, v_proj]}
  chat_template: chat.jinja
data:
  sources:
    - {reader: columns, files: [a.csv, /data/b.csv], weight: 2}
    - {reader: filings, pages: 5, weight: 0.5}
  split: {held_out: 0.1, by: company, seed: 3}
  bad_rows: skip
formatter: {name: program, max_length: 512, table_style: tsv}
collator: {name: shared}
callbacks:
  - {name: touch, every: 5}
evaluation:
  sources:
    - {reader: columns, files: [../dev.csv]}
output: {dir: ../out, overwrite: true}
plugins: [mine.py]
trainer: {learning_rate: 2e-4, eval_strategy: no, num_train_epochs: 1}
notes:
  who: [anyone, {at: all}]
""")
    assert recipe.model.options.model_dump() == {
        "base": "org/model",
        "lora": {"r": 8, "target_modules": ("q_proj", "v_proj")},
        "dropout": None,
        "chat_template": Path("recipes/chat.jinja"),
    }
    assert [source.weight for source in recipe.sources] == [2.0, 0.5]
    assert recipe.sources[0].options == FilesOptions(
        files=(Path("recipes/a.csv"), Path("/data/b.csv"))
    )
    assert recipe.evaluation_sources[0].options == FilesOptions(files=(Path("recipes/../dev.csv"),))
    assert recipe.callbacks[0].options == EveryOptions(every=5)
    assert recipe.data.split.by == "company"
    assert recipe.data.bad_rows == "skip"
    assert recipe.max_length == 512
    assert recipe.output.dir == Path("recipes/../out")
    assert recipe.output.overwrite
    assert recipe.plugins == (Path("recipes/mine.py"),)
    assert recipe.trainer == {
        "learning_rate": 2e-4,
        "eval_strategy": "no",
        "num_train_epochs": 1,
    }
    assert recipe.notes == {"who": ["anyone", {"at": "all"}]}


def test_a_section_without_content_counts_as_left_out(load: Callable[..., Recipe]) -> None:
    recipe = load(GOOD + "collator:\ncallbacks:\ntrainer:\noutput:\nevaluation:\nplugins:\n")
    assert recipe.collator.name == "padded"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lora_r: 8", "8:1 lora_r unknown key; wrong place? there is model.lora.r"),
        ("lora: {r: 8}", "8:1 lora unknown key; wrong place? there is model.lora"),
        (
            "seed: 8",
            "8:1 seed unknown key; wrong place? there are data.split.seed, evaluation.seed, "
            "data.sources.0.seed, trainer.seed",
        ),
        ("model_name_or_path: x", "8:1 model_name_or_path unknown key; here it is model.base"),
        ("load_in_4bit: true", "8:1 load_in_4bit unknown key; here it is model.factory"),
        ("datasets: []", "8:1 datasets unknown key; here it is data.sources"),
        ("output_dir: x", "8:1 output_dir unknown key; wrong place? there is output.dir"),
        (
            "packing: true",
            "8:1 packing unknown key; the collator decides how rows share a batch; choose one "
            "with collator.name",
        ),
        ("trainr: {}", "8:1 trainr unknown key; did you mean trainer?"),
        (
            "trainer.max_steps: 3",
            "8:1 trainer.max_steps unknown key; dots are for the command line: write max_steps "
            "under trainer",
        ),
        (
            "zebra: 3",
            "8:1 zebra unknown key; there are model, data, formatter, collator, callbacks, "
            "evaluation, output, plugins, trainer, notes",
        ),
        (
            "trainer: {max-steps: 3}",
            "8:11 trainer.max-steps unknown key; did you mean trainer.max_steps?",
        ),
        (
            "trainer: {dir: x}",
            "8:11 trainer.dir unknown key; wrong place? there is output.dir",
        ),
        (
            "trainer: {zebra: x}",
            "8:11 trainer.zebra unknown key; `finqa-sft show RECIPE` lists those that there are",
        ),
        (
            "trainer: {num_epochs: 3}",
            "8:11 trainer.num_epochs unknown key; here it is trainer.num_train_epochs",
        ),
        (
            "  tables: tsv",
            "8:3 formatter.tables unknown key; did you mean formatter.table_style?",
        ),
        (
            "  pages: 5",
            "8:3 formatter.pages unknown key; wrong place? there is data.sources.0.pages",
        ),
        ("output: {dri: x}", "8:10 output.dri unknown key; did you mean output.dir?"),
        (
            "collator: {zebra: 1}",
            "8:12 collator.zebra unknown key; there is name",
        ),
    ],
)  # fmt: skip
def test_an_unknown_key_is_led_to_the_right_one(
    refusal: Callable[..., list[str]], text: str, problem: str
) -> None:
    assert refusal(GOOD + text + "\n") == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("  max_length: abc", "8:15 formatter.max_length expected a whole number, got 'abc'"),
        (
            "  max_length: '512'",
            "8:15 formatter.max_length expected a whole number, got '512'; leave out the quotes",
        ),
        ("  max_length: true", "8:15 formatter.max_length expected a whole number, got true"),
        ("  max_length: 64.5", "8:15 formatter.max_length expected a whole number, got 64.5"),
        (
            "  max_length: 8",
            "8:15 formatter.max_length must be greater than or equal to 32, got 8",
        ),
        ("  max_length:", "8:14 formatter.max_length expected a whole number, got null"),
        (
            "  table_style: tvs",
            "8:16 formatter.table_style no 'tvs'; there are markdown, tsv, json",
        ),
        (
            "  table_style: 3",
            "8:16 formatter.table_style expected markdown, tsv or json, got 3",
        ),
        (
            "  table_style: json",
            "8:16 formatter.table_style json tables need a context of their own; choose markdown",
        ),
        ("callbacks: touch", "8:12 callbacks expected a list, got 'touch'"),
        ("callbacks: [touch]", "8:13 callbacks.0 expected a section, got 'touch'"),
        ("callbacks: [{name: touch}]", "8:13 callbacks.0.every missing; it has no default"),
        ("callbacks: [{every: 3}]", "8:13 callbacks.0.name missing; it has no default"),
        ("callbacks: [{name: 3}]", "8:20 callbacks.0.name expected text, got 3; put it in quotes"),
        ("collator: padded", "8:11 collator expected a section, got 'padded'"),
        ("trainer: [1]", "8:10 trainer expected a section, got a list"),
        ("output: {overwrite: yes}", "8:21 output.overwrite expected true or false, got 'yes'"),
        ("output: {dir: 3}", "8:15 output.dir expected a path, got 3"),
        ("plugins: [gone.py]", "8:11 plugins.0 no such file: recipes/gone.py"),
        ("trainer: {max_grad_norm: .inf}", "8:26 trainer.max_grad_norm expected a finite number, "
         "got inf"),
        ("trainer: {max_steps: abc}", "8:22 trainer.max_steps expected a whole number, got 'abc'"),
        (
            "trainer: {lr_scheduler_type: cosin}",
            "8:30 trainer.lr_scheduler_type no 'cosin'; did you mean cosine?",
        ),
        ("trainer: {output_dir: x}", "8:11 trainer.output_dir set output.dir instead"),
        ("trainer: {deepspeed: zero3.json}", "8:22 trainer.deepspeed no such file: "
         "recipes/zero3.json"),
        (
            "collator: {name: shared}\ntrainer: {per_device_train_batch_size: 4}",
            "9:40 trainer.per_device_train_batch_size collator shared needs "
            "per_device_train_batch_size=1; leave it out",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_in_plain_words(
    refusal: Callable[..., list[str]], text: str, problem: str
) -> None:
    assert refusal(GOOD + text + "\n") == [problem]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.lora.r=0", "model.lora.r must be greater than or equal to 1, got 0"),
        ("model.lora.r=abc", "model.lora.r expected a whole number, got 'abc'"),
        (
            "model.lora.target_modules=5",
            "model.lora.target_modules expected all-linear or a list, got 5",
        ),
        (
            "model.lora.target_modules=[a, 5]",
            "model.lora.target_modules.1 expected text, got 5; put it in quotes",
        ),
        (
            "model.lora.target_modules=[]",
            "model.lora.target_modules expected at least 1 item, got 0",
        ),
        ("model.dropout=x", "model.dropout expected a number, got 'x'"),
        ("model.lora=8", "model.lora expected a section, got 8"),
        ("data.sources=[]", "data.sources expected at least 1 item, got 0"),
        ("data.sources.0.pages=2000", "data.sources.0.pages must be less than or equal to 1000, "
         "got 2000"),
        ("data.sources.0.weight=0", "data.sources.0.weight must be greater than 0, got 0"),
        ("data.split.held_out=1", "data.split.held_out must be less than 1, got 1"),
        ("data.split.by=firm", "data.split.by no 'firm'; there are document, company"),
        ("model.factory=lora", "model.factory no model factory 'lora'; there are qlora"),
        ("formatter.name=twice", "formatter.name formatter 'twice' is offered by a:twice (a 1) and "
         "b:twice (b 2)"),
        ("trainr.max_steps=3", "trainr unknown key; did you mean trainer?"),
        ("trainer.max_step=3", "trainer.max_step unknown key; did you mean trainer.max_steps?"),
        ("max_steps", "max_steps not an override; write key.path=value"),
        ("model=", "model.base missing; it has no default"),
        ("model.dropout=.nan", "model.dropout expected a finite number, got nan"),
    ],
)  # fmt: skip
def test_what_an_override_breaks_is_put_down_to_it(
    refusal: Callable[..., list[str]], override: str, problem: str
) -> None:
    assert refusal(GOOD, override) == [f"override {problem}"]


def test_an_almost_empty_recipe_is_told_what_it_lacks(refusal: Callable[..., list[str]]) -> None:
    assert refusal("notes: later\n") == [
        "1:1 data.sources missing; it has no default",
        "1:1 formatter.name missing; it has no default",
        "1:1 model.base missing; it has no default",
    ]


def test_problems_of_file_values_and_overrides_come_together(
    refusal: Callable[..., list[str]],
) -> None:
    text = GOOD + "  name: answer\ntrainer:\n  max_steps: 1e3\n  hub_token: abc\n"
    assert refusal(text, "output.dir=3", "nothing") == [
        "8:3 formatter.name written twice; first in line 7",
        "10:14 trainer.max_steps expected a whole number, got 1000.0",
        "11:3 trainer.hub_token a secret must not stand in a recipe; set the variable HF_TOKEN "
        "instead",
        "override nothing not an override; write key.path=value",
        "override output.dir expected a path, got 3",
    ]


def test_paths_in_overrides_are_relative_to_the_current_folder(
    load: Callable[..., Recipe],
) -> None:
    text = GOOD + "output: {dir: out}\n"
    assert load(text).output.dir == Path("recipes/out")
    recipe = load(
        text,
        "output.dir=out",
        "model.chat_template=chat.jinja",
        "data.sources=[{reader: columns, files: [a.csv]}]",
    )
    assert recipe.output.dir == Path("out")
    assert dict(recipe.model.options)["chat_template"] == Path("chat.jinja")
    assert recipe.sources[0].options == FilesOptions(files=(Path("a.csv"),))


def test_one_overridden_path_leaves_the_others_with_the_recipe(
    load: Callable[..., Recipe],
) -> None:
    text = GOOD.replace("filings", "columns\n      files: [a.csv, b.csv]")
    text += "output: {dir: out}\n"
    recipe = load(text, "data.sources.0.files.1=c.csv", "output.overwrite=true")
    assert recipe.sources[0].options == FilesOptions(files=(Path("recipes/a.csv"), Path("c.csv")))
    assert recipe.output.dir == Path("recipes/out")
    assert load(GOOD, "output.overwrite=true").output.dir == Path("runs/r")


def test_options_may_have_validators_of_their_own(
    load: Callable[..., Recipe], refusal: Callable[..., list[str]]
) -> None:
    text = GOOD.replace("filings", "loose")
    assert load(text).sources[0].options == LooseOptions(files=(Path("recipes/a.csv"),))
    options = load(text, "data.sources.0.files=b.csv", "data.sources.0.limit=[1, 2]")
    assert options.sources[0].options == LooseOptions(files=(Path("b.csv"),), limit=(1, 2))
    assert refusal(text, "data.sources.0={reader: loose, share: '0.1', limit: '3'}") == [
        "override data.sources.0.share expected a number, got '0.1'; leave out the quotes",
        "override data.sources.0.limit expected a whole number, got '3'; leave out the quotes",
    ]
    assert refusal(text, "data.sources.0={reader: loose, share: true, limit: abc}") == [
        "override data.sources.0.limit expected a whole number or a list, got 'abc'",
        "override data.sources.0.share expected a number, got true",
    ]


def test_files_of_the_trainer_are_found_beside_the_recipe(load: Callable[..., Recipe]) -> None:
    Path("recipes").mkdir()
    config = '{"zero_optimization": {"stage": 2}, "train_batch_size": "auto"}'
    Path("recipes/zero3.json").write_text(config)
    Path("zero2.json").write_text(config)
    text = GOOD + "trainer: {deepspeed: zero3.json, run_name: zero3.json}\n"
    assert load(text).trainer == {"deepspeed": "recipes/zero3.json", "run_name": "zero3.json"}
    assert load(text, "trainer.deepspeed=zero2.json").trainer["deepspeed"] == "zero2.json"
    assert load(GOOD, "trainer.resume_from_checkpoint=true").trainer == {
        "resume_from_checkpoint": True
    }


def test_plugin_files_are_loaded_before_components_are_looked_up() -> None:
    Path("sub").mkdir()
    Path("sub/a.py").write_text("")
    Path("b.py").write_text("")
    Path("sub/r.yaml").write_text(GOOD + "plugins: [a.py]\n")
    assert read_recipe("sub/r.yaml").plugin_files == (Path("sub/a.py"),)
    assert read_recipe("sub/r.yaml", ["plugins=[b.py]"]).plugin_files == (Path("b.py"),)
    assert read_recipe("sub/r.yaml", ["plugins.0=b.py"]).plugin_files == (Path("b.py"),)
    assert read_recipe("sub/r.yaml", ["plugins=5"]).plugin_files == ()
    registry = FakeRegistry()
    load_recipe("sub/r.yaml", [], registry)
    assert registry.files == [Path("sub/a.py")]


def test_every_value_says_where_it_came_from(load: Callable[..., Recipe]) -> None:
    text = GOOD + "trainer: {max_steps: 3}\nnotes: {free: text}\n"
    recipe = load(text, "model.lora.r=8", "trainer.seed=1", "collator.name=shared")
    values = {value.path: value for value in recipe.values()}
    assert len(values) == len(recipe.values())
    for value in (
        Value("model.factory", "qlora", "default"),
        Value("model.base", "tiny", "recipe", 2),
        Value("model.lora.r", 8, "override"),
        Value("model.lora.target_modules", "all-linear", "default"),
        Value("data.sources.0.reader", "filings", "recipe", 5),
        Value("data.sources.0.pages", 100, "default"),
        Value("data.split.by", "document", "default"),
        Value("formatter.max_length", 2048, "default"),
        Value("formatter.table_style", "markdown", "default"),
        Value("collator.name", "shared", "override"),
        Value("output.dir", "runs/r", "default"),
        Value("plugins", [], "default"),
        Value("trainer.max_steps", 3, "recipe", 8),
        Value("trainer.seed", 1, "override"),
        Value("trainer.per_device_train_batch_size", 1, "collator"),
        Value("trainer.num_train_epochs", 3.0, "default"),
        Value("trainer.optim", "computed by the trainer", "default"),
        Value("notes", {"free": "text"}, "recipe", 9),
    ):
        assert values[value.path] == value
    assert "trainer.output_dir" not in values
    assert list(values)[:3] == ["model.factory", "model.base", "model.lora.r"]


def test_a_partly_overridden_list_counts_as_overridden(load: Callable[..., Recipe]) -> None:
    text = GOOD + "  table_style: tsv\n"
    text = text.replace("base: tiny", "base: tiny\n  lora: {target_modules: [a, b]}")
    values = {v.path: v for v in load(text, "model.lora.target_modules.0=c").values()}
    assert values["model.lora.target_modules"] == Value(
        "model.lora.target_modules", ["c", "b"], "override"
    )


def test_a_recipe_is_frozen(load: Callable[..., Recipe]) -> None:
    recipe = load(GOOD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.max_length = 3  # type: ignore[misc]
    with pytest.raises(TypeError, match="does not support item assignment"):
        recipe.trainer["seed"] = 3  # type: ignore[index]
    with pytest.raises(ValidationError, match="frozen"):
        recipe.data.split.seed = 3


def test_building_a_component_hands_over_its_options(load: Callable[..., Recipe]) -> None:
    recipe = load(GOOD)
    with pytest.raises(AssertionError) as caught:
        recipe.collator.build("tokenizer")
    assert caught.value.__notes__ == ["raised in the collator 'padded' of finqa_sft 0.1.0"]


def test_errors_survive_pickling(load: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError) as caught:
        load("a: b: c")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_json_schema_has_the_options_of_every_component() -> None:
    schema = json_schema(FakeRegistry())
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["data", "formatter"]
    assert schema["properties"]["trainer"]["properties"]["max_steps"] == {
        "type": "integer",
        "default": -1,
    }
    assert "output_dir" not in schema["properties"]["trainer"]["properties"]
    assert schema["$defs"]["OutputSection"]["description"] == "What the run leaves behind."
    assert schema["$defs"]["SplitSection"]["properties"]["held_out"]["exclusiveMaximum"] == 1
    columns, filings, _ = schema["$defs"]["SourceSection"]["oneOf"]
    assert columns["required"] == ["files", "reader"]
    assert filings["description"] == "made up"
    assert filings["properties"]["reader"]["const"] == "filings"
    assert list(filings["properties"]) == ["pages", "seed", "reader", "weight"]
    (qlora,) = schema["$defs"]["ModelSection"]["oneOf"]
    assert qlora["required"] == ["base"]
    assert qlora["properties"]["lora"]["$ref"] == "#/$defs/LoraOptions"


WORDS_OF_RECIPES = (
    "model base lora r data sources reader columns files weight split formatter name program "
    "collator callbacks touch every output dir plugins trainer max_steps seed notes"
)
names = st.sampled_from(WORDS_OF_RECIPES.split())
scalars = st.none() | st.booleans() | st.integers() | st.floats() | names
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner))


@given(st.dictionaries(names, trees), st.lists(st.tuples(st.lists(names, min_size=1), trees)))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
def test_any_tree_is_a_recipe_or_a_list_of_problems(
    tmp_path: Path, tree: dict[str, Any], overrides: list[tuple[list[str], Any]]
) -> None:
    def written(value: Any) -> str:
        text = json.dumps(value)
        return text.replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")

    path = tmp_path / "any.yaml"
    path.write_text(written(tree))
    texts = [f"{'.'.join(key)}={written(value)}" for key, value in overrides]
    try:
        recipe = load_recipe(path, texts, FakeRegistry())
    except RecipeError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
    else:
        assert recipe.values()


def test_checking_a_recipe_imports_nothing_heavy() -> None:
    program = """
import sys
from pathlib import Path
from finqa_sft.recipe import load_recipe
from finqa_sft.errors import RecipeError
class Empty:
    def components(self, kind): return ()
    def find(self, kind, name): from finqa_sft.errors import PluginError; raise PluginError("no")
    def add_file(self, path): pass
Path("r.yaml").write_text("trainer: {max_steps: x}")
try:
    load_recipe("r.yaml", [], Empty())
except RecipeError as error:
    assert "expected a whole number" in str(error)
print([name for name in ("torch", "transformers", "trl", "datasets") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    assert done.stdout == "[]\n"
