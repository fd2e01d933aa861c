"""What several processes share in an evaluation: what each predicted, and whether all are there."""

from __future__ import annotations

from typing import TypeVar

from finqa_sft.ranks import world_size

T = TypeVar("T")


def gathered(items: list[T]) -> list[T]:
    """The items of all processes, in the order of their ranks; all processes ask at the same time.

    Args:
        items: What this process has; may be empty.
    """
    if world_size() == 1:
        return items
    from accelerate.utils import gather_object

    every: list[T] = gather_object(items)
    return every


def joined() -> None:
    """Let the processes of a launcher find each other, where no trainer has done it."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState()
