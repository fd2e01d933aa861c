"""The documentation says what is so: code runs, commands exist, links lead somewhere."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import ROOT
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from finqa_sft import testing
from finqa_sft.cli.main import VERBS, main
from finqa_sft.plugins.manager import KINDS
from finqa_sft.recipe import shipped_recipes
from finqa_sft.testing.plugins import ARGUMENTS

DOCS = ROOT / "docs"
SITE = sorted(DOCS.rglob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")), *SITE]

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block with the name of a file above it."""
_TAKE_RECIPES = ("train", "check", "show", "eject")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(page: Path, language: str) -> list[str]:
    return [body for word, body in _FENCE.findall(page.read_text("utf-8")) if word == language]


def _files(page: Path) -> dict[str, str]:
    """The files that a page shows, by name."""
    return dict(_FILE.findall(page.read_text("utf-8")))


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


WITH_PYTHON = [page for page in PAGES if set(_blocks(page, "python")) - {*_files(page).values()}]
WITH_COMMANDS = [page for page in PAGES if any(_ours(words) for words in _commands(page))]


@pytest.fixture
def following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Path]]:
    """Puts the reader of a page into a folder with the files of the page, its package installed."""
    monkeypatch.chdir(tmp_path)

    def follow(page: Path) -> Path:
        files = _files(page)
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if "pyproject.toml" in files:
            _install(tmp_path)
            monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    before = set(sys.modules)
    yield follow
    for name in set(sys.modules) - before:
        if str(vars(sys.modules[name]).get("__file__")).startswith(str(tmp_path)):
            del sys.modules[name]


