"""Plugins as users have them: packages installed in an environment, and commands run there.

The packages lie under `packages/`, a folder a kind, as they lie in site-packages.
"""

from __future__ import annotations

import importlib.util
import json
import os
import site
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from runs import losses, manifest

from finqa_sft.cli.main import main

PACKAGES = Path(__file__).parent / "packages"

NOTES = """\
ACME 2024
Revenue was $ 5 million, costs were $ 3 million.
Q: What was revenue?
A: $ 5 million
Q: What were costs?
A: $ 3 million

ACME 2023
Revenue was $ 4 million.
Q: What was revenue?
A: $ 4 million
"""

RECIPE = """\
data:
  sources:
    - {source}
formatter:
  name: {formatter}
  max_length: 256
collator:
  name: {collator}
callbacks: {callbacks}
trainer:
  max_steps: 2
  per_device_train_batch_size: 2
  gradient_checkpointing: false
  logging_steps: 1
  save_strategy: "no"
"""

BUILT_IN = {
    "source": "{reader: filings, pages: 2, length: short, questions_per_page: 2}",
    "formatter": "answer",
    "collator": "padded",
    "callbacks": "[]",
}

GOOD = BUILT_IN | {
    "source": "{reader: notes, file: notes.txt}",
    "formatter": "boxed",
    "callbacks": "[{name: 'ledger-notes:loss_table'}]",
}


def recipe(folder: Path, components: Mapping[str, str] = BUILT_IN, **changed: str) -> str:
    """Write a recipe, and the notes that it may read; the name to give to a command."""
    (folder / "notes.txt").write_text(NOTES, encoding="utf-8")
    text = RECIPE.format(**{**components, **changed})
    (folder / "small.yaml").write_text(text, encoding="utf-8")
    return "small.yaml"


ENDS = ("out", "err")


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Environment:
    """A virtual environment in which finqa_sft and some of the packages are installed."""

    python: Path
    site: Path

    def run(self, *arguments: str, cwd: Path, **environment: str) -> Said:
        """Run finqa-sft as a user does; the environment's own path is shown as SITE."""
        done = subprocess.run(
            [self.python, "-m", "finqa_sft", *arguments],
            cwd=cwd,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
        )
        return Said(done.returncode, done.stdout, done.stderr.replace(str(self.site), "SITE"))

    def train(self, folders: Mapping[str, Path]) -> dict[str, Said]:
        """Train `small.yaml` of each folder, one after the other."""
        commands = [
            {
                "arguments": ["train", f"{folder}/small.yaml", f"output.dir={folder}/run"],
                "output": str(folder / "said"),
            }
            for folder in folders.values()
        ]
        done = subprocess.run(
            [self.python, PACKAGES / "forked.py", json.dumps(commands)],
            env=clean_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        statuses = json.loads(done.stdout.splitlines()[-1])
        return {
            name: Said(status, *((folder / f"said.{end}").read_text("utf-8") for end in ENDS))
            for status, (name, folder) in zip(statuses, folders.items(), strict=True)
        }


def clean_environment() -> dict[str, str]:
    """This process's variables, but for those that say which plugins are loaded."""
    return {name: v for name, v in os.environ.items() if not name.startswith("FINQA_SFT_")} | {
        "FINQA_SFT_CACHE": os.environ["FINQA_SFT_CACHE"],
        "PYTHONUTF8": "1",
    }


def wheel(folder: Path, to: Path) -> Path:
    """A package as a wheel: its files and the list of them."""
    information = next(folder.glob("*.dist-info")).name
    path = to / f"{information.removesuffix('.dist-info')}-py3-none-any.whl"
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    with zipfile.ZipFile(path, "w") as archive:
        names = [file.relative_to(folder).as_posix() for file in files]
        for file, name in zip(files, names, strict=True):
            archive.write(file, name)
        record = f"{information}/RECORD"
        archive.writestr(record, "".join(f"{name},,\n" for name in [*names, record]))
    return path


def install(wheels: list[Path], *, python: Path, to: Path) -> None:
    """Install wheels with pip, or as it does where there is none."""
    if importlib.util.find_spec("pip") is None:
        for path in wheels:
            zipfile.ZipFile(path).extractall(to)
        return
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "install", *options, *map(str, wheels)], check=True)


