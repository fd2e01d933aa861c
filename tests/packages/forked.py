"""Runs finqa-sft commands, each in a process forked from one that has imported what they need.

The imports of a run take longer than a short run. Usage: `python forked.py COMMANDS`, a JSON list
of objects with `arguments` and `output`, the stem of the files that take standard output and
error. Prints the exit statuses as a JSON list.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import sys

HEAVY = (
    "bitsandbytes",
    "datasets",
    "deepspeed",
    "peft.tuners.lora.bnb",
    "finqa_sft.cli.train",
    "finqa_sft.preparation.prepare",
    "finqa_sft.training.record",
    "transformers.models.llama.modeling_llama",
    "trl.trainer.sft_trainer",
)


def main() -> None:
    # Before the libraries are imported, as in a run.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for name in HEAVY:
        # DeepSpeed is imported by accelerate wherever it is installed.
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    # A child that looks at no object of its parent need not copy the memory of all of them.
    gc.freeze()
    statuses = []
    for command in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            for stream, suffix in ((1, ".out"), (2, ".err")):
                os.dup2(os.open(command["output"] + suffix, os.O_CREAT | os.O_WRONLY), stream)
            sys.argv = ["finqa-sft", *command["arguments"]]
            importlib.import_module("finqa_sft.cli.main").entry()
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(statuses))


main()
