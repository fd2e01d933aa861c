"""Data prepared once a machine: one of its processes reads and encodes, the others take that over.

What is handed over lies in a folder of the cache for as long as the processes need to read it: the
rows as Arrow files, which all of them map into memory, and the questions as JSON.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel, ConfigDict

from finqa_sft.documents import Document, Question
from finqa_sft.errors import DataError, FinqaSftError
from finqa_sft.models.cache import cache_root
from finqa_sft.preparation.bars import bars_in_terminals
from finqa_sft.preparation.counts import Counts
from finqa_sft.preparation.parts import Dropped, Part, PreparedData
from finqa_sft.ranks import is_local_main, local_rank, local_world_size
from finqa_sft.writing import replace_text

if TYPE_CHECKING:
    from datasets import Dataset

SECONDS_BETWEEN_LOOKS = 0.2

_NO_DOCUMENT = Document(id="", blocks=())


def prepared_once(prepare: Callable[[], PreparedData]) -> PreparedData:
    """Prepare data in one process of this machine, and read it in the others.

    Args:
        prepare: Prepares it.

    Raises:
        FinqaSftError: What `prepare` raises, in all processes; or the cache cannot be written.
    """
    if local_world_size() == 1:
        return prepare()
    folder = _folder()
    if not is_local_main():
        return _taken_over(folder)
    with _failure_told(folder):
        _remove_leftovers(folder)
        data = prepare()
        try:
            _hand_over(data, folder)
        except OSError as error:
            raise DataError(
                f"cannot write {folder}: {error.strerror or error}; set FINQA_SFT_CACHE to a "
                "folder that can be written and has room"
            ) from error
    return data


class _SideFacts(BaseModel):
    """One side: its questions by number, in the order of the rows, and those left out."""

    kept: list[int]
    dropped: list[tuple[int, str]]


class _Facts(BaseModel):
    """Everything but the rows; a question has its document by number."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    documents: list[Document]
    questions: list[tuple[Question, int]]
    training: _SideFacts
    held_out: _SideFacts
    gold: list[int]
    counts: Counts


def _hand_over(data: PreparedData, folder: Path) -> None:
    """Write everything beside the folder, which then gets its name."""
    made = folder.with_name(folder.name + ".part")
    made.mkdir(parents=True)
    numbers = _Numbers()

    def side(part: Part) -> _SideFacts:
        return _SideFacts(
            kept=[numbers.of(question) for question in part.questions],
            dropped=[(numbers.of(one.question), one.reason) for one in part.dropped],
        )

    facts = _Facts(
        training=side(data.training),
        held_out=side(data.held_out),
        gold=[numbers.of(question) for question in data.gold],
        documents=numbers.documents,
        questions=numbers.questions,
        counts=data.counts,
    )
    replace_text(made / "facts.json", facts.model_dump_json())
    with bars_in_terminals():
        data.training.encoded.save_to_disk(str(made / "training"))
        # datasets writes a set without rows, and cannot read it.
        if len(data.held_out.encoded):
            data.held_out.encoded.save_to_disk(str(made / "held_out"))
    made.rename(folder)


class _Numbers:
    """Numbers questions and documents, each once."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.questions: list[tuple[Question, int]] = []
        self._documents: dict[int, int] = {}
        self._questions: dict[int, int] = {}

    def of(self, question: Question) -> int:
        """The number of a question; objects are told apart, not values."""
        if id(question) not in self._questions:
            document = question.document
            if id(document) not in self._documents:
                self._documents[id(document)] = len(self.documents)
                self.documents.append(document)
            self._questions[id(question)] = len(self.questions)
            alone = replace(question, document=_NO_DOCUMENT)
            self.questions.append((alone, self._documents[id(document)]))
        return self._questions[id(question)]


def _taken_over(folder: Path) -> PreparedData:
    """Wait for what another process of this machine prepares, and read it."""
    from datasets import load_from_disk

    failure = _failure(folder)
    while not folder.is_dir():
        if failure.is_file():
            raise DataError(failure.read_text(encoding="utf-8"))
        time.sleep(SECONDS_BETWEEN_LOOKS)
    facts = _Facts.model_validate_json((folder / "facts.json").read_bytes())
    questions = [
        replace(question, document=facts.documents[document])
        for question, document in facts.questions
    ]

    training = load_from_disk(str(folder / "training"))
    held_out = folder / "held_out"

    def part(side: _SideFacts, encoded: Dataset) -> Part:
        dropped = [Dropped(questions[number], reason) for number, reason in side.dropped]
        return Part(_picked(questions, side.kept), encoded, dropped)

    data = PreparedData(
        training=part(facts.training, training),
        held_out=part(
            facts.held_out,
            load_from_disk(str(held_out)) if held_out.is_dir() else training.select([]),
        ),
        counts=facts.counts,
        gold=_picked(questions, facts.gold),
    )
    (folder / f"read-{local_rank()}").touch()
    if len(list(folder.glob("read-*"))) == local_world_size() - 1:
        # Mapped files stay readable; where two are last, the other has removed it.
        shutil.rmtree(folder, ignore_errors=True)
    return data


def _picked(questions: Sequence[Question], numbers: Sequence[int]) -> list[Question]:
    return [questions[number] for number in numbers]


@contextmanager
def _failure_told(folder: Path) -> Iterator[None]:
    """Let waiting processes know that there will be nothing to take over, and why."""
    try:
        yield
    except FinqaSftError as error:
        path = _failure(folder)
        # Where nothing can be written, the launcher ends those that wait.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, str(error))
        raise


def _failure(folder: Path) -> Path:
    return folder.with_name(folder.name + ".failed")


def _folder() -> Path:
    """Where the processes that one launcher started on this machine meet.

    Machines may have their cache on a common disk.
    """
    return cache_root() / "launches" / socket.gethostname() / _launch(os.environ)


def _launch(environment: Mapping[str, str]) -> str:
    """Names this start of the launcher: its process, since when that runs, and which try it is."""
    launcher = psutil.Process(os.getppid())
    # It may have started shells that start the processes.
    while _is_launched(launcher) and (parent := launcher.parent()):
        launcher = parent
    again = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return f"{launcher.pid}-{launcher.create_time():.2f}-{again}"


def _is_launched(process: psutil.Process) -> bool:
    """Whether a process was itself started by a launcher, as its environment tells."""
    try:
        return "LOCAL_RANK" in process.environ()
    except psutil.Error:
        # Another user's: the launcher's own parent, at the nearest.
        return False


def _remove_leftovers(folder: Path) -> None:
    """Remove what launchers that no longer run have left, and this one's earlier tries."""
    if not folder.parent.is_dir():
        return
    own = folder.name.partition("-")[0]
    for path in folder.parent.iterdir():
        launcher = path.name.partition("-")[0]
        if launcher != own and launcher.isdigit() and psutil.pid_exists(int(launcher)):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
