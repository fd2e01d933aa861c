from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from gradient_log import gradient_log
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from runs import losses, run, write_recipe
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, set_seed
from trl import SFTConfig, SFTTrainer

from finqa_sft.collators.base import Collator
from finqa_sft.collators.flattened import FlattenedCollator, require_isolation
from finqa_sft.collators.padded import PaddedCollator
from finqa_sft.encoding import IGNORED, EncodedRow
from finqa_sft.errors import ModelError, RecipeError
from finqa_sft.models.options import QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory

VOCABULARY = 64
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
WINDOW = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "mistral": {"sliding_window": 4},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW,
    "mixtral": {"num_local_experts": 4},
}
ATTENTION = ["eager", "sdpa", "flex_attention"]
WITHOUT_SDPA = {"gemma2"}
LENGTHS = (7, 9, 1, 12)

tokens = st.tuples(st.integers(1, VOCABULARY - 1), st.booleans())
rows = st.lists(
    st.lists(tokens, min_size=1, max_size=9).map(
        lambda row: EncodedRow(
            input_ids=[token for token, _ in row],
            labels=[token if learnt else IGNORED for token, learnt in row],
            document="d",
        )
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """Compiling flex attention for a CPU takes a minute and changes nothing of its masks."""
    with torch.compiler.set_stance("force_eager"):
        yield


@cache
def tiny_model(kind: str, attention: str) -> PreTrainedModel:
    """A model with weights large enough that attention decides what it says."""
    if attention == "sdpa" and kind in WITHOUT_SDPA:
        pytest.skip(f"transformers has no SDPA for {kind}")
    set_seed(0)
    config = CONFIG_MAPPING[kind](**{**SHAPE, **MODELS.get(kind, {})})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model


def random_row(length: int, *, seed: int) -> EncodedRow:
    """A prompt and a completion of random tokens."""
    ids = random.Random(seed).choices(range(3, VOCABULARY), k=length)
    return {
        "input_ids": ids,
        "labels": [IGNORED] * (length // 2) + ids[length // 2 :],
        "document": "",
    }


def logits_of(model: PreTrainedModel, batch: Sequence[EncodedRow]) -> list[torch.Tensor]:
    """The logits of each sequence of a flattened batch."""
    inputs = FlattenedCollator()(batch)
    del inputs["labels"]
    with torch.no_grad():
        logits = model(**inputs).logits
    return list(logits[0].split([len(row["input_ids"]) for row in batch]))


@settings(deadline=None)
@given(rows)
def test_a_batch_is_the_rows_one_after_another(batch: list[EncodedRow]) -> None:
    made = FlattenedCollator()(batch)
    lengths = [len(row["input_ids"]) for row in batch]
    total = sum(lengths)
    for name in ("input_ids", "position_ids", "labels"):
        assert made[name].shape == (1, total)
        assert made[name].dtype == torch.int64
    assert made["seq_idx"].shape == (1, total)
    assert made["input_ids"][0].tolist() == [t for row in batch for t in row["input_ids"]]
    assert made["position_ids"][0].tolist() == [n for length in lengths for n in range(length)]
    assert "attention_mask" not in made

    bounds = made["cu_seq_lens_q"]
    assert bounds is made["cu_seq_lens_k"]
    assert bounds.dtype == made["seq_idx"].dtype == torch.int32
    assert [bounds[0].item(), bounds.diff().tolist()] == [0, lengths]
    assert made["max_length_q"] == made["max_length_k"] == max(lengths)
    for number, row in enumerate(batch):
        place = slice(bounds[number], bounds[number + 1])
        assert made["labels"][0, place].tolist() == [IGNORED, *row["labels"][1:]]
        assert set(made["seq_idx"][0, place].tolist()) == {number}


@settings(deadline=None)
@given(rows)
def test_what_is_supervised_is_what_the_padded_batch_supervises(batch: list[EncodedRow]) -> None:
    flat, padded = FlattenedCollator()(batch), PaddedCollator(0)(batch)
    supervised = [labels[labels != IGNORED] for labels in padded["labels"][:, 1:]]
    shifted = flat["labels"][:, 1:]
    assert shifted[shifted != IGNORED].tolist() == torch.cat(supervised).tolist()


def test_the_keys_are_those_of_trl_and_no_cache() -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    batch = [random_row(length, seed=length) for length in LENGTHS]
    theirs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(batch)
    ours = FlattenedCollator()(batch)
    assert ours.pop("use_cache") is False
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if torch.is_tensor(value):
            assert ours[name].dtype == value.dtype
            assert ours[name].tolist() == value.tolist()
        else:
            assert ours[name] == value


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_logits_are_those_of_each_sequence_alone(kind: str, attention: str, training: bool) -> None:
    model = tiny_model(kind, attention).train(training)
    batch = [random_row(length, seed=length) for length in LENGTHS]
    for row, together in zip(batch, logits_of(model, batch), strict=True):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0]
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("changed", range(len(LENGTHS)))
def test_changing_one_sequence_changes_the_logits_of_no_other(
    kind: str, attention: str, changed: int
) -> None:
    model = tiny_model(kind, attention)
    batch = [random_row(length, seed=length) for length in LENGTHS]
    before = logits_of(model, batch)
    batch[changed] = random_row(LENGTHS[changed], seed=99)
    after = logits_of(model, batch)
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        difference = float((one - other).abs().max())
        assert difference > 0.1 if number == changed else difference <= 1e-6


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_without_positions_the_sequences_would_see_each_other(attention: str) -> None:
    model = tiny_model("llama", attention)
    first, second = random_row(7, seed=1), random_row(9, seed=2)
    ids = torch.tensor([first["input_ids"] + second["input_ids"]])
    with torch.no_grad():
        seen = model(input_ids=ids, use_cache=False).logits[0, 7:]
    assert float((seen - logits_of(model, [first, second])[1]).abs().max()) > 0.1


def train(
    collator: Collator, folder: Path, *, attention: str, checkpointing: bool
) -> tuple[list[float], list[float], list[dict[str, torch.Tensor]]]:
    """Losses, evaluation losses and gradients of ten steps of a stock trainer with LoRA."""
    data = Dataset.from_list([dict(random_row(3 + n * 7 % 19, seed=n)) for n in range(46)])
    set_seed(0)
    config = CONFIG_MAPPING["llama"](**SHAPE)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_config(config, attn_implementation=attention),
        args=SFTConfig(
            **collator.sft_args,
            output_dir=str(folder),
            max_steps=10,
            per_device_train_batch_size=2,
            per_device_eval_batch_size=2,
            gradient_accumulation_steps=2,
            gradient_checkpointing=checkpointing,
            learning_rate=1e-3,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=5,
            save_strategy="no",
            bf16=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=data.select(range(40)),
        eval_dataset=data.select(range(40, 46)),
        data_collator=collator,
        processing_class=stock_tokenizer(),
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[gradient_log(folder / "gradients.pt")],
    )
    trainer.train()
    history = trainer.state.log_history
    return (
        [entry["loss"] for entry in history if "loss" in entry],
        [entry["eval_loss"] for entry in history if "eval_loss" in entry],
        torch.load(folder / "gradients.pt", weights_only=True),
    )


@cache
def stock_tokenizer() -> Any:
    from transformers import AutoTokenizer

    from finqa_sft.models.tiny import tiny_base

    return AutoTokenizer.from_pretrained(tiny_base())


@pytest.mark.parametrize(("attention", "checkpointing"), [("eager", False), ("sdpa", True)])
def test_a_stock_trainer_trains_as_on_padded_batches(
    attention: str, checkpointing: bool, tmp_path: Path
) -> None:
    made = []
    for collator in (FlattenedCollator(), PaddedCollator(0)):
        folder = tmp_path / type(collator).__name__
        folder.mkdir()
        made.append(train(collator, folder, attention=attention, checkpointing=checkpointing))
    (flat, flat_evaluations, flat_gradients), (padded, evaluations, gradients) = made
    assert len(flat) == len(gradients) == 10
    assert len(evaluations) == 2
    assert flat == pytest.approx(padded, rel=1e-5)
    assert flat_evaluations == pytest.approx(evaluations, rel=1e-5)
    for here, there in zip(flat_gradients, gradients, strict=True):
        assert here.keys() == there.keys()
        largest = max(float(gradient.abs().max()) for gradient in there.values())
        assert largest > 0
        for name, gradient in here.items():
            assert float((gradient - there[name]).abs().max()) <= 1e-5 * largest


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", MODELS)
def test_models_that_keep_sequences_apart_pass_and_stay_as_they_were(
    kind: str, attention: str
) -> None:
    model = tiny_model(kind, attention).train()
    require_isolation(model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks


def test_a_quantised_base_with_adapters_passes(tmp_path: Path) -> None:
    factory = QLoRAFactory(QLoRAOptions())
    require_isolation(factory.load_model(SFTConfig(**factory.sft_args(), output_dir=str(tmp_path))))


def leaks(kind: str) -> str:
    return (
        f"model type {kind!r} lets flattened rows see each other under attention 'eager', so that "
        "one question would read another's document; set collator.name to padded"
    )


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("bloom", {"vocab_size": 64, "hidden_size": 32, "n_layer": 1, "n_head": 4}),
        ("mamba", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1}),
        ("opt", {"vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 1}),
    ],
)
def test_a_model_whose_sequences_see_each_other_is_refused(
    kind: str, shape: dict[str, Any]
) -> None:
    config = CONFIG_MAPPING[kind](**shape)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with pytest.raises(ModelError) as raised:
        require_isolation(model)
    assert str(raised.value) == leaks(kind)


def test_a_model_that_refuses_such_rows_itself_is_refused_with_its_reason() -> None:
    config = CONFIG_MAPPING["lfm2"](**{**SHAPE, "layer_types": ["conv", "full_attention"]})
    with pytest.raises(ModelError) as raised:
        require_isolation(AutoModelForCausalLM.from_config(config))
    assert str(raised.value).startswith("model type 'lfm2' takes no flattened rows: ")
    assert str(raised.value).endswith("; or set collator.name to padded")


PLUGIN = """\
from finqa_sft.collators.flattened import SFT_ARGS, FlattenedCollator
from finqa_sft.plugins import CollatorRecord, hookimpl


@hookimpl
def finqa_sft_collators():
    return [
        CollatorRecord(
            name="flat",
            summary="one row without padding",
            build=lambda options, tokenizer: FlattenedCollator(),
            sft_args=SFT_ARGS,
        )
    ]
"""
RECIPE = """\
plugins: [flat.py]
data:
  sources:
    - reader: filings
      pages: 6
      length: short
      difficulty: easy
formatter:
  name: program
  max_length: 512
trainer:
  max_steps: 4
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
  learning_rate: 1e-3
  gradient_checkpointing: false
  logging_steps: 1
  save_strategy: no
"""


def test_a_whole_run_has_the_losses_of_a_padded_run(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(PLUGIN, encoding="utf-8")
    recipe = write_recipe(tmp_path, RECIPE)
    folders = [
        run(recipe, f"collator.name={name}", f"output.dir={tmp_path / name}").folder
        for name in ("flat", "padded")
    ]
    flat, padded = map(losses, folders)
    assert len(flat) == 4
    assert flat == pytest.approx(padded, rel=1e-5)


def test_noise_that_depends_on_the_length_of_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(PLUGIN, encoding="utf-8")
    recipe = write_recipe(tmp_path, RECIPE)
    with pytest.raises(
        RecipeError, match="collator flat needs neftune_noise_alpha=null; leave it out"
    ):
        run(recipe, "collator.name=flat", "trainer.neftune_noise_alpha=5.0")
