"""One leg of `collators.py`: a plan and the name of a leg in, a JSON of what was measured out.

    python collators_leg.py PLAN.json shared_context time OUT.json

`time` trains one pass over the plan's rows with the trainer of TRL, after some warm-up steps;
`check` computes the loss and the gradients of one optimizer step; `profile` looks at one step.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from measuring import Memory, gradients, products, profiled, synchronise

STOCK = ("stock_padded", "stock_bfd")
"""Legs of TRL by itself; the others are named as their collators."""

RUN: dict[str, Any] = {
    "num_train_epochs": 2,
    "max_steps": -1,
    "eval_strategy": "no",
    "save_strategy": "no",
    "logging_strategy": "no",
    "load_best_model_at_end": False,
    "metric_for_best_model": None,
    "greater_is_better": None,
    "report_to": "none",
    "disable_tqdm": True,
}
"""Fields of every leg: nothing but training. The first epoch is the warm-up."""


@dataclass
class Seen:
    """What the batches of a pass held.

    Attributes:
        batches: How many there were.
        questions: Questions in them.
        tokens: Tokens in them, without padding.
        computed: With padding.
        supervised: Supervised tokens.
        largest: Tokens of the largest, with padding.
    """

    batches: int = 0
    questions: int = 0
    tokens: int = 0
    computed: int = 0
    supervised: int = 0
    largest: int = 0

    def add(self, batch: Any, questions: int) -> None:
        """Count a batch."""
        size = batch["input_ids"].numel()
        self.batches += 1
        self.questions += questions
        self.computed += size
        self.tokens += int(batch["attention_mask"].sum()) if "attention_mask" in batch else size
        self.supervised += int((batch["labels"][:, 1:] != -100).sum())
        self.largest = max(self.largest, size)


def main() -> None:
    """Run one leg and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("leg")
    parser.add_argument("mode", choices=("time", "check", "profile"))
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    found = run(arguments.plan, arguments.leg, arguments.mode)
    arguments.out.write_text(json.dumps(found), encoding="utf-8")


def run(plan_file: Path, name: str, mode: str) -> dict[str, Any]:
    """Build the trainer of a leg as a run does, and measure."""
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    leg = Leg.built(plan, name)
    if mode == "check":
        return leg.checked(plan_file.with_name(f"{name}.pt"))
    if mode == "profile":
        return leg.profiled(plan["warm_up"])
    return leg.timed(plan["warm_up"])


