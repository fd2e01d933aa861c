from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from finqa_sft.errors import PluginError
from finqa_sft.options import NoOptions
from finqa_sft.plugins import MetricRecord, ReaderRecord, hookimpl
from finqa_sft.plugins.checks import RESERVED
from finqa_sft.plugins.hookspecs import HookSpecs
from finqa_sft.plugins.manager import KINDS, Plugins, Provider
from finqa_sft.recipe.schema import SLOTS

STRANGER = Provider("stranger", "1.2", "main")


def metric(name: str, **fields: object) -> MetricRecord:
    filled = {"summary": "a metric", "build": lambda options: len} | fields
    return MetricRecord(name=name, **filled)  # type: ignore[arg-type]


def module(**contents: object) -> ModuleType:
    made = ModuleType("stranger")
    vars(made).update(contents)
    return made


def plugin(*records: object) -> ModuleType:
    @hookimpl
    def finqa_sft_metrics() -> list[object]:
        return list(records)

    return module(finqa_sft_metrics=finqa_sft_metrics)


OUR_METRICS = ("answer", "convfinqa", "finqa", "tatqa")


@pytest.fixture
def alone() -> Plugins:
    return Plugins.load({"FINQA_SFT_PLUGINS": ""})


def test_the_built_in_components_come_through_the_same_hooks(alone: Plugins) -> None:
    names = {kind: alone.names(kind) for kind in KINDS}
    assert names == {
        "readers": ("columns", "convfinqa", "filings", "financebench", "finqa", "tatqa"),
        "formatters": ("answer", "program", "steps"),
        "collators": ("flattened", "padded", "shared_context"),
        "model_factories": ("full", "lora", "qlora"),
        "metrics": OUR_METRICS,
        "callbacks": ("early_stopping",),
    }
    assert alone.failures == []


def test_a_stranger_s_component_is_found_by_its_bare_and_by_its_full_name(alone: Plugins) -> None:
    alone.add(STRANGER, lambda: plugin(metric("same")))
    assert alone.find("metrics", "same") is alone.find("metrics", "stranger:same")
    assert str(alone.find("metrics", "same").provider) == "stranger 1.2"


def test_a_name_that_two_distributions_offer_must_be_written_in_full(alone: Plugins) -> None:
    alone.add(STRANGER, lambda: plugin(metric("same")))
    alone.add(Provider("other", "3.0", "main"), lambda: plugin(metric("same")))
    with pytest.raises(PluginError) as error:
        alone.find("metrics", "same")
    assert str(error.value) == (
        "metric 'same' is offered by stranger:same (stranger 1.2) and other:same (other 3.0); "
        "write one of these names"
    )
    assert alone.find("metrics", "other:same").provider.version == "3.0"


def test_an_unknown_name_is_answered_with_the_known_ones(alone: Plugins) -> None:
    with pytest.raises(PluginError) as error:
        alone.find("formatters", "programm")
    assert str(error.value) == (
        "no formatter 'programm'; there are answer, program, steps; did you mean program?"
    )


def test_a_plugin_that_fails_to_import_is_named_where_it_is_missed(alone: Plugins) -> None:
    def broken() -> object:
        raise ImportError("no module named 'torch2'")

    alone.add(STRANGER, broken)
    alone.add(Provider("other", "3.0", "main"), lambda: plugin(metric("same")))
    with pytest.raises(PluginError, match=r"mean same\?; plugin stranger:main \("):
        alone.find("metrics", "sam_e_")
    line = broken.__code__.co_firstlineno + 1
    assert [str(failure) for failure in alone.failures] == [
        "plugin stranger:main (stranger 1.2) was left out: ImportError: no module named 'torch2' "
        f"({__file__}:{line})"
    ]


def test_strictness_makes_a_broken_plugin_an_error() -> None:
    strict = Plugins(strict=True)
    with pytest.raises(PluginError, match=r"stranger:main .* was left out: KeyError"):
        strict.add(STRANGER, lambda: {}["plugin"])


def misspelt_hook() -> object:
    @hookimpl
    def finqa_sft_metrix() -> list[object]:
        return []

    return module(finqa_sft_metrix=finqa_sft_metrix)


