from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from finqa_sft.errors import PluginError
from finqa_sft.options import NoOptions
from finqa_sft.plugins import MetricRecord, ReaderRecord, hookimpl
from finqa_sft.plugins.hookspecs import HookSpecs
from finqa_sft.plugins.manager import KINDS, Plugins, Provider

STRANGER = Provider("stranger", "1.2", "main")


def metric(name: str, **fields: object) -> MetricRecord:
    return MetricRecord(name=name, summary="a metric", build=lambda options: len, **fields)


def module(**contents: object) -> ModuleType:
    made = ModuleType("stranger")
    vars(made).update(contents)
    return made


def plugin(*records: object) -> ModuleType:
    @hookimpl
    def finqa_sft_metrics() -> list[object]:
        return list(records)

    return module(finqa_sft_metrics=finqa_sft_metrics)


@pytest.fixture
def alone() -> Plugins:
    return Plugins.load({"FINQA_SFT_PLUGINS": ""})


def test_the_built_in_components_come_through_the_same_hooks(alone: Plugins) -> None:
    names = {kind: alone.names(kind) for kind in KINDS}
    assert names == {
        "readers": ("columns", "convfinqa", "filings", "financebench", "finqa", "tatqa"),
        "formatters": ("answer", "program"),
        "collators": ("flattened", "padded"),
        "model_factories": ("qlora",),
        "metrics": (),
        "callbacks": (),
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
        "no formatter 'programm'; there are answer, program; did you mean program?"
    )


def test_a_plugin_that_fails_to_import_is_named_where_it_is_missed(alone: Plugins) -> None:
    def broken() -> object:
        raise ImportError("no module named 'torch2'")

    alone.add(STRANGER, broken)
    alone.add(Provider("other", "3.0", "main"), lambda: plugin(metric("same")))
    with pytest.raises(PluginError, match=r"mean same\?; plugin stranger:main \("):
        alone.find("metrics", "sam_e_")
    assert [str(failure) for failure in alone.failures] == [
        "plugin stranger:main (stranger 1.2) was left out: ImportError: no module named 'torch2'"
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


class Lax(BaseModel):
    pass


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (misspelt_hook, "no hook 'finqa_sft_metrix'; did you mean finqa_sft_metrics?"),
        (wrong_argument, "{'config'} are declared in the hookimpl but can not be found"),
        (
            lambda: plugin(ReaderRecord(name="r", summary="", build=list)),
            "finqa_sft_metrics returned a ReaderRecord; expected MetricRecord",
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
    assert alone.names("metrics") == ()
    alone.add(STRANGER, lambda: plugin(metric("mended")))
    assert alone.names("metrics") == ("mended",)


def test_an_exception_inside_a_component_names_its_provider(alone: Plugins) -> None:
    alone.add(STRANGER, lambda: plugin(metric("same")))
    with pytest.raises(ZeroDivisionError) as error, alone.find("metrics", "same").blamed():
        _ = 1 / 0
    assert error.value.__notes__ == ["raised in the metric 'same' of stranger 1.2"]


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
        f"plugin file {tmp_path / 'nowhere.py'}: PluginError: no such file; correct the path "
        "under plugins"
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


def test_records_and_built_in_components_import_nothing_heavy() -> None:
    code = (
        "import sys, json; from finqa_sft.plugins.manager import Plugins; Plugins.load({}); "
        "print(json.dumps([m for m in ('torch', 'transformers', 'trl', 'datasets', 'peft') "
        "if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
