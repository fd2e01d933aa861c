"""Recipes spoilt in every way that hypothesis finds: each is read, or refused in plain words."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from finqa_sft.errors import FinqaSftError
from finqa_sft.plugins.manager import Plugins
from finqa_sft.recipe import Recipe, load_recipe, shipped_recipes
from finqa_sft.recipe.trainer_fields import REFUSED, trainer_fields
from finqa_sft.recipe.yaml_loader import load_yaml

TEXTS = {name: path.read_text(encoding="utf-8") for name, path in shipped_recipes().items()}
TREES = {name: load_yaml(path).data for name, path in shipped_recipes().items()}
PROBLEM = re.compile(r"  (\d+:\d+|override) +(\S.*)")

stable = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load({"FINQA_SFT_PLUGINS": ""})


@pytest.fixture
def answer(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Recipe | str]:
    """Loads a text as a recipe twice: the recipe, or what is said, which has the right form."""
    monkeypatch.chdir(tmp_path)

    def load(*overrides: str) -> Recipe | str:
        try:
            return load_recipe("r.yaml", overrides, plugins)
        except FinqaSftError as error:
            return str(error)

    def twice(text: str, *overrides: str) -> Recipe | str:
        Path("r.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        first, second = load(*overrides), load(*overrides)
        if isinstance(first, Recipe):
            assert isinstance(second, Recipe)
            assert repr(first.values()) == repr(second.values())
            return first
        assert first == second
        require_form(first)
        return first

    return twice


def require_form(said: str) -> None:
    """The file first; then, where there is a list, its length, and a place in each line."""
    head, *lines = said.split("\n")
    assert head.startswith("r.yaml: ")
    assert len(head) > len("r.yaml: ")
    if lines:
        assert head == f"r.yaml: {len(lines)} problem{'s' * (len(lines) > 1)}"
        assert all(PROBLEM.fullmatch(line) for line in lines), said


def places(node: Any, key: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every key of a tree, and every index of its lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        yield (*key, name)
        if isinstance(value, dict | list):
            yield from places(value, (*key, name))


def parent(tree: Any, key: tuple[str | int, ...]) -> Any:
    for piece in key[:-1]:
        tree = tree[piece]
    return tree


PLACES = [(name, key) for name, tree in TREES.items() for key in places(tree)]

words = st.text(max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 10**4000, -(10**30), 1e308, "", " ", "é𝄞", "null", "2e-4"]),
    st.floats(),
    words,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@stable
@given(st.lists(st.tuples(st.sampled_from(PLACES), values), min_size=1, max_size=3))
def test_any_value_in_any_place(answer: Callable[..., Any], changes: list[Any]) -> None:
    name = changes[0][0][0]
    tree = copy.deepcopy(TREES[name])
    for (other, key), value in changes:
        if other == name:
            try:
                parent(tree, key)[key[-1]] = value
            except (KeyError, IndexError, TypeError):
                assume(False)
    answer(yaml.safe_dump(tree, allow_unicode=True))


@stable
@given(st.sampled_from(PLACES), st.sampled_from(["drop", "rename", "move", "nest"]), words)
def test_keys_that_are_dropped_renamed_moved_or_nested(
    answer: Callable[..., Any], place: Any, how: str, word: str
) -> None:
    name, key = place
    tree = copy.deepcopy(TREES[name])
    node = parent(tree, key)
    value = node.pop(key[-1])
    match how:
        case "rename" if isinstance(node, dict):
            node[word] = value
        case "move":
            tree[word] = value
        case "nest":
            for _ in range(40):
                value = {word: value}
            tree[str(key[-1])] = value
    answer(yaml.safe_dump(tree, allow_unicode=True))


SPLICES = (
    "&a ", "*a", "<<: *a\n", "!!python/object/apply:os.system [x] ", "!!binary ", "!x ", "\n---\n",
    "\n...\n", "%YAML 1.1\n---\n", "? ", ": ", "- ", "[", "]", "{", "}", "|", ">", "'", '"', "#",
    "\t", "\n", "  ", "@", "`", "%", "\0", "\ufeff", "\u2028", "\ud800", ".nan", ".inf", "0x1F",
    "1_000", "~", "!!set {a}", "!!int x", "notes: 1\n", "trainer: {}\n", "=: 1\n", "1: 1\n",
)  # fmt: skip


@stable
@given(
    st.sampled_from(sorted(TEXTS)),
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(SPLICES) | words, st.integers(0, 6)),
        min_size=1,
        max_size=4,
    ),
)
def test_any_text_in_any_place_of_the_file(
    answer: Callable[..., Any], name: str, splices: list[tuple[float, str, int]]
) -> None:
    text = TEXTS[name]
    for where, piece, gone in splices:
        start = int(where * len(text))
        text = text[:start] + piece + text[start + gone :]
    answer(text)


@stable
@given(
    st.sampled_from(PLACES),
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["0", "1", "x", "name", "base", "lora"]) | words, max_size=3),
            scalars | st.sampled_from(["[1, 2]", "{a: 1}", "[", "!!x", "&a [*a]", "a: b: c"]),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_overrides_of_any_path_with_any_value(
    answer: Callable[..., Any], place: Any, changes: list[Any]
) -> None:
    name, key = place
    overrides = [
        f"{'.'.join(map(str, (*key[:-1], *more)))}={value}"[:300]
        for more, value in changes
        for value in [value if isinstance(value, str) else repr(value)[:200]]
    ]
    answer(TEXTS[name], *overrides)


def typos() -> Iterator[tuple[str, tuple[str | int, ...], str]]:
    """Each key of the shipped recipes with one letter left out, doubled, changed or swapped."""
    for name, key in PLACES:
        word = key[-1]
        if not isinstance(word, str) or len(word) < 4:
            continue
        for at in range(1, len(word)):
            yield name, key, word[:at] + word[at + 1 :]
            yield name, key, word[:at] + word[at] + word[at:]
            yield name, key, word[:at] + "q" + word[at + 1 :]
            yield name, key, word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]


TYPOS = sorted(
    {(name, key, typo) for name, key, typo in typos() if typo != key[-1]},
    key=repr,
)


@settings(stable, max_examples=250)
@given(st.sampled_from(TYPOS))
def test_a_typo_is_answered_with_the_right_spelling(
    answer: Callable[..., Any], typo: tuple[str, tuple[str | int, ...], str]
) -> None:
    name, key, wrong = typo
    tree = copy.deepcopy(TREES[name])
    node = parent(tree, key)
    assume(wrong not in node)
    if key[0] == "trainer" and len(key) > 1:
        known = [field for field in trainer_fields() if field not in REFUSED]
        # Where another field is as near, it may be the one that is meant.
        nearest = difflib.get_close_matches(wrong, known, n=1)
        assume(nearest == [key[-1]] and wrong not in known)
    node[wrong] = node.pop(key[-1])
    said = answer(yaml.safe_dump(tree))
    assert isinstance(said, str)
    right = ".".join(map(str, key))
    assert f"unknown key; did you mean {right}?" in said or f"there is {right}" in said, said
