"""What the package offers to finqa_sft: the module that its entry point names.

It is imported by every finqa-sft command, so that nothing heavy is imported here.
"""

from __future__ import annotations

from pathlib import Path

from finqa_sft import hookimpl
from finqa_sft.options import NoOptions
from finqa_sft.plugins import CallbackRecord, FormatterRecord, ReaderRecord
from ledger_notes.boxed import BoxedFormatter, BoxedOptions
from ledger_notes.notes import NotesOptions, NotesReader


@hookimpl
def finqa_sft_readers() -> list[ReaderRecord]:
    """Text files of notes."""
    return [
        ReaderRecord(
            name="notes",
            summary="text files of notes, each followed by questions and answers",
            config=NotesOptions,
            build=NotesReader,
        )
    ]


@hookimpl
def finqa_sft_formatters() -> list[FormatterRecord]:
    """Answers in a box."""
    return [
        FormatterRecord(
            name="boxed",
            summary=r"the answer as \boxed{...}",
            config=BoxedOptions,
            build=BoxedFormatter,
        )
    ]


def _loss_table(options: NoOptions, output_dir: Path):
    from ledger_notes.loss_table import LossTable

    return LossTable(output_dir / "losses.csv")


@hookimpl
def finqa_sft_callbacks() -> list[CallbackRecord]:
    """Losses as a table."""
    return [
        CallbackRecord(
            name="loss_table",
            summary="writes step and loss to losses.csv",
            build=_loss_table,
        )
    ]
