from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.plugins.manager import Plugins
from finqa_sft.recipe import Recipe, load_recipe
from finqa_sft.recipe.overrides import apply_overrides
from finqa_sft.recipe.written import overridden_values, written_override

TEXT = """\
data:
  sources:
    - {reader: filings, pages: 2}
formatter: {name: answer}
"""

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS.filter(lambda key: key != "<<"), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Answer.", "key=Answer."),
        ("Say: yes, or no", 'key="Say: yes, or no"'),
        ("5", 'key="5"'),
        (5, "key=5"),
        ("true", 'key="true"'),
        ("*.csv", 'key="*.csv"'),
        ("m[lr]", "key=m[lr]"),
        (" a", 'key=" a"'),
        ("a # b", 'key="a # b"'),
        ("", 'key=""'),
        ("Umsätze\u2028\x7f", 'key="Umsätze\\U00002028\\U0000007f"'),
        (["a", "5"], 'key=["a", "5"]'),
        (float("inf"), "key=.inf"),
        ({"a": [float("-inf"), 2e-4]}, 'key={"a": [-.inf, 0.0002]}'),
    ],
)
def test_text_is_quoted_where_yaml_would_read_something_else(value: Any, written: str) -> None:
    assert written_override("key", value) == written


@given(VALUES)
def test_what_is_written_is_read_as_the_same_value(value: Any) -> None:
    applied = apply_overrides({}, [written_override("key", value)])
    assert applied.problems == ()
    assert repr(applied.data["key"]) == repr(value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ['formatter.system="Say: yes"', "data.sources.0.pages=3"],
        ["data.sources=[{reader: filings, seed: 4}, {reader: filings, pages: 5, weight: 2}]"],
        ["evaluation.sources=[{reader: filings}]", "evaluation.sources.0.seed=9"],
        ["evaluation.sources=[]", "notes.a.0=5", 'notes.b="5"'],
    ],
    ids=str,
)
def test_a_recipe_is_the_same_under_its_own_overrides(tmp_path: Path, overrides: list[str]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(TEXT, encoding="utf-8")

    def load(words: list[str]) -> Recipe:
        return load_recipe(path, words, Plugins.load({"FINQA_SFT_PLUGINS": ""}))

    recipe = load(overrides)
    written = [written_override(k, v) for k, v in overridden_values(recipe.values()).items()]
    assert bool(written) == bool(overrides)
    again = load(written)
    assert {v.path: v.value for v in again.values()} == {v.path: v.value for v in recipe.values()}
