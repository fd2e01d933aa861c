"""Mistakes in a recipe: what is written there, and what the command line answers."""

from __future__ import annotations

import pytest
from bad_input import OWN, Shell, edited

pytest_plugins = ["bad_input"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("own.yaml", "own.yaml: no such file; did you mean r.yaml?"),
        ("sub", "sub: a folder; name a recipe file in it"),
        ("sub.yaml", "sub.yaml: a folder; name a recipe file in it"),
    ],
)
def test_a_recipe_that_is_not_there(shell: Shell, word: str, said: str) -> None:
    shell.write("sub/other.yaml", OWN)
    shell.write("sub.yaml/other.yaml", OWN)
    assert shell.refused("train", word) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty; a recipe has at least data and formatter"),
        (b"# later\n", "empty; a recipe has at least data and formatter"),
        (b"- a\n", "holds a list; a recipe is made of sections such as `model:`"),
        (b"hello\n", "holds a single value; a recipe is made of sections such as `model:`"),
        (OWN.encode("utf-16"), "not UTF-8 text (byte 1 is 0xff); save the file as UTF-8"),
        (b"notes: Ertr\xe4ge\n", "not UTF-8 text (byte 12 is 0xe4); save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_recipe(shell: Shell, content: bytes, said: str) -> None:
    shell.write("r.yaml", content)
    assert shell.refused("r.yaml") == f"r.yaml: {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "model:\n\tbase: tiny\n",
            "2:1  not valid YAML: while scanning for the next token, found character '\\t' that "
            "cannot start any token; indent with spaces, not tabs",
        ),
        (
            'notes: "open\nmodel: {}\n',
            "3:1  not valid YAML: while scanning a quoted scalar (from 1:8), found unexpected end "
            "of stream; close the quote",
        ),
        (
            "notes: 'it's'\n",
            "1:12  not valid YAML: while parsing a block mapping (from 1:1), expected <block end>, "
            "but found '<scalar>'; write a quote within quotes twice",
        ),
        (
            "notes: first: second\n",
            "1:13  not valid YAML: mapping values are not allowed here; put a text with a colon in "
            "quotes",
        ),
        (
            "model:\n  base: tiny\n factory: qlora\n",
            "3:2  not valid YAML: while parsing a block mapping (from 1:1), expected <block end>, "
            "but found '<block mapping start>'; indent the keys of a section alike",
        ),
        (
            "{",
            "1:2  not valid YAML: while parsing a flow node, expected the node content, but found "
            "'<stream end>'; close the bracket or brace",
        ),
        (
            "model: {}\n---\ndata: {}\n",
            "2:1  not valid YAML: expected a single document in the stream (from 1:1), but found "
            "another document; take the line --- out",
        ),
        (
            "\x7fELF\x02\x01",
            "1:1  not valid YAML: the character U+007F is not allowed; is this a text file?",
        ),
        (
            "model: tiny\0\n",
            "1:12  not valid YAML: the character U+0000 is not allowed; is this a text file?",
        ),
    ],
)
def test_a_recipe_that_is_no_yaml(shell: Shell, text: str, said: str) -> None:
    shell.write("r.yaml", text)
    assert shell.refused("r.yaml") == f"r.yaml: 1 problem\n  {said}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("model:", "modle:", "1:1  modle  unknown key; did you mean model?"),
        ("  base:", "  bases:", "2:3  model.bases  unknown key; did you mean model.base?"),
        (
            "  base: tiny\n",
            "  lora: {rank: 8}\n",
            "2:10  model.lora.rank  unknown key; there are r, alpha, dropout, rslora, dora, init, "
            "target_modules, modules_to_save",
        ),
        (
            "  sources:\n",
            "  bad_row: skip\n  sources:\n",
            "4:3  data.bad_row  unknown key; did you mean data.bad_rows?",
        ),
        (
            "      files: own.csv\n",
            "      files: own.csv\n      wieght: 2\n",
            "7:7  data.sources.0.wieght  unknown key; did you mean data.sources.0.weight?",
        ),
        (
            "      files: own.csv\n",
            "      files: own.csv\n  split: {heldout: 0.1}\n",
            "7:11  data.split.heldout  unknown key; did you mean data.split.held_out?",
        ),
        (
            "formatter:\n",
            "evaluation: {source: []}\nformatter:\n",
            "7:14  evaluation.source  unknown key; did you mean evaluation.sources?",
        ),
        (
            "  max_length:",
            "  maxlength:",
            "9:3  formatter.maxlength  unknown key; did you mean formatter.max_length?",
        ),
        (
            "formatter:\n",
            "collator: {pad: 8}\nformatter:\n",
            "7:12  collator.pad  unknown key; there are name, pad_to_multiple_of",
        ),
        (
            "  max_steps:",
            "  max_step:",
            "11:3  trainer.max_step  unknown key; did you mean trainer.max_steps?",
        ),
        (
            "  max_steps: 1",
            "  zebra: 1",
            "11:3  trainer.zebra  unknown key; `finqa-sft show RECIPE` lists those that there are",
        ),
        (
            "  dir:",
            "  folder:",
            "13:3  output.folder  unknown key; there are dir, overwrite, grace_period",
        ),
        ("output:", "outptu:", "12:1  outptu  unknown key; did you mean output?"),
    ],
)
def test_an_unknown_key_at_every_level(shell: Shell, old: str, new: str, said: str) -> None:
    shell.write("r.yaml", edited(old, new))
    assert shell.refused("r.yaml") == f"r.yaml: 1 problem\n  {said}"


