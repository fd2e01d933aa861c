from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bad_input import Shell, shell
from test_predict import FINQA

from finqa_sft.documents import Question
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.base import Figure, Score
from finqa_sft.plugins.manager import Plugins, Provider
from finqa_sft.plugins.records import MetricRecord

__all__ = ["shell"]

COLUMNS = """\
id,question,context,answer,scale
a,What were sales?,Sales were 5 million.,5,million
b,And costs?,Costs were 3.,3,
c,Who sold?,The company sold.,the company,
"""
ANSWERS = """\
{"id": "a", "answer": "5", "scale": "million"}
{"id": "b", "answer": "300"}
"""


def scored(shell: Shell, *words: str) -> dict[str, Any]:
    said = shell("score", *words, "--json")
    assert (said.status, said.err) == (0, "")
    numbers: dict[str, Any] = json.loads(said.out)
    return numbers


@pytest.fixture
def files(shell: Shell) -> Shell:
    """A folder with gold.csv and answers.jsonl."""
    shell.write("gold.csv", COLUMNS)
    shell.write("answers.jsonl", ANSWERS)
    return shell


ASKED = ("--gold", "gold.csv", "--predictions", "answers.jsonl")


def test_answers_are_scored_against_columns(files: Shell) -> None:
    numbers = scored(files, *ASKED, "--metric", "answer")
    assert numbers["metrics"]["answer"]["correct"]["value"] == pytest.approx(1 / 3)
    assert numbers["faults"] == {"scale": 1, "no prediction": 1}
    about = {key: numbers[key] for key in ("gold", "reader", "predictions", "questions", "missing")}
    assert about == {
        "gold": "gold.csv",
        "reader": "columns",
        "predictions": "answers.jsonl",
        "questions": 3,
        "missing": 1,
    }


def test_the_table_says_what_was_scored_and_what_was_not(files: Shell) -> None:
    files.write("answers.jsonl", ANSWERS + ANSWERS.splitlines()[0] + '\n{"id": "z", "answer": ""}')
    said = files("score", *ASKED, "--metric", "answer")
    assert (said.status, said.err) == (0, "")
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[:2] == [
        "metric figure value 95% interval n of predictions n",
        "answer correct 33.33 0.00 to 100.00 3 50.00 2",
    ]
    for line in (
        "in percent, over all gold questions; intervals: 95% bootstrap over documents, 1,000 "
        "resamples, seed 0",
        "answer correct by value 95% interval n",
        "scale million 100.00 2.50 to 100.00 1",
        "questions 3",
        "without a prediction 1",
        "predictions without a question 1",
        "predictions that stand twice 1",
        "wrong: scale 1",
        "first question without a prediction: c",
        "first prediction without a question: z",
        "first prediction that stands twice; the first one counts: a",
    ):
        assert line in lines


def test_without_a_metric_those_of_the_reader_score(files: Shell) -> None:
    said = files("score", *ASKED)
    assert (said.status, said.err) == (0, "")
    # The first of them, finqa, applies to none of these questions.
    assert "answer correct by" in said.out
    assert list(scored(files, *ASKED)["metrics"]["answer"]) == ["correct", "exact", "numeric", "f1"]


