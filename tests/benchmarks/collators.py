"""Time the collators against each other and against stock TRL, on the same questions.

    python tests/benchmarks/collators.py RECIPE [key.path=value ...] --documents 40 --out mine.json
    python tests/benchmarks/collators.py --data tatqa_dev --model llama_28m --documents 8 \
        --only stock_padded,shared_context --out docs/results/collators_tatqa_cpu.json

Each leg is a process of its own that trains one pass over the same questions with `SFTTrainer`,
after some warm-up steps; nothing is cut. Legs take turns, and ratios are taken within a turn. The
legs `padded`, `flattened` and `shared_context` are this project's collators; `stock_padded` and
`stock_bfd` are TRL's own batches and packing, given the same encoded rows. A batch of each holds
about as many tokens (padding included), and an optimizer step about as many questions, as one of
`shared_context`; the JSON says how many. All but `shared_context` use the best attention of stock
transformers on the device. Before, each leg computes the loss and the gradients of the same
questions as one step, which must agree.

The time of a pass holds everything from its first batch to its last update, by the clock. On the
CPU the JSON has the processor's seconds too, which other programs on the machine disturb less as
long as there is one thread (`--threads 1`): several wait for each other and count that as work. The
building of batches is what the trainer waits for: rows are read, collated and copied to the device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before the libraries read them.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

from collators_plan import LEGS, written_plan
from collators_result import summarised
from machine import commit, processor
from random_bases import FACTORIES, write_base

ROOT = Path(__file__).resolve().parents[2]

DATA = {
    "tatqa_dev": ("tatqa", "tatqa/dev.json", "answer"),
    "finqa_dev": ("finqa", "finqa/dev_200.json", "program"),
}
"""Reader, file and formatter, by what `--data` names."""

RECIPE = """\
model: {{factory: {factory}, base: '{base}', lora: {{r: 16, alpha: 32}}}}
data: {{sources: [{{reader: {reader}, files: '{file}'}}]}}
formatter: {{name: {formatter}, max_length: 32768}}
collator: {{name: shared_context, tokens_per_batch: {tokens}}}
trainer: {{learning_rate: 1e-4}}
"""

Runner = Callable[[Path, str, str], dict[str, Any]]
"""Runs a leg: a plan, its name and what is to be done."""


def main(words: Sequence[str] | None = None, *, run: Runner | None = None) -> None:
    """Plan, run the legs in turn, write.

    Args:
        words: The command line, by default this process's.
        run: Runs a leg, by default in a process of its own.
    """
    from finqa_sft.errors import FinqaSftError

    arguments = parsed(words)
    run = run or in_a_process
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            recipe, overrides, data = recipe_of(arguments, folder)
            plan_file = written_plan(recipe, overrides, arguments, folder)
        except FinqaSftError as error:
            sys.exit(str(error))
        plan = json.loads(plan_file.read_text(encoding="utf-8"))
        legs = list(plan["legs"])
        checks = {name: run(plan_file, name, "check") for name in legs}
        profile = run(plan_file, "shared_context", "profile") if arguments.profile else None
        rounds: list[dict[str, Any]] = []
        for number in range(arguments.pairs):
            turn: dict[str, Any] = {}
            for name in legs:
                found = turn[name] = run(plan_file, name, "time")
                said = f"{found['seen']['questions'] / found['seconds']:.3f} questions/s"
                print(f"{number + 1}/{arguments.pairs} {name}: {said}", file=sys.stderr, flush=True)
            rounds.append(turn)
            # After each turn, so that what is ended early is not lost.
            result = {
                "what": "one pass over the same questions with each collator and with stock TRL",
                **({"model": arguments.model, "data": data} if data else {}),
                **({} if data else {"recipe": Path(recipe).name}),
                "overrides": overrides,
                **summarised(plan, checks, rounds, folder=folder, peak=arguments.peak_tflops),
                **({"profile": profile} if profile else {}),
                "versions": versions(),
                "hardware": hardware(turn[legs[0]]),
                "commit": commit(),
            }
            if arguments.out:
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not arguments.out:
        print(json.dumps(result, indent=1))


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", help="a recipe's file or the name of a shipped one")
    parser.add_argument("overrides", nargs="*", help="key.path=value, as for a run")
    parser.add_argument("--data", choices=DATA, help="without a recipe: questions beside the code")
    parser.add_argument("--model", choices=FACTORIES, default="llama_28m", help="with --data")
    parser.add_argument("--tokenizer", default="tiny", help="of --model: a GGUF file or a folder")
    parser.add_argument("--gradient-checkpointing", choices=("on", "off"))
    parser.add_argument("--tokens-per-batch", type=int, help="of shared_context, which others meet")
    parser.add_argument("--only", default=",".join(LEGS), help="legs, with commas between")
    parser.add_argument("--pairs", type=int, default=7, help="turns of all legs")
    parser.add_argument("--documents", type=int, help="taken at even distances, whole")
    parser.add_argument("--questions", type=int, help="documents for about so many questions")
    parser.add_argument("--steps", type=int, help="documents for about so many optimizer steps")
    parser.add_argument("--warm-up", type=int, default=2, help="optimizer steps before each pass")
    parser.add_argument("--threads", type=int, help="of torch; by default as many as it takes")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, dense bfloat16, for the MFU")
    parser.add_argument("--profile", action="store_true", help="look into a step too")
    parser.add_argument("--out", type=Path, help="where the JSON goes; else it is printed")
    arguments = parser.parse_intermixed_args(words)
    arguments.only = arguments.only.split(",")
    if unknown := sorted(set(arguments.only) - set(LEGS)):
        parser.error(f"no leg {', '.join(unknown)}; there are {', '.join(LEGS)}")
    if (arguments.recipe is None) == (arguments.data is None):
        parser.error("give a recipe, or --data")
    if sum(map(bool, (arguments.documents, arguments.questions, arguments.steps))) > 1:
        parser.error("give one of --documents, --questions and --steps")
    if arguments.pairs < 1:
        parser.error("give one pair or more")
    if arguments.profile and "shared_context" not in arguments.only:
        parser.error("--profile looks at shared_context, which --only leaves out")
    return arguments


def recipe_of(
    arguments: argparse.Namespace, folder: Path
) -> tuple[str, list[str], dict[str, str] | None]:
    """The recipe, its overrides, and what data it reads where the recipe is this script's own."""
    overrides = list(arguments.overrides)
    if arguments.gradient_checkpointing:
        said = str(arguments.gradient_checkpointing == "on").lower()
        overrides.append(f"trainer.gradient_checkpointing={said}")
    if arguments.recipe:
        return arguments.recipe, overrides, None
    reader, file, formatter = DATA[arguments.data]
    path = ROOT.parent / "shared" / "data" / file
    if not path.is_file():
        print(f"nothing is measured: --data {arguments.data} needs {file} in ../shared/data")
        sys.exit(0)
    base = folder / "base"
    write_base(arguments.model, base, tokenizer=arguments.tokenizer)
    recipe = folder / "recipe.yaml"
    text = RECIPE.format(
        factory=FACTORIES[arguments.model],
        base=base,
        reader=reader,
        file=path,
        formatter=formatter,
        tokens=arguments.tokens_per_batch or 4096,
    )
    recipe.write_text(text, encoding="utf-8")
    data = {"name": arguments.data, "file": file, "tokenizer": Path(arguments.tokenizer).name}
    return str(recipe), overrides, data


def in_a_process(plan_file: Path, name: str, mode: str) -> dict[str, Any]:
    """Run a leg in a process of its own."""
    out = plan_file.with_name("leg.json")
    script = Path(__file__).with_name("collators_leg.py")
    command = [sys.executable, str(script), str(plan_file), name, mode, str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the leg {name} failed:\n{done.stdout[-2000:]}{done.stderr[-6000:]}")
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def hardware(found: dict[str, Any]) -> dict[str, Any]:
    """What a leg ran on."""
    return {
        "device": found["model"]["device"],
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": found["threads"],
        "load_in_the_last_minute": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Of what does the work."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl", "peft", "accelerate")}


if __name__ == "__main__":
    main()