def test_a_misspelt_name_of_a_component_key(shell: Shell) -> None:
    shell.write("r.yaml", edited("  name: answer", "  nmae: answer"))
    assert shell.refused("r.yaml") == (
        "r.yaml: 2 problems\n"
        "  7:1  formatter.name  missing; it has no default\n"
        "  8:3  formatter.nmae  unknown key; did you mean formatter.name?"
    )


def test_a_key_written_twice(shell: Shell) -> None:
    shell.write("r.yaml", OWN + "output:\n  dir: other\n")
    assert shell.refused("r.yaml") == (
        "r.yaml: 1 problem\n  14:1  output  written twice; first in line 12"
    )


OVERRIDES = {
    "model=3": "model  expected a section, got 3",
    "model.base=3": "model.base  expected text, got 3; put it in quotes",
    "model.lora.r=abc": "model.lora.r  expected a whole number, got 'abc'",
    "model.lora.r=1.5": "model.lora.r  expected a whole number, got 1.5",
    "model.lora.r='16'": "model.lora.r  expected a whole number, got '16'; leave out the quotes",
    "model.lora.r=0": "model.lora.r  must be greater than or equal to 1, got 0",
    "data=[]": "data  expected a section, got a list",
    "data.sources=own.csv": "data.sources  expected a list, got 'own.csv'",
    "data.sources=[]": "data.sources  expected at least 1 item, got 0",
    "data.sources.0=own.csv": "data.sources.0  expected a section, got 'own.csv'",
    "data.sources.0.files=5": "data.sources.0.files  expected a path, got 5",
    "data.sources.0.weight=0": "data.sources.0.weight  must be greater than 0, got 0",
    "data.split.held_out=10": "data.split.held_out  must be less than 1, got 10",
    "data.split.held_out=ten": "data.split.held_out  expected a number, got 'ten'",
    "data.split.by=page": "data.split.by  no 'page'; there are document, company",
    "data.bad_rows=ignore": "data.bad_rows  no 'ignore'; there are error, skip",
    "formatter=answer": "formatter  expected a section, got 'answer'",
    "formatter.max_length=2k": "formatter.max_length  expected a whole number, got '2k'",
    "collator=padded": "collator  expected a section, got 'padded'",
    "callbacks=x": "callbacks  expected a list, got 'x'",
    "trainer=[]": "trainer  expected a section, got a list",
    "trainer.learning_rate=fast": "trainer.learning_rate  expected a number, got 'fast'",
    "trainer.learning_rate='2e-4'": "trainer.learning_rate  expected a number, got '2e-4'; leave "
    "out the quotes",
    "trainer.learning_rate=.nan": "trainer.learning_rate  expected a finite number, got nan",
    "trainer.bf16=yes": "trainer.bf16  expected true, false or null, got 'yes'",
    "trainer.save_strategy=never": "trainer.save_strategy  no 'never'; there are no, steps, epoch, "
    "best",
    "trainer.output_dir=x": "trainer.output_dir  set output.dir instead",
    "output.dir=5": "output.dir  expected a path, got 5",
    "output.overwrite=yes": "output.overwrite  expected true or false, got 'yes'",
    "plugins=[gone.py]": "plugins.0  no such file: gone.py",
    "lora_r=8": "lora_r  unknown key; wrong place? there is model.lora.r",
    "epochs=3": "epochs  unknown key; here it is trainer.num_train_epochs",
    "callbacks=[{name: stop}]": "callbacks.0.name  no callback 'stop'; there are early_stopping",
    "collator.name=paded": "collator.name  no collator 'paded'; there are flattened, padded, "
    "shared_context; did you mean padded?",
    "formatter.name=answers": "formatter.name  no formatter 'answers'; there are answer, program, "
    "steps; did you mean answer?",
    "data.sources.0.reader=csv": "data.sources.0.reader  no reader 'csv'; there are columns, "
    "convfinqa, filings, financebench, finqa, tatqa",
    "model.factory=adapter": "model.factory  no model factory 'adapter'; there are full, lora, "
    "qlora",
    "trainer.max_steps": "trainer.max_steps  not an override; write key.path=value",
    "trainer.max_steps:3": "trainer.max_steps:3  not an override; write key.path=value",
    "=3": "=3  not an override; write key.path=value",
    "--trainer.max_steps=3": "--trainer.max_steps=3  overrides have no dashes; write "
    "trainer.max_steps=3",
    "trainer.max_steps.x=1": "trainer.max_steps.x  trainer.max_steps is 1 and has nothing below it",
    "data.sources.4.files=x": "data.sources.4.files  no item '4' in the list data.sources; there "
    "is data.sources.0",
    "evaluation.sources.0.files=x": "evaluation.sources.0.files  the recipe has no list "
    "evaluation.sources; write evaluation.sources=[{reader: ...}] with all that belongs to it",
    "callbacks.0.name=x": "callbacks.0.name  the recipe has no list callbacks; write "
    "callbacks=[{name: ...}] with all that belongs to it",
    "formatter.system=Say: yes": "formatter.system  expected text, got a section; a text with a "
    "colon needs quotes, within those of a shell",
    "data.sources.0.files=*.csv": "data.sources.0.files  not valid YAML: while scanning an alias "
    "(from 1:1), expected alphabetic or numeric character, but found '.'; put a text that "
    "begins with * in quotes",
    "data.sources.0.files=*x": "data.sources.0.files  not valid YAML: found undefined "
    "alias 'x'; put a text that begins with * in quotes",
    "model.lora.R=8": "model.lora.R  unknown key; did you mean model.lora.r?",
    "notes=[1": "notes  not valid YAML: while parsing a flow sequence (from 1:1), expected ',' or "
    "']', but got '<stream end>'; close the bracket or brace",
}
"""What an override gets wrong, and the answer."""


