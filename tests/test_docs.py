"""The documentation says what is so: code runs, commands exist, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import ROOT
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from finqa_sft.cli.main import VERBS, main
from finqa_sft.recipe import shipped_recipes

DOCS = ROOT / "docs"
SITE = sorted(DOCS.rglob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")), *SITE]

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TAKE_RECIPES = ("train", "check", "show", "eject")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(page: Path, language: str) -> list[str]:
    return [body for word, body in _FENCE.findall(page.read_text("utf-8")) if word == language]


def _commands(page: Path) -> Iterator[list[str]]:
    """The commands of a page's sh blocks, each as words; comments are left out."""
    for block in _blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                if words := shlex.split(command, comments=True):
                    yield words


def _ours(words: list[str]) -> list[str] | None:
    """The arguments of a command of ours, or None for other commands."""
    words = words[: words.index(">")] if ">" in words else words
    if words[0] == "finqa-sft":
        return words[1:]
    if "-m" in words and words[words.index("-m") + 1 :][:1] == ["finqa_sft"]:
        return words[words.index("-m") + 2 :]
    return None


WITH_PYTHON = [page for page in PAGES if _blocks(page, "python")]
WITH_COMMANDS = [page for page in PAGES if any(_ours(words) for words in _commands(page))]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=_name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = list(Sybil(parsers=[PythonCodeBlockParser()]).parse(page).examples())
    assert examples
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=_name)
def test_commands_name_verbs_and_recipes_that_exist_and_their_recipes_are_right(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in _commands(page):
        arguments = _ours(words)
        if arguments is None:
            continue
        verb, *rest = arguments if arguments[0] in VERBS else ["train", *arguments]
        if verb in _TAKE_RECIPES:
            # A page about a recipe of one's own may have copied it on another page.
            if rest[0] == "my.yaml" and not Path("my.yaml").exists():
                assert main(["recipes", "copy", "qlora_own_data", "my.yaml"]) == 0
            assert rest[0] in shipped_recipes() or Path(rest[0]).is_file(), words
            run = rest if verb == "show" else [word for word in rest if not word.startswith("--")]
            assert main(["show" if verb == "show" else "check", *run]) == 0, capsys.readouterr().err
        elif verb == "recipes":
            assert main([verb, *rest]) == 0, capsys.readouterr().err
        else:
            assert verb in VERBS


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_other_commands_name_files_and_targets_that_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for words in _commands(page):
        if words[0] == "make":
            assert words[1] in targets
        if "--config_file" in words:
            assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        if words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        if DOCS in page.parents:
            assert DOCS in target.resolve().parents, f"{link} leads out of the site"
        if anchor:
            assert anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    headings = _HEADING.findall(_FENCE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_pages_are_up_to_date(generator: ModuleType) -> None:
    for path, text in generator.pages().items():
        assert path.read_text("utf-8") == text, f"{_name(path)}: run python docs/generate.py"


def test_the_reference_pages_do_not_depend_on_the_terminal(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = generator.cli_page()
    monkeypatch.setenv("COLUMNS", "40")
    assert generator.cli_page() == before


def test_the_navigation_lists_every_page_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    listed = sorted(_leaves(site["nav"]))
    assert listed == sorted(page.relative_to(DOCS).as_posix() for page in SITE)


def _leaves(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    else:
        for item in node.values() if isinstance(node, dict) else node:
            yield from _leaves(item)


def test_every_shipped_recipe_has_a_page() -> None:
    pages = {page.stem for page in (DOCS / "recipes").glob("*.md")}
    assert pages == set(shipped_recipes())


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_page_shows_a_path_of_one_machine(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"(?<![\w.~…])/(home|root|tmp|work|usr|opt|mnt|Users)/", text)
