"""Rows that share much, small models of many families, and what training makes of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from datasets import Dataset
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from small_models import small_model
from transformers import PreTrainedModel

from finqa_sft.attention.branches import paths_of
from finqa_sft.collators.padded import PaddedCollator
from finqa_sft.collators.shared_context import ATTENTION, SharedContextCollator
from finqa_sft.encoding import IGNORED, EncodedRow

VOCABULARY = 128
WINDOW = 8
"""Tokens of a sliding window: fewer than most rows have."""

MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": WINDOW},
    # The usual caps are so wide that nothing of a small model would meet them.
    "gemma2": {
        "head_dim": 16,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 5.0,
    },
    "gemma3_text": {"head_dim": 16, "sliding_window": WINDOW, "sliding_window_pattern": 2},
    "phi3": {},
    "olmo2": {},
    "olmo3": {"sliding_window": WINDOW},
    "granite": {"attention_multiplier": 0.3, "residual_multiplier": 0.5},
    # Attention beside the feed-forward, and windows in three layers of four.
    "cohere2": {"sliding_window": WINDOW, "num_hidden_layers": 4},
    "starcoder2": {"sliding_window": WINDOW},
    # One layer of four has no positions.
    "smollm3": {"num_hidden_layers": 4},
    "glm4": {"head_dim": 16},
    # Latent attention, with values narrower than keys.
    "deepseek_v3": MLA,
    "qwen3_moe": {**EXPERTS, "head_dim": 16, "num_experts": 4},
    "mixtral": {"num_local_experts": 4},
}
"""Model types and how their small configs depart from `small_models.SHAPE`."""


def row(ids: Sequence[int], learnt: Iterable[int], document: str = "page") -> EncodedRow:
    """A row of which some positions are learnt."""
    positions = set(learnt)
    return {
        "input_ids": list(ids),
        "labels": [token if n in positions else IGNORED for n, token in enumerate(ids)],
        "document": document,
    }


def answered(prompt: Sequence[int], answer: Sequence[int], document: str = "page") -> EncodedRow:
    """A row whose answer is learnt."""
    return row([*prompt, *answer], range(len(prompt), len(prompt) + len(answer)), document)


class Draws:
    """Texts of random tokens."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self, least: int, most: int | None = None) -> list[int]:
        length = self._random.randint(least, most or least)
        return [self._random.randrange(5, VOCABULARY) for _ in range(length)]

    def questions(self, page: Sequence[int], count: int, name: str) -> list[EncodedRow]:
        return [answered([*page, *self.text(2, 6)], self.text(1, 5), name) for _ in range(count)]


def forests(seed: int = 0) -> dict[str, list[EncodedRow]]:
    """Documents by what is peculiar to their rows."""
    draws = Draws(seed)
    page = draws.text(20)
    question, answer, other = draws.text(4), draws.text(3), draws.text(3)
    turns = [(draws.text(4), draws.text(3)) for _ in range(4)]
    said = [
        [*page, *(token for asked, told in turns[:n] for token in (*asked, *told))]
        for n in range(len(turns) + 1)
    ]
    conversation = [answered([*said[n], *turns[n][0]], turns[n][1]) for n in range(len(turns))]
    all_answers = [
        {**one, "labels": [*before["labels"], *one["labels"][len(before["labels"]) :]]}
        for before, one in itertools.pairwise(conversation)
    ]
    deep = [[*page, *draws.text(6)]]
    for _ in range(8):
        # Each leaves the one before two tokens before its end.
        deep.append([*deep[-1][:-2], *draws.text(6)])
    cuts = [[*page[:4], *draws.text(12)], [*page[:4], *draws.text(14)]]
    found: dict[str, list[EncodedRow]] = {
        "questions on a page": draws.questions(page, 4, "page"),
        "one question": draws.questions(page, 1, "page"),
        "a conversation": conversation,
        "a conversation backwards": conversation[::-1],
        "a conversation whose answers are all learnt in every turn": [
            conversation[0],
            *all_answers,
        ],
        "the same row three times": [answered([*page, *question], answer)] * 3,
        "answers that differ from their first token on": [
            answered([*page, *question], [5, *answer]),
            answered([*page, *question], [6, *other]),
            answered([*page, *question], [7]),
        ],
        "answers that begin alike": [
            answered([*page, *question], [5, *answer]),
            answered([*page, *question], [5, *other]),
            answered([*page, *question], [5]),
        ],
        "rows that begin others": [
            answered(page[:10], page[10:12]),
            answered(page, question),
            row(page, []),
            row([*page, *question, *other], [18, 20, 21, 25]),
        ],
        "a deep tree": [answered(ids[:-2], ids[-2:]) for ids in deep],
        "two cuts of a page": [
            answered([*cut, *draws.text(3)], draws.text(2)) for cut in cuts for _ in range(2)
        ],
        "nothing in common": [answered(draws.text(6), draws.text(2)) for _ in range(3)],
        "all is learnt": [
            row([*page, *question], range(24)),
            row([*page, *question], range(24)),
            row([*page, *other], range(23)),
        ],
        "nothing is learnt in some": [
            row([*page, *question], []),
            answered([*page, *question], answer),
            row([*page, *other], []),
        ],
        "rows of one token": [row([9], [0]), row([9], []), answered([9], [10])],
    }
    return {name: [{**one, "document": name} for one in rows] for name, rows in found.items()}


