"""Common beginnings read once: the same tokens as without, in models of many families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model, some_prompts
from transformers import AutoTokenizer, PreTrainedModel

from finqa_sft.generation.decoding import Decoding, Prompt
from finqa_sft.generation.generator import Generator
from finqa_sft.generation.prefixes import Row, grouped, shared_layout, take

NEW = 12
TIE = 1e-4

WHY = {
    "stablelm": "stablelm has an attention of its own, which may count positions",
    "bloom": "bloom takes no position ids, or no cache",
    "mamba": "mamba keeps states that are not by token",
    "lfm2": "lfm2 has LinearAttentionLayer in its cache",
}

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 16}),
    ("gemma2", {"head_dim": 16}),
    ("gemma3_text", {"head_dim": 16}),
    ("gemma3_text", {"head_dim": 16, "sliding_window": 16}),
    ("mistral", {"sliding_window": 32}),
    ("gpt_oss", {"head_dim": 16, "num_local_experts": 4, "sliding_window": 48}),
    ("mixtral", {"num_local_experts": 2}),
    ("phi3", {}),
    ("gpt2", {}),
    ("opt", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    ("gpt_neox", {}),
    ("stablelm", {}),
    ("bloom", {}),
    ("mamba", {}),
    ("lfm2", {"layer_types": ["conv", "full_attention"]}),
]


class Recorded(Generator):
    """Keeps the tokens of each prompt's completion, the padding after its end included."""

    def _written(self, groups: list[list[Row]]) -> list[list[int]] | None:
        written = super()._written(groups)
        rows = [row for group in groups for row in group]
        kept = self.__dict__.setdefault("tokens", {})
        kept.update({row.prompt: t for row, t in zip(rows, written or [], strict=True)})
        return written


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> Any:
    return AutoTokenizer.from_pretrained(tiny)


def completed(
    model: PreTrainedModel, tokenizer: Any, prompts: list[Prompt], *, rows: int, share: bool
) -> tuple[dict[int, list[int]], int, Generator]:
    """The tokens of each prompt, how many tokens went through the model, and the generator."""
    read = 0

    def count(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        nonlocal read
        read += named["input_ids"].numel()

    generator = Recorded(
        model,
        tokenizer,
        stop_ids=(),
        decoding=Decoding(max_new_tokens=NEW),
        batch_size=rows,
        share_prefix=share,
    )
    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    indices = [index for index, _ in generator.complete(prompts)]
    hook.remove()
    assert sorted(indices) == list(range(len(prompts)))
    return generator.__dict__["tokens"], read, generator


def ties(
    model: PreTrainedModel, prompts: list[Prompt], one: dict[int, list[int]], other: dict[int, Any]
) -> int:
    """How many completions part where two tokens are equally probable; others must not part."""
    found = 0
    for index, prompt in enumerate(prompts):
        pairs = list(zip(one[index], other[index], strict=True))
        place = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if place is None:
            continue
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt.ids + one[index][:place]])).logits[0, -1]
        first, second = logits.topk(2).values.tolist()
        assert first - second < TIE, (prompt.document, place, first, second)
        found += 1
    return found


@pytest.mark.parametrize(
    ("kind", "changes"),
    FAMILIES,
    ids=[f"{kind} {changes.get('sliding_window', '')}".strip() for kind, changes in FAMILIES],
)
def test_a_completion_is_the_same_shared_padded_and_alone(
    kind: str, changes: dict[str, Any], tokenizer: Any
) -> None:
    model = small_model(kind, **changes).eval()
    same_three_ways(kind, changes, model, tokenizer)
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")
        same_three_ways(kind, changes, model, tokenizer)


def same_three_ways(
    kind: str, changes: dict[str, Any], model: PreTrainedModel, tokenizer: Any
) -> None:
    prompts = some_prompts()

    alone, _, _ = completed(model, tokenizer, prompts, rows=1, share=False)
    plain, read, _ = completed(model, tokenizer, prompts, rows=8, share=False)
    shared, read_shared, generator = completed(model, tokenizer, prompts, rows=8, share=True)

    assert len({tuple(tokens) for tokens in alone.values()}) > len(prompts) // 2
    assert ties(model, prompts, plain, alone) == ties(model, prompts, shared, alone) == 0
    assert generator.plain_because == WHY.get(kind, "")
    assert generator.shares_prefix == (kind not in WHY)
    exceeds = changes.get("sliding_window", 512) < max(len(p.ids) for p in prompts) + NEW
    if generator.shares_prefix and not exceeds:
        assert read_shared < 0.7 * read
    elif not generator.shares_prefix:
        assert read_shared == read


