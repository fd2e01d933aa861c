"""Train a real small model on real questions through the command line, and write what came out.

    python tests/benchmarks/real_input.py --base SmolLM2-135M-Instruct.Q4_1.gguf \
        --data finqa/train.json --out docs/results/real_input.json

The base is loaded as NF4 and trained on a few dozen rows with `accelerate launch -m finqa_sft`; the
adapter is then loaded by plain PEFT on the unquantised base, and answers questions that it was not
trained on, greedily. The JSON holds the loss curve, the outputs, versions, machine and commit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import commit, processor

RECIPE = """\
model:
  base: {base}
data:
  sources:
    - reader: finqa
      files: train.json
formatter:
  name: program
  system: Answer with a program of steps op(a, b), such as subtract(5, 4), divide(#0, 4).
  max_length: {max_length}
trainer:
  max_steps: {steps}
  per_device_train_batch_size: 2
  learning_rate: 1e-3
  lr_scheduler_type: cosine
  warmup_steps: 4
  logging_steps: 1
  save_strategy: no
  gradient_checkpointing: false
"""


def main() -> None:
    """Train, generate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--data", type=Path, required=True, help="a file in FinQA's layout")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--rows", type=int, default=36, help="rows to train on")
    parser.add_argument("--steps", type=int, default=54)
    parser.add_argument("--max-length", type=int, default=320, help="tokens a row")
    parser.add_argument("--questions", type=int, default=20, help="held-out questions to answer")
    arguments = parser.parse_args()

    rows = json.loads(arguments.data.read_text(encoding="utf-8"))
    # Other pages than those trained on, not merely other questions.
    pages = list(dict.fromkeys(row["filename"] for row in rows))
    trained: list[dict[str, Any]] = []
    while len(trained) < arguments.rows:
        page = pages.pop(0)
        trained += [row for row in rows if row["filename"] == page]
    asked = [row for row in rows if row["filename"] in set(pages)][: arguments.questions]

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "train.json").write_text(json.dumps(trained), encoding="utf-8")
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        recipe = RECIPE.format(
            base=arguments.base.resolve(), steps=arguments.steps, max_length=arguments.max_length
        )
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        began = time.monotonic()
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
        launch += ["--cpu", "-m", "finqa_sft", str(folder / "recipe.yaml")]
        subprocess.run([*launch, f"output.dir={folder / 'run'}"], check=True)
        seconds = time.monotonic() - began
        manifest = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
        outputs = answer(folder, max_length=arguments.max_length)

    losses = manifest["result"]["losses"]
    first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
    result = {
        "what": "QLoRA (NF4) of a real model on real FinQA rows, on this machine's device",
        "base": arguments.base.name,
        "data": {"file": arguments.data.name, **manifest["data"]},
        "recipe": recipe.replace(str(arguments.base.resolve()), arguments.base.name),
        "losses": losses,
        "mean_loss_first_10": first,
        "mean_loss_last_10": last,
        "last_to_first": last / first,
        "outputs": outputs,
        "in_target_format": sum(output["program"] for output in outputs),
        "execution_correct": sum(output["correct"] for output in outputs),
        "seconds": {"command": round(seconds, 1), **manifest["timings"]},
        "model": {k: v for k, v in manifest["model"].items() if k != "base"},
        "versions": manifest["versions"],
        "hardware": {**manifest["hardware"], "processor": processor()},
        "commit": commit(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(f"mean loss {first:.3f} -> {last:.3f} ({last / first:.0%})")
    print(f"{result['in_target_format']} of {len(outputs)} outputs are programs")


def answer(folder: Path, *, max_length: int) -> list[dict[str, Any]]:
    """Greedy answers of the trained adapter, loaded by plain PEFT."""
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    from finqa_sft import programs
    from finqa_sft.budget import fit_question
    from finqa_sft.documents import Document
    from finqa_sft.encoding import Encoder
    from finqa_sft.errors import ProgramError
    from finqa_sft.formatters.program import ProgramFormatter, ProgramOptions
    from finqa_sft.readers.base import BadRow
    from finqa_sft.readers.finqa import FinqaOptions, FinqaReader

    adapter = folder / "run" / "adapter"
    model = AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    encoder = Encoder(tokenizer)
    system = next(line for line in RECIPE.splitlines() if "system:" in line).split(": ", 1)[1]
    formatter = ProgramFormatter(ProgramOptions(system=system))
    outputs = []
    for question in FinqaReader(FinqaOptions(files=folder / "asked.json")):
        if isinstance(question, BadRow):
            raise SystemExit(str(question))

        def length(document: Document, question: Any = question) -> int:
            prompt = formatter.prompt(question, document=document)
            return encoder.length(prompt, formatter.completion(question))

        shown = fit_question(question, length=length, max_length=max_length).document
        ids = encoder.encode_prompt(formatter.prompt(question, document=shown))
        with torch.no_grad():
            generated = model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=48,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )[0, len(ids) :]
        text = tokenizer.decode(generated, skip_special_tokens=True)
        prediction = formatter.parse(text)
        computed: float | str | None = None
        if prediction.program:
            try:
                program = programs.parse_program(prediction.program)
                computed = programs.execute_program(program, question.document.tables[0].rows)
            except ProgramError:
                computed = None
        outputs.append(
            {
                "id": question.id,
                "output": text,
                "gold": question.program,
                "program": prediction.program is not None,
                "stopped": tokenizer.eos_token_id in generated.tolist(),
                "correct": computed is not None and computed == question.executed_answer,
            }
        )
    return outputs


if __name__ == "__main__":
    main()
