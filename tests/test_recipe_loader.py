"""YAML with line numbers, overrides, and finding recipes."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.errors import RecipeError
from finqa_sft.recipe import shipped
from finqa_sft.recipe.overrides import apply_overrides
from finqa_sft.recipe.problems import Position, Problem, recipe_error
from finqa_sft.recipe.shipped import find_recipe, shipped_recipes, summary
from finqa_sft.recipe.yaml_loader import NotYamlError, load_text, load_yaml


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(content: str | bytes, name: str = "r.yaml") -> str:
    """What the loader says about a file."""
    data = content if isinstance(content, bytes) else content.encode()
    Path(name).write_bytes(data)
    with pytest.raises(RecipeError) as caught:
        load_yaml(Path(name))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.1", -0.1),
        ("12", 12),
        ("+12", 12),
        ("-3", -3),
        ("017", 17),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("null", None),
        ("~", None),
        ("", None),
        ("none", "none"),
        ("2024-01-01", "2024-01-01"),
        ("0.1.2", "0.1.2"),
        ("=", "="),
        ("-.inf", -math.inf),
        ('"12"', "12"),
        ("!!str 12", "12"),
        ("[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("{r: 8}", {"r": 8}),
    ],
)
def test_scalars_are_those_of_yaml_1_2_with_decimal_numbers(text: str, value: object) -> None:
    read = load_text(f"key: {text}\n")
    assert read.problems == ()
    assert read.data == {"key": value}
    assert type(read.data["key"]) is type(value)


def test_keys_and_values_are_located_from_line_and_column_one() -> None:
    located = load_text("a: 1\nb:\n  c: x\n  d:\n    - e\n    - f: 2\n")
    assert located.keys == {
        ("a",): Position(1, 1),
        ("b",): Position(2, 1),
        ("b", "c"): Position(3, 3),
        ("b", "d"): Position(4, 3),
        ("b", "d", 0): Position(5, 7),
        ("b", "d", 1): Position(6, 7),
        ("b", "d", 1, "f"): Position(6, 7),
    }
    assert located.values["b", "c"] == Position(3, 6)
    assert located.values["b", "d", 1, "f"] == Position(6, 10)


def test_anchors_are_written_out() -> None:
    assert load_text("a: &x {r: 8}\nb: *x\n").data == {"a": {"r": 8}, "b": {"r": 8}}


def test_a_byte_order_mark_and_windows_line_ends_are_read() -> None:
    Path("r.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: no\r\n")
    located = load_yaml(Path("r.yaml"))
    assert located.data == {"a": 1, "b": "no"}
    assert located.keys["b",] == Position(2, 1)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "trainer:\n  seed: 1\n  bf16: true\n  seed: 2\n",
            [Problem("trainer.seed", "written twice; first in line 2", Position(4, 3))],
        ),
        (
            "1: a\ntrue: b\n[x]: c\n",
            [
                Problem("1", "a key must be text; put it in quotes", Position(1, 1)),
                Problem("true", "a key must be text; put it in quotes", Position(2, 1)),
                Problem("?", "a key must be text; put it in quotes", Position(3, 1)),
            ],
        ),
        (
            "a: !!python/name:os.system\n",
            [
                Problem(
                    "a",
                    "the tag !!python/name:os.system is not allowed; write plain values",
                    Position(1, 4),
                )
            ],
        ),
        (
            "a: !!binary aGk=\n",
            [Problem("a", "the tag !!binary is not allowed; write plain values", Position(1, 4))],
        ),
        ("a: !!int abc\n", [Problem("a", "'abc' is not of type int", Position(1, 4))]),
        (
            "<<: {a: 1}\n",
            [Problem("<<", "merge keys are not part of YAML 1.2; write it out", Position(1, 1))],
        ),
    ],
)
def test_what_does_not_keep_the_rest_from_being_read_is_noted(
    text: str, problems: list[Problem]
) -> None:
    assert list(load_text(text).problems) == problems


@pytest.mark.parametrize(
    ("text", "message", "position"),
    [
        (
            "a:\n\tb: 1\n",
            "not valid YAML: while scanning for the next token, found character '\\t' that cannot "
            "start any token; indent with spaces, not tabs",
            Position(2, 1),
        ),
        (
            "a: b: c\n",
            "not valid YAML: mapping values are not allowed here; put a text with a colon in "
            "quotes",
            Position(1, 5),
        ),
        (
            "a: 1\nb: \x07\n",
            "not valid YAML: the character U+0007 is not allowed; is this a text file?",
            Position(2, 4),
        ),
        (
            "a: 1\n---\nb: 2\n",
            "not valid YAML: expected a single document in the stream (from 1:1), but found "
            "another document; take the line --- out",
            Position(2, 1),
        ),
        ("a: &x [*x]\n", "a.0 contains itself", Position(1, 4)),
        ("[" * 1000, "nested too deeply to be read", Position(1, 1)),
    ],
)
def test_text_that_is_no_yaml_is_refused_where_reading_stopped(
    text: str, message: str, position: Position
) -> None:
    with pytest.raises(NotYamlError) as caught:
        load_text(text)
    assert (str(caught.value), caught.value.position) == (message, position)


def test_aliases_cannot_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 9):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    with pytest.raises(NotYamlError, match=r"^more than 100000 values$"):
        load_text("\n".join(lines))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "r.yaml: empty; a recipe has at least data and formatter"),
        ("# nothing\n", "r.yaml: empty; a recipe has at least data and formatter"),
        ("- a\n", "r.yaml: holds a list; a recipe is made of sections such as `model:`"),
        ("hello\n", "r.yaml: holds a single value; a recipe is made of sections such as `model:`"),
        (
            b"notes: Ertr\xe4ge\n",
            "r.yaml: not UTF-8 text (byte 12 is 0xe4); save the file as UTF-8",
        ),
        (
            "a: b: c\n",
            "r.yaml: 1 problem\n  1:5  not valid YAML: mapping values are not allowed here; put a "
            "text with a colon in quotes",
        ),
        (
            "!!python/object/apply:os.system [ls]\n",
            "r.yaml: 1 problem\n  1:1  the tag !!python/object/apply:os.system is not allowed; "
            "write plain values",
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(content: str | bytes, message: str) -> None:
    assert refusal(content) == message


def test_a_file_that_cannot_be_opened_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^gone\.yaml: cannot be read: No such file"):
        load_yaml(Path("gone.yaml"))


def test_problems_are_sorted_by_line_and_aligned_and_overrides_come_last() -> None:
    problems = [
        Problem("trainer.bf17", "unknown key"),
        Problem("formatter.name", "missing", Position(10, 1)),
        Problem("model", "wrong", Position(2, 11)),
    ]
    assert str(recipe_error("r.yaml", problems)) == (
        "r.yaml: 3 problems\n"
        "  2:11      model           wrong\n"
        "  10:1      formatter.name  missing\n"
        "  override  trainer.bf17    unknown key"
    )


def test_overrides_reach_sections_items_and_whole_lists() -> None:
    data = {
        "trainer": {"seed": 1},
        "data": {"sources": [{"pages": 1}, {"pages": 2}]},
        "model": None,
    }
    result = apply_overrides(
        data,
        [
            "trainer.max_steps=10",
            "trainer.seed=2e-4",
            "data.sources.1.pages=5",
            "model.lora.target_modules=[q_proj, v_proj]",
            "trainer.eval_strategy=no",
            "notes=a=b",
            "output.dir=",
        ],
    )
    assert result.problems == ()
    assert result.data == {
        "trainer": {"seed": 2e-4, "max_steps": 10, "eval_strategy": "no"},
        "data": {"sources": [{"pages": 1}, {"pages": 5}]},
        "model": {"lora": {"target_modules": ["q_proj", "v_proj"]}},
        "notes": "a=b",
        "output": {"dir": None},
    }
    assert ("data", "sources", 1, "pages") in result.keys
    assert data["trainer"] == {"seed": 1}


def test_the_later_of_two_overrides_counts() -> None:
    assert apply_overrides({}, ["a.b=1", "a.b=2"]).data == {"a": {"b": 2}}


@pytest.mark.parametrize(
    ("override", "key", "text"),
    [
        ("trainer.max_steps", "trainer.max_steps", "not an override; write key.path=value"),
        ("=3", "=3", "not an override; write key.path=value"),
        (
            "a.b={{ question }}",
            "a.b",
            "a template needs quotes of its own; write a.b='\"{{ ... }}\"'",
        ),
        ("a..b=3", "a..b=3", "not an override; write key.path=value"),
        ("--a.b=3", "--a.b=3", "overrides have no dashes; write a.b=3"),
        ("a=[1", "a", "not valid YAML: while parsing a flow sequence (from 1:1), expected ',' or "
         "']', but got '<stream end>'; close the bracket or brace"),
        ("a={b: 1, b: 2}", "a.b", "written twice; first in line 1"),
        ("items.2=x", "items.2", "no item '2' in the list items; there are items.0 to items.1"),
        ("items.x.y=1", "items.x.y", "no item 'x' in the list items; there are items.0 to items.1"),
        ("seed.x=1", "seed.x", "seed is 1 and has nothing below it"),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_applied_is_named(override: str, key: str, text: str) -> None:
    result = apply_overrides({"seed": 1, "items": ["a", "b"]}, [override])
    assert result.problems == (Problem(key, text),)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co", "Zl", "Zp"]))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_any_value_written_as_json_in_an_override_is_read_back(value: object) -> None:
    result = apply_overrides({}, [f"section.key={json.dumps(value, ensure_ascii=False)}"])
    assert result.problems == ()
    assert result.data == {"section": {"key": value}}
    assert result.keys == {("section", "key")}


@given(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_bare_scalar_in_an_override_keeps_its_type(value: object) -> None:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    read = apply_overrides({}, [f"key={text}"]).data["key"]
    assert (read, type(read)) == (value, type(value))


@given(st.text())
def test_any_text_is_either_read_or_refused(text: str) -> None:
    with contextlib.suppress(NotYamlError):
        assert isinstance(load_text(text).problems, tuple)


@pytest.fixture
def two_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shipped"
    (folder / "accelerate").mkdir(parents=True)
    for name in ("qlora_7b", "quickstart", "accelerate/zero3"):
        text = f"# finqa-sft {name}\n# What {name} does\nmodel: {{}}\n"
        (folder / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(shipped, "recipes_folder", lambda: folder)
    return folder


def test_a_bare_name_is_a_shipped_recipe_unless_such_a_file_exists(two_shipped: Path) -> None:
    assert shipped_recipes() == {
        "qlora_7b": two_shipped / "qlora_7b.yaml",
        "quickstart": two_shipped / "quickstart.yaml",
    }
    assert find_recipe("quickstart") == two_shipped / "quickstart.yaml"
    Path("quickstart").mkdir()
    assert find_recipe("quickstart") == two_shipped / "quickstart.yaml"
    Path("quickstart.yaml").write_text("model: {}\n")
    assert find_recipe("quickstart.yaml") == Path("quickstart.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine/tiny1.yaml", "mine/tiny1.yaml: no such file; did you mean mine/tiny.yaml?"),
        ("qlora7b", "qlora7b: no such file; did you mean qlora_7b?"),
        ("quickstart.yaml", "quickstart.yaml: no such file; the shipped recipe is quickstart"),
        ("my/quickstart.yaml", "my/quickstart.yaml: no such file; did you mean quickstart?"),
        ("x.yaml", "x.yaml: no such file; shipped recipes are qlora_7b, quickstart"),
        ("mine", "mine: a folder; name a recipe file in it"),
    ],
)  # fmt: skip
def test_a_recipe_that_is_not_there_is_refused_with_the_nearest(
    text: str, message: str, two_shipped: Path
) -> None:
    Path("mine").mkdir()
    Path("mine/tiny.yaml").write_text("model: {}\n")
    with pytest.raises(RecipeError) as caught:
        find_recipe(text)
    assert str(caught.value) == message


def test_a_recipe_is_summed_up_by_the_end_of_its_first_comment(two_shipped: Path) -> None:
    assert summary(two_shipped / "quickstart.yaml") == "What quickstart does"
    Path("bare.yaml").write_text("model: {}\n# later\n")
    assert summary(Path("bare.yaml")) == ""
