"""A file of predictions that grows while they are made, and goes on where it was interrupted."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from finqa_sft.documents import Question
from finqa_sft.errors import OutputError
from finqa_sft.evaluation.folder import unreadable
from finqa_sft.evaluation.predictions import Predicted, prediction_line, prediction_of_line
from finqa_sft.formatters.linearize import document_text
from finqa_sft.models.bases import weights_digest
from finqa_sft.ranks import is_main, rank
from finqa_sft.writing import replace_text

_SHOWN = 3
"""So many differences between two sets of predictions are named."""


class PredictionStore:
    """Predictions on disk: parts while they are made, one file once all are there.

    Beside the file `OUT` stands `OUT.about.json`, which says what made it; while it is being made,
    each process appends to `OUT.part0`, `OUT.part1` and so on. Predictions of something else that
    it takes the place of are `OUT.replaced` until then.

    Attributes:
        path: The file.
        about_path: What made it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Name the files; nothing is read or written.

        Args:
            path: The file.
            about: What the predictions depend on, as plain values, by dotted key.
        """
        self.path = path
        self.about_path = path.with_name(f"{path.name}.about.json")
        self._replaced = path.with_name(f"{path.name}.replaced")
        self._about = json.loads(json.dumps(dict(about), default=str))

    @contextmanager
    def open(self, *, overwrite: bool = False) -> Iterator[dict[str, Predicted]]:
        """Keep other commands out, and give what was predicted before, by id.

        Of several processes the first does so; to the others nothing is given.

        Args:
            overwrite: Whether predictions of something else may be replaced. A file that was not
                written here never is: it may be the questions.

        Raises:
            OutputError: The file is being written by another command, is not one of predictions,
                is of something else, or cannot be written.
        """
        if not is_main():
            # The first process tells the others: what they read could be half written by it.
            yield {}
            return
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"another command is writing {self.path}; wait for it, or name another file"
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            try:
                done = self._done(overwrite=overwrite)
                replace_text(self.about_path, json.dumps(self._about, indent=2) + "\n")
            except OSError as error:
                raise self._unwritable(error) from error
            yield done
        finally:
            if os.name == "posix":
                # Elsewhere an open file cannot be removed.
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def adding(self) -> Iterator[FileIO]:
        """This process's part, to append lines to."""
        part = self.path.with_name(f"{self.path.name}.part{rank()}")
        torn = part.is_file() and not part.read_bytes().endswith(b"\n")
        # Without a buffer, of which closing the file would write what is left once more.
        with part.open("ab", buffering=0) as file:
            if torn:
                self._append(file, b"\n")
            yield file

    def add(self, file: FileIO, predicted: Predicted) -> None:
        """Append a prediction, and see that it reaches the disk's cache.

        Raises:
            OutputError: There is no room for it.
        """
        self._append(file, f"{prediction_line(predicted)}\n".encode())

    def _append(self, file: FileIO, line: bytes) -> None:
        try:
            while line:
                # As much as there is room for, which may not be all.
                line = line[file.write(line) :]
        except OSError as error:
            raise self._no_room(error) from error

    def finish(self, predictions: Sequence[Predicted]) -> None:
        """Write the whole file and remove the parts; one process does it.

        Raises:
            OutputError: It cannot be written; the parts are kept.
        """
        try:
            write_predictions(self.path, predictions)
        except OSError as error:
            raise self._no_room(error) from error
        for part in self._parts():
            part.unlink()
        self._replaced.unlink(missing_ok=True)

    def _no_room(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.path}: {error.strerror}; make room, and the same command goes on "
            "from what is answered"
        )

    def _unwritable(self, error: OSError) -> OutputError:
        at = "" if error.filename in (None, str(self.path)) else f"{error.filename}: "
        return OutputError(
            f"cannot write {self.path}: {at}{error.strerror}; name a file in a folder that can be "
            "written"
        )

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.part*"))

    def _done(self, *, overwrite: bool) -> dict[str, Predicted]:
        """What was predicted before by the same; what something else predicted makes room."""
        if self.path.is_dir():
            raise OutputError(f"{self.path} is a folder; name a file")
        if self.path.exists() and not self.path.is_file():
            raise OutputError(f"{self.path} is a pipe or device; name a file")
        if self.path.exists() and not self.about_path.exists():
            raise OutputError(
                f"{self.path} may be anything: it has no {self.about_path.name} beside it, which "
                "all predictions are written with; name another place with --out, or remove it"
            )
        written = [path for path in (self.path, *self._parts()) if path.exists()]
        if not written:
            return {}
        changed = self._changed()
        if changed and not overwrite:
            raise OutputError(
                f"{self.path} holds predictions of something else ({changed}); name another place "
                "with --out, or replace it with --overwrite"
            )
        if changed:
            for part in self._parts():
                part.unlink()
            if self.path.exists():
                # Until there are others, which a model that cannot be loaded will not give.
                self.path.replace(self._replaced)
            return {}
        return {one.id: one for path in written for one in _whole_lines(path)}

    def _changed(self) -> str:
        """What differs from what made the file that is there; empty if nothing does."""
        try:
            before = json.loads(self.about_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return f"{self.about_path.name} is missing, so nothing says of what"
        except ValueError as error:
            return f"{self.about_path.name} cannot be read: {error}"
        if not isinstance(before, dict):
            return f"{self.about_path.name} is no JSON object"
        keys = [k for k in {**before, **self._about} if before.get(k) != self._about.get(k)]
        shown = [_difference(k, before.get(k), self._about.get(k)) for k in keys[:_SHOWN]]
        more = [f"and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []
        return ", ".join([*shown, *more])


def _difference(key: str, was: object, now: object) -> str:
    """How one of the things that predictions depend on has changed; hashes are not shown."""
    match key:
        case "questions":
            return "the questions, their pages or their order are others"
        case "weights" if was and now:
            return "the trained model is another one"
        case "weights":
            names = ("a trained model", "the base alone")
            return f"they were of {names[not was]} and are of {names[not now]}"
    return f"{key} was {was} and is {now}"


def write_predictions(path: Path, predictions: Iterable[Predicted]) -> None:
    """Write a file of predictions in one step, so that it is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, "".join(prediction_line(predicted) + "\n" for predicted in predictions))


def _whole_lines(path: Path) -> Iterator[Predicted]:
    """The predictions of a file; a line that was not written to its end is passed over."""
    for line in path.read_bytes().split(b"\n"):
        try:
            yield prediction_of_line(line.decode())
        except ValueError:
            continue


def digest_of_questions(questions: Sequence[Question]) -> str:
    """A hash of questions, earlier turns and documents; answers to be given do not count."""
    hashed = hashlib.sha256()
    for question in questions:
        turns = [astuple(turn) for turn in question.history]
        text = [question.id, question.text, turns, document_text(question.document)]
        hashed.update(json.dumps(text).encode())
    return hashed.hexdigest()[:16]


def digest_of_weights(folder: Path | None) -> str:
    """A hash of the weights in a folder, of large ones in blocks; empty for None.

    Raises:
        OutputError: They cannot be read.
    """
    if folder is None:
        return ""
    try:
        return weights_digest(folder)
    except OSError as error:
        raise unreadable(error) from error