@pytest.fixture(scope="module")
def environment(own_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., object]:
    """Makes an environment with the packages of some kinds, once for each choice of them."""
    made: dict[tuple[str, ...], Environment] = {}

    def make(*kinds: str) -> Environment:
        if kinds not in made:
            folder = tmp_path_factory.mktemp("environment")
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            packages = next(folder.glob("lib/python*/site-packages"))
            # What is installed for these tests is there too, editable installs included.
            lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
            (packages / "parent.pth").write_text("\n".join(lines), encoding="utf-8")
            python = folder / "bin" / "python"
            wheels = [wheel(PACKAGES / kind, folder) for kind in kinds]
            install(wheels, python=python, to=packages)
            made[kinds] = Environment(python, packages)
        return made[kinds]

    return make


@pytest.fixture(scope="module")
def ledgers(environment: Callable[..., Environment]) -> Environment:
    """The good package, and one whose components raise."""
    return environment("good", "raising")


@pytest.fixture(scope="module")
def crowd(environment: Callable[..., Environment]) -> Environment:
    """Packages whose names meet."""
    return environment("good", "duplicate_name", "builtin_name", "same_entry_point")


@pytest.fixture(scope="module")
def broken(environment: Callable[..., Environment]) -> Environment:
    """The good package beside broken ones."""
    return environment("good", "import_error", "wrong_argument", "misspelt_hook", "exits")


LEFT_OUT = (
    "plugin finqa-sft-ledgers:components (finqa-sft-ledgers 0.3) was left out: "
    "ModuleNotFoundError: No module named 'ledger_of_nowhere' (SITE/finqa_sft_ledgers.py:5)",
    "plugin ledger-asks:components (ledger-asks 0.4) was left out: finqa_sft_readers takes no "
    "arguments, but asks for recipe; options are given to build",
    "plugin ledger-exits:components (ledger-exits 0.6) was left out: SystemExit: 1 "
    "(SITE/ledger_exits.py:8)",
    "plugin ledger-misspelt:components (ledger-misspelt 0.5) was left out: no hook "
    "'finqa_sft_reader'; did you mean finqa_sft_readers?",
)
"""What is said of the broken packages. Of one that prints when it is imported, that comes first."""

WARNINGS = "usage: ledger_exits FILE\n" + "".join(f"warning: {text}\n" for text in LEFT_OUT)


def test_components_are_named_in_a_recipe_by_bare_or_by_full_name(
    ledgers: Environment, tmp_path: Path
) -> None:
    bare = ledgers.run("check", recipe(tmp_path, GOOD), cwd=tmp_path)
    assert bare == Said(0, "small.yaml: no problems; qlora with notes, boxed, padded\n", "")
    full = "formatter.name=Ledger_Notes:boxed"
    assert ledgers.run("check", "small.yaml", full, cwd=tmp_path) == Said(
        0, "small.yaml: no problems; qlora with notes, Ledger_Notes:boxed, padded\n", ""
    )


def test_components_are_listed_with_distribution_and_version(
    ledgers: Environment, tmp_path: Path
) -> None:
    listed = ledgers.run("plugins", cwd=tmp_path)
    assert (listed.status, listed.err) == (0, "")
    theirs = [" ".join(line.split()) for line in listed.out.splitlines() if "ledger-notes" in line]
    assert theirs == [
        "reader notes ledger-notes 1.4.0 text files of notes, each followed by questions and "
        "answers",
        r"formatter boxed ledger-notes 1.4.0 the answer as \boxed{...}",
        "callback loss_table ledger-notes 1.4.0 writes step and loss to losses.csv",
    ]
    as_json = json.loads(ledgers.run("plugins", "--json", cwd=tmp_path).out)
    assert as_json["left_out"] == []
    assert [row for row in as_json["components"] if row["name"] == "boxed"] == [
        {
            "kind": "formatter",
            "name": "boxed",
            "full_name": "ledger-notes:boxed",
            "distribution": "ledger-notes",
            "version": "1.4.0",
            "summary": r"the answer as \boxed{...}",
        }
    ]


def test_the_options_of_a_package_s_component_are_checked_as_ours_are(
    ledgers: Environment, tmp_path: Path
) -> None:
    source = "{reader: notes, fil: notes.txt}"
    assert ledgers.run("check", recipe(tmp_path, GOOD, source=source), cwd=tmp_path) == Said(
        2,
        "",
        dedent(
            """\
            small.yaml: 2 problems
              3:7   data.sources.0.file  missing; it has no default
              3:23  data.sources.0.fil   unknown key; did you mean data.sources.0.file?
            """
        ),
    )