def all_documents(seed: int = 0) -> list[EncodedRow]:
    """The rows of all forests, of several documents, in an order without documents."""
    rows = [one for rows in forests(seed).values() for one in rows]
    random.Random(seed).shuffle(rows)
    return rows


def arranged(rows: Sequence[EncodedRow], *, tokens: int = 4096) -> list[dict[str, Any]]:
    """Rows of trees."""
    dataset = Dataset.from_list([dict(one) for one in rows])
    found: list[dict[str, Any]] = (
        SharedContextCollator(tokens_per_batch=tokens).arrange(dataset).to_list()
    )
    return found


def labels_of(rows: Iterable[EncodedRow]) -> int:
    """How many tokens are learnt: all that are supervised but a row's first."""
    return sum(label != IGNORED for one in rows for label in one["labels"][1:])


def rows_of(tree: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """The tokens and labels of each path, as far as they are the branch's own."""
    paths = paths_of(tree["lengths"], parents=tree["parents"], depths=tree["depths"])
    return [
        ([tree["input_ids"][n] for n in path], [tree["labels"][n] for n in path])
        for path in (path.tolist() for path in paths)
    ]


def with_adapter(model: PreTrainedModel, *, fresh: bool = False) -> Any:
    """LoRA on all linear layers.

    Args:
        model: The base.
        fresh: As an adapter begins, with one half zero; else as in the middle of training.
    """
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name and not (fresh and "lora_B" in name):
                weight.normal_(0, 0.1, generator=draws)
    return adapted


def small_adapted(kind: str, **changes: Any) -> Any:
    """A small model of a family, with biases and scales that do something, and an adapter."""
    model = small_model(kind, **{"vocab_size": VOCABULARY, **FAMILIES[kind], **changes})
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn(weight.shape, generator=draws), alpha=0.1)
    return with_adapter(model)


def trained(model: Any, batches: Iterable[dict[str, Any]]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of batches, a mean over all that is learnt, and its gradients."""
    model.train()
    model.zero_grad()
    batches = list(batches)
    count = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = model(**batch, num_items_in_batch=torch.tensor(count)).loss
        loss.backward()
        total += float(loss)
    gradients = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return total, gradients


def trained_padded(model: Any, rows: Sequence[EncodedRow]) -> tuple[float, dict[str, torch.Tensor]]:
    """What a stock trainer computes: one padded batch of all rows."""
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    return trained(model, [PaddedCollator(0)(rows)])


def trained_shared(
    model: Any, rows: Sequence[EncodedRow], *, tokens: int = 4096
) -> tuple[float, dict[str, torch.Tensor]]:
    """What trees give of the same rows: a batch for each arranged row."""
    collator = SharedContextCollator(tokens_per_batch=tokens)
    model.set_attn_implementation(ATTENTION)
    return trained(model, [collator([one]) for one in arranged(rows, tokens=tokens)])


def require_same(
    one: tuple[float, dict[str, torch.Tensor]],
    other: tuple[float, dict[str, torch.Tensor]],
    *,
    loss: float = 1e-6,
    gradient: float = 1e-5,
) -> None:
    """The same loss, and each gradient to a share of the largest."""
    assert abs(one[0] - other[0]) <= loss * abs(other[0])
    assert one[1].keys() == other[1].keys()
    largest = max(float(value.abs().max()) for value in other[1].values())
    assert largest > 0
    for name, value in one[1].items():
        difference = float((value - other[1][name]).abs().max())
        assert difference <= gradient * largest, f"{name}: {difference / largest:.2g}"


@st.composite
def generated_rows(draw: st.DrawFn, *, supervised: bool = False) -> list[EncodedRow]:
    """Rows over a few tokens, so that they share much, with labels anywhere.

    Args:
        draw: Of hypothesis.
        supervised: Whether some token is learnt for certain.
    """
    tokens = st.lists(st.sampled_from([5, 5, 5, 6, 7]), min_size=1, max_size=14)
    rows = []
    for _ in range(draw(st.integers(1, 7))):
        ids = draw(tokens)
        learnt = draw(st.sets(st.integers(0, len(ids) - 1)))
        rows.append(row(ids, learnt, draw(st.sampled_from("aab"))))
    if supervised:
        rows.append(row([5, 6, *draw(tokens)], [2]))
    return rows
