"""The collator `shared_context` in a stock `SFTTrainer`: no recipe, no factory, no subclass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from finqa_sft import (
    AnswerFormatter,
    Encoder,
    FilingsOptions,
    FilingsReader,
    PaddedCollator,
    Question,
    SharedContextCollator,
)
from finqa_sft.errors import ModelError

STEPS = 3


@pytest.fixture(scope="module")
def rows(tiny: Path) -> Dataset:
    """Questions on four pages, encoded."""
    encoder, formatter = Encoder(AutoTokenizer.from_pretrained(tiny)), AnswerFormatter()
    reader = FilingsReader(FilingsOptions(pages=4, length="short", questions_per_page=4))
    return Dataset.from_list(
        [
            dict(
                encoder.encode(
                    formatter.prompt(question, document=question.document),
                    formatter.completion(question),
                    document=question.document.id,
                )
            )
            for question in reader
            if isinstance(question, Question)
        ]
    )


def arguments(folder: Path, collator: Any, **changes: Any) -> SFTConfig:
    fields = {
        "max_steps": STEPS,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    return SFTConfig(output_dir=str(folder), **{**fields, **collator.sft_args, **changes})


def losses(trainer: SFTTrainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def padded(tiny: Path, rows: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run whose batch is all rows, padded."""
    collator = PaddedCollator(0)
    return losses(
        SFTTrainer(
            AutoModelForCausalLM.from_pretrained(tiny),
            arguments(
                tmp_path_factory.mktemp("padded"), collator, per_device_train_batch_size=len(rows)
            ),
            train_dataset=rows,
            data_collator=collator,
            processing_class=AutoTokenizer.from_pretrained(tiny),
        )
    )


def test_ten_lines_train_as_padded_rows_do(
    tiny: Path, rows: Dataset, padded: list[float], tmp_path: Path
) -> None:
    collator = SharedContextCollator(tokens_per_batch=16384)
    arranged = collator.arrange(rows)
    args = arguments(tmp_path, collator)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.set_attn_implementation(collator.attn_implementation)
    collator.check_config(model.config, arranged)
    measured = collator.check_model(model, arranged)
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=arranged,
        eval_dataset=arranged,
        data_collator=collator,
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    assert len(arranged) == 1
    assert losses(trainer) == pytest.approx(padded, rel=1e-5)
    assert padded[-1] < padded[0]
    assert trainer.evaluate()["eval_loss"] < padded[-1]
    assert measured["largest_difference"] < measured["tolerance"]


def test_rows_that_accumulate_train_as_one_row(
    tiny: Path, rows: Dataset, padded: list[float], tmp_path: Path
) -> None:
    collator = SharedContextCollator(tokens_per_batch=700)
    arranged = collator.arrange(rows)
    assert len(arranged) > 1
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="shared_context"),
        arguments(tmp_path, collator, gradient_accumulation_steps=len(arranged)),
        train_dataset=arranged,
        data_collator=collator,
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    assert losses(trainer) == pytest.approx(padded, rel=1e-5)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_base_that_the_trainer_loads_takes_the_attention_by_name(
    tiny: Path, rows: Dataset, tmp_path: Path, checkpointing: bool
) -> None:
    collator = SharedContextCollator(tokens_per_batch=1024)
    arranged = collator.arrange(rows)
    trainer = SFTTrainer(
        model=str(tiny),
        args=arguments(
            tmp_path,
            collator,
            model_init_kwargs={"attn_implementation": collator.attn_implementation},
            gradient_checkpointing=checkpointing,
        ),
        train_dataset=arranged,
        data_collator=collator,
        peft_config=LoraConfig(target_modules="all-linear"),
    )
    measured = collator.check_model(trainer.model, arranged)
    assert measured["largest_difference"] < measured["tolerance"]
    found = losses(trainer)
    assert found[-1] < found[0]
    trainer.model.set_attn_implementation("sdpa")
    ids = torch.tensor([rows[0]["input_ids"]])
    written = trainer.model.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
    assert written.shape[1] > ids.shape[1]


def test_a_model_with_another_attention_is_noticed(tiny: Path, rows: Dataset) -> None:
    collator = SharedContextCollator()
    model = AutoModelForCausalLM.from_pretrained(tiny)
    with pytest.raises(ModelError, match=r"call model.set_attn_implementation\(collator"):
        collator.check_model(model, collator.arrange(rows))


def test_other_batches_are_refused_by_the_attention(tiny: Path, rows: Dataset) -> None:
    SharedContextCollator()
    model = AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="shared_context")
    with pytest.raises(ModelError, match=r"call model.set_attn_implementation\('sdpa'\) first"):
        model(**PaddedCollator(0)([rows[0], rows[1]]))


def test_rows_that_nobody_arranged_are_refused(tiny: Path, rows: Dataset, tmp_path: Path) -> None:
    collator = SharedContextCollator()
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="shared_context"),
        arguments(tmp_path, collator),
        train_dataset=rows,
        data_collator=collator,
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    with pytest.raises(Exception, match=r"train_dataset=collator\.arrange\(rows\)"):
        trainer.train()