def wrong_argument() -> object:
    @hookimpl
    def finqa_sft_metrics(config: object) -> list[object]:
        return []

    return module(finqa_sft_metrics=finqa_sft_metrics)


def wrapper() -> object:
    @hookimpl(wrapper=True)
    def finqa_sft_metrics() -> Iterator[None]:
        return (yield)

    return module(finqa_sft_metrics=finqa_sft_metrics)


class WithMethods:
    @hookimpl
    def finqa_sft_metrics(self) -> list[MetricRecord]:
        return [metric("method")]


class Lax(BaseModel):
    pass


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (misspelt_hook, "no hook 'finqa_sft_metrix'; did you mean finqa_sft_metrics?"),
        (
            wrong_argument,
            "finqa_sft_metrics takes no arguments, but asks for config; options are given to build",
        ),
        (
            lambda: WithMethods,
            "finqa_sft_metrics takes no arguments, but asks for self; the plugin is a class; name "
            "an instance of it",
        ),
        (
            wrapper,
            "finqa_sft_metrics is a hook wrapper; a plugin can only offer its own records",
        ),
        (lambda: plugin(metric("none", config=None)), "config of 'none' is None; expected a class"),
        (
            lambda: plugin(metric("two", summary="a\nb")),
            "the summary of 'two' is 'a\\nb'; expected",
        ),
        (
            lambda: plugin(metric("unbuilt", build=3)),
            "build of 'unbuilt' is an int; expected a function or a class",
        ),
        (
            lambda: plugin(ReaderRecord(name="r", summary="", build=list)),
            "finqa_sft_metrics returned a list with a ReaderRecord; expected a list of "
            "MetricRecord",
        ),
        (lambda: plugin(metric("Two Words")), "returned the name 'Two Words'"),
        (lambda: plugin(metric("lax", config=Lax)), "the options of 'lax' accept unknown keys"),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_left_out_whole(
    alone: Plugins, load: object, problem: str
) -> None:
    alone.add(STRANGER, load)  # type: ignore[arg-type]
    assert len(alone.failures) == 1
    assert problem in str(alone.failures[0])
    assert alone.names("metrics") == OUR_METRICS
    alone.add(STRANGER, lambda: plugin(metric("mended")))
    assert alone.names("metrics") == (*OUR_METRICS, "mended")


def test_an_exception_inside_a_component_names_its_provider(alone: Plugins) -> None:
    alone.add(STRANGER, lambda: plugin(metric("same")))
    with pytest.raises(ZeroDivisionError) as error, alone.find("metrics", "same").blamed():
        _ = 1 / 0
    assert error.value.__notes__ == ["raised in the metric 'same' of stranger 1.2"]


def test_a_plugin_can_be_an_object_with_methods(alone: Plugins) -> None:
    alone.add(STRANGER, WithMethods)
    assert alone.names("metrics") == (*OUR_METRICS, "method")


def test_a_hook_of_another_version_can_be_optional(alone: Plugins) -> None:
    @hookimpl(optionalhook=True)
    def finqa_sft_samplers() -> list[object]:
        return []

    alone.add(STRANGER, lambda: module(finqa_sft_samplers=finqa_sft_samplers))
    assert alone.failures == []


class Stop(BaseException):
    pass


@pytest.mark.parametrize("ending", [SystemExit(1), SystemExit(), Stop("now"), GeneratorExit()])
def test_whatever_a_plugin_raises_when_it_is_loaded_the_rest_goes_on(
    alone: Plugins, ending: BaseException
) -> None:
    def load() -> object:
        raise ending

    alone.add(STRANGER, load)
    assert alone.failures[0].problem.startswith(type(ending).__name__)
    with pytest.raises(PluginError):
        Plugins(strict=True).add(STRANGER, load)


def test_an_interruption_is_no_broken_plugin(alone: Plugins) -> None:
    def load() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alone.add(STRANGER, load)


