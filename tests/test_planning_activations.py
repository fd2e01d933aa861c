"""What is planned of activations is near what autograd keeps, and what is alive at the peak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import CPU, arguments
from live_memory import Live, kept
from small_models import small_model

from finqa_sft.collators.padded import PaddedCollator
from finqa_sft.collators.shared_context import ATTENTION, SharedContextCollator
from finqa_sft.models.activations import TILE_TOKENS, TILE_WIDTH, Batch
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.full import FullFactory
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.needs import Need, Setting, need
from finqa_sft.models.options import FullOptions, LoRAFactoryOptions, LoraOptions, QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory

SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "mistral": {"intermediate_size": 512},
    "phi3": {},
    "gemma3_text": {"head_dim": 32},
    "olmo2": {},
    "granite": {},
    "qwen3_moe": {
        "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 176,
    },
}  # fmt: skip

TOKENS = 512


def row(length: int, *, page: int, name: str) -> dict[str, Any]:
    """A row of which the first tokens are those of a page, and the last few are learnt."""
    ids = [*range(2, 2 + page), *torch.randint(2, 250, (length - page,)).tolist()]
    return {"input_ids": ids, "labels": [-100] * (length - 8) + ids[-8:], "document": name}


def shared(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], Batch]:
    from datasets import Dataset

    collator = SharedContextCollator(tokens_per_batch=2 * TOKENS)
    arranged = collator.arrange(Dataset.from_list(rows))
    assert len(arranged) == 1
    batch = collator([arranged[0]])
    del batch["labels"]
    paths = [n + d for n, d in zip(arranged[0]["lengths"], arranged[0]["depths"], strict=True)]
    tokens = batch["input_ids"].numel()
    return batch, Batch(tokens, max(paths), 8 * len(rows), paths=sum(paths))


def given(layout: str) -> tuple[dict[str, Any], Batch]:
    """What a model is given, and what is planned for."""
    torch.manual_seed(1)
    match layout:
        case "one row":
            ids = torch.randint(2, 250, (1, TOKENS))
            return {"input_ids": ids, "use_cache": False}, Batch(TOKENS, TOKENS, 8)
        case "padded":
            rows = [row(n, page=0, name="") for n in (256, 200)]
            batch: dict[str, Any] = PaddedCollator(0)(rows)
            del batch["labels"]
            return {**batch, "use_cache": False}, Batch(TOKENS, 256, 16, mask=2 * 256 * 256)
        case _:
            return shared([row(260 + n, page=240, name="page") for n in range(10)])


def built(how: str, kind: str, folder: Path) -> tuple[Any, BuiltinFactory]:
    small_model(kind, **{**SHAPE, **FAMILIES[kind]}).save_pretrained(folder)
    base = str(folder)
    adapter = LoraOptions(r=8)
    factory: BuiltinFactory
    match how:
        case "qlora":
            factory = QLoRAFactory(QLoRAOptions(base=base, compute_dtype="bfloat16", lora=adapter))
        case "lora in float32":
            factory = LoRAFactory(
                LoRAFactoryOptions(base=base, compute_dtype="float32", lora=adapter)
            )
        case "full":
            factory = FullFactory(FullOptions(base=base, compute_dtype="bfloat16"))
        case _:
            factory = FullFactory(FullOptions(base=base, weights_dtype="bfloat16"))
    factory.device = CPU
    model: Any = factory.load_model(arguments(folder, factory))
    if how == "qlora":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model.train(), factory


class Seen:
    """Bytes that a forward and a backward pass of a model took."""

    def __init__(self, model: Any, how: str, batch: dict[str, Any]) -> None:
        decoder = model.get_decoder()
        known = [*model.parameters(), *model.buffers()]

        def forward() -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how in ("qlora", "full")):
                found: torch.Tensor = decoder(**batch).last_hidden_state
            return found

        with kept(*known) as bytes_kept:
            states = forward()
        # Gradients are there, as in all but the first pass of a run.
        states.backward(torch.ones_like(states))
        del states
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        with Live(*known, *gradients) as live:
            states = forward()
            states.backward(torch.ones_like(states))
        self.kept = bytes_kept[0]
        self.peak = live.peak


def planned(factory: BuiltinFactory, batch: Batch, *, checkpointing: bool) -> Need:
    return need(
        Setting.of(factory, optim="sgd", optim_args=None, checkpointing=checkpointing), batch
    )


def without_head(found: Need) -> int:
    return sum(found.backward.values()) - found.backward["logits, in tiles"]


LAYOUTS = ("one row", "padded", "shared context")
WAYS = ("qlora", "lora in float32", "full", "full in bfloat16")

CASES = [
    pytest.param(
        kind,
        how,
        layout,
        # Each family with each way in each run, in one of the layouts.
        marks=[] if (number + way + place) % len(LAYOUTS) == 0 else [pytest.mark.slow],
    )
    for number, kind in enumerate(FAMILIES)
    for way, how in enumerate(WAYS)
    for place, layout in enumerate(LAYOUTS)
    # On the CPU, experts that are trained are computed in another way than on a GPU.
    if "experts" not in str(FAMILIES[kind]) or "lora" in how
]


@pytest.mark.parametrize(("kind", "how", "layout"), CASES)
def test_activations_are_near_the_plan(kind: str, how: str, layout: str, tmp_path: Path) -> None:
    model, factory = built(how, kind, tmp_path)
    inputs, batch = given(layout)
    if layout == "shared context":
        model.set_attn_implementation(ATTENTION)
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            if "lora" in how:
                model.enable_input_require_grads()
        seen = Seen(model, how, inputs)
        plan = planned(factory, batch, checkpointing=checkpointing)
        least, most = (0.9, 1.2) if "lora" in how else (0.9, 1.3)
        assert least < without_head(plan) / seen.peak < most
        if not checkpointing:
            casts = plan.backward["weights cast for products"]
            assert 0.85 < (plan.backward["activations"] + casts) / seen.kept < 1.2


def test_the_tile_of_logits_is_that_of_the_trainer() -> None:
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    assert chunked_logprob.TOKEN_CHUNK_SIZE == TILE_TOKENS
    assert utils._CHUNKED_LOGPROB_CHUNK_SIZE == TILE_WIDTH


@pytest.mark.parametrize("learnt", [5, 300])
def test_scoring_takes_no_more_than_is_planned(learnt: int, tmp_path: Path) -> None:
    """The head's two passes as on a GPU, supervised tokens alone; a narrower tile saves time."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    width = 512
    model, factory = built("lora in float32", "llama", tmp_path)
    head = model.get_output_embeddings().weight.detach()
    states = torch.randn(learnt, SHAPE["hidden_size"], requires_grad=True)
    targets = torch.randint(0, len(head), (learnt,))
    with Live(states, head, targets) as live:
        outputs = ChunkedLogProbFunction.apply(states, head, None, targets, 1.0, width)
        outputs[0].sum().backward()
    plan = planned(factory, Batch(TOKENS, TOKENS, learnt), checkpointing=True)
    tile = learnt * 4
    # On the CPU the tile's softmax needs four more of its size, which a GPU computes in place.
    found = plan.backward["logits, in tiles"] - tile * TILE_WIDTH + 5 * tile * width
    assert live.peak <= found