def test_two_cuts_of_a_document_are_not_taken_for_one(tokenizer: Any) -> None:
    model = small_model("llama")
    pages = some_prompts(documents=3, questions=4, seed=3)
    prompts = [Prompt(prompt.ids, "one id") for prompt in pages]
    alone, _, _ = completed(model, tokenizer, prompts, rows=1, share=False)
    plain, read, _ = completed(model, tokenizer, prompts, rows=9, share=False)
    shared, read_shared, _ = completed(model, tokenizer, prompts, rows=9, share=True)
    assert shared == plain == alone
    assert read_shared < 0.7 * read


def test_one_prompt_asked_twice_shares_all_but_its_last_token(tokenizer: Any) -> None:
    model = small_model("llama")
    prompts = [Prompt([7] * 30, "a"), Prompt([7] * 30, "a"), Prompt([9], "b")]
    tokens, _, _ = completed(model, tokenizer, prompts, rows=2, share=True)
    alone, _, _ = completed(model, tokenizer, prompts, rows=1, share=False)
    assert tokens == alone


def test_rope_that_depends_on_the_longest_row_does_not_change_a_row(tokenizer: Any) -> None:
    prompts = some_prompts(documents=5, longest=120)
    original = {"original_max_position_embeddings": 64}
    factors = [1.0 + i for i in range(8)]
    for kind, changes in (
        (
            "phi3",
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0] * 8,
                    "long_factor": factors,
                    **original,
                },
                **original,
            },
        ),
        (
            "llama",
            {
                "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
                "max_position_embeddings": 64,
            },
        ),
    ):
        model = small_model(kind, **changes)
        assert {len(p.ids) + NEW > 64 for p in prompts} == {True, False}
        alone, _, _ = completed(model, tokenizer, prompts, rows=1, share=False)
        shared, _, generator = completed(model, tokenizer, prompts, rows=8, share=True)
        assert generator._reach.steady == 64
        assert shared == alone


# Which prompts are completed together


def rows_of(prompts: list[Prompt], *, samples: int = 1) -> list[Row]:
    return [
        Row(index, sample, prompt.ids, NEW, False)
        for index, prompt in enumerate(prompts)
        for sample in range(samples)
    ]


TEXTS = st.lists(st.integers(0, 2), min_size=1, max_size=9)


@given(
    prompts=st.lists(st.builds(Prompt, TEXTS, st.sampled_from("abc")), max_size=12),
    samples=st.integers(1, 3),
    most=st.integers(1, 7),
    share=st.booleans(),
)
def test_every_row_is_in_one_batch_and_no_batch_is_too_large(
    prompts: list[Prompt], samples: int, most: int, share: bool
) -> None:
    rows = rows_of(prompts, samples=samples)
    pending = grouped(prompts, rows, share=share)
    lengths = [max(len(row.ids) for row in group) for group in pending]
    assert lengths == sorted(lengths, reverse=True)
    batches = []
    while pending:
        batches.append(take(pending, most=most))
    taken = [[row for group in batch for row in group] for batch in batches]
    assert all(1 <= len(batch) <= most for batch in taken)
    assert sorted((r.prompt, r.sample) for batch in taken for r in batch) == [
        (row.prompt, row.sample) for row in rows
    ]
    for batch in batches:
        layout = shared_layout(batch, room=None)
        if layout is None:
            continue
        whole = [
            [*layout.prefixes[owner], *rest]
            for owner, rest in zip(layout.owners, layout.suffixes, strict=True)
        ]
        assert whole == [row.ids for group in batch for row in group]
        assert all(layout.prefixes)
        assert all(layout.suffixes)


def test_a_batch_is_filled_with_shorter_groups_that_fit() -> None:
    def group(count: int, length: int) -> list[Row]:
        return [Row(0, sample, [1] * length, NEW, False) for sample in range(count)]

    pending = [group(5, 90), group(6, 80), group(3, 70), group(2, 60)]
    batches = []
    while pending:
        batches.append([(len(g), len(g[0].ids)) for g in take(pending, most=8)])
    assert batches == [[(5, 90), (3, 70)], [(6, 80), (2, 60)]]


def test_a_row_that_depends_on_others_runs_alone() -> None:
    prompts = [Prompt([1, 2, 3], "a")] * 2
    rows = [Row(index, 0, prompts[index].ids, NEW, True) for index in range(2)]
    pending = grouped(prompts, rows, share=True)
    assert [take(pending, most=8), take(pending, most=8)] == [[[rows[0]]], [[rows[1]]]]


def test_nothing_is_shared_where_it_saves_nothing_or_the_cache_is_too_small() -> None:
    def layout(*texts: list[int], room: int | None = None) -> Any:
        return shared_layout([[Row(0, 0, text, 4, False) for text in texts]], room=room)

    page = list(range(100))
    assert layout(page) is None
    assert layout([*page, 1], [*page, 2]).prefixes == [page]
    assert layout([*page, 1], [*page, 2], room=105).prefixes == [page]
    assert layout([*page, 1], [*page, 2], room=104) is None
    assert layout([5, 1], [6, 1]) is None
    assert layout([5], [5]) is None
