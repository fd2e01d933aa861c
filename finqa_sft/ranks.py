"""Which of several processes this one is, as the launcher says in the environment."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number among all; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes were launched together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


def local_rank() -> int:
    """This process's number among those of its machine; 0 without a launcher."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """How many of the processes are on this machine; 1 without a launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_local_main() -> bool:
    """Whether this process is the one of its machine that prepares what the others there read."""
    return local_rank() == 0


def machine() -> int:
    """This machine's number among those that run together; 0 without a launcher."""
    return int(os.environ.get("GROUP_RANK", "0"))


def is_launched() -> bool:
    """Whether a launcher started this process, alone or with others."""
    return "LOCAL_RANK" in os.environ