@dataclass
class Leg:
    """A trainer with its rows.

    Attributes:
        name: Of the leg.
        trainer: The trainer of TRL.
        arrange: What its rows become: the collator's, or stock packing.
        arrange_seconds: How long that took for the rows of the pass; None for stock TRL.
        step_rows: The rows of the step that is checked.
        facts: What was resolved of the model.
        seen: What the batches of the pass held.
    """

    name: str
    trainer: Any
    arrange: Callable[[Any], Any]
    arrange_seconds: float | None
    step_rows: Any
    facts: dict[str, Any]
    seen: Seen = field(default_factory=Seen)

    @classmethod
    def built(cls, plan: dict[str, Any], name: str) -> Leg:
        """Build what a recipe names, with the collator of the leg."""
        import torch
        from datasets import Dataset, disable_caching, load_from_disk

        from finqa_sft.models.quiet import quiet_libraries
        from finqa_sft.plugins.manager import Plugins
        from finqa_sft.recipe import load_recipe

        if plan["threads"]:
            torch.set_num_threads(plan["threads"])
        disable_caching()
        quiet_libraries()
        from transformers import PrinterCallback
        from trl import SFTConfig, SFTTrainer, pack_dataset

        from finqa_sft.training.arguments import sft_fields

        own = plan["legs"][name]
        recipe = load_recipe(
            plan["recipe"], [*plan["overrides"], *own["overrides"]], Plugins.load()
        )
        factory = recipe.model.build()
        tokenizer = factory.load_tokenizer()
        fields = {**sft_fields(recipe, factory=factory, evaluates=True), **RUN}
        fields["output_dir"] = str(Path(plan["rows"]).parent / "unused")
        collator: Any = None
        rows: Dataset = load_from_disk(plan["rows"])
        seconds = None
        tokens = plan["tokens_per_batch"]

        def packed(dataset: Dataset) -> Dataset:
            return pack_dataset(dataset.select_columns(["input_ids", "labels"]), tokens, "bfd")

        if name in STOCK:
            packing = name == "stock_bfd"
            # The recipe of these legs names the collator padded; what that needs is not stock.
            fields = {k: v for k, v in fields.items() if k not in recipe.collator.record.sft_args}
            # TRL shortens rows that are longer; none is.
            fields |= {"max_length": tokens if packing else None, "packing": packing}
            fields |= {"packing_strategy": "bfd"} if packing else {}
            arrange = packed if packing else (lambda dataset: dataset)
            given = rows.select_columns(["input_ids", "labels"])
        else:
            collator = recipe.collator.build(tokenizer)
            arrange = collator.arrange
            began = time.perf_counter()
            given = arrange(rows)
            seconds = time.perf_counter() - began
        args = SFTConfig(**fields)
        model = factory.load_model(args)
        model.set_attn_implementation(
            recipe.collator.record.attn_implementation or stock_attention(factory)
        )
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=given,
            data_collator=collator,
            processing_class=tokenizer,
        )
        # It would print a line at the end.
        trainer.remove_callback(PrinterCallback)
        factory.settle(trainer)
        # The base's name is a path.
        facts = {k: v for k, v in factory.describe().items() if k != "base"}
        return cls(name, trainer, arrange, seconds, rows.select(plan["step_rows"]), facts)

    def timed(self, warm_up: int) -> dict[str, Any]:
        """One pass over all rows, after some steps that are not counted."""
        trainer = self.trainer
        fetching: list[float] = []
        trainer.get_batch_samples = clocked(trainer.get_batch_samples, fetching)
        trainer.data_collator = counting(trainer.data_collator, self)
        memory = Memory(trainer.model.device)
        watch = watcher(self, warm_up, memory, fetching)
        trainer.add_callback(watch)
        trainer.train()
        done = products(trainer.model, self.seen.tokens, self.seen.supervised, self._pairs())
        return {
            "seconds": watch.seconds,
            "processor_seconds": watch.processor_seconds,
            "steps": watch.steps,
            "building_seconds": sum(fetching),
            "arrange_seconds": self.arrange_seconds,
            "peak_memory": memory.peak(),
            "memory_before": memory.before,
            "seen": vars(self.seen),
            "products": done,
            "attention": trainer.model.config._attn_implementation,
            "model": self.facts,
            "gradient_checkpointing": trainer.args.gradient_checkpointing,
            "dtype": str(trainer.model.dtype).removeprefix("torch."),
            "threads": threads(),
        }

    def checked(self, file: Path) -> dict[str, Any]:
        """The loss of one optimizer step, and its gradients in a file; nothing is updated."""
        import torch

        trainer = self.trainer
        rows = self.arrange(self.step_rows)
        size = trainer.args.per_device_train_batch_size
        # The columns that the trainer leaves the collator.
        columns = ["input_ids", "labels", "seq_lengths"]
        if self.name in STOCK:
            rows = rows.select_columns([name for name in columns if name in rows.column_names])
        batches = [
            trainer.data_collator([rows[n] for n in range(at, min(at + size, len(rows)))])
            for at in range(0, len(rows), size)
        ]
        supervised = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        # Without dropout.
        trainer.model.eval()
        loss = 0.0
        for batch in batches:
            part = trainer.compute_loss(
                trainer.model, trainer._prepare_inputs(batch), num_items_in_batch=supervised
            )
            part.backward()
            loss += float(part.detach())
        torch.save(gradients(trainer.model), file)
        return {"loss": loss, "supervised": supervised, "batches": len(batches)}

    def profiled(self, warm_up: int) -> dict[str, Any]:
        """One optimizer step under torch's profiler."""
        return profiled(self.trainer, warm_up=warm_up)

    def questions(self, rows: Sequence[Any]) -> int:
        """How many questions some rows hold."""
        if self.name == "stock_bfd":
            return sum(len(row["seq_lengths"]) for row in rows)
        return sum(row.get("questions", 1) for row in rows)

    def _pairs(self) -> int:
        """Pairs of a token and one that it sees, itself included, in all rows."""
        pairs = 0
        for row in self.trainer.train_dataset:
            lengths = row.get("lengths") or row.get("seq_lengths") or [len(row["input_ids"])]
            depths = row.get("depths") or [0] * len(lengths)
            pairs += sum(n * d + n * (n + 1) // 2 for n, d in zip(lengths, depths, strict=True))
        return pairs


def stock_attention(factory: Any) -> str:
    """The best attention that stock transformers has on this device."""
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    if factory.device.type != "cuda" or factory.compute_dtype == "float32":
        return "sdpa"
    if is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else "sdpa"


def clocked(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, with how long each call took."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        result = function(*arguments, **named)
        seconds.append(time.perf_counter() - began)
        return result

    return called


def counting(collator: Callable[..., Any], leg: Leg) -> Callable[..., Any]:
    """The collator, with what its batches held."""

    def collated(rows: Sequence[Any]) -> Any:
        batch = collator(rows)
        leg.seen.add(batch, leg.questions(rows))
        return batch

    return collated


def watcher(leg: Leg, warm_up: int, memory: Memory, fetching: list[float]) -> Any:
    """A callback that ends the first epoch after the warm-up, and times the second."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        seconds = 0.0
        processor_seconds = 0.0
        steps = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            memory.begin(kwargs["model"])

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # Of the first epoch nothing is kept.
            leg.seen = Seen()
            fetching.clear()
            self._first = state.global_step
            synchronise(memory.device)
            self._began, self._worked = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self._first == 0 and state.global_step == warm_up:
                control.should_epoch_stop = True

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            synchronise(memory.device)
            self.seconds = time.perf_counter() - self._began
            self.processor_seconds = time.process_time() - self._worked
            self.steps = state.global_step - self._first

    return Watch()


def threads() -> int:
    """Threads of torch."""
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()
