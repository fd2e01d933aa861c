"""One process of a measurement of `sharding.py`; `torch.distributed.run` starts two.

Writes `rank-N.json`: what the process held while the base was loaded, when training began, and at
an optimizer step.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import resident

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STEPS = 2
TOKENS = 64


def main() -> None:
    """Load, train two steps, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("factory")
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    found = measured(arguments.config, arguments.factory, arguments.base, arguments.out)
    rank = os.environ.get("RANK", "0")
    (arguments.out / f"rank-{rank}.json").write_text(json.dumps(found), encoding="utf-8")


def measured(config: str, factory_name: str, base: Path, out: Path) -> dict[str, Any]:
    """What this process held.

    Args:
        config: `alone`, `ddp`, `fsdp`, or the name of a shipped DeepSpeed configuration.
        factory_name: `qlora`, `lora` or `full`.
        base: The folder of a base.
        out: Where the trainer may write.
    """
    is_zero = config.startswith("zero")
    if config == "fsdp":
        import fsdp_cpu
        from processes import FSDP_LAUNCH

        os.environ.update(FSDP_LAUNCH)

        fsdp_cpu.pretend()
    elif is_zero:
        import deepspeed_cpu
        from accelerate.state import PartialState

        PartialState._prepare_backend = deepspeed_cpu.gloo

    from datasets import Dataset
    from transformers import TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    from finqa_sft.models.full import FullFactory
    from finqa_sft.models.lora import LoRAFactory
    from finqa_sft.models.measured import MemoryWatch, count, model_tensors
    from finqa_sft.models.options import FullOptions, LoRAFactoryOptions, QLoRAOptions
    from finqa_sft.models.qlora import QLoRAFactory
    from finqa_sft.recipe.shipped import shipped_configs
    from finqa_sft.training.distributed import Distributed, held, state_elements

    makers: dict[str, Any] = {
        "qlora": lambda: QLoRAFactory(QLoRAOptions(base=str(base))),
        "lora": lambda: LoRAFactory(LoRAFactoryOptions(base=str(base))),
        "full": lambda: FullFactory(FullOptions(base=str(base))),
    }
    factory = makers[factory_name]()
    tokenizer = factory.load_tokenizer()
    # As on a GPU, where nothing says use_cpu.
    fields = {**factory.sft_args(), "use_cpu": config in ("alone", "ddp")}
    args = SFTConfig(
        output_dir=str(out),
        **fields,
        deepspeed=str(shipped_configs("deepspeed")[config]) if is_zero else None,
        max_steps=STEPS,
        per_device_train_batch_size=1 if config != "alone" else 2,
        gradient_checkpointing=False,
        learning_rate=1e-3,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        max_length=None,
    )
    set_seed(7)
    rows = [{"input_ids": [40 + (7 * n + k) % 900 for k in range(TOKENS)]} for n in range(8)]
    data = Dataset.from_list([{**row, "labels": row["input_ids"]} for row in rows])
    # So that what libraries take when they are first used is not taken for the base's.
    warm_up(factory, args)
    began = time.perf_counter()
    with watched() as loading:
        model = factory.load_model(args)
    seconds = time.perf_counter() - began
    loaded = count(model_tensors(model), besides=set())

    found: dict[str, Any] = {}

    class Look(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found["elements"] = held(trainer)

    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[Look()],
    )
    factory.settle(trainer)
    watch = MemoryWatch(model)
    with watch.watching():
        result = trainer.train()
    return {
        "active": Distributed.of(trainer).record(),
        "loading": {
            "peak_bytes": loading["peak"],
            "tensor_bytes_after": loaded,
            "seconds": round(seconds, 2),
        },
        **found["elements"],
        "optimizer_elements": state_elements(trainer.optimizer),
        "bytes_at_a_step": watch.held,
        "loss": result.training_loss,
    }


def warm_up(factory: Any, args: Any) -> None:
    """Load the embedded base as the other one will be, and give its memory back."""
    small = type(factory)(factory.options.model_copy(update={"base": "tiny"}))
    small.device = factory.device
    small.load_model(args)
    del small
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """The most anonymous memory of this process beyond what it has now, looked at all the time.

    Pages of the mapped checkpoint are left out: the system takes them back when it needs them.
    """
    before = resident("RssAnon")
    found = {"peak": 0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.001):
            found["peak"] = max(found["peak"], resident("RssAnon") - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