def test_an_installed_package_changes_nothing_that_does_not_name_it(
    ledgers: Environment, crowd: Environment, tmp_path: Path
) -> None:
    said = [
        here.run("show", "quickstart", cwd=tmp_path, **variables)
        for here in (ledgers, crowd)
        for variables in ({"FINQA_SFT_PLUGINS": ""}, {})
    ]
    assert said[0].status == 0
    assert said[0].out.count("\n") > 50
    assert said == [said[0]] * 4


def test_broken_packages_are_reported_once_and_the_rest_goes_on(
    broken: Environment, tmp_path: Path
) -> None:
    said = broken.run("check", recipe(tmp_path, GOOD), cwd=tmp_path)
    assert said == Said(0, "small.yaml: no problems; qlora with notes, boxed, padded\n", WARNINGS)


def test_other_ranks_report_no_broken_package(broken: Environment, tmp_path: Path) -> None:
    said = broken.run("check", recipe(tmp_path, GOOD), cwd=tmp_path, RANK="1")
    assert (said.status, said.err) == (0, "usage: ledger_exits FILE\n")


def test_broken_packages_are_left_out_whole(broken: Environment, tmp_path: Path) -> None:
    said = broken.run("plugins", "--json", cwd=tmp_path)
    listed = json.loads(said.out.replace(str(broken.site), "SITE"))
    distributions = {row["distribution"] for row in listed["components"]}
    assert distributions == {"finqa_sft", "ledger-notes"}
    assert listed["left_out"] == list(LEFT_OUT)
    metrics = {row["distribution"] for row in listed["components"] if row["kind"] == "metric"}
    assert metrics == {"finqa_sft"}


def test_a_missing_component_is_answered_with_the_packages_left_out(
    broken: Environment, tmp_path: Path
) -> None:
    source = "{reader: asks}"
    said = broken.run("check", recipe(tmp_path, GOOD, source=source), cwd=tmp_path)
    assert said.status == 2
    assert said.err == WARNINGS + (
        "small.yaml: 1 problem\n  3:16  data.sources.0.reader  no reader 'asks'; there are "
        "columns, convfinqa, filings, financebench, finqa, tatqa, notes; "
        f"{'; '.join(LEFT_OUT)}\n"
    )


def test_strictness_makes_the_first_broken_package_an_error(
    broken: Environment, tmp_path: Path
) -> None:
    for verb in (["check", recipe(tmp_path)], ["plugins"], ["train", "small.yaml"]):
        said = broken.run(*verb, cwd=tmp_path, FINQA_SFT_STRICT_PLUGINS="1")
        assert said == Said(2, "", f"{LEFT_OUT[0]}\n")


def test_no_plugins_or_some_can_be_asked_for(broken: Environment, tmp_path: Path) -> None:
    said = broken.run("check", recipe(tmp_path, GOOD), cwd=tmp_path, FINQA_SFT_PLUGINS="")
    left_out = (
        "FINQA_SFT_PLUGINS leaves out finqa-sft-ledgers 0.3, ledger-asks 0.4, ledger-exits 0.6, "
        "ledger-misspelt 0.5, ledger-notes 1.4.0"
    )
    assert said.status == 2
    assert f"no formatter 'boxed'; there are answer, program, steps; {left_out}\n" in said.err
    only = {"FINQA_SFT_PLUGINS": "Ledger.Notes", "FINQA_SFT_STRICT_PLUGINS": "1"}
    assert broken.run("check", "small.yaml", cwd=tmp_path, **only) == Said(
        0, "small.yaml: no problems; qlora with notes, boxed, padded\n", ""
    )
    misspelt = {"FINQA_SFT_PLUGINS": "ledger-note, ledger-exits"}
    assert broken.run("check", "small.yaml", cwd=tmp_path, **misspelt) == Said(
        2,
        "",
        "FINQA_SFT_PLUGINS names ledger-note, but no such installed distribution has an entry "
        "point in the group finqa_sft; did you mean ledger-notes?\n",
    )


def test_a_name_that_two_packages_offer_must_be_written_in_full(
    crowd: Environment, tmp_path: Path
) -> None:
    said = crowd.run("check", recipe(tmp_path, GOOD), cwd=tmp_path)
    assert said == Said(
        2,
        "",
        "small.yaml: 1 problem\n  5:9  formatter.name  formatter 'boxed' is offered by "
        "ledger-boxes:boxed (ledger-boxes 2.0) and ledger-notes:boxed (ledger-notes 1.4.0); "
        "write one of these names\n",
    )
    for name in ("ledger-boxes:boxed", "ledger-notes:boxed"):
        said = crowd.run("check", "small.yaml", f"formatter.name={name}", cwd=tmp_path)
        assert said.out == f"small.yaml: no problems; qlora with notes, {name}, padded\n"