@pytest.mark.parametrize(("override", "said"), OVERRIDES.items())
def test_an_override_that_is_wrong(shell: Shell, override: str, said: str) -> None:
    assert shell.refused("r.yaml", override) == f"r.yaml: 1 problem\n  override  {said}"


def test_numbers_as_people_write_them_are_numbers(shell: Shell) -> None:
    shell.write("r.yaml", edited("max_steps: 1", "learning_rate: 2e-4"))
    said = shell("show", "r.yaml", "--set", "trainer.weight_decay=1E-2")
    assert said.status == 0
    shown = {line.split()[0]: line.split()[1] for line in said.out.splitlines()}
    assert shown["trainer.learning_rate"] == "0.0002"
    assert shown["trainer.weight_decay"] == "0.01"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import sibling_that_is_gone\n", "ModuleNotFoundError: No module named 'sibling_that_is_"),
        ("def f(:\n", "SyntaxError: invalid syntax (mine.py, line 1)"),
        ("x = 1\n", "offers nothing; expected functions marked @finqa_sft.hookimpl and named "),
    ],
)
def test_a_plugin_file_that_is_broken(shell: Shell, content: str, said: str) -> None:
    shell.write("mine.py", content)
    assert shell.refused("r.yaml", "plugins=[mine.py]").startswith(f"plugin file mine.py: {said}")


def test_all_problems_come_at_once_in_the_order_of_the_file(shell: Shell) -> None:
    text = edited("model:", "modle:").replace("answer", "anser").replace("steps: 1", "steps: one")
    shell.write("r.yaml", text)
    assert shell.refused("check", "r.yaml", "output.dri=x") == (
        "r.yaml: 4 problems\n"
        "  1:1       modle              unknown key; did you mean model?\n"
        "  8:9       formatter.name     no formatter 'anser'; there are answer, program, "
        "steps; did you mean answer?\n"
        "  11:14     trainer.max_steps  expected a whole number, got 'one'\n"
        "  override  output.dri         unknown key; did you mean output.dir?"
    )
