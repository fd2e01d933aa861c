"""An error before the training ends the run on all machines, with its message."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from finqa_sft.evaluation.processes import gathered, joined
from finqa_sft.ranks import is_local_main, local_world_size, rank, world_size
from finqa_sft.wording import one_line

TELLING = timedelta(minutes=10)
"""How long a process that has failed waits for other machines, to tell them."""

FAILED = "failed"
"""What a process that has failed has in place of what it resolved."""


@contextmanager
def told_to_other_machines() -> Iterator[None]:
    """Let an error before the training end the run on all machines, with its message.

    A launcher ends the processes of its own machine; those of the others would wait until they are
    tired of it. All meet in `finqa_sft.training.agreement.require_agreement`, which this must not
    contain.
    """
    try:
        yield
    except Exception as error:
        if world_size() > local_world_size():
            _tell(error)
        raise


def _tell(error: Exception) -> None:
    """Take part in the meeting with an error in place of what was resolved."""
    import torch

    if is_local_main():
        text = f"{error}\nprocess {rank()}: telling the other machines, for up to {TELLING}\n"
        sys.stderr.write(text)
    try:
        if not torch.distributed.is_initialized():
            joined(timeout=TELLING)
        gathered([(rank(), socket.gethostname(), {FAILED: one_line(error)})])
    except (RuntimeError, ValueError) as unheard:
        # The error at hand says more.
        error.add_note(f"the other machines could not be told: {one_line(unheard)}")