def test_a_component_named_like_a_built_in_one_never_takes_its_place(
    crowd: Environment, tmp_path: Path
) -> None:
    said = crowd.run("check", recipe(tmp_path), cwd=tmp_path)
    assert said == Said(
        2,
        "",
        "small.yaml: 1 problem\n  5:9  formatter.name  formatter 'answer' is offered by "
        "finqa_sft:answer (finqa_sft 0.1.0) and ledger-answers:answer (ledger-answers 2.1); "
        "write one of these names\n",
    )
    for name in ("finqa_sft:answer", "finqa-sft:answer", "ledger-answers:answer"):
        said = crowd.run("check", "small.yaml", f"formatter.name={name}", cwd=tmp_path)
        assert said.out == f"small.yaml: no problems; qlora with filings, {name}, padded\n"


def test_two_packages_with_one_entry_point_name_are_both_loaded(
    crowd: Environment, tmp_path: Path
) -> None:
    listed = json.loads(crowd.run("plugins", "--json", cwd=tmp_path).out)["components"]
    names = {row["full_name"] for row in listed}
    assert {"ledger-notes:notes", "ledger-totals:total"} <= names


def test_a_metric_of_a_package_scores_predictions_and_runs(
    crowd: Environment, tmp_path: Path
) -> None:
    gold = "question,context,answer,id\nWhat?,Sales rose.,Sales,a\nWhy?,Sales rose.,No idea,b\n"
    (tmp_path / "gold.csv").write_text(gold, encoding="utf-8")
    (tmp_path / "said.jsonl").write_text('{"id": "a", "answer": "Sales"}\n', encoding="utf-8")
    words = ("--gold", "gold.csv", "--predictions", "said.jsonl", "--metric", "total", "--json")
    said = crowd.run("score", *words, cwd=tmp_path)
    found = json.loads(said.out)["metrics"]["total"]["equal"]
    assert (found["value"], found["n"], found["of_predictions"]) == (0.5, 2, 1.0)
    named = "evaluation.metrics=[{name: total}]"
    best = "trainer.metric_for_best_model=eval_total/equl"
    said = crowd.run("check", recipe(tmp_path, formatter="program"), named, best,
                    "data.split.held_out=0.5", cwd=tmp_path)  # fmt: skip
    assert "no answer is scored by 'eval_total/equl'; did you mean 'eval_total/equal'?" in said.err


def test_a_package_that_is_not_installed_is_named(crowd: Environment, tmp_path: Path) -> None:
    said = crowd.run("check", recipe(tmp_path, formatter="ledgerbook:terse"), cwd=tmp_path)
    assert said.err == (
        "small.yaml: 1 problem\n  5:9  formatter.name  no formatter 'ledgerbook:terse'; there are "
        "answer, program, steps, boxed; is ledgerbook installed, and does it offer one?\n"
    )


def test_every_mistake_of_an_entry_point_or_hook_is_named(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    said = environment("hook_mistakes").run("plugins", "--json", cwd=tmp_path)
    listed = json.loads(said.out)
    assert {row["distribution"] for row in listed["components"]} == {"finqa_sft"}
    problems = dict(
        text.removeprefix("plugin ledger-mistakes:").split(
            " (ledger-mistakes 0.8) was left out: ", 1
        )
        for text in listed["left_out"]
    )
    assert problems == {
        "argument_default": "finqa_sft_metrics takes no arguments, but asks for recipe; options "
        "are given to build",
        "attribute": "AttributeError: module 'ledger_mistakes.none' has no attribute 'nowhere'",
        "entry": "ModuleNotFoundError: No module named 'ledger_mistakes.nowhere'",
        "lax": "finqa_sft_metrics: the options of 'lax' accept unknown keys; derive Rounding from "
        "finqa_sft.options.Options",
        "none": "finqa_sft_metrics returned None; expected a list of MetricRecord",
        "nothing": "offers nothing; expected functions marked @finqa_sft.hookimpl and named "
        "finqa_sft_readers, finqa_sft_formatters, finqa_sft_collators, "
        "finqa_sft_model_factories, finqa_sft_metrics or finqa_sft_callbacks",
        "reserved": "'scales' has an option weight, a key that recipes use themselves beside it; "
        "call it otherwise",
        "single": "finqa_sft_metrics returned a MetricRecord; expected a list of MetricRecord",
        "strings": "finqa_sft_metrics returned a list with a str; expected a list of MetricRecord",
        "twins": "a second metric 'twin' of ledger-mistakes 0.8; no recipe could tell them apart",
        "unmarked": "finqa_sft_metrics is not marked: write @finqa_sft.hookimpl above it",
    }


RAISING = {
    "build": {"formatter": "raising\n  where: build"},
    "prompt": {"formatter": "raising\n  where: prompt"},
    "exit": {"formatter": "raising\n  where: exit"},
    "reader": {"source": "{reader: raising}"},
    "collator": {"collator": "raising"},
    "callback": {"callbacks": "[{name: raising}]"},
}
"""Recipes that name a component of the package that raises."""


@pytest.fixture(scope="module")
def trained(
    ledgers: Environment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Said]]:
    """Runs in the environment of the good and the raising package, by name."""
    recipes = {
        "good": GOOD,
        **{name: GOOD | {"callbacks": "[]"} | changed for name, changed in RAISING.items()},
    }
    folders = {}
    for name, components in recipes.items():
        folder = tmp_path_factory.mktemp("trained")
        recipe(folder, components)
        folders[name] = folder
    said = ledgers.train(folders)
    return {name: (folder, said[name]) for name, folder in folders.items()}