def test_what_a_plugin_prints_goes_to_standard_error(
    alone: Plugins, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> object:
        print("hello from a plugin")
        return plugin(metric("same"))

    alone.add(STRANGER, load)
    assert capsys.readouterr() == ("", "hello from a plugin\n")


def test_a_component_that_ends_the_program_is_an_error_that_names_it(alone: Plugins) -> None:
    alone.add(STRANGER, lambda: plugin(metric("same")))
    with pytest.raises(PluginError) as error, alone.find("metrics", "same").blamed():
        sys.exit("enough")
    assert str(error.value).startswith(
        "the metric 'same' of stranger 1.2 ended the run: SystemExit: enough ("
    )


def test_two_plugins_of_one_distribution_cannot_offer_the_same_name(alone: Plugins) -> None:
    alone.add(STRANGER, lambda: plugin(metric("same")))
    alone.add(Provider("stranger", "1.2", "other"), lambda: plugin(metric("same")))
    assert [str(failure) for failure in alone.failures] == [
        "plugin stranger:other (stranger 1.2) was left out: a second metric 'same' of stranger "
        "1.2; no recipe could tell them apart"
    ]


def test_options_may_not_be_called_like_a_key_of_the_recipe_beside_them() -> None:
    keys = {section.kind: set(section.model_fields) for section in SLOTS.values()}
    assert {kind: set(names) for kind, names in RESERVED.items()} == keys


def test_the_built_in_components_are_never_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "finqa_sft.builtin", None)
    with pytest.raises(ImportError, match=r"finqa_sft\.builtin"):
        Plugins.load({"FINQA_SFT_PLUGINS": ""})


def test_a_plugin_can_be_a_file(alone: Plugins, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            """
            from finqa_sft.plugins import MetricRecord, hookimpl

            @hookimpl
            def finqa_sft_metrics():
                return [MetricRecord(name="mine", summary="mine", build=lambda options: len)]
            """
        )
    )
    alone.add_file(file)
    assert alone.find("metrics", "mine").provider.distribution == str(file)
    with pytest.raises(PluginError) as error:
        alone.add_file(tmp_path / "nowhere.py")
    assert str(error.value) == (
        f"plugin file {tmp_path / 'nowhere.py'}: no such file; correct the path under plugins"
    )


def test_the_environment_must_name_distributions_that_are_there() -> None:
    with pytest.raises(PluginError, match=r"FINQA_SFT_PLUGINS names nobody, but no such installed"):
        Plugins.load({"FINQA_SFT_PLUGINS": "nobody"})


def test_every_hook_has_an_example_that_works() -> None:
    for kind in KINDS:
        documentation = getattr(HookSpecs, f"finqa_sft_{kind}").__doc__
        code = textwrap.dedent(documentation.split("```python\n")[1].split("```")[0])
        ast.parse(code)
        example = module()
        exec(compile(code, f"<example of {kind}>", "exec"), vars(example))
        plugins = Plugins(strict=True)
        plugins.add(STRANGER, lambda example=example: example)
        assert len(plugins.components(kind)) == 1


def test_the_hooks_are_the_six_kinds() -> None:
    hooks = {name for name in vars(HookSpecs) if name.startswith("finqa_sft_")}
    assert hooks == {f"finqa_sft_{kind}" for kind in KINDS}
    assert NoOptions.model_config["extra"] == "forbid"


def test_importing_the_package_scans_no_entry_points_and_imports_nothing() -> None:
    # `typing` and what it needs is there first: some start of Python has it, another has not.
    code = (
        "import importlib.metadata, sys, typing\n"
        "def scan(*args, **kwargs): raise AssertionError('entry points are scanned')\n"
        "for name in ('distributions', 'distribution', 'entry_points', 'version', 'metadata'):\n"
        "    setattr(importlib.metadata, name, scan)\n"
        "before = set(sys.modules)\n"
        "import finqa_sft\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__future__", "finqa_sft"}


def test_records_and_built_in_components_import_nothing_heavy() -> None:
    code = (
        "import sys, json; from finqa_sft.plugins.manager import Plugins; Plugins.load({}); "
        "print(json.dumps([m for m in ('torch', 'transformers', 'trl', 'datasets', 'peft') "
        "if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
