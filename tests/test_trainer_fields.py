"""The fields of `SFTConfig`, read from its sources."""

from __future__ import annotations

import ast
import dataclasses
import sys
from enum import Enum
from pathlib import Path

import pytest

from finqa_sft.errors import RecipeError
from finqa_sft.recipe import trainer_fields as module
from finqa_sft.recipe.trainer_fields import (
    REFUSED,
    Allowed,
    Default,
    TrainerField,
    check_trainer_field,
    trainer_fields,
    trainer_schema,
)


@pytest.fixture(scope="module")
def installed() -> dict[str, dataclasses.Field[object]]:
    """The fields as the imported class has them."""
    from trl.trainer.sft_config import SFTConfig

    return {field.name: field for field in dataclasses.fields(SFTConfig)}


def test_names_are_those_of_the_imported_class(
    installed: dict[str, dataclasses.Field[object]],
) -> None:
    assert list(trainer_fields()) == list(installed)


def test_defaults_are_those_of_the_imported_class(
    installed: dict[str, dataclasses.Field[object]],
) -> None:
    stated = {n: f.default for n, f in trainer_fields().items() if f.default != Default.COMPUTED}
    actual = {
        name: field.default if field.default_factory is dataclasses.MISSING else []
        for name, field in installed.items()
    }
    assert stated == {name: actual[name] for name in stated}
    assert set(installed) - set(stated) == {"optim"}


def test_choices_are_those_of_the_imported_enums() -> None:
    from transformers import training_args

    enums = {
        "lr_scheduler_type": training_args.SchedulerType,
        "optim": training_args.OptimizerNames,
        "eval_strategy": training_args.IntervalStrategy,
        "save_strategy": training_args.SaveStrategy,
        "hub_strategy": training_args.HubStrategy,
    }
    for name, enum in enums.items():
        assert issubclass(enum, Enum)
        assert list(trainer_fields()[name].allowed.choices) == [one.value for one in enum]


def test_every_stated_default_passes_its_own_check() -> None:
    wrong = {
        name: problem
        for name, field in trainer_fields().items()
        if field.default is not Default.COMPUTED and (problem := field.problem(field.default))
    }
    assert wrong == {}


def test_refused_fields_exist() -> None:
    assert set(REFUSED) <= set(trainer_fields())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 2e-4),
        ("learning_rate", 1),
        ("max_steps", 10),
        ("bf16", None),
        ("bf16", True),
        ("lr_scheduler_type", "cosine"),
        ("lr_scheduler_kwargs", {"num_cycles": 1}),
        ("optim", "adamw_8bit"),
        ("eval_strategy", "no"),
        ("report_to", ["tensorboard", "wandb"]),
        ("report_to", "none"),
        ("include_num_input_tokens_seen", True),
        ("trackio_static_space_id", False),
        ("resume_from_checkpoint", True),
        ("resume_from_checkpoint", "runs/x/checkpoint-5"),
        ("deepspeed", "zero3.json"),
        ("fsdp", True),
        ("parallelism_config", {"anything": 1}),
        ("loss_type", "dft"),
    ],
)
def test_a_right_value_passes(name: str, value: object) -> None:
    assert check_trainer_field(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("learning_rate", "2e-4", "expected a number, got '2e-4'; leave out the quotes"),
        ("learning_rate", "high", "expected a number, got 'high'"),
        ("learning_rate", True, "expected a number, got true"),
        ("max_steps", 10.0, "expected a whole number, got 10.0"),
        ("max_steps", False, "expected a whole number, got false"),
        ("max_steps", None, "expected a whole number, got null"),
        ("gradient_checkpointing", "yes", "expected true or false, got 'yes'"),
        ("gradient_checkpointing", 1, "expected true or false, got 1"),
        ("run_name", 7, "expected text or null, got 7; put it in quotes"),
        ("eval_steps", "x", "expected a number or null, got 'x'"),
        ("lr_scheduler_type", "cosin", "no 'cosin'; did you mean cosine?"),
        ("optim", "adam8", "no 'adam8'; did you mean adamw_8bit?"),
        (
            "optim",
            "paged",
            "no 'paged'; did you mean paged_adamw_32bit, paged_adamw_8bit or paged_ademamix_32bit?",
        ),
        ("bf16", "yes", "expected true, false or null, got 'yes'"),
        ("eval_strategy", "never", "no 'never'; there are no, steps, epoch"),
        ("eval_strategy", False, "expected no, steps or epoch, got false"),
        ("loss_type", "dtf", "no 'dtf'; there are nll, dft, chunked_nll"),
        (
            "trackio_static_space_id",
            True,
            "expected false, text or null, got true; put it in quotes",
        ),
        ("report_to", 3, "expected text, a list or null, got 3; put it in quotes"),
        ("gradient_checkpointing_kwargs", [1], "expected text, a section or null, got a list"),
    ],
)
def test_a_wrong_value_is_refused_in_plain_words(name: str, value: object, problem: str) -> None:
    assert check_trainer_field(name, value) == problem