def test_a_run_trains_with_the_components_of_a_package(
    trained: dict[str, tuple[Path, Said]],
) -> None:
    folder, said = trained["good"]
    assert said.status == 0, said.err
    assert r"⟦\boxed{$ 5 million}" in said.out
    announced = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "formatter boxed ledger-notes 1.4.0" in announced
    assert "callback loss_table ledger-notes 1.4.0" in announced
    table = (folder / "run" / "losses.csv").read_text().splitlines()
    logged = losses(folder / "run")
    assert table == ["step,loss", *(f"{step},{loss}" for step, loss in enumerate(logged, start=1))]
    assert len(logged) == 2
    record = manifest(folder / "run")
    assert {
        "kind": "formatters",
        "name": "boxed",
        "provider": "ledger-notes 1.4.0",
        "summary": r"the answer as \boxed{...}",
    } in record["plugins"]


def test_a_callback_that_is_not_named_does_not_run(
    trained: dict[str, tuple[Path, Said]],
) -> None:
    folder, said = trained["callback"]
    assert "callback raising ledger-raises 0.7" in " ".join(said.out.split())
    assert (folder / "run" / "run.json").is_file()
    assert not (folder / "run" / "losses.csv").exists()


@pytest.mark.parametrize(
    ("name", "last_lines"),
    [
        (
            "build",
            "RuntimeError: a ledger without a spine\n"
            "raised in the formatter 'raising' of ledger-raises 0.7\n",
        ),
        (
            "prompt",
            "KeyError: 'ledger'\nraised in the formatter 'raising' of ledger-raises 0.7\n",
        ),
        (
            "reader",
            "ZeroDivisionError: a ledger of no pages\n"
            "raised in the reader 'raising' of ledger-raises 0.7\n",
        ),
        (
            "collator",
            "IndexError: a ledger with a page torn out\n"
            "raised in the collator 'raising' of ledger-raises 0.7\n",
        ),
        (
            "callback",
            "ValueError: a ledger that does not add up\n"
            "raised in the callback 'raising' of ledger-raises 0.7\n",
        ),
    ],
)
def test_an_exception_inside_a_component_names_its_package(
    trained: dict[str, tuple[Path, Said]], name: str, last_lines: str
) -> None:
    said = trained[name][1]
    assert said.status == 1
    assert said.err.startswith("Traceback (most recent call last):\n")
    assert said.err.endswith(last_lines)
    assert said.err.count("raised in the ") == 1


def test_a_component_that_ends_the_program_is_named(
    trained: dict[str, tuple[Path, Said]], ledgers: Environment
) -> None:
    said = trained["exit"][1]
    line = (PACKAGES / "raising" / "ledger_raises.py").read_text().split("sys.exit")[0].count("\n")
    assert (said.status, said.err.replace(str(ledgers.site), "SITE")) == (
        2,
        "the formatter 'raising' of ledger-raises 0.7 ended the run: SystemExit: no ledger today "
        f"(SITE/ledger_raises.py:{line + 1})\n",
    )


