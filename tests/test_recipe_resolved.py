from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from finqa_sft.errors import PluginError
from finqa_sft.metrics.components import FinqaMetric
from finqa_sft.options import NoOptions
from finqa_sft.plugins.manager import KINDS, Component, Provider
from finqa_sft.recipe import Chosen

THEIRS = Provider("stranger", "1.2", "main")


def chosen(kind: str, gives: Any) -> Chosen[Any]:
    """A component whose `build` gives just that."""
    record: Any = KINDS[kind]
    made = record(name="odd", summary="Odd", build=lambda options, *rest: gives)
    return Chosen("odd", Component(kind, made, THEIRS), NoOptions())


class Earlier:
    """A collator for an earlier version."""

    sft_args: ClassVar[dict[str, Any]] = {}

    def arrange(self, dataset: Any) -> Any: ...

    def check_model(self, model: Any) -> None: ...

    def __call__(self, rows: Any) -> Any: ...


class Half:
    """A formatter with one direction."""

    parse = "not a method"

    def completion(self, question: Any) -> Any: ...


@pytest.mark.parametrize(
    ("kind", "gives", "said"),
    [
        ("readers", None, "reader 'odd' of stranger 1.2 cannot be used: its build gave NoneType, "
         "which lacks __iter__"),
        ("readers", 5, "reader 'odd' of stranger 1.2 cannot be used: its build gave int, which "
         "lacks __iter__"),
        ("formatters", Half(), "formatter 'odd' of stranger 1.2 cannot be used: its build gave "
         "Half, which lacks prompt, parse"),
        ("collators", dict, "collator 'odd' of stranger 1.2 cannot be used: its build gave type, "
         "which lacks arrange, check_config, check_model"),
        ("collators", "x", "collator 'odd' of stranger 1.2 cannot be used: its build gave str, "
         "which lacks arrange, check_config, check_model, __call__"),
        ("collators", Earlier(), "collator 'odd' of stranger 1.2 cannot be used: its build gave "
         "Earlier, which lacks check_config"),
        ("model_factories", [], "model factory 'odd' of stranger 1.2 cannot be used: its build "
         "gave list, which lacks check, sft_args, load_config, load_tokenizer, load_model, "
         "load_trained, settle, describe"),
        ("callbacks", Half(), "callback 'odd' of stranger 1.2 cannot be used: its build gave Half, "
         "which lacks on_init_end"),
        ("metrics", 0.5, "metric 'odd' of stranger 1.2 cannot be used: its build gave float, which "
         "lacks figures, applies, score"),
    ],
)  # fmt: skip
def test_a_component_that_lacks_a_method_is_refused_as_soon_as_it_is_built(
    kind: str, gives: Any, said: str
) -> None:
    with pytest.raises(PluginError) as error:
        chosen(kind, gives).build(Path())
    assert str(error.value) == f"the {said}; mend or update the plugin"


@pytest.mark.parametrize(("kind", "gives"), [("readers", []), ("metrics", FinqaMetric())])
def test_what_has_the_methods_is_given_back(kind: str, gives: Any) -> None:
    assert chosen(kind, gives).build() is gives
