"""The comparison before the first step: whom it lets pass, whom not, and what it leaves behind."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from forests import VOCABULARY, all_documents, answered, arranged, forests, row, small_adapted
from small_models import small_model

from finqa_sft.attention import stock_attention
from finqa_sft.attention.branches import Branches
from finqa_sft.collators import verification
from finqa_sft.collators.padded import PaddedCollator
from finqa_sft.collators.shared_context import ATTENTION, SharedContextCollator
from finqa_sft.encoding import IGNORED
from finqa_sft.errors import ModelError

COLLATOR = SharedContextCollator(tokens_per_batch=200)


@pytest.fixture(scope="module")
def rows() -> Dataset:
    found = Dataset.from_list(arranged(all_documents(), tokens=200))
    assert len(found) > 2
    return found


@pytest.fixture
def model() -> Any:
    made = small_adapted("llama")
    made.set_attn_implementation(ATTENTION)
    return made


def leaky(
    cls: type[Branches], lengths: Sequence[int], *, parents: Any, depths: Any, backend: Any
) -> Branches:
    """Branches that see all that stands before them."""
    starts = [0, *accumulate(lengths)][:-1]
    bounds = [0, *accumulate(start + n for start, n in zip(starts, lengths, strict=True))]
    return Branches(
        lengths=tuple(lengths),
        path_lengths=tuple(start + n for start, n in zip(starts, lengths, strict=True)),
        key_index=torch.cat([torch.arange(s + n) for s, n in zip(starts, lengths, strict=True)]),
        cu_seq_q=torch.tensor([*starts, sum(lengths)], dtype=torch.int32),
        cu_seq_k=torch.tensor(bounds, dtype=torch.int32),
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)],
)
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "deepseek_v3"])
def test_a_model_that_computes_the_same_passes(
    kind: str, dtype: torch.dtype, tolerance: float, rows: Dataset
) -> None:
    model = small_adapted(kind).to(dtype)
    model.set_attn_implementation(ATTENTION)
    measured = COLLATOR.check_model(model, rows)
    assert measured["questions"] in range(5, 9)
    assert measured["dtype"] == str(dtype).removeprefix("torch.")
    assert measured["tolerance"] == tolerance
    assert measured["largest_difference"] < tolerance / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_whose_branches_see_each_other_is_refused(
    dtype: torch.dtype, model: Any, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Branches, "of", classmethod(leaky))
    tolerance = verification.TOLERANCES[dtype]
    with pytest.raises(ModelError) as caught:
        COLLATOR.check_model(model.to(dtype), rows)
    before, _, after = str(caught.value).partition(" (in ")
    said, _, difference = before.rpartition(" by ")
    assert said == "model type 'llama' gives a question in shared context a loss that differs"
    measured, _, rest = difference.partition(" ")
    assert float(measured) > 2 * tolerance
    assert rest == "from its loss alone"
    assert after == (
        f"{dtype}, where {tolerance:g} is tolerated): it would be trained wrongly; set the "
        "recipe's collator to {name: padded}"
    )


def test_a_loss_that_is_no_number_is_refused(
    model: Any, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = verification._compared

    def one_is_none(*args: Any) -> Any:
        return [*compared(*args), (float("nan"), 1.0, torch.float32)]

    monkeypatch.setattr(verification, "_compared", one_is_none)
    with pytest.raises(ModelError, match="differs by nan from its loss alone"):
        COLLATOR.check_model(model, rows)


def test_a_model_with_another_attention_is_told_what_to_call(model: Any, rows: Dataset) -> None:
    model.set_attn_implementation("sdpa")
    with pytest.raises(ModelError) as caught:
        COLLATOR.check_model(model, rows)
    assert str(caught.value) == (
        "the model's attention is 'sdpa', which lets the questions of a document see each other; "
        "call model.set_attn_implementation(collator.attn_implementation) first"
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("right", [True, False])
def test_a_model_is_left_as_it_was(
    training: bool, right: bool, model: Any, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.train(training)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    if right:
        COLLATOR.check_model(model, rows)
    else:
        monkeypatch.setattr(Branches, "of", classmethod(leaky))
        with pytest.raises(ModelError, match="differs by"):
            COLLATOR.check_model(model, rows)
    assert all(module.training == training for module in model.modules())
    assert model.config._attn_implementation == ATTENTION
    assert all(weight.grad is None for weight in model.parameters())
    assert all((weight == weights[name]).all() for name, weight in model.state_dict().items())
    assert not model.get_output_embeddings()._forward_hooks
    assert (torch.get_rng_state() == states[0]).all()
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()


def test_dropout_of_adapters_has_no_part_in_it(rows: Dataset) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules="all-linear", lora_dropout=0.5, init_lora_weights=False)
    model: Any = get_peft_model(small_model("llama", vocab_size=VOCABULARY), config)
    model.set_attn_implementation(ATTENTION)
    model.train()
    assert COLLATOR.check_model(model, rows)["largest_difference"] < 1e-5
    assert model.training


def test_two_rows_are_tried_each_together_and_four_of_its_questions_alone(
    model: Any, rows: Dataset
) -> None:
    forwards: list[int] = []
    base = model.get_base_model().model
    base.register_forward_hook(lambda *_: forwards.append(1))
    measured = COLLATOR.check_model(model, rows)
    assert len(forwards) == measured["questions"] + 2 <= 2 + 2 * verification.BRANCHES


def test_as_many_forwards_whatever_the_process(model: Any, rows: Dataset) -> None:
    measured = [COLLATOR.check_model(model, rows) for _ in range(2)]
    assert measured[0] == measured[1]


def test_the_longest_path_and_the_most_branches_are_tried() -> None:
    long = [answered(range(5, 60), [60], "long")]
    short = [answered([5, 6, n], [9], "short") for n in range(20, 40)]
    other = [answered(range(5, 35), [9], "other")]
    found = Dataset.from_list(arranged([*other, *short, *long], tokens=60))
    chosen = {tuple(found[n]["documents"]) for n in verification._chosen(found)}
    assert chosen == {("long",), ("short",)} or chosen == {("long",), ("other", "short")}


def test_the_losses_compared_are_those_of_training(model: Any) -> None:
    [row] = rows = forests()["one question"]
    [one] = arranged(rows)
    [(shared, alone, _)] = verification._compared(model.eval(), COLLATOR, one)  # type: ignore[arg-type]
    with stock_attention(model), torch.no_grad():
        loss = float(model(**PaddedCollator(0)([row])).loss)
    assert (shared, alone) == pytest.approx((loss, loss), rel=1e-6)


@pytest.mark.parametrize("name", forests())
def test_a_single_arranged_row_is_enough(name: str, model: Any) -> None:
    found = Dataset.from_list(arranged(forests()[name]))
    assert len(found) == 1
    measured = COLLATOR.check_model(model, found)
    assert 1 <= measured["questions"] <= verification.BRANCHES
    assert measured["largest_difference"] < 1e-5


def test_rows_that_learn_nothing_have_nothing_to_compare(model: Any) -> None:
    unlearnt = [row(range(5, 25), [], "a"), row([*range(5, 20), 3], [], "a")]
    only = Dataset.from_list(arranged(unlearnt))
    assert all(label == IGNORED for label in only[0]["labels"])
    assert COLLATOR.check_model(model, only) == {}
    some = Dataset.from_list(arranged([*unlearnt, answered([5, 6], [7], "b")], tokens=21))
    assert len(some) == 2
    assert COLLATOR.check_model(model, some).keys() <= {
        *("questions", "largest_difference", "tolerance", "dtype")
    }


def test_no_rows_have_nothing_to_compare(model: Any) -> None:
    none = COLLATOR.arrange(Dataset.from_list([]))
    assert COLLATOR.check_model(model, none) == {}
