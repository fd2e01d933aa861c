"""The contracts of components as functions, for the tests of those who write components.

Each takes a component, tries it, and raises a `ContractError` that names the rule which is broken,
what was seen, and how to mend it. None needs pytest, a recipe or the plugin manager.

    from finqa_sft.testing import check_formatter

    def test_the_formatter_keeps_its_contract() -> None:
        check_formatter(MyFormatter(), questions)
"""

from __future__ import annotations

from finqa_sft.testing.collators import CollatorRule, check_collator
from finqa_sft.testing.contract import ContractError, Rule
from finqa_sft.testing.formatter_rules import FormatterRule
from finqa_sft.testing.formatters import check_formatter
from finqa_sft.testing.metrics import MetricRule, check_metric
from finqa_sft.testing.models import ModelFactoryRule, check_model_factory
from finqa_sft.testing.plugins import PluginRule, check_plugin
from finqa_sft.testing.readers import ReaderRule, check_reader
from finqa_sft.testing.tokenizers import TokenizerRule, check_tokenizer

__all__ = [
    "CollatorRule",
    "ContractError",
    "FormatterRule",
    "MetricRule",
    "ModelFactoryRule",
    "PluginRule",
    "ReaderRule",
    "Rule",
    "TokenizerRule",
    "check_collator",
    "check_formatter",
    "check_metric",
    "check_model_factory",
    "check_plugin",
    "check_reader",
    "check_tokenizer",
]
