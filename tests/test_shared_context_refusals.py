"""Bases, rows and settings that trees would train wrongly, and what is said of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from datasets import Dataset
from forests import all_documents, answered, arranged, small_adapted
from transformers import AutoConfig, PreTrainedConfig

from finqa_sft.attention import refuse_unsupported
from finqa_sft.attention.branches import Branches
from finqa_sft.attention.shared_context import INERT, shared_context_attention
from finqa_sft.collators.padded import PaddedCollator
from finqa_sft.collators.shared_context import ATTENTION, SharedContextCollator
from finqa_sft.errors import DataError, HardwareError, ModelError

ORDINARY = [
    "afmoe",
    "apertus",
    "arcee",
    "cohere",
    "cohere2",
    "cohere2_moe",
    "cwm",
    "deepseek_v2",
    "deepseek_v3",
    "diffllama",
    "dots1",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "flex_olmo",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gemma3n",
    "gemma4",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt_neox",
    "granite",
    "granitemoe",
    "helium",
    "hunyuan_v1_dense",
    "llama",
    "minimax_m2",
    "ministral3",
    "mistral",
    "mixtral",
    "nanochat",
    "olmo",
    "olmo2",
    "olmo3",
    "olmoe",
    "phi",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "starcoder2",
    "vaultgemma",
]
"""Families whose usual config tells of nothing that would differ in a tree."""

STATE = "it has layers that carry a state from token to token"
REPLACED = "its attention cannot be replaced"
AHEAD = "its attention looks ahead"
ROUTER = (
    "its auxiliary loss would count a shared token once for all its questions "
    "(output_router_logits)"
)

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("mamba", {}, STATE),
    ("mamba2", {}, STATE),
    ("jamba", {}, STATE),
    ("bamba", {}, STATE),
    ("falcon_h1", {}, STATE),
    ("nemotron_h", {}, STATE),
    ("qwen3_next", {}, STATE),
    ("granitemoehybrid", {}, STATE),
    ("recurrent_gemma", {}, STATE),
    (
        "lfm2",
        {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
        "it has layers of conv",
    ),
    ("llama4_text", {}, "it has layers of chunked_attention"),
    ("deepseek_v32", {}, "it has layers of indexed_attention"),
    ("gpt_oss", {}, "its attention has sinks"),
    ("bloom", {}, REPLACED),
    ("mpt", {}, REPLACED),
    ("falcon", {"alibi": True}, REPLACED),
    ("falcon", {"alibi": False}, REPLACED),
    ("stablelm", {}, REPLACED),
    ("gemma3_text", {"use_bidirectional_attention": True}, AHEAD),
    ("gemma3", {"text_config": {"use_bidirectional_attention": True}}, AHEAD),
    ("llama", {"attention_dropout": 0.1}, "its attention has dropout (attention_dropout 0.1)"),
    ("gpt2", {}, "its attention has dropout (attn_pdrop 0.1)"),
    ("mixtral", {"output_router_logits": True}, ROUTER),
    ("qwen3_moe", {"output_router_logits": True}, ROUTER),
]


@pytest.mark.parametrize("kind", ORDINARY)
def test_the_usual_config_of_a_decoder_is_taken(kind: str) -> None:
    refuse_unsupported(AutoConfig.for_model(kind), longest=3000)


@pytest.mark.parametrize(("kind", "changes", "why"), REFUSED)
def test_a_config_that_tells_of_something_else_is_refused(
    kind: str, changes: dict[str, Any], why: str
) -> None:
    config = AutoConfig.for_model(kind, **changes)
    with pytest.raises(ModelError) as caught:
        refuse_unsupported(config, longest=100)
    assert str(caught.value) == (
        f"model type '{kind}' cannot be trained on shared context: {why}; set the recipe's "
        "collator to {name: padded}"
    )


def test_alibi_is_refused_in_a_model_that_transformers_does_not_know() -> None:
    refuse_unsupported(PreTrainedConfig(alibi=False), longest=100)
    with pytest.raises(ModelError) as caught:
        refuse_unsupported(PreTrainedConfig(alibi=True), longest=100)
    assert str(caught.value) == (
        "model type '' cannot be trained on shared context: ALiBi counts distances in the row, not "
        "in the tree; set the recipe's collator to {name: padded}"
    )


def test_gpt2_without_dropout_is_taken() -> None:
    refuse_unsupported(AutoConfig.for_model("gpt2", attn_pdrop=0.0), longest=100)


FACTORS = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
STRETCHED = {
    "dynamic": AutoConfig.for_model(
        "llama",
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        max_position_embeddings=4096,
    ),
    "longrope": AutoConfig.for_model(
        "phi3",
        rope_parameters={
            "rope_type": "longrope",
            **FACTORS,
            "original_max_position_embeddings": 4096,
            "rope_theta": 1e4,
        },
        max_position_embeddings=131072,
    ),
    # As phi-3's own config.json has it.
    "longrope of old": AutoConfig.for_model(
        "phi3",
        rope_scaling={"type": "longrope", **FACTORS},
        original_max_position_embeddings=4096,
        max_position_embeddings=131072,
    ),
}


@pytest.mark.parametrize("kind", STRETCHED)
def test_angles_that_depend_on_the_longest_sequence_are_refused_where_they_change(
    kind: str,
) -> None:
    config = STRETCHED[kind]
    refuse_unsupported(config, longest=4096)
    with pytest.raises(ModelError) as caught:
        refuse_unsupported(config, longest=4097)
    assert str(caught.value) == (
        f"model type '{config.model_type}' cannot be trained on shared context: beyond 4096 tokens "
        f"the angles of its {kind.split()[0]} RoPE depend on the longest sequence of a batch, and "
        "there is one of 4097; set the recipe's collator to {name: padded}"
    )


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ],
)
def test_angles_that_are_stretched_once_for_all_are_taken(rope: dict[str, Any]) -> None:
    config = AutoConfig.for_model("llama", rope_parameters={**rope, "rope_theta": 1e4})
    refuse_unsupported(config, longest=100_000)


def dataset(rows: Sequence[Any], *, tokens: int = 4096) -> Dataset:
    return Dataset.from_list(arranged(rows, tokens=tokens))


def test_the_longest_path_counts_and_not_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def note(config: PreTrainedConfig, *, longest: int) -> None:
        asked.append(longest)

    monkeypatch.setattr("finqa_sft.collators.shared_context.refuse_unsupported", note)
    rows = all_documents()
    config = AutoConfig.for_model("llama")
    SharedContextCollator().check_config(config, dataset(rows))
    SharedContextCollator().check_config(
        config, SharedContextCollator().arrange(Dataset.from_list([]))
    )
    assert asked == [max(len(one["input_ids"]) for one in rows), 0]


NOT_ARRANGED = (
    "the collator shared_context takes rows that it has arranged; give the trainer "
    "train_dataset=collator.arrange(rows), and eval_dataset likewise"
)


def test_rows_that_are_not_arranged_are_refused() -> None:
    collator, rows = SharedContextCollator(), all_documents()
    plain = Dataset.from_list([dict(one) for one in rows])
    config = AutoConfig.for_model("llama")
    for use in (
        lambda: collator(rows),  # type: ignore[arg-type]
        lambda: collator.check_config(config, plain),
        lambda: collator.check_model(small_adapted("llama"), plain),
    ):
        with pytest.raises(DataError) as caught:
            use()
        assert str(caught.value) == NOT_ARRANGED


def test_rows_that_name_no_document_are_refused() -> None:
    rows = Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}])
    with pytest.raises(DataError) as caught:
        SharedContextCollator().arrange(rows)
    assert str(caught.value) == (
        "rows have no column 'document', by which the collator shared_context knows whose "
        "questions they are; add one to the rows"
    )


def test_a_question_that_is_too_long_is_refused_and_one_that_just_fits_is_not() -> None:
    rows = [answered(range(10), [1, 2]), answered(range(9), [1, 2])]
    with pytest.raises(DataError) as caught:
        arranged(rows, tokens=11)
    assert str(caught.value) == (
        "a question on document 'page' has 12 tokens, and a batch of the collator 11; set "
        "collator.tokens_per_batch to 12 or more, or lower formatter.max_length"
    )
    assert [len(one["input_ids"]) for one in arranged(rows, tokens=12)] == [12, 11]


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HardwareError) as caught:
        SharedContextCollator(attention="flash_attn")
    assert str(caught.value) == (
        "collator.attention is flash_attn, which is not installed; install flash-attn, or set it "
        "to auto"
    )


def test_a_kernel_of_gpus_is_refused_on_a_cpu() -> None:
    model = small_adapted("llama")
    model.set_attn_implementation(ATTENTION)
    collator = SharedContextCollator(attention="varlen")
    with pytest.raises(ModelError) as caught:
        collator.check_model(model, dataset(all_documents()))
    assert str(caught.value) == (
        "collator.attention is varlen, and the batch is on cpu: it takes bfloat16 or float16 on an "
        "NVIDIA GPU of compute capability 8.0 or later, and heads up to 256 wide, without a cap on "
        "scores; set it to auto"
    )


NO_BRANCHES = (
    "LlamaAttention was given no branches: attention 'shared_context' takes batches of the "
    "collator shared_context alone, and only from models that hand keywords on to it; for others, "
    "and to generate, call model.set_attn_implementation('sdpa') first"
)


def test_batches_without_branches_are_refused() -> None:
    model = small_adapted("llama")
    model.set_attn_implementation(ATTENTION)
    for use in (
        lambda: model(**PaddedCollator(0)(all_documents())),
        lambda: model.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=2),
    ):
        with pytest.raises(ModelError) as caught:
            use()
        assert str(caught.value) == NO_BRANCHES


class Layer(torch.nn.Module):
    """A layer that asks attention for something."""


class Encoding(torch.nn.Module):
    """A layer that sees what comes later."""

    is_causal = False


@pytest.mark.parametrize(
    ("layer", "asked", "why"),
    [
        (Layer(), {"s_aux": torch.zeros(2)}, "it asks attention for s_aux"),
        (
            Layer(),
            {"position_bias": torch.zeros(2), "head_mask": torch.zeros(2)},
            "it asks attention for head_mask, position_bias",
        ),
        (Layer(), {"output_attentions": True}, "it asks attention for output_attentions"),
        (Layer(), {"dropout": 0.1}, "its attention has dropout 0.1"),
        (Layer(), {"is_causal": False}, "its attention looks ahead"),
        (Encoding(), {}, "its attention looks ahead"),
        (
            Layer(),
            {"attention_mask": torch.zeros(1, 1, 3, 3)},
            "it brings an attention mask of its own",
        ),
    ],
)
def test_what_attention_here_has_not_is_refused(
    layer: torch.nn.Module, asked: dict[str, Any], why: str
) -> None:
    tensors = [torch.zeros(1, 2, 3, 4)] * 3
    branches = Branches.of([3], parents=[-1], depths=[0])
    keywords = {"attention_mask": None, **asked}
    with pytest.raises(ModelError) as caught:
        shared_context_attention(layer, *tensors, branches=branches, **keywords)
    assert str(caught.value) == (
        f"{type(layer).__name__} cannot be trained on shared context: {why}; set the recipe's "
        "collator to {name: padded}"
    )


@pytest.mark.parametrize(
    "inert",
    [
        *({name: torch.zeros(2)} for name in sorted(INERT)),
        {"s_aux": None, "output_attentions": False},
        {"is_causal": True},
        {"is_causal": None},
    ],
)
def test_what_does_not_concern_attention_is_let_through(inert: dict[str, Any]) -> None:
    tensors = [torch.zeros(1, 2, 3, 4)] * 3
    branches = Branches.of([3], parents=[-1], depths=[0])
    attended, _ = shared_context_attention(Layer(), *tensors, None, branches=branches, **inert)
    assert attended.shape == (1, 3, 2, 4)


@pytest.mark.parametrize(
    "config",
    [
        AutoConfig.for_model(
            "qwen2_moe", use_sliding_window=True, sliding_window=8, max_window_layers=1
        ),
        AutoConfig.for_model("phimoe", sliding_window=8),
    ],
    ids=lambda config: str(config.model_type),
)
def test_a_window_that_a_mask_alone_keeps_is_refused_where_a_row_is_longer(
    config: PreTrainedConfig,
) -> None:
    refuse_unsupported(config, longest=8)
    with pytest.raises(ModelError) as caught:
        refuse_unsupported(config, longest=9)
    assert str(caught.value) == (
        f"model type {config.model_type!r} cannot be trained on shared context: a mask alone keeps "
        "its window of 8 tokens, and there is a row of 9; set the recipe's collator to {name: "
        "padded}"
    )