def _install(folder: Path) -> None:
    """Do what `pip install -e .` does, without a build backend, which would have to be fetched."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    (folder / project["name"] / "__init__.py").touch()
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )


@pytest.mark.parametrize("page", WITH_PYTHON, ids=_name)
def test_python_blocks_run(page: Path, following: Callable[[Path], Path]) -> None:
    following(page)
    if any("runs/quickstart/adapter" in block for block in _blocks(page, "python")):
        assert main(["quickstart", "trainer.max_steps=1", "data.sources.0.pages=8"]) == 0
    examples = list(Sybil(parsers=[PythonCodeBlockParser()]).parse(page).examples())
    assert examples
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=_name)
def test_commands_name_verbs_and_recipes_that_exist_and_their_recipes_are_right(
    page: Path, following: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    following(page)
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


PLUGIN_PAGE = DOCS / "how-to" / "write-a-plugin.md"


def _squeezed(lines: str) -> set[str]:
    """Lines without the white space that puts them in columns."""
    return {" ".join(line.split()) for line in lines.splitlines()}


def test_the_plugin_of_the_page_passes_its_tests_is_listed_and_runs(
    following: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = following(PLUGIN_PAGE)
    done = []
    for words in _commands(PLUGIN_PAGE):
        done.append(words[0])
        if words == ["pytest"]:
            path = os.pathsep.join([str(folder), str(ROOT)])
            tests = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
            )
            assert tests.returncode == 0, tests.stdout + tests.stderr
            count = _files(PLUGIN_PAGE)["tests/test_harbour.py"].count("\ndef test_")
            assert f"{count} passed" in tests.stdout
        elif arguments := _ours(words):
            assert main(arguments if arguments[0] in VERBS else ["train", *arguments]) == 0
    assert done == ["pip", "pytest", *["finqa-sft"] * 4]
    assert (folder / "runs" / "harbour" / "adapter" / "adapter_model.safetensors").is_file()
    (listed,) = [block for block in _blocks(PLUGIN_PAGE, "text") if "harbour 1.0  " in block]
    assert _squeezed(listed) <= _squeezed(capsys.readouterr().out)
    assert main(["check", "harbour.yaml", "data.sources.0.reader=harbour:review"]) == 0


@pytest.mark.slow
def test_the_package_of_the_page_can_be_built(following: Callable[[Path], Path]) -> None:
    folder = following(PLUGIN_PAGE)
    site = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(site), str(folder)], check=True)
    plugins = subprocess.run(
        [sys.executable, "-m", "finqa_sft", "plugins"],
        cwd=site,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "review  " in plugins.stdout


def test_the_page_shows_what_is_said_of_a_broken_plugin(
    following: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hooks = following(PLUGIN_PAGE) / "harbour" / "plugin.py"
    text = hooks.read_text("utf-8").replace("def finqa_sft_formatters", "def finqa_sft_formaters")
    hooks.write_text(text, encoding="utf-8")
    assert main(["plugins"]) == 0
    (said,) = [block for block in _blocks(PLUGIN_PAGE, "text") if "was left out" in block]
    assert said in capsys.readouterr().out
    monkeypatch.setenv("FINQA_SFT_STRICT_PLUGINS", "1")
    assert main(["plugins"]) == 2
    assert said.strip() in capsys.readouterr().err


@pytest.mark.parametrize(("wanted", "found"), [("harbour", True), ("", False)])
def test_the_environment_chooses_plugins_as_the_page_says(
    following: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wanted: str,
    found: bool,
) -> None:
    following(PLUGIN_PAGE)
    monkeypatch.setenv("FINQA_SFT_PLUGINS", wanted)
    assert f"`FINQA_SFT_PLUGINS={wanted}`" in PLUGIN_PAGE.read_text("utf-8")
    assert main(["plugins"]) == 0
    assert ("harbour 1.0" in capsys.readouterr().out) == found


def test_all_python_of_the_plugin_page_is_in_its_files() -> None:
    assert set(_blocks(PLUGIN_PAGE, "python")) <= {*_files(PLUGIN_PAGE).values()}
    assert PLUGIN_PAGE not in WITH_PYTHON


def test_the_table_of_hooks_says_what_the_records_do() -> None:
    cell = r" `([^`]+)` \|"
    rows = re.findall(rf"^\|{cell}{cell}{cell}", PLUGIN_PAGE.read_text("utf-8"), re.MULTILINE)
    expected = []
    for kind, record in KINDS.items():
        build = re.fullmatch(r"Callable\[\[(.+)\], (\w+)\]", record.__annotations__["build"])
        assert build is not None
        assert len(build[1].split(", ")) == len(ARGUMENTS[kind])
        arguments = ", ".join(ARGUMENTS[kind])
        expected.append((f"finqa_sft_{kind}", record.__name__, f"build({arguments}) -> {build[2]}"))
    assert rows == expected


def test_the_page_has_the_signatures_of_all_checks() -> None:
    (shown,) = [block for block in _blocks(PLUGIN_PAGE, "text") if block.startswith("check_")]
    signatures = (
        name + re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(vars(testing)[name])))
        for name in testing.__all__
        if name.startswith("check_")
    )
    written = re.sub(r"\(\s+", "(", re.sub(r",\s+\)", ")", shown))
    assert " ".join(written.split()) == " ".join(signatures)


def test_the_page_lists_all_rules() -> None:
    _, _, listed = PLUGIN_PAGE.read_text("utf-8").partition("## What the checks hold\n")
    rules = [
        rule.says
        for name, kind in vars(testing).items()
        if name.endswith("Rule") and name != "Rule"
        for rule in kind
    ]
    shown = [line.strip("-;. ") for line in listed.splitlines() if line.startswith("- ")]
    assert sorted(shown) == sorted(rules)


SCORES_PAGE = DOCS / "how-to" / "evaluate.md"


def test_the_page_shows_what_score_prints(
    following: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    following(SCORES_PAGE)
    commands = [words for words in _commands(SCORES_PAGE) if words[1] == "score"]
    assert len(commands) == 4
    for words in commands:
        assert main(words[1:]) == 0
        printed = capsys.readouterr().out
        if words == commands[0]:
            (shown,) = [body for body in _blocks(SCORES_PAGE, "text") if "by  " in body]
            assert shown.splitlines() == [line.rstrip() for line in printed.splitlines()]
    assert len(Path("each.jsonl").read_text("utf-8").splitlines()) == 2


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
def generator() -> Iterator[ModuleType]:
    # As `python docs/generate.py` has it, which imports what stands beside it.
    sys.path.insert(0, str(DOCS))
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(DOCS))


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