def test_what_became_of_each_question_is_written(files: Shell) -> None:
    files.write("out.jsonl", "an earlier result\n")
    scored(files, *ASKED, "--metric", "answer", "--per-question", "out.jsonl")
    lines = (files.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert rows[0]["figures"]["answer"]["correct"] == 1.0
    assert rows[0]["right"] is True
    assert rows[1] == {
        "id": "b",
        "figures": {"answer": {"correct": 0.0, "exact": 0.0, "numeric": 0.0, "f1": 0.0}},
        "right": False,
        "fault": "scale",
        "why": "said 300, expected 3: 100 times too large",
        "computed": "300",
        "expected": "3",
    }
    assert not list(files.folder.glob("*.new"))


def test_readers_and_metrics_take_options(files: Shell) -> None:
    files.write("gold.csv", COLUMNS.replace("question", "frage"))
    files.write("answers.jsonl", '{"id": "a", "answer": "5.3", "scale": "million"}\n')
    words = (*ASKED, "question=frage", "--metric", "answer")
    assert scored(files, *words)["right"] == 1
    files.write("answers.jsonl", '{"id": "b", "answer": "3.6"}\n')
    assert scored(files, *words)["right"] == 0


def test_a_tolerance_can_be_set(files: Shell) -> None:
    files.write("gold.csv", COLUMNS.replace(",5,million", ",5000,million"))
    files.write("answers.jsonl", '{"id": "a", "answer": "5040", "scale": "million"}\n')
    words = (*ASKED, "--metric", "answer")
    assert scored(files, *words)["right"] == 0
    assert scored(files, *words, "metric.answer.tolerance=0.01")["right"] == 1


def test_the_reader_can_be_named(files: Shell) -> None:
    files.write(
        "gold.json", json.dumps([{"q": "Sales?", "context": "5", "answer": "5", "id": "a"}])
    )
    words = ("--gold", "gold.json", "--predictions", "answers.jsonl", "--metric", "answer")
    assert files.refused("score", *words) == (
        "gold.json: row 1 has the keys 'q', 'context', 'answer', 'id', as in no known data set; "
        "name the reader with --reader, for columns of your own --reader columns question=NAME "
        "answer=NAME context=NAME"
    )
    assert scored(files, *words, "--reader", "columns", "question=q")["questions"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["qestion=frage"],
            "options: 1 problem\n"
            "  override  qestion  unknown option of columns; did you mean 'question'?",
        ),
        (
            ["files=x.csv", "id=7", "metric.answer.tolerance=2", "metric.answer.tol=1"],
            "options: 4 problems\n"
            "  override  files                    the file is gold.csv already; leave it out\n"
            "  override  id                       expected text, got 7; put it in quotes\n"
            "  override  metric.answer.tolerance  must be less than or equal to 0.1, got 2\n"
            "  override  metric.answer.tol        unknown option of answer; there are tolerance",
        ),
        (
            ["metric.finqa.tolerance=1", "question"],
            "options: 2 problems\n"
            "  override  question      not an override; write key.path=value\n"
            "  override  metric.finqa  metrics here are answer; write metric.answer.OPTION=VALUE",
        ),
        (
            ["metric=answer"],
            "options: 1 problem\n"
            "  override  metric  metrics are named by --metric; options: "
            "metric.answer.OPTION=VALUE",
        ),
        (
            ["--metric", "anser"],
            "no metric 'anser'; there are answer, convfinqa, finqa, tatqa; did you mean answer?",
        ),
        (["--reader", "colums"], None),
        (
            ["--reader", "filings"],
            "the reader 'filings' reads no files; name another one with --reader",
        ),
        (
            ["--metric", "tatqa"],
            "tatqa applies to none of the 3 gold questions; leave out --metric for those that fit, "
            "or name another one",
        ),
        (
            ["--per-question", "answers.jsonl"],
            "answers.jsonl is read here; name another file with --per-question",
        ),
        (["--per-question", "."], ". is a folder; name a file with --per-question"),
        (
            ["--per-question", os.devnull],
            f"{os.devnull} is a pipe or device; name a file with --per-question",
        ),
        (
            ["--per-question", "no/out.jsonl"],
            "cannot write no/out.jsonl: No such file or directory; name a file in a folder that "
            "can be written",
        ),
        (
            ["--per-question", "x" * 300],
            f"cannot write {'x' * 300}: File name too long; name a file in a folder that can be "
            "written",
        ),
    ],
)
def test_what_is_asked_wrongly_is_said_and_nothing_is_written(
    words: list[str], message: str | None, files: Shell
) -> None:
    metric = [] if "--metric" in words else ["--metric", "answer"]
    said = files.refused("score", *ASKED, *metric, *words)
    if message is None:
        assert said.startswith("no reader 'colums'; ")
    else:
        assert sorted(said.splitlines()) == sorted(message.splitlines())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "answers.jsonl",
            '{"id": "1", "answer": "5"}',
            "no prediction is of a gold question: a prediction's id is '1', a question's 'a'; use "
            "the ids of the gold file",
        ),
        (
            "answers.jsonl",
            ANSWERS + '{"id": "c", "ans',
            "answers.jsonl:3:13: not JSON: unterminated string starting at; the file seems cut "
            "off: was it copied, or written to its end?",
        ),
        (
            "gold.csv",
            COLUMNS + "d,And tax?,Tax was 1.,,\n",
            "1 of 4 gold rows cannot be read:\n"
            "  gold.csv row 4, field 'answer': empty; expected text\n"
            "Mend them; a score without them would not be comparable",
        ),
        ("gold.csv", "", "gold.csv: an empty file; was it written or downloaded completely?"),
    ],
)
def test_bad_files_are_named(name: str, content: str, message: str, files: Shell) -> None:
    files.write(name, content)
    assert files.refused("score", *ASKED, "--metric", "answer") == message


def test_a_gold_file_that_is_not_there_is_named(files: Shell) -> None:
    said = files.refused("score", "--gold", "gold.json", "--predictions", "answers.jsonl")
    assert said == "gold.json: no such file; did you mean 'gold.csv'?"


