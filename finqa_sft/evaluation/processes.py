"""What several processes share: what each has to say, and whether all are there."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from finqa_sft.ranks import world_size

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)
"""How long a process that has answered its share waits for the others. Where one of them fails, the
launcher ends all."""


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


def waited() -> None:
    """Wait until all processes have come this far."""
    if world_size() > 1:
        import torch

        torch.distributed.barrier()


def joined(*, timeout: timedelta = LONGEST_WAIT) -> None:
    """Let the processes of a launcher find each other, where no trainer has done it.

    Args:
        timeout: How long they wait for each other, now and later.
    """
    if world_size() > 1:
        import torch
        from accelerate import PartialState

        # Left to itself, it takes processes without a GPU for strangers.
        PartialState(cpu=not torch.cuda.is_available(), timeout=timeout)
