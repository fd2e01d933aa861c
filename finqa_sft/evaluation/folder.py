"""Where an evaluation leaves what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finqa_sft.errors import OutputError


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """What an evaluation leaves behind.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def predictions(self) -> Path:
        """One JSON object a question: what was answered."""
        return self.path / "predictions.jsonl"

    @property
    def before(self) -> Path:
        """The same before the first step of training, of some of the questions."""
        return self.path / "before.jsonl"

    @property
    def scores(self) -> Path:
        """Means with intervals and breakdowns, as JSON."""
        return self.path / "scores.json"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.path / "report.html"


def unreadable(error: OSError) -> OutputError:
    """The error of a file that a run has left and that cannot be read."""
    return OutputError(f"{error.filename}: cannot be read ({error.strerror}); check its rights")


def predictions_in(place: Path) -> Path:
    """The file of predictions that a run, an evaluation or the file itself stands for.

    Raises:
        OutputError: There is none, or it cannot be looked at.
    """
    try:
        if place.is_file():
            return place
        for folder in (place, place / "evaluation"):
            file = EvaluationFolder(folder).predictions
            if file.is_file():
                return file
    except OSError as error:
        raise unreadable(error) from error
    raise OutputError(
        f"{place} holds no predictions.jsonl; name the folder of a run that was evaluated, or a "
        "file of predictions"
    )