def test_scoring_imports_nothing_heavy(files: Shell) -> None:
    code = (
        "import sys; from finqa_sft.cli.main import main; main(sys.argv[1:]); "
        "print(*{'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules), file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, "score", *ASKED, "--metric", "answer"]
    done = subprocess.run(words, cwd=files.folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "\n")


class Boxed:
    """A stranger's metric."""

    figures = (Figure("boxed", "stands in a box"),)

    def applies(self, question: Question) -> bool:
        return True

    def score(self, question: Question, prediction: Prediction) -> Score:
        return Score({"box": 1.0})


def test_a_strangers_metric_that_breaks_its_word_is_named(
    files: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plugin:
        def finqa_sft_metrics(self) -> list[MetricRecord]:
            return [MetricRecord(name="boxed", summary="boxes", build=lambda options: Boxed())]

    from finqa_sft import hookimpl

    Plugin.finqa_sft_metrics = hookimpl(Plugin.finqa_sft_metrics)  # type: ignore[method-assign]
    plugins = Plugins.load({"FINQA_SFT_PLUGINS": ""})
    plugins.add(Provider("boxes", "1.0"), Plugin)
    monkeypatch.setattr("finqa_sft.cli.score.load_plugins", lambda: plugins)
    assert files.refused("score", *ASKED, "--metric", "boxed") == (
        "the metric 'boxed' gives at question 'a' the figures box; it declares boxed"
    )


@pytest.mark.parametrize(("several", "noted"), [(1, "1 note"), (2, "2 notes, the first of them")])
def test_notes_are_counted_and_the_first_are_shown(shell: Shell, several: int, noted: str) -> None:
    gold = [{**FINQA[0], "id": f"q{n}"} for n in range(2)]
    shell.write("gold.json", json.dumps(gold))
    said = [{"id": f"q{n}", "predicted": None} for n in range(several)]
    shell.write("p.json", json.dumps(said))
    lines = shell("score", "--gold", "gold.json", "--predictions", "p.json").out.splitlines()
    place = lines.index(f"finqa: {noted}:")
    assert lines[place + 1 : place + 3][:several] == [
        f"  q{n}: neither a program nor an answer" for n in range(several)
    ]


def tokens(program: str) -> list[str]:
    """FinQA's list of tokens, as its authors' model writes it."""
    spaced = program.replace("(", "(, ").replace(")", ", )")
    return [*(token for token in spaced.split(", ") if token), "EOF"]


def save(path: Path, content: object) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("as_text", [False, True])
def test_finqas_gold_programs_are_all_right(as_text: bool, shell: Shell, real_data: Path) -> None:
    gold = real_data / "finqa" / "dev_200.json"
    rows = json.loads(gold.read_text(encoding="utf-8"))
    said = [
        {
            "id": row["id"],
            "predicted": row["qa"]["program"] if as_text else tokens(row["qa"]["program"]),
        }
        for row in rows
    ]
    predictions = save(shell.folder / "p.json", said)
    numbers = scored(shell, "--gold", str(gold), "--predictions", predictions)
    assert numbers["reader"] == "finqa"
    figures = numbers["metrics"]["finqa"]
    assert {name: figure["value"] for name, figure in figures.items()} == {
        "execution": 1.0,
        "program": 1.0,
        "valid": 1.0,
    }
    assert (numbers["right"], numbers["faults"], numbers["notes"]["finqa"]["n"]) == (200, {}, 0)


def test_tatqas_gold_answers_score_as_its_own_script_says(shell: Shell, real_data: Path) -> None:
    gold = real_data / "tatqa" / "dev.json"
    rows = json.loads(gold.read_text(encoding="utf-8"))
    questions = [question for row in rows for question in row["questions"]]
    said = {question["uid"]: [question["answer"], question["scale"]] for question in questions}
    predictions = save(shell.folder / "p.json", said)
    words = ("--gold", str(gold), "--predictions", predictions, "--metric", "tatqa")
    numbers = scored(shell, *words)
    figures = numbers["metrics"]["tatqa"]
    # The script takes the number 0, which is the answer to five questions, for no answer.
    rounded = {name: round(100 * figure["value"], 2) for name, figure in figures.items()}
    assert rounded == {
        "em": 99.7,
        "f1": 99.7,
        "scale": 99.7,
        "em_with_zero": 100.0,
        "f1_with_zero": 100.0,
    }
    assert (numbers["notes"]["tatqa"]["n"], numbers["faults"]) == (5, {"form": 5})
    as_text = {
        uid: [str(answer) if answer == 0 else answer, scale]
        for uid, (answer, scale) in said.items()
    }
    save(shell.folder / "p.json", as_text)
    assert scored(shell, *words)["metrics"]["tatqa"]["em"]["value"] == 1.0


def test_convfinqas_gold_turns_are_all_right(shell: Shell, real_data: Path) -> None:
    gold = real_data / "convfinqa" / "dev_421_cleaned.json"
    (rows,) = json.loads(gold.read_text(encoding="utf-8")).values()
    said = [
        {"id": row["id"], "turn": turn, "predicted": tokens(program)}
        for row in rows
        for turn, program in enumerate(row["dialogue"]["turn_program"])
    ]
    predictions = save(shell.folder / "p.json", said)
    numbers = scored(
        shell, "--gold", str(gold), "--predictions", predictions, "--metric", "convfinqa"
    )
    assert (numbers["reader"], numbers["questions"]) == ("convfinqa", 1490)
    figures = numbers["metrics"]["convfinqa"]
    assert [figures[name]["value"] for name in ("execution", "program", "valid")] == [1.0] * 3
