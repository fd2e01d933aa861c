"""Data that one process prepares and the others of its machine take over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from runs import write_recipe

from finqa_sft.documents import Document, Evidence, Paragraph, Question, Table, Turn
from finqa_sft.errors import DataError
from finqa_sft.models.cache import cache_root
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation.parts import PreparedData
from finqa_sft.preparation.prepare import prepared_recipe
from finqa_sft.preparation.sharing import prepared_once
from finqa_sft.recipe import load_recipe


@pytest.fixture
def launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which processes meet, three of which a launcher has started."""
    monkeypatch.setenv("FINQA_SFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    return tmp_path / "cache" / "launches" / socket.gethostname()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A run's data, of which some does not fit and is left out."""
    path = write_recipe(tmp_path_factory.mktemp("data"))
    words = ["formatter.max_length=220", "data.split.held_out=0.3"]
    prepared = prepared_recipe(load_recipe(path, words, Plugins.load({"FINQA_SFT_PLUGINS": ""})))
    question = prepared.data.gold[0]
    page = Document(
        "odd", (Paragraph("Sales — 売上"), Table((("", "2020"), ("Sales", "5")))), "Ours, Inc."
    )
    odd = replace(
        question,
        id="odd",
        document=page,
        executed_answer=float("inf"),
        scale="million",
        evidence=(Evidence(1, 1), Evidence(0)),
        history=(Turn("And 2019?", "yes", "greater(1, 2)", "no"),),
        derivation="5 - 3",
    )
    return replace(prepared.data, gold=[*prepared.data.gold, odd])


def as_process(number: int, monkeypatch: pytest.MonkeyPatch, prepare: Any = None) -> PreparedData:
    monkeypatch.setenv("LOCAL_RANK", str(number))
    return prepared_once(prepare or (lambda: pytest.fail("it is to be taken over")))


def plain(question: Question) -> dict[str, Any]:
    return asdict(question)


def test_others_read_what_one_has_prepared(
    launches: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert as_process(0, monkeypatch, lambda: data) is data
    assert len(list(launches.iterdir())) == 1
    for number in (1, 2):
        found = as_process(number, monkeypatch)
        assert found.fingerprint == data.fingerprint
        assert list(map(plain, found.gold)) == list(map(plain, data.gold))
        assert found.counts == data.counts
        assert data.training.dropped or data.held_out.dropped
        for theirs, ours in ((found.training, data.training), (found.held_out, data.held_out)):
            assert list(theirs.questions) == list(ours.questions)
            assert list(theirs.dropped) == list(ours.dropped)
            assert theirs.encoded.to_dict() == ours.encoded.to_dict()
            assert theirs.summary == ours.summary
            assert theirs.encoded.features == ours.encoded.features
            # A document is one object for all its questions, as in what was read.
            pages = {id(question.document) for question in theirs.questions}
            assert len(pages) == len({question.document.id for question in ours.questions})
    assert list(launches.iterdir()) == []


def test_a_side_without_rows_is_taken_over_too(
    launches: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = replace(data.held_out, questions=[], encoded=data.held_out.encoded.select([]))
    as_process(0, monkeypatch, lambda: replace(data, held_out=nothing, gold=[]))
    found = as_process(1, monkeypatch)
    assert (len(found.held_out), len(found.held_out.rows), list(found.gold)) == (0, 0, [])
    assert found.held_out.encoded.features == data.held_out.encoded.features
    assert found.fingerprint == data.fingerprint


def test_others_wait_until_it_is_prepared(
    launches: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    found: list[PreparedData] = []
    waiting = Thread(target=lambda: found.append(prepared_once(lambda: pytest.fail("not here"))))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    monkeypatch.setenv("LOCAL_RANK", "0")
    prepared_once(lambda: data)
    waiting.join(30)
    assert found[0].fingerprint == data.fingerprint


def test_what_keeps_one_from_preparing_ends_the_others_too(
    launches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> PreparedData:
        raise DataError("own.csv: no column 'answer'")

    for number, prepare in ((0, fails), (1, None), (2, None)):
        with pytest.raises(DataError, match=r"^own.csv: no column 'answer'$"):
            as_process(number, monkeypatch, prepare)


def test_a_process_alone_prepares_and_leaves_nothing(
    launches: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert prepared_once(lambda: data) is data
    assert not launches.exists()


def test_what_launchers_that_are_gone_have_left_is_removed(
    launches: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = next(number for number in range(2**22 - 1, 0, -1) if not psutil.pid_exists(number))
    (launches / f"{gone}-1.00-0").mkdir(parents=True)
    (launches / f"{gone}-2.00-0.failed").touch()
    # On a disk that machines share, another one's are not ours to judge.
    elsewhere = launches.with_name("other-machine") / f"{gone}-1.00-0"
    elsewhere.mkdir(parents=True)
    other = launches / f"{os.getpid()}-1.00-0"
    other.mkdir()
    as_process(0, monkeypatch, lambda: data)
    assert other in launches.iterdir()
    assert len(list(launches.iterdir())) == 2
    assert elsewhere.is_dir()


def test_a_cache_that_cannot_be_written_is_named(
    launches: Path, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_root().parent.mkdir(parents=True, exist_ok=True)
    cache_root().write_text("mine")
    with pytest.raises(DataError) as error:
        as_process(0, monkeypatch, lambda: data)
    assert str(error.value).startswith(f"cannot write {launches}")
    assert str(error.value).endswith(
        ": Not a directory; set FINQA_SFT_CACHE to a folder that can be written and has room"
    )


def test_processes_meet_also_where_a_shell_started_each_of_them() -> None:
    name = (
        "from finqa_sft.preparation.sharing import _launch; import os; print(_launch(os.environ))"
    )
    environment = os.environ | {"LOCAL_RANK": "0"}

    def meeting(*words: str) -> str:
        done = subprocess.run(
            [*words, sys.executable, "-c", name], env=environment, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert meeting() == meeting("bash", "-c", '"$@"; true', "shell")
    assert meeting().startswith(f"{os.getpid()}-")
