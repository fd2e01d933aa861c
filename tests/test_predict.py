"""The verb `predict`: which model answers what, and what becomes of the file."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import time
from io import FileIO
from pathlib import Path
from typing import Any, cast

import pytest
from bad_input import Shell, shell
from evaluated import (
    HELD_OUT,
    MARKS,
    RECIPE,
    command,
    predictions,
    trained,
    wild,
    write_recipe,
)
from filelock import FileLock
from runs import run

from finqa_sft.cli.main import main
from finqa_sft.evaluation.answering import Answerer
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.store import PredictionStore

__all__ = ["shell", "trained", "wild"]

PAGE = "Net sales were $ 5.1 million in 2020. Costs were $ 3.2 million."

FINQA = [
    {
        "id": "P/2020/page_1.pdf-0",
        "pre_text": [PAGE],
        "post_text": [],
        "table": [["", "2020"], ["Net sales", "5.1"]],
        "qa": {
            "question": "What were sales less costs?",
            "program": "subtract(5.1, 3.2)",
            "exe_ans": 1.9,
            "answer": "1.9",
            "gold_inds": {},
        },
    }
]
CONVFINQA = [
    {
        "id": "Single_P/2020/page_1.pdf-1",
        "pre_text": [PAGE],
        "post_text": [],
        "table": [["", "2020"], ["Net sales", "5.1"]],
        "qa": {"question": "q", "answer": "1.9", "program": "subtract(5.1, 3.2)", "exe_ans": 1.9},
        "annotation": {
            "dialogue_break": ["what were sales?", "and less costs?"],
            "turn_program": ["5.1", "subtract(5.1, 3.2)"],
            "exe_ans_list": [5.1, 1.9],
            "answer_list": ["5.1", "A0"],
            "qa_split": [0, 0],
        },
    }
]
TATQA = [
    {
        "table": {"uid": "t", "table": [["", "2020"], ["Net sales", "5.1"]]},
        "paragraphs": [{"uid": "p", "order": 1, "text": PAGE}],
        "questions": [
            {
                "uid": "u1", "order": 1, "question": "What were sales?", "answer": ["5.1"],
                "derivation": "", "answer_type": "span", "answer_from": "table",
                "rel_paragraphs": [], "req_comparison": False, "scale": "million",
            }
        ],
    }
]  # fmt: skip
FINANCEBENCH = {
    "financebench_id": "f1",
    "company": "P",
    "doc_name": "P_2020_10K",
    "question": "What were sales?",
    "answer": "$5.1 million",
    "evidence": [
        {"evidence_text": PAGE, "doc_name": "P_2020_10K", "evidence_page_num": 1,
         "evidence_text_full_page": PAGE}
    ],
}  # fmt: skip
COLUMNS = f"id,frage,context,answer\na,What were sales?,{PAGE},5.1\nb,And costs?,{PAGE},3.2\n"


@pytest.fixture
def run_folder(shell: Shell, trained: Path) -> Shell:
    """A shell whose folder holds the recipe and a copy of its run."""
    shutil.copytree(trained, shell.folder, dirs_exist_ok=True, symlinks=True)
    return shell


def done(shell: Shell, *words: str) -> str:
    said = shell("predict", *words)
    assert said.status == 0, said
    return said.out


def test_all_held_out_questions_are_answered(run_folder: Shell) -> None:
    assert done(run_folder, "run", "--out", "p.jsonl") == "9 predictions in p.jsonl\n"
    found = predictions(run_folder.folder / "p.jsonl")
    assert len(found) == HELD_OUT
    assert len({one.prediction.text for one in found.values()}) == HELD_OUT
    assert sorted(path.name for path in run_folder.folder.glob("*p.jsonl*")) == [
        "p.jsonl", "p.jsonl.about.json"
    ]  # fmt: skip
    said = run_folder("predict", "run", "--out", "p.jsonl")
    assert (said.status, said.err) == (0, "9 of 9 questions were answered before\n")


def test_run_adapter_and_checkpoint_stand_for_the_same_model(run_folder: Shell) -> None:
    shutil.copytree(run_folder.folder / "run" / "adapter", run_folder.folder / "moved" / "to")
    named = {
        "run": ["run"],
        "adapter": ["--adapter", "run/adapter"],
        "moved": ["--adapter", "moved/to"],
        "last": ["--adapter", "run/checkpoint-2"],
    }
    found = {}
    for name, words in named.items():
        done(run_folder, *words, "--out", f"{name}.jsonl")
        found[name] = (run_folder.folder / f"{name}.jsonl").read_text()
    assert len(set(found.values())) == 1
    done(run_folder, "--adapter", "run/checkpoint-1", "--out", "first.jsonl")
    done(run_folder, "run", "--base", "--out", "base.jsonl")
    done(run_folder, "small.yaml", "--base", "--out", "recipe_base.jsonl")
    base = (run_folder.folder / "base.jsonl").read_text()
    assert base not in (*found.values(), (run_folder.folder / "first.jsonl").read_text())
    assert base == (run_folder.folder / "recipe_base.jsonl").read_text()


def test_overrides_say_how_answers_are_generated(run_folder: Shell) -> None:
    done(run_folder, "run", "evaluation.max_new_tokens=2", "--out", "p.jsonl")
    found = predictions(run_folder.folder / "p.jsonl")
    assert {one.tokens for one in found.values()} <= {1, 2}
    # After --adapter, an override may stand where the run would.
    done(run_folder, "evaluation.max_new_tokens=2", "--adapter", "run/adapter", "--out", "q.jsonl")
    assert predictions(run_folder.folder / "q.jsonl") == found


def test_samples_are_kept_and_repeat(run_folder: Shell) -> None:
    words = ["run", "evaluation.samples=3", "evaluation.temperature=2.0", "--out"]
    done(run_folder, *words, "a.jsonl")
    done(run_folder, *words, "b.jsonl", "evaluation.batch_size=5")
    assert (run_folder.folder / "a.jsonl").read_text() == (
        run_folder.folder / "b.jsonl"
    ).read_text()
    found = predictions(run_folder.folder / "a.jsonl")
    assert {len(one.samples) for one in found.values()} == {3}


@pytest.mark.parametrize(
    ("name", "content", "words", "ids"),
    [
        ("finqa.json", json.dumps(FINQA), [], ["P/2020/page_1.pdf-0"]),
        (
            "turns.json", json.dumps(CONVFINQA), [],
            ["Single_P/2020/page_1.pdf-1_0", "Single_P/2020/page_1.pdf-1_1"],
        ),
        ("tatqa.json", json.dumps(TATQA), [], ["u1"]),
        ("bench.jsonl", json.dumps(FINANCEBENCH) + "\n", [], ["f1"]),
        ("own.csv", COLUMNS, ["--reader", "columns", "--option", "question=frage"], ["a", "b"]),
        ("own.csv", COLUMNS, ["--option", "question=frage"], ["a", "b"]),
    ],
)  # fmt: skip
def test_questions_come_from_a_file_in_any_known_layout(
    run_folder: Shell, name: str, content: str, words: list[str], ids: list[str]
) -> None:
    run_folder.write(name, content)
    done(run_folder, "run", "--data", name, *words, "--out", "p.jsonl")
    found = predictions(run_folder.folder / "p.jsonl")
    assert list(found) == ids
    assert all(one.tokens for one in found.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.yaml"], "gone.yaml"),
        (["rum"], "rum: neither the folder of a run nor a recipe; did you mean 'run'?"),
        (["Revenue?"], "'Revenue?' stands where RUN comes, the folder of a run"),
        (["What was revenue?"], "'What was revenue?' stands where RUN comes, the folder of a run"),
        (["word " * 80], f"'{'word ' * 80}' stands where RUN comes, the folder of a run"),
        (["x" * 300], f"{'x' * 300}: neither the folder of a run nor a recipe; RUN is the folder"),
        (["--adapter", "x" * 300], f"{'x' * 300}: cannot be read (File name too long); check its "
                                   "rights"),
        (["run", "--data", "gone.json"], "gone.json: no such file"),
        (["run", "--data", "empty.json"], "empty.json"),
        (["run", "--data", "other.json"], "in no known data set"),
        (["run", "--data", "own.csv"], "question"),
        (["run", "--data", "own.csv", "--option", "qestion=frage"], "qestion"),
        (["run", "--data", "own.csv", "--reader", "colums"], "columns"),
        (["run", "--data", "own.csv", "--reader", "filings"], "'filings' reads no files"),
        (["run", "--reader", "finqa"], "--reader and --option are for a file that --data names"),
        ([], "name the folder of a run, as runs/NAME, or the recipe that it was trained by, or an "
             "adapter with --adapter; none is given"),
        (["run", "--adapter", "run/adapter"], "both are given"),
        (["--adapter", "gone"], "gone: no such folder; name the folder of a run"),
        (["--adapter", "small.yaml"], "small.yaml: a file; name the folder of a run"),
        (["wild"], "wild has no finqa_sft.json in it that says how it was taught to answer"),
        (["empty"], "empty holds no run.json, adapter_config.json or config.json"),
        (["run", "formater.name=answer"], "formatter"),
        (["run", "evaluation.samples=0"], "evaluation.samples"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)  # fmt: skip
def test_what_cannot_be_is_said(run_folder: Shell, words: list[str], said: str) -> None:
    run_folder.write("empty.json", "")
    run_folder.write("other.json", '[{"q": "a"}]')
    run_folder.write("own.csv", COLUMNS)
    (run_folder.folder / "empty").mkdir()
    assert said in run_folder.refused("predict", *words, "--out", "p.jsonl")


def test_a_run_that_has_not_ended_is_told_by_its_checkpoints(run_folder: Shell) -> None:
    shutil.rmtree(run_folder.folder / "run" / "adapter")
    assert run_folder.refused("predict", "run", "--out", "p.jsonl") == (
        "run holds neither adapter/ nor model/: the run has not ended; name one of its checkpoints "
        "with --adapter, or resume it"
    )
    done(run_folder, "--adapter", "run/checkpoint-1", "--out", "p.jsonl")


def test_a_checkpoint_away_from_its_run_lacks_the_recipe(run_folder: Shell) -> None:
    shutil.copytree(run_folder.folder / "run" / "checkpoint-1", run_folder.folder / "alone" / "c")
    assert run_folder.refused("predict", "--adapter", "alone/c", "--out", "p.jsonl") == (
        "alone/c has no finqa_sft.json in it that says how it was taught to answer; copy that file "
        "with the adapter, or name the folder of the run"
    )


@pytest.mark.parametrize(
    ("card", "error"),
    [
        ('{"recipe": {}', "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"longest_answer": 5, "recipe": {}}', "KeyError"),
        ('{"longest_answer": 5, "recipe": {"name": "", "folder": "", "values": 5}}', "TypeError"),
        (
            '{"longest_answer": 5, "recipe": {"name": "", "folder": "", "values": [{"key": "a"}]}}',
            "KeyError",
        ),
        (
            '{"longest_answer": 5, "recipe": {"name": "", "folder": "", "values": [{"key": 5}]}}',
            "AttributeError",
        ),
    ],
)
def test_a_damaged_card_is_named(run_folder: Shell, card: str, error: str) -> None:
    run_folder.write("run/adapter/finqa_sft.json", card)
    said = run_folder.refused("predict", "run", "--out", "p.jsonl")
    assert said.startswith(
        f"run/adapter/finqa_sft.json is not as a run of this version wrote it ({error}: "
    )
    assert said.endswith("; restore it, or train again")


def test_predictions_of_something_else_are_not_mixed_in(run_folder: Shell) -> None:
    done(run_folder, "run", "--out", "p.jsonl")
    before = (run_folder.folder / "p.jsonl").read_text()
    more = ["evaluation.max_new_tokens=3", "--out", "p.jsonl"]
    assert run_folder.refused("predict", "run", *more) == (
        "p.jsonl holds predictions of something else (decoding.max_new_tokens was 6 and is 3); "
        "name another place with --out, or replace it with --overwrite"
    )
    assert "(they were of a trained model and are of the base alone)" in run_folder.refused(
        "predict", "run", "--base", "--out", "p.jsonl"
    )
    done(run_folder, "run", *more, "--overwrite")
    assert (run_folder.folder / "p.jsonl").read_text() != before


def test_questions_are_not_replaced_by_their_answers(run_folder: Shell) -> None:
    run_folder.write("own.csv", COLUMNS)
    words = ["run", "--data", "own.csv", "--option", "question=frage", "--out", "own.csv"]
    for more in ([], ["--overwrite"]):
        assert run_folder.refused("predict", *words, *more) == (
            "own.csv may be anything: it has no own.csv.about.json beside it, which all "
            "predictions are written with; name another place with --out, or remove it"
        )
    assert (run_folder.folder / "own.csv").read_text() == COLUMNS


def test_a_folder_in_the_place_of_the_file(run_folder: Shell) -> None:
    for words in ([], ["--overwrite"]):
        assert run_folder.refused("predict", "run", "--out", "run", *words) == (
            "run is a folder; name a file"
        )
    assert run_folder.refused("predict", "run", "--out", "small.yaml/p.jsonl") == (
        "cannot write small.yaml/p.jsonl: small.yaml: File exists; name a file in a folder that "
        "can be written"
    )


def test_two_commands_do_not_write_one_file(run_folder: Shell) -> None:
    lock = run_folder.folder / ".p.jsonl.lock"
    lock.touch()
    with FileLock(lock):
        assert run_folder.refused("predict", "run", "--out", "p.jsonl") == (
            "another command is writing p.jsonl; wait for it, or name another file"
        )


@pytest.mark.parametrize("name", ["p.jsonl", "p[1]*.jsonl"])
def test_an_interrupted_file_goes_on_where_it_was(
    run_folder: Shell, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    done(run_folder, "run", "--out", "whole.jsonl")
    real = Answerer._predicted
    calls: list[str] = []

    def predicted(answerer: Answerer, asked: Any, completions: Any) -> Any:
        calls.append(asked.question.id)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return real(answerer, asked, completions)

    monkeypatch.setattr(Answerer, "_predicted", predicted)
    words = ["predict", "run", "--out", name, "evaluation.batch_size=2"]
    said = run_folder(*words)
    assert (said.status, said.err) == (
        130,
        "interrupted; 4 of 9 questions are answered and kept; the same command goes on from "
        "there\n",
    )
    part = run_folder.folder / f"{name}.part0"
    assert len(part.read_text().splitlines()) == 4
    # As if the process had been killed in the middle of a line.
    part.write_text(part.read_text()[:-20])
    said = run_folder(*words)
    assert said.status == 0
    assert said.err == "3 of 9 questions were answered before\n"
    assert len(calls) == 5 + 6
    assert (run_folder.folder / name).read_text() == (run_folder.folder / "whole.jsonl").read_text()
    assert not part.exists()
    # A file to which questions were added goes on as well.
    lines = (run_folder.folder / name).read_text().splitlines(keepends=True)
    run_folder.write(name, "".join(lines[:7]))
    assert run_folder(*words).err == "7 of 9 questions were answered before\n"
    assert (run_folder.folder / name).read_text() == "".join(lines)


@pytest.mark.slow
def test_ctrl_c_ends_a_process_that_goes_on_later(trained: Path, tmp_path: Path) -> None:
    words = [
        "predict", str(trained / "run"), "--out", str(tmp_path / "p.jsonl"),
        "evaluation.batch_size=1", "evaluation.max_new_tokens=400",
    ]  # fmt: skip
    process = command(*words, folder=trained)
    part = tmp_path / "p.jsonl.part0"
    while process.poll() is None and not (part.is_file() and part.stat().st_size):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "are answered and kept; the same command goes on from there" in err
    _, err = command(*words, folder=trained).communicate(timeout=200)
    assert "of 9 questions were answered before" in err
    assert main([*words[:3], str(tmp_path / "again.jsonl"), *words[4:]]) == 0
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "p.jsonl").read_text()


def test_a_full_disk_keeps_what_was_answered(
    run_folder: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(run_folder, "run", "--out", "whole.jsonl")
    real = PredictionStore.add
    added: list[str] = []

    class Full:
        """A file of which half a line is written, and then nothing."""

        def __init__(self, file: FileIO) -> None:
            self.file = file
            self.full = False

        def write(self, line: bytes) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.full = True
            return self.file.write(line[: len(line) // 2])

    def add(store: PredictionStore, file: FileIO, predicted: Predicted) -> None:
        if len(added) == 4:
            return real(store, cast("FileIO", Full(file)), predicted)
        added.append(predicted.id)
        return real(store, file, predicted)

    monkeypatch.setattr(PredictionStore, "add", add)
    said = run_folder("predict", "run", "--out", "p.jsonl")
    assert (said.status, said.err) == (
        2,
        "cannot write p.jsonl: No space left on device; make room, and the same command goes on "
        "from what is answered\n",
    )
    monkeypatch.setattr(PredictionStore, "add", real)
    said = run_folder("predict", "run", "--out", "p.jsonl")
    assert said.err == "4 of 9 questions were answered before\n"
    assert (run_folder.folder / "p.jsonl").read_text() == (
        run_folder.folder / "whole.jsonl"
    ).read_text()


def test_gold_does_not_reach_the_prompt(run_folder: Shell, wild: Path) -> None:
    recipe = RECIPE.replace("  system: Answer.\n", "")
    run(
        write_recipe(run_folder.folder, wild, recipe), "formatter.name=curious",
        "output.dir=curious", "trainer.max_steps=1", "evaluation.after=false",
        "evaluation.every=0", "evaluation.before=false",
    )  # fmt: skip
    seen = run_folder.folder / "seen.txt"
    assert any("'answer': ''" not in line for line in seen.read_text().splitlines())
    seen.unlink()
    done(run_folder, "curious", "--out", "p.jsonl")
    run_folder.write("finqa.json", json.dumps(FINQA))
    done(run_folder, "curious", "--data", "finqa.json", "--out", "q.jsonl")
    assert set(seen.read_text().splitlines()) == {
        "{'answer': '', 'program': None, 'executed_answer': None, 'scale': '', "
        "'answer_type': None, 'evidence': (), 'derivation': None}"
    }


def test_a_question_that_does_not_fit_is_counted(run_folder: Shell) -> None:
    long = COLUMNS + f"c,{'What were sales? ' * 300},{PAGE},5.1\n"
    run_folder.write("own.csv", long)
    words = ["run", "--data", "own.csv", "--option", "question=frage"]
    assert done(run_folder, *words, "--out", "p.jsonl") == (
        "3 predictions in p.jsonl; 1 question did not fit: no answer\n"
    )
    found = predictions(run_folder.folder / "p.jsonl")
    assert [bool(one.problem) for one in found.values()] == [False, False, True]
    said = run_folder("evaluate", *words, "--out", "e", "--json")
    numbers = json.loads(said.out)
    assert (numbers["questions"], numbers["not_asked"]) == (3, 1)
    assert numbers["metrics"]["mark"]["hash"]["n"] == 3


def test_a_run_in_another_folder_is_asked_with_its_own_recipe(
    run_folder: Shell, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(run_folder, "run", "--out", "here.jsonl")
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "far")
    done(run_folder, str(trained / "run"), "--out", "there.jsonl")
    assert (tmp_path / "far" / "there.jsonl").read_text() == (
        run_folder.folder / "here.jsonl"
    ).read_text()


def test_a_line_can_be_put_beside_its_question(run_folder: Shell) -> None:
    run_folder.write("own.csv", "frage,context\nWhat were net sales?,They were $ 5.1 million.\n")
    words = ("--data", "own.csv", "--option", "question=frage")
    done(run_folder, "run", *words, "--out", "p.jsonl")
    line = json.loads((run_folder.folder / "p.jsonl").read_text())
    assert (line["question"], line["source"]) == ("What were net sales?", "own.csv row 1")


def test_a_table_needs_no_answers_and_its_answers_change_nothing(run_folder: Shell) -> None:
    rows = ["What were sales?,Sales were $ 5.1 million.", "And costs?,Costs were 3."]
    for name, column, cells in (("bare", "", ("", "")), ("full", ",answer", (",5.1", ","))):
        lines = [f"question,context{column}", *map("".join, zip(rows, cells, strict=True))]
        run_folder.write("own.csv", "\n".join(lines))
        done(run_folder, "run", "--data", "own.csv", "--out", f"{name}.jsonl")
    bare, full = ((run_folder.folder / f"{name}.jsonl").read_text() for name in ("bare", "full"))
    assert bare == full
    named = ("--data", "own.csv", "--option", "answer=gold", "--out", "p.jsonl")
    assert run_folder.refused("predict", "run", *named).startswith("own.csv: no column 'gold'")


def test_a_plugin_file_that_is_gone_is_named(shell: Shell, wild: Path, trained: Path) -> None:
    write_recipe(shell.folder, wild)
    shutil.copytree(trained / "run", shell.folder / "run")
    card = shell.folder / "run" / "adapter" / "finqa_sft.json"
    card.write_text(card.read_text().replace(str(trained), str(shell.folder)))
    (shell.folder / "marks.py").unlink()
    said = shell.refused("predict", "run", "--out", "p.jsonl")
    assert said.startswith(f"plugin file {shell.folder / 'marks.py'}: ")
    shell.write("marks.py", MARKS)
    assert shell("predict", "run", "--out", "p.jsonl").status == 0