def test_the_schema_offers_what_a_recipe_may_set() -> None:
    properties = trainer_schema()["properties"]
    assert set(properties) == set(trainer_fields()) - set(REFUSED)
    assert properties["learning_rate"] == {"type": "number", "default": 2e-5}
    assert "parallelism_config" not in properties
    assert properties["eval_strategy"] == {"enum": ["no", "steps", "epoch"], "default": "no"}
    assert properties["data_seed"] == {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "default": None,
    }


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of which nothing may be imported."""
    folder = tmp_path / "configs"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "raise ImportError\nif TYPE_CHECKING:\n    from .inner import Config as Config\n"
    )
    (folder / "inner/__init__.py").write_text(
        "try:\n    from .deep import Config\nexcept ImportError:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def read(package: Path, source: str) -> dict[str, TrainerField]:
    """The fields of a class `Config` in a module of the package."""
    (package / "inner/deep.py").write_text(source)
    module._module.cache_clear()
    try:
        found = module._module("configs")
        assert found is not None
        located = found.find("Config")
        assert located is not None
        return {field.name: field for field in module._fields(*located)}
    finally:
        module._module.cache_clear()
        assert "configs" not in sys.modules


def test_classes_are_found_through_imports_without_importing(package: Path) -> None:
    (package / "base.py").write_text("class Base:\n    a: int = 1\n    b: str = 'x'\n")
    fields = read(package, "from ..base import Base as B\nclass Config(B):\n    b: int = 2\n")
    assert fields == {
        "a": TrainerField("a", Allowed(frozenset({"int"})), 1),
        "b": TrainerField("b", Allowed(frozenset({"int"})), 2),
    }


@pytest.mark.parametrize(
    ("annotation", "allowed"),
    [
        ("Optional[int]", Allowed(frozenset({"int", "None"}))),
        ("'int | None'", Allowed(frozenset({"int", "None"}))),
        ("Union[str, list[str]]", Allowed(frozenset({"str", "list"}))),
        ("Literal['a', 'b']", Allowed(frozenset({"str"}), ("a", "b"))),
        ("Literal[8, 4] | None", Allowed(frozenset({"None"}), (), (8, 4))),
        ("Dict[str, Any]", Allowed(frozenset({"dict"}))),
        ("tuple[float, float]", Allowed(frozenset({"list"}))),
        ("Color", Allowed(frozenset({"str"}), ("red", "blue"))),
        ("Color | str", Allowed(frozenset({"str"}), ("red", "blue"))),
        ("Any", Allowed()),
        ("Unheard | None", Allowed()),
        ("typing.Optional[int]", Allowed()),
        ("lambda: 0", Allowed()),
    ],
)
def test_annotations_are_understood_or_let_anything_through(
    package: Path, annotation: str, allowed: Allowed
) -> None:
    source = (
        "class Color(ExplicitEnum):\n    '''Two.'''\n    RED = 'red'\n    BLUE = 'blue'\n"
        f"class Config:\n    field: {annotation} = make()\n"
    )
    assert read(package, source) == {"field": TrainerField("field", allowed, Default.COMPUTED)}


def test_field_calls_state_defaults_and_choices(package: Path) -> None:
    source = """
class Config:
    kind: ClassVar[int] = 3
    a: str = field(default="x", metadata={"help": "h", "choices": ["x", "y"]})
    b: list[str] = field(default_factory=list, metadata={"choices": KNOWN.keys()})
    c: float = field(default=1 / 3)
    d: int
"""
    assert read(package, source) == {
        "a": TrainerField("a", Allowed(frozenset({"str"}), ("x", "y")), "x"),
        "b": TrainerField("b", Allowed(frozenset({"list"})), []),
        "c": TrainerField("c", Allowed(frozenset({"float"}))),
        "d": TrainerField("d", Allowed(frozenset({"int"}))),
    }


def test_a_missing_trl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_module", lambda name: None)
    with pytest.raises(RecipeError) as caught:
        trainer_fields.__wrapped__()
    assert str(caught.value) == (
        "trl.SFTConfig was not found among the installed packages; install trl"
    )


def test_sources_are_read_as_utf_8_whatever_the_locale(package: Path) -> None:
    fields = read(package, "class Config:\n    é: str = 'ü'\n")
    assert fields["é"].default == "ü"
    assert ast.literal_eval("'ü'") == fields["é"].default
