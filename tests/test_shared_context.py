"""Loss and gradients in trees are those of the same rows, padded."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from forests import (
    FAMILIES,
    Draws,
    all_documents,
    answered,
    arranged,
    forests,
    generated_rows,
    labels_of,
    require_same,
    small_adapted,
    trained,
    trained_padded,
    trained_shared,
    with_adapter,
)
from hypothesis import HealthCheck, given, settings
from small_models import SHAPE, small_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from finqa_sft.attention import shared_context
from finqa_sft.attention.branches import Branches
from finqa_sft.collators.padded import PaddedCollator
from finqa_sft.collators.shared_context import ATTENTION, SharedContextCollator
from finqa_sft.encoding import IGNORED, EncodedRow


@pytest.fixture(scope="module")
def llama() -> Any:
    return small_adapted("llama")


@pytest.fixture(scope="module")
def windowed() -> Any:
    return small_adapted("mistral")


@pytest.mark.parametrize("kind", FAMILIES)
def test_loss_and_gradients_of_a_family_equal_those_of_the_rows_padded(kind: str) -> None:
    model, rows = small_adapted(kind), all_documents()
    require_same(trained_shared(model, rows), trained_padded(model, rows))


@pytest.mark.parametrize("name", forests())
@pytest.mark.parametrize("kind", ["llama", "windowed"])
def test_loss_and_gradients_of_a_document_equal_those_of_its_rows_padded(
    kind: str, name: str, request: pytest.FixtureRequest
) -> None:
    model, rows = request.getfixturevalue(kind), forests()[name]
    require_same(trained_shared(model, rows), trained_padded(model, rows))


@pytest.mark.parametrize("tokens", [58, 64, 200])
def test_a_document_that_is_divided_has_the_same_loss_and_gradients(
    llama: Any, tokens: int
) -> None:
    rows: list[EncodedRow] = [{**one, "document": "all"} for one in all_documents()]
    divided = arranged(rows, tokens=tokens)
    assert len(divided) > 1
    assert {name for one in divided for name in one["documents"]} == {"all"}
    require_same(trained_shared(llama, rows, tokens=tokens), trained_padded(llama, rows))


def test_arranged_rows_of_one_batch_stay_apart(llama: Any) -> None:
    rows = all_documents()
    collator = SharedContextCollator()
    together = trained_padded(llama, rows)
    llama.set_attn_implementation(ATTENTION)
    batch = collator(arranged(rows, tokens=200))  # type: ignore[arg-type]
    require_same(trained(llama, [batch]), together)


def test_all_weights_have_the_same_gradients() -> None:
    model, rows = small_model("qwen3", vocab_size=128, head_dim=16), all_documents()
    require_same(trained_shared(model, rows), trained_padded(model, rows))


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_activations_have_the_same_gradients(reentrant: bool) -> None:
    model, rows = small_adapted("gemma2"), all_documents()
    plain = trained_padded(model, rows)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    computed: list[int] = []
    layer = model.get_base_model().model.layers[0].self_attn
    layer.register_forward_hook(lambda *_: computed.append(1))
    require_same(trained_shared(model, rows), plain)
    assert len(computed) == 2 * len(arranged(rows))


@pytest.mark.parametrize("questions", [2, 12])
def test_bfloat16_is_as_far_from_float32_in_trees_as_it_is_padded(questions: int) -> None:
    draws = Draws(questions)
    rows = draws.questions(draws.text(100), questions, "page")
    model = small_adapted("llama", num_hidden_layers=4)
    exact = trained_padded(model, rows)
    model.to(torch.bfloat16)

    def away(one: tuple[float, dict[str, torch.Tensor]]) -> tuple[float, float]:
        squares = [
            ((one[1][name].float() - value).square().sum(), value.square().sum())
            for name, value in exact[1].items()
        ]
        wrong, whole = (float(torch.stack(each).sum()) for each in zip(*squares, strict=True))
        return abs(one[0] - exact[0]) / exact[0], (wrong / whole) ** 0.5

    shared, padded = away(trained_shared(model, rows)), away(trained_padded(model, rows))
    assert 1e-3 < padded[1] < 0.2
    assert shared[1] < 1.2 * padded[1]
    assert max(shared[0], padded[0]) < 1e-2


def test_a_base_of_four_bits_has_the_same_loss_and_gradients(tmp_path: Any) -> None:
    small_model("llama", vocab_size=128, hidden_size=128).save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        ),
    )
    assert any(isinstance(module, Linear4bit) for module in base.modules())
    model, rows = with_adapter(base), all_documents()
    require_same(trained_shared(model, rows), trained_padded(model, rows))


def test_every_token_that_is_learnt_is_learnt_once(llama: Any) -> None:
    rows = all_documents()
    found = sum(label != IGNORED for one in arranged(rows, tokens=64) for label in one["labels"])
    assert found == labels_of(rows) > 0


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=generated_rows(supervised=True))
def test_whatever_the_rows_loss_and_gradients_equal_those_of_the_rows_padded(
    windowed: Any, rows: list[EncodedRow]
) -> None:
    longest = max(len(one["input_ids"]) for one in rows)
    padded = trained_padded(windowed, rows)
    for tokens in (longest, 4096):
        require_same(trained_shared(windowed, rows, tokens=tokens), padded)


def logits_of(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    model.set_attn_implementation(ATTENTION)
    with torch.no_grad():
        found: torch.Tensor = model(**batch).logits[0]
    return found


@pytest.mark.parametrize("kind", ["llama", "windowed"])
def test_a_token_changes_nothing_but_what_comes_after_it_on_its_own_paths(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    rows = [one for name in ("a deep tree", "two cuts of a page") for one in forests()[name]]
    [one] = arranged(rows)
    batch = SharedContextCollator()([one])  # type: ignore[arg-type]
    before = logits_of(model, batch)
    ends = list(itertools.accumulate(one["lengths"]))
    starts = [end - length for end, length in zip(ends, one["lengths"], strict=True)]
    paths = shared_paths(one)
    for branch, (start, end) in enumerate(zip(starts, ends, strict=True)):
        changed = {**batch, "input_ids": batch["input_ids"].clone()}
        changed["input_ids"][0, start:end] = (changed["input_ids"][0, start:end] + 1) % 128
        after = logits_of(model, changed)
        moved = (after != before).any(dim=1)
        # Only what comes after it on a path that leads through it may differ: no other branch, and
        # nothing of the page that it leaves.
        after_it = {
            place
            for path in paths
            for n, place in enumerate(path)
            if any(start <= earlier < end for earlier in path[: n + 1])
        }
        others = [place for place in range(len(moved)) if place not in after_it]
        assert not moved[others].any(), branch
        assert moved[start:end].all()


def shared_paths(one: dict[str, Any]) -> list[list[int]]:
    from finqa_sft.attention.branches import paths_of

    found = paths_of(one["lengths"], parents=one["parents"], depths=one["depths"])
    return [path.tolist() for path in found]


def test_what_stands_beside_a_tree_changes_nothing_in_it(llama: Any) -> None:
    collator = SharedContextCollator()
    first, second, other = (arranged(forests(seed)["questions on a page"])[0] for seed in (1, 2, 3))
    length = len(first["input_ids"])
    one, two = (
        logits_of(llama, collator([first, beside]))  # type: ignore[list-item]
        for beside in (second, other)
    )
    assert (one[:length] == two[:length]).all()


DENSE = sorted(set(FAMILIES) - {"deepseek_v3", "mixtral", "qwen3_moe"})
"""Families without experts, whose choice torch itself looks at."""


@pytest.mark.parametrize("kind", DENSE)
def test_a_step_asks_for_no_value_on_its_device(kind: str) -> None:
    # On this device tensors have no values: what would wait for a GPU's is an error here.
    device = torch.device("meta")
    model, collator = small_adapted(kind), SharedContextCollator()
    model.set_attn_implementation(ATTENTION)
    model.train().to(device)
    batch = collator(arranged(all_documents()))  # type: ignore[arg-type]
    there = {k: v.to(device) if hasattr(v, "to") else v for k, v in batch.items()}
    loss = model(**there, num_items_in_batch=torch.tensor(100, device=device)).loss
    loss.backward()
    assert loss.device == device
    with pytest.raises(RuntimeError, match="meta tensors"):
        float(loss)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2"])
def test_indices_and_masks_are_worked_out_once_a_batch(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_adapted(kind, num_hidden_layers=4)
    rows = arranged(all_documents())
    calls: list[str] = []
    build, mask = Branches.of.__func__, Branches._mask  # type: ignore[attr-defined]
    monkeypatch.setattr(
        Branches, "of", classmethod(lambda *a, **k: calls.append("of") or build(*a, **k))
    )
    monkeypatch.setattr(Branches, "_mask", lambda *a, **k: calls.append("mask") or mask(*a, **k))
    attend = shared_context.shared_context_attention

    def attending(*args: Any, **kwargs: Any) -> Any:
        calls.append("layer")
        return attend(*args, **kwargs)

    monkeypatch.setattr(shared_context, "shared_context_attention", attending)
    shared_context.register()
    try:
        model.set_attn_implementation(ATTENTION)
        trained(model, [SharedContextCollator()(rows)])  # type: ignore[arg-type]
    finally:
        monkeypatch.undo()
        shared_context.register()
    windows = 2 if kind == "gemma2" else 1
    assert calls.count("layer") == 4
    assert calls.count("of") == 1
    assert calls.count("mask") == windows * sum(len(one["lengths"]) for one in rows)


def test_a_row_whose_first_token_is_labelled_is_not_refused_and_does_not_learn_it() -> None:
    rows = [{**answered([7, 8], [9]), "labels": [7, 8, 9]}]
    [one] = arranged(rows)  # type: ignore[arg-type]
    assert one["labels"] == [IGNORED, 8, 9]
    padded = PaddedCollator(0)(rows)  # type: ignore[arg-type]
    assert (padded["labels"][:, 1:] != IGNORED).sum() == 2


def test_keys_and_values_have_fewer_heads_in_every_family_that_can() -> None:
    assert SHAPE["num_attention_heads"] == 2 * SHAPE["num_key_value_heads"]
