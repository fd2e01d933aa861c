"""Measure what each of two processes holds, for every way to share a run out.

    python tests/benchmarks/sharding.py --out docs/results/sharding_cpu.json

A base of 28 million random weights in float32 is loaded and trained for two steps, on CPUs, by one
process and by two that talk through gloo, with the factories `qlora`, `lora` and `full`. DeepSpeed
and FSDP are the real ones; accelerate is told that the CPU can have them (`deepspeed_cpu.py`,
`fsdp_cpu.py`). Counted are elements and bytes of tensors, which do not depend on the machine; and
measured is the most memory a process took while it loaded.

Shares on GPUs are the same, as they follow from the code that shares out; bytes are not, as weights
are bfloat16 there, and nothing here says how long a step takes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import commit, processor
from random_bases import write_base

BASE = "llama_28m"
CONFIGS = ("ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp")
FACTORIES = ("qlora", "lora", "full")
STACK = ("torch", "transformers", "accelerate", "deepspeed", "trl", "peft", "bitsandbytes")
LEG = Path(__file__).with_name("sharding_leg.py")
SECONDS = 500


def main() -> None:
    """Run every leg, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="*", default=CONFIGS, choices=CONFIGS)
    parser.add_argument("--factories", nargs="*", default=FACTORIES, choices=FACTORIES)
    parser.add_argument("--out", type=Path, help="where the JSON goes; else it is printed")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        write_base(BASE, base, tokenizer="tiny")
        for factory in arguments.factories:
            alone = leg("alone", factory, base, Path(folder) / f"alone-{factory}")[0]
            found[factory] = {"alone": alone}
            for config in arguments.configs:
                out = Path(folder) / f"{config}-{factory}"
                ranks = leg(config, factory, base, out, processes=2)
                found[factory][config] = {"ranks": ranks, "shares": shares(ranks, alone)}
                print(f"{factory} {config}", found[factory][config]["shares"], file=sys.stderr)
    text = json.dumps(
        {
            "what": __doc__.splitlines()[0],
            "base": BASE,
            "processes": 2,
            "steps": 2,
            "measured": {
                "peak_bytes": "most RssAnon of a process while the model was loaded, less before",
                "tensor_bytes_after": "bytes of the model's tensors when it was loaded",
                "elements": "of parameters when training begins, here and in all processes",
                "optimizer_elements": "of the optimizer's states in a process, after two steps",
                "bytes_at_a_step": "of tensors in a process at an optimizer step",
                "shares": "of elements: of those of all processes, each counted once; else of what "
                "one process alone holds, at the peak of what its tensors take when they are "
                "loaded; one number is the larger of both processes",
            },
            "results": found,
            "versions": {name: importlib.metadata.version(name) for name in STACK},
            "processor": processor(),
            "commit": commit(),
            "date": datetime.now(UTC).date().isoformat(),
        },
        indent=1,
    )
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def leg(
    config: str, factory: str, base: Path, out: Path, *, processes: int = 1
) -> list[dict[str, Any]]:
    """What each process of a run held.

    Raises:
        SystemExit: A process failed; its output is shown.
    """
    out.mkdir()
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        if processes > 1
        else []
    )
    done = subprocess.run(
        [sys.executable, *launcher, str(LEG), config, factory, str(base), str(out)],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            # What is freed goes back to the system at once, and is not taken for something held.
            "MALLOC_MMAP_THRESHOLD_": "65536",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode:
        raise SystemExit(f"{config} {factory} failed:\n{done.stdout}{done.stderr}")
    files = [out / f"rank-{rank}.json" for rank in range(processes)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def shares(ranks: list[dict[str, Any]], alone: dict[str, Any]) -> dict[str, Any]:
    """What a process holds as a share of the whole; the larger of the processes, where it is one.

    Elements are shares of what all processes hold together, each element counted once. All else is
    a share of what one process alone holds.
    """

    def of_elements(kind: str) -> float | None:
        whole = ranks[0][kind]["whole"]
        return round(max(rank[kind]["here"] for rank in ranks) / whole, 3) if whole else None

    def of_alone(*path: str) -> list[float]:
        return [round(_at(rank, path) / _at(alone, path), 3) for rank in ranks]

    return {
        "frozen_elements": of_elements("frozen_elements"),
        "trained_elements": of_elements("trained_elements"),
        "gradients": max(of_alone("bytes_at_a_step", "gradients")),
        "optimizer_states": max(of_alone("optimizer_elements")),
        "weights_at_a_step": max(of_alone("bytes_at_a_step", "weights")),
        "all_at_a_step": max(
            round(sum(rank["bytes_at_a_step"].values()) / sum(alone["bytes_at_a_step"].values()), 3)
            for rank in ranks
        ),
        "tensors_when_loaded": of_alone("loading", "tensor_bytes_after"),
        "peak_while_loading": [
            round(rank["loading"]["peak_bytes"] / alone["loading"]["tensor_bytes_after"], 3)
            for rank in ranks
        ],
    }


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """The rows of the page's table: what a process holds by factory and configuration.

    Args:
        results: As in the record.
    """
    rows = []
    for factory, by_config in results.items():
        for config, result in by_config.items():
            if config == "alone":
                continue
            shared = result["shares"]
            cells = [
                shared["frozen_elements"],
                shared["trained_elements"],
                shared["gradients"],
                shared["optimizer_states"],
                shared["all_at_a_step"],
                max(shared["tensors_when_loaded"]),
            ]
            numbers = " | ".join("" if cell is None else f"{cell:.2f}" for cell in cells)
            rows.append(f"| `{factory}` | `{config}` | {numbers} |")
    return rows


def summary(results: dict[str, dict[str, Any]], config: str) -> str:
    """What a process holds at a step in a configuration, for the three factories.

    Args:
        results: As in the record.
        config: The configuration.
    """
    return ", ".join(
        f"{by_config[config]['shares']['all_at_a_step']:.2f}" for by_config in results.values()
    )


def _at(node: Any, path: tuple[str, ...]) -> float:
    """The number at a path."""
    for name in path:
        node = node[name]
    return float(node)


if __name__ == "__main__":
    main()
