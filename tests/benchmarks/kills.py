"""Kill runs at random moments, also while they save, and see that resuming loses nothing.

    python tests/benchmarks/kills.py --kills 50 --out docs/results/kills.json

Each kind of run is trained to its end once. Then it is started again and again: all its processes
are killed at once (SIGKILL) at a moment that is drawn between its first step and
its end, every other time while a checkpoint is being written, and the run is resumed. A run that
has come to its end counts as not lost if its losses are those of the unbroken one, bit for bit in
one process and to 1e-5 in two; it then begins anew, until enough kills were made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from machine import commit, processor

from finqa_sft.training.checkpoints import MANIFEST, checkpoints

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from processes import Way

RECIPE = """\
data: {{sources: [{{reader: filings, pages: 16, length: short, questions_per_page: 4}}]}}
formatter: {{name: program, system: Answer., max_length: 512}}
model: {{factory: {factory}, lora: {{dropout: 0.1}}}}
collator: {{name: {collator}{tokens}}}
trainer:
  max_steps: {steps}
  per_device_train_batch_size: {rows}
  learning_rate: 1e-3
  gradient_checkpointing: false
  logging_steps: 1
  save_steps: 3
  save_total_limit: 2
output: {{dir: run}}
"""

KINDS: dict[str, dict[str, Any]] = {
    "qlora, one process": {"processes": 1},
    "qlora, shared context": {"processes": 1, "collator": "shared_context"},
    "lora, DDP": {"processes": 2, "factory": "lora"},
    "lora, ZeRO-2": {"processes": 2, "factory": "lora", "way": "zero2"},
    "qlora, ZeRO-3": {"processes": 2, "way": "zero3"},
    "qlora, FSDP": {"processes": 2, "way": "fsdp"},
}
"""What is killed."""

STEPS = 30
EXACT, CLOSE = 0.0, 1e-5
A_STEP_SECONDS = 0.2
"""About as long as a step takes."""
LONGEST = 600.0
"""Seconds after which a start counts as a hang."""


@dataclass
class Series:
    """What a kind of run went through.

    Attributes:
        name: Of the kind.
        kills: For each: the step that was last logged, whether a checkpoint was being written, and
            the checkpoint that was resumed.
        ends: Largest relative difference of losses to the unbroken run, a run that ended.
        lost: What was lost, in words; empty where nothing was.
    """

    name: str
    kills: list[dict[str, Any]] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def main(words: Sequence[str] | None = None) -> None:
    """Kill, resume, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="in all, shared among the kinds")
    parser.add_argument("--only", help="a kind, or several with semicolons between")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("--out", type=Path, help="where the JSON goes; else it is printed")
    arguments = parser.parse_args(words)
    names = arguments.only.split(";") if arguments.only else list(KINDS)
    draws = random.Random(arguments.seed)
    each = -(-arguments.kills // len(names))
    began = time.monotonic()
    done: list[dict[str, Any]] = []
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            series = tormented(name, Path(scratch), kills=each, draws=draws)
        done.append(recorded(series))
        result = {
            "what": "runs killed with SIGKILL at random moments and resumed to their end",
            "kills": sum(len(one["kills"]) for one in done),
            "while_a_checkpoint_was_written": sum(one["while_saving"] for one in done),
            "lost": sum(len(one["lost"]) for one in done),
            "kinds": done,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "processor": processor(),
            "commit": commit(),
        }
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not arguments.out:
        print(json.dumps(result, indent=1))


def recorded(series: Series) -> dict[str, Any]:
    """A series as plain values."""
    behind = [kill["step"] - kill["resumed_from"] for kill in series.kills]
    return {
        "kind": series.name,
        "processes": KINDS[series.name]["processes"],
        "kills": series.kills,
        "while_saving": sum(kill["saving"] for kill in series.kills),
        "steps_done_again": {"median": statistics.median(behind), "most": max(behind)},
        "runs_to_their_end": len(series.ends),
        "largest_loss_difference": max(series.ends, default=None),
        "tolerance": EXACT if KINDS[series.name]["processes"] == 1 else CLOSE,
        "lost": series.lost,
    }


def tormented(name: str, folder: Path, *, kills: int, draws: random.Random) -> Series:
    """One kind of run, killed so often."""
    kind = KINDS[name]
    write(kind, folder)
    os.environ["FINQA_SFT_CACHE"] = str(folder / "cache")
    run = folder / "run"
    unbroken = start(kind, folder)
    saving = seconds_of_saving(unbroken, run)
    finish(unbroken, name)
    expected = losses(run)
    print(f"{name}: {len(expected)} steps, {saving:.3f} s a save", file=sys.stderr, flush=True)
    shutil.rmtree(run)
    series = Series(name)
    while len(series.kills) < kills or run.exists():
        process = start(kind, folder, resume=run.exists())
        left = len(series.kills) < kills and logged(run) < STEPS
        if left and killed(process, run, series, draws, saving=saving):
            continue
        if not finish(process, name, series=series):
            break
        found = losses(run)
        pairs = zip(found, expected, strict=False)
        difference = max((abs(a - b) / abs(b) for a, b in pairs), default=float("inf"))
        series.ends.append(difference)
        tolerance = EXACT if kind["processes"] == 1 else CLOSE
        if len(found) != len(expected) or difference > tolerance:
            series.lost.append(
                f"{len(found)} losses of {len(expected)}, differing by up to {difference:.3g}"
            )
        shutil.rmtree(run)
    return series


def seconds_of_saving(process: subprocess.Popen[str], run: Path) -> float:
    """How long a checkpoint takes, from its folder to its manifest: the median of a run's."""
    begun: dict[str, float] = {}
    took: dict[str, float] = {}
    for _ in moments(process):
        for path in checkpoints(run):
            now = time.monotonic()
            begun.setdefault(path.name, now)
            if (path / MANIFEST).is_file():
                took.setdefault(path.name, now - begun[path.name])
    return statistics.median(took.values())


def write(kind: dict[str, Any], folder: Path) -> None:
    """The recipe of a kind."""
    shared = kind.get("collator") == "shared_context"
    text = RECIPE.format(
        factory=kind.get("factory", "qlora"),
        collator=kind.get("collator", "padded"),
        tokens=", tokens_per_batch: 1024" if shared else "",
        rows=1 if shared else 2,
        steps=STEPS,
    )
    (folder / "small.yaml").write_text(text, encoding="utf-8")


def start(kind: dict[str, Any], folder: Path, *, resume: bool = False) -> subprocess.Popen[str]:
    """Start or resume a run, in a process group of its own."""
    way = Way.of(kind.get("way", "ddp"), folder)
    words = ["train", "small.yaml", *way.words]
    words += ["trainer.resume_from_checkpoint=true"] if resume else []
    launcher: list[str] = []
    if kind["processes"] > 1:
        count = f"--nproc_per_node={kind['processes']}"
        launcher = ["-m", "torch.distributed.run", "--standalone", count]
    return subprocess.Popen(
        [sys.executable, *launcher, *way.program, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            **way.environment,
        },
    )


def finish(process: subprocess.Popen[str], name: str, *, series: Series | None = None) -> bool:
    """Wait for a good end; another one is noted, or ends everything where nothing is noted."""
    try:
        out, _ = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        out = kill_all(process) + "\nit hangs"
    if process.returncode == 0:
        return True
    if series is None:
        sys.exit(f"{name} does not train:\n{out[-3000:]}")
    series.lost.append(f"it cannot be resumed: {out[-1500:]}")
    return False


def killed(
    process: subprocess.Popen[str],
    run: Path,
    series: Series,
    draws: random.Random,
    *,
    saving: float,
) -> bool:
    """Kill a run at a moment that is drawn; False where it came to its end before.

    Args:
        process: The run's launcher.
        run: Its folder.
        series: Is told of the kill.
        draws: Draws the moment.
        saving: Seconds that a checkpoint takes.
    """
    while_saving = len(series.kills) % 2 == 1
    skipped = draws.randrange(3)
    before = {path.name for path in checkpoints(run)}
    log = run / "metrics.jsonl"
    written = log.stat().st_mtime_ns if log.is_file() else 0
    for _ in moments(process):
        # Training has begun, and a step was made.
        if log.is_file() and log.stat().st_mtime_ns > written and logged(run) > 0:
            break
    if while_saving:
        # The next checkpoint, or one of those after it, as soon as there is something of it.
        seen: set[str] = set()
        for _ in moments(process):
            seen |= {path.name for path in checkpoints(run)} - before
            if len(seen) > skipped:
                time.sleep(draws.uniform(0, saving))
                break
    else:
        target = draws.randrange(logged(run), STEPS)
        for _ in moments(process):
            if logged(run) >= target:
                time.sleep(draws.uniform(0, A_STEP_SECONDS))
                break
    if process.poll() is not None:
        return False
    kill_all(process)
    step = logged(run)
    found = [path for path in checkpoints(run) if (path / MANIFEST).is_file()]
    unfinished = [path for path in checkpoints(run) if not (path / MANIFEST).is_file()]
    if not found:
        # Nothing was saved yet, so the run begins anew.
        shutil.rmtree(run)
    series.kills.append(
        {
            "step": step,
            "saving": bool(unfinished),
            "resumed_from": int(found[0].name.partition("-")[2]) if found else 0,
        }
    )
    last = series.kills[-1]
    print(f"{series.name}: {len(series.kills)} {last}", file=sys.stderr, flush=True)
    return True


def kill_all(process: subprocess.Popen[str]) -> str:
    """Kill a launcher and all processes below it at once, and give what they have printed.

    torchrun starts each in a session of its own, which the launcher's death alone would not end.
    """
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in every:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    return process.communicate()[0]


def moments(process: subprocess.Popen[str]) -> Iterator[None]:
    """Again and again, while a process runs."""
    while process.poll() is None:
        yield
        time.sleep(0.002)


def entries(run: Path) -> list[dict[str, Any]]:
    """What a run has logged, as far as the lines are whole."""
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def losses(run: Path) -> list[float]:
    """The loss of every step."""
    return [entry["loss"] for entry in entries(run) if "loss" in entry]


def logged(run: Path) -> int:
    """The last step that a run has logged."""
    return max((entry["step"] for entry in entries(run)), default=0)


if __name__ == "__main__":
    main()
