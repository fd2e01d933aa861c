"""Our run, a hand-written stock TRL script and the ejected script train alike, step by step."""

from __future__ import annotations

import json
import runpy
from functools import partial
from pathlib import Path

import pytest
import torch
import trl
from bitsandbytes.nn import Linear4bit
from datasets import Dataset
from gradient_log import gradient_log
from peft import LoraConfig, get_peft_model
from runs import RECIPE as SMALL
from runs import losses, run, write_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed
from trl import SFTConfig, SFTTrainer

from finqa_sft.cli.main import main
from finqa_sft.formatters.program import ProgramFormatter
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.filings import FilingsOptions, FilingsReader

PAGES = 10
STEPS = 20
RECIPE = f"""\
plugins: [{Path(__file__).parent / "gradient_log.py"}]
callbacks:
  - name: gradient_log
data:
  sources:
    - reader: filings
      pages: {PAGES}
      length: short
formatter:
  name: program
  max_length: 2048
trainer:
  max_steps: {STEPS}
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
  learning_rate: 1e-3
  gradient_checkpointing: false
  logging_steps: 1
  save_strategy: no
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(write_recipe(tmp_path_factory.mktemp("ours"), RECIPE)).folder


@pytest.fixture(scope="module")
def stock(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an engineer would write with TRL and PEFT, on the same prompts and completions."""
    folder = tmp_path_factory.mktemp("stock")
    formatter = ProgramFormatter()
    rows = [
        {
            "prompt": formatter.prompt(question, document=question.document),
            "completion": formatter.completion(question),
        }
        for question in FilingsReader(FilingsOptions(pages=PAGES, length="short"))
        if not isinstance(question, BadRow)
    ]
    args = SFTConfig(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        max_length=None,
        bf16=False,
        use_cpu=True,
        report_to="none",
    )
    model = AutoModelForCausalLM.from_pretrained(
        tiny,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    set_seed(args.seed)
    trainer = SFTTrainer(
        model=get_peft_model(
            model,
            LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        ),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        callbacks=[gradient_log(folder / "gradients.pt")],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.train()
    entries = (entry for entry in trainer.state.log_history if "loss" in entry)
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_losses_equal_those_of_a_hand_written_stock_script(ours: Path, stock: Path) -> None:
    assert len(losses(ours)) == len(losses(stock)) == STEPS
    assert losses(ours) == pytest.approx(losses(stock), rel=1e-5)


def test_gradients_equal_those_of_a_hand_written_stock_script(ours: Path, stock: Path) -> None:
    require_equal_gradients(ours, stock)


def require_equal_gradients(one: Path, other: Path) -> None:
    """Every gradient of every step, to 1e-5 of the step's largest."""
    mine = torch.load(one / "gradients.pt", weights_only=True)
    theirs = torch.load(other / "gradients.pt", weights_only=True)
    assert len(mine) == len(theirs) == STEPS
    for here, there in zip(mine, theirs, strict=True):
        assert here.keys() == there.keys()
        largest = max(float(gradient.abs().max()) for gradient in there.values())
        assert largest > 0
        for name, gradient in here.items():
            assert float((gradient - there[name]).abs().max()) <= 1e-5 * largest


def test_the_ejected_script_trains_with_the_same_losses_and_gradients(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    watched = partial(SFTTrainer, callbacks=[gradient_log(tmp_path / "gradients.pt")])
    recipe = write_recipe(tmp_path, RECIPE)
    assert main(["eject", str(recipe), f"output.dir={tmp_path / 'run'}"]) == 0
    script = tmp_path / "plain.py"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    assert "finqa_sft" not in script.read_text()
    monkeypatch.setattr(trl, "SFTTrainer", watched)
    trainer = runpy.run_path(str(script))["trainer"]
    ejected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert ejected == pytest.approx(losses(stock), rel=1e-5)
    require_equal_gradients(tmp_path, stock)
    assert (tmp_path / "run-ejected" / "adapter_model.safetensors").is_file()
    quantised = [m for m in trainer.model.modules() if isinstance(m, Linear4bit)]
    assert quantised
    assert not any(module.support_avx512bf16_for_cpu for module in quantised)


@pytest.mark.parametrize(
    ("choice", "result"),
    [
        (["model.factory=full"], "model.safetensors"),
        (["model.factory=lora"], "adapter_model.safetensors"),
        (["model.bits=8"], "adapter_model.safetensors"),
        (["model.lora.modules_to_save=[embed_tokens]"], "adapter_model.safetensors"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_every_built_in_factory_can_be_ejected(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    choice: list[str],
    result: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path, SMALL)
    overrides = [*choice, "trainer.max_steps=2", "data.split.held_out=0"]
    overrides += ["trainer.eval_strategy=no", "trainer.save_strategy=no"]
    run(recipe, *overrides)
    assert main(["eject", str(recipe), f"output.dir={tmp_path / 'plain'}", *overrides]) == 0
    script = tmp_path / "plain.py"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    trainer = runpy.run_path(str(script))["trainer"]
    ejected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert ejected == pytest.approx(losses(tmp_path / "run"), rel=1e-5)
    assert (tmp_path / "plain-ejected" / result).is_file()


def test_an_adapter_that_begins_at_the_rows_cannot_be_ejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, SMALL)
    assert main(["eject", str(recipe), "model.lora.init=eva"]) == 2
    assert capsys.readouterr().err == (
        "a plain script begins before any row is read, and model.lora.init eva begins at the rows; "
        "eject with model.lora.init=gaussian\n"
    )


def test_rows_that_stock_trl_would_not_make_cannot_be_ejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thinks.jinja").write_text(
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|><think></think>' }}{% endif %}"
    )
    recipe = write_recipe(tmp_path, SMALL)
    template = f"model.chat_template={tmp_path / 'thinks.jinja'}"
    assert main(["eject", str(recipe), template]) == 2
    assert capsys.readouterr().err == (
        "the chat template's generation prompt ends with '<think></think>', which it does not "
        "write before an answer: rows have it here, and would not in stock TRL; set "
        "model.chat_template to a template that writes both alike\n"
    )
