"""Time the official scores on real gold labels, one core.

    python tests/benchmarks/metrics_speed.py --data shared/data --out metrics_speed.json

The predictions are gold labels, with two changed ones beside each: a wrong number, and an operator
or a scale exchanged. So programs are executed and compared up to algebra, and answers are read,
where they are right and where they are not. Seconds are the processor's, which other programs on
the machine disturb less; files are read before. The JSON holds every time and what the gold labels
score.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from machine import commit, processor

from finqa_sft.metrics import score_convfinqa, score_finqa, score_tatqa

Scored = Callable[[], Sequence[Any]]


def main() -> None:
    """Read, time in turn, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with the data sets")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, help="where the JSON goes; else it is printed")
    arguments = parser.parse_args()

    sides = {
        "tatqa, dev": tatqa(arguments.data / "tatqa" / "dev.json"),
        "finqa, 200 of dev": finqa(arguments.data / "finqa" / "dev_200.json"),
        "convfinqa, turns of dev": convfinqa(arguments.data / "convfinqa" / "gold_turns.json"),
    }
    times: dict[str, list[float]] = {f"{n}: {kind}": [] for n, s in sides.items() for kind in s}
    for _ in range(arguments.repetitions):
        for name, side in sides.items():
            for kind, scored in side.items():
                gc.collect()
                began = time.process_time()
                scored()
                times[f"{name}: {kind}"].append(time.process_time() - began)
    result = {
        "what": "score_tatqa, score_finqa and score_convfinqa, program accuracy included",
        "gold_scores": {name: percent(side["gold"]()) for name, side in sides.items()},
        "processor_seconds": {name: spread(taken) for name, taken in times.items()},
        "python": platform.python_version(),
        "hardware": {
            "processor": processor(),
            "cores_used": 1,
            "load_in_the_last_minute": os.getloadavg()[0],
        },
        "commit": commit(),
    }
    text = json.dumps(result, indent=1)
    if arguments.out is None:
        print(text)
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")


def tatqa(file: Path) -> dict[str, Scored]:
    """Gold answers, and answers with another last digit or without their scale."""
    pages = json.loads(file.read_text("utf-8"))
    rows = [row for page in pages for row in page["questions"]]

    def scored(change: Callable[[Any], Any], *, scaled: bool = True) -> list[Any]:
        return [
            score_tatqa(
                change(row["answer"]),
                row["scale"] if scaled else "",
                gold_answer=row["answer"],
                gold_scale=row["scale"],
                answer_type=row["answer_type"],
            )
            for row in rows
        ]

    return {
        "gold": lambda: scored(lambda answer: answer),
        "another digit": lambda: scored(
            lambda answer: (
                [f"{span}1" for span in answer] if isinstance(answer, list) else f"{answer}1"
            )
        ),
        "no scale": lambda: scored(lambda answer: answer, scaled=False),
    }


def finqa(file: Path) -> dict[str, Scored]:
    """Gold programs, and programs with another literal or operator."""
    rows = json.loads(file.read_text("utf-8"))
    golds = [(row["qa"]["program"], row["qa"]["exe_ans"], row["table"]) for row in rows]
    return programs(score_finqa, golds)


def convfinqa(file: Path) -> dict[str, Scored]:
    """The same of turns, of which some are lone numbers."""
    turns = json.loads(file.read_text("utf-8"))
    golds = [
        (turn["gold_program"], turn["gold_answer"], turns["tables"][turn["id"]])
        for turn in turns["gold"]
    ]
    return programs(score_convfinqa, golds)


def programs(
    scorer: Callable[..., Any], golds: Sequence[tuple[str, Any, Any]]
) -> dict[str, Scored]:
    """Gold programs, and changed ones."""

    def scored(change: Callable[[str], str]) -> list[Any]:
        return [
            scorer(change(program), program=program, executed=executed, table=table)
            for program, executed, table in golds
        ]

    return {
        "gold": lambda: scored(lambda program: program),
        "another digit": lambda: scored(lambda program: program.replace(", ", "1, ", 1)),
        "another operator": lambda: scored(lambda program: program.replace("subtract", "add")),
    }


def percent(scores: Sequence[Any]) -> dict[str, Any]:
    """The means of all figures in percent."""
    figures = ("execution", "program", "em", "f1", "scale", "em_with_zero", "f1_with_zero")
    return {"n": len(scores)} | {
        figure: round(100 * statistics.fmean(getattr(score, figure) for score in scores), 2)
        for figure in figures
        if figure in type(scores[0]).__slots__
    }


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """The lowest, the middle and the highest, and all."""
    return {
        "median": round(statistics.median(seconds), 4),
        "lowest": round(min(seconds), 4),
        "highest": round(max(seconds), 4),
        "all": [round(taken, 4) for taken in seconds],
    }


if __name__ == "__main__":
    main()
