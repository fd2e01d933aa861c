"""Starts finqa_sft under DeepSpeed on a machine without an accelerator, for tests alone.

accelerate has no backend for that (1.15, `PartialState._prepare_backend`): it would train in one
process without DeepSpeed. Here it is told that processes talk through gloo.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from finqa_sft.cli.main import main


def gloo(state: PartialState, *_: Any, **__: Any) -> tuple[str, DistributedType]:
    """The backend of processes on CPUs."""
    return "gloo", DistributedType.MULTI_CPU


if __name__ == "__main__":
    PartialState._prepare_backend = gloo
    sys.exit(main(sys.argv[1:]))
