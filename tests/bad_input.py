"""What the tests of bad input share: a run as an engineer starts it, and what it leaves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from finqa_sft.cli.main import main

OWN = """\
model:
  base: tiny
data:
  sources:
    - reader: columns
      files: own.csv
formatter:
  name: answer
  max_length: 512
trainer:
  max_steps: 1
output:
  dir: run
"""
"""A recipe for a file of one's own; it trains where that file is good."""

ROWS = "question,context,answer\nWhat were sales?,Sales were 5.,5\nAnd costs?,Costs were 3.,3\n"
"""Such a file."""


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


class Shell:
    """Runs commands in a folder of their own, in this process: an exception fails the test."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def __call__(self, *words: str) -> Said:
        self._capsys.readouterr()
        status = main(words)
        captured = self._capsys.readouterr()
        return Said(status, captured.out, captured.err)

    def refused(self, *words: str) -> str:
        """What a command says that must end with status 2 and leave every file as it was."""
        before = snapshot(self.folder)
        said = self(*words)
        assert said.status == 2, said
        assert snapshot(self.folder) == before
        assert said.err.endswith("\n")
        return said.err[:-1]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A folder with the recipe `r.yaml` and the rows `own.csv`, which together train."""
    monkeypatch.chdir(tmp_path)
    # A library's log handler may still hold the captured stream of an earlier test.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    shell = Shell(tmp_path, capsys)
    shell.write("r.yaml", OWN)
    shell.write("own.csv", ROWS)
    return shell


def edited(old: str, new: str, text: str = OWN) -> str:
    """A text with one part replaced, which must be there."""
    assert text.count(old) == 1, (old, text)
    return text.replace(old, new)