PLUGIN_FILE = """\
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finqa_sft import AnswerFormatter, hookimpl
from finqa_sft.options import Options
from finqa_sft.plugins import FormatterRecord


@dataclass
class Case:
    name: Case | str


class ShoutOptions(Options):
    case: Literal["upper", "lower"] = "upper"


class Shout(AnswerFormatter):
    def __init__(self, options):
        super().__init__()
        self.case = Case(options.case)

    def completion(self, question):
        text = getattr(question.answer, self.case.name)()
        return [{"role": "assistant", "content": text}]


@hookimpl
def finqa_sft_formatters():
    return [
        FormatterRecord(name="shout", summary="loud", config=ShoutOptions, build=Shout),
        FormatterRecord(name="answer", summary="loud too", config=ShoutOptions, build=Shout),
    ]
"""


def test_a_file_beside_the_recipe_is_a_plugin(crowd: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "my-formatter.py").write_text(PLUGIN_FILE)
    recipe(folder, GOOD, formatter="shout\n  case: uper")
    with (folder / "small.yaml").open("a") as file:
        file.write("plugins: [./my-formatter.py]\n")

    def check(*overrides: str) -> Said:
        return crowd.run("check", "recipes/small.yaml", *overrides, cwd=tmp_path)

    assert check() == Said(
        2,
        "",
        "recipes/small.yaml: 1 problem\n  6:9  formatter.case  no 'uper'; there are upper, lower\n",
    )
    fine = "recipes/small.yaml: no problems; qlora with notes, {}, padded\n"
    assert check("formatter.case=lower") == Said(0, fine.format("shout"), "")
    assert check("formatter.case=lower", "formatter.name=answer") == Said(
        2,
        "",
        "recipes/small.yaml: 1 problem\n"
        "  override  formatter.name  formatter 'answer' is offered by "
        "finqa_sft:answer (finqa_sft 0.1.0), ledger-answers:answer (ledger-answers 2.1) and "
        "my-formatter.py:answer (recipes/my-formatter.py); write one of these names\n",
    )
    name = "my-formatter.py:answer"
    assert check("formatter.case=lower", f"formatter.name={name}") == Said(0, fine.format(name), "")


@pytest.mark.parametrize(
    ("listed", "contents", "error"),
    [
        (
            "[nowhere.py]",
            {},
            "small.yaml: 1 problem\n  16:11  plugins.0  no such file: nowhere.py\n",
        ),
        (
            "[folder]",
            {"folder/x.py": ""},
            "small.yaml: 1 problem\n"
            "  16:11  plugins.0  a folder: folder; name the Python file in it\n",
        ),
        (
            "[mine.py]",
            {"mine.py": "def finqa_sft_readers(:\n"},
            "plugin file mine.py: SyntaxError: invalid syntax (mine.py, line 1)\n",
        ),
        (
            "[mine.txt]",
            {"mine.txt": PLUGIN_FILE},
            "plugin file mine.txt: not a Python file; its name must end in .py\n",
        ),
        (
            "[mine.py]",
            {"mine.py": "x = 1\n"},
            "plugin file mine.py: offers nothing; expected functions marked @finqa_sft.hookimpl "
            "and named finqa_sft_readers, finqa_sft_formatters, finqa_sft_collators, "
            "finqa_sft_model_factories, finqa_sft_metrics or finqa_sft_callbacks\n",
        ),
        (
            "[mine.py, ./mine.py]",
            {"mine.py": PLUGIN_FILE},
            "plugin file mine.py: listed twice; leave one out\n",
        ),
        (
            "[mine.py, folder/mine.py]",
            {"mine.py": PLUGIN_FILE, "folder/mine.py": PLUGIN_FILE},
            "plugin file folder/mine.py: of the same name as HERE/mine.py, so that mine.py:NAME "
            "could be either; rename one\n",
        ),
        (
            "[mine.py]",
            {"mine.py": "import sys\n\nsys.exit()\n"},
            "plugin file mine.py: SystemExit (HERE/mine.py:3)\n",
        ),
    ],
)
def test_a_plugin_file_that_cannot_be_used_is_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    listed: str,
    contents: dict[str, str],
    error: str,
) -> None:
    recipe(tmp_path)
    with (tmp_path / "small.yaml").open("a") as file:
        file.write(f"plugins: {listed}\n")
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("FINQA_SFT_PLUGINS", "")
    monkeypatch.chdir(tmp_path)
    assert main(["check", "small.yaml"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.replace(str(tmp_path), "HERE")) == ("", error)
    monkeypatch.setenv("FINQA_SFT_STRICT_PLUGINS", "1")
    assert main(["check", "small.yaml"]) == 2
    assert capsys.readouterr().err == said.err
