"""What must always hold of a plan: longer batches need no less, more processes no more."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from finqa_sft.models.bases import BaseKind, ResolvedBase
from finqa_sft.models.devices import Device
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.full import FullFactory
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.memory import Skeleton, skeleton
from finqa_sft.models.needs import BUFFERS, COPIES, LOADED, STATE, TEMPORARIES, Setting, need
from finqa_sft.models.options import FullOptions, LoRAFactoryOptions, QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.models.sharding import OFFLOADED, FullyShard, Sharding, Zero, zero_of
from finqa_sft.models.stored import Part, trained
from finqa_sft.planning.fit import MOST, Fit
from finqa_sft.planning.gpus import GIB
from finqa_sft.preparation.rows import ASSUMED, Rows, Shares

CONFIG = LlamaConfig(
    vocab_size=2000, hidden_size=512, intermediate_size=1408, num_hidden_layers=6,
    num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip

WAYS = ("4 bits", "8 bits", "lora", "full", "full in bfloat16")

SHARDINGS = [
    Sharding(),
    *(Zero(stage=stage, bucket="auto", prefetch="auto", persists="auto") for stage in (1, 2, 3)),
    Zero(frozenset(OFFLOADED), 3, "auto", True, "auto", "auto"),
    FullyShard(),
    FullyShard(accumulates=True),
    FullyShard(frozenset(OFFLOADED)),
]


@cache
def bones() -> Skeleton:
    return skeleton(CONFIG)


@cache
def setting(how: str, *, checkpointing: bool, optim: str = "adamw_torch_fused") -> Setting:
    factory: BuiltinFactory
    match how:
        case "full":
            factory = FullFactory(FullOptions())
        case "full in bfloat16":
            factory = FullFactory(FullOptions(weights_dtype="bfloat16"))
        case "lora":
            factory = LoRAFactory(LoRAFactoryOptions())
        case _:
            factory = QLoRAFactory(QLoRAOptions(bits=8 if how == "8 bits" else 4))
    factory.base = ResolvedBase("org/small", BaseKind.HUB, None, CONFIG)
    factory.skeleton = bones()
    factory.device = Device("cuda", None, "GPU", GIB, GIB, bfloat16=True)
    return Setting.of(factory, optim=optim, optim_args=None, checkpointing=checkpointing)


def fits() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "how": st.sampled_from(WAYS),
            "checkpointing": st.booleans(),
            "kind": st.sampled_from(["shared_context", "padded", "flattened"]),
            "longest": st.integers(1, 4096),
            "shares": st.builds(
                Shares, st.floats(0.001, 1.0), st.floats(1.0, 20.0), st.just("data")
            ),
            "sharding": st.sampled_from(SHARDINGS),
            "processes": st.integers(1, 64),
        }
    )


def fit_of(case: dict[str, Any], **changes: Any) -> Fit:
    case = case | changes
    return Fit(
        setting(case["how"], checkpointing=case["checkpointing"]),
        Rows(case["kind"], 1, case["longest"]),
        case["shares"],
        sharding=case["sharding"],
        processes=case["processes"],
    )


@settings(deadline=None)
@given(case=fits(), size=st.integers(1, 20_000), more=st.integers(1, 20_000))
def test_a_longer_batch_never_needs_less(case: dict[str, Any], size: int, more: int) -> None:
    fit = fit_of(case)
    assert fit.total(size) <= fit.total(size + more)


@settings(deadline=None)
@given(case=fits(), size=st.integers(1, 20_000), more=st.integers(1, 64))
def test_more_processes_never_need_more_of_a_gpu(
    case: dict[str, Any], size: int, more: int
) -> None:
    # From the second one on, processes talk, which takes memory too.
    processes = 1 + case["processes"]
    few, many = (fit_of(case, processes=n) for n in (processes, processes + more))
    assert many.total(size) <= few.total(size)


@settings(deadline=None)
@given(case=fits(), memory=st.integers(GIB // 2, 24 * GIB))
def test_the_longest_batch_fits_and_one_more_does_not(case: dict[str, Any], memory: int) -> None:
    fit = fit_of(case)
    longest = fit.longest(memory)
    most = MOST if case["kind"] == "shared_context" else MOST // case["longest"]
    assert 0 <= longest <= most
    if longest:
        assert fit.total(longest) <= memory
    if longest < most:
        assert fit.total(longest + 1) > memory


@settings(deadline=None)
@given(case=fits(), size=st.integers(1, 20_000))
def test_a_later_stage_never_keeps_more_of_what_it_divides(case: dict[str, Any], size: int) -> None:
    found = [
        fit_of(case, sharding=how, processes=1 + case["processes"]).need(size)
        for how in SHARDINGS[:4]
    ]
    kept = [n.kept for n in found]
    # Against one process alone, DeepSpeed first adds a copy of what is trained.
    assert kept[1][STATE] + kept[1][COPIES] >= kept[2][STATE] + kept[2][COPIES]
    assert kept[1]["gradients"] >= kept[2]["gradients"] >= kept[3]["gradients"]
    weights = [sum(one[part] for part in Part) for one in kept]
    assert weights[1] == weights[2] >= weights[3]


def test_checkpointing_needs_less_for_long_batches() -> None:
    size = 8192
    for how in WAYS:
        plain, again = (
            Fit(
                setting(how, checkpointing=checkpointing),
                Rows("shared_context", size, 2048),
                ASSUMED,
                sharding=Sharding(),
                processes=1,
            ).total(size)
            for checkpointing in (False, True)
        )
        assert again < plain


def test_zero_3_loads_a_quantised_base_whole_and_shares_out_another() -> None:
    """zero.Init is skipped for quantised models (transformers 5.24, `get_init_context`)."""
    how, batch = SHARDINGS[3], Rows("shared_context", 4096, 2048).batch(ASSUMED)
    quantised, plain = (
        need(setting(name, checkpointing=True), batch, sharding=how, processes=8)
        for name in ("4 bits", "lora")
    )
    whole = need(setting("4 bits", checkpointing=True), batch)
    assert quantised.loading == whole.loading > quantised.kept[Part.PACKED] * 8
    assert plain.loading < need(setting("lora", checkpointing=True), batch).loading / 4
    assert quantised.kept[Part.SCALES] == whole.kept[Part.SCALES]


def test_what_is_offloaded_is_the_hosts() -> None:
    batch = Rows("shared_context", 4096, 2048).batch(ASSUMED)
    here, there = (
        need(setting("full", checkpointing=True), batch, sharding=how, processes=4)
        for how in (SHARDINGS[3], SHARDINGS[4])
    )
    assert there.host[STATE] == here.kept[STATE]
    assert there.host["weights"] == here.kept[Part.BASE]
    assert STATE not in there.kept
    assert there.kept[Part.BASE] == 0
    assert there.peak < here.peak


@pytest.mark.parametrize(
    ("optim", "extra"), [("adamw_torch", 1), ("adamw_torch_fused", 0), ("sgd", 0)]
)
def test_an_unfused_step_has_temporaries(optim: str, extra: int) -> None:
    batch = Rows("shared_context", 64, 64).batch(ASSUMED)
    found = need(setting("full", checkpointing=True, optim=optim), batch)
    assert found.step[TEMPORARIES] == extra * found.kept["gradients"]


def test_a_deepspeed_configuration_is_read() -> None:
    config = {
        "zero_optimization": {
            "stage": 3,
            "reduce_bucket_size": 5e8,
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": 10,
            "stage3_max_live_parameters": 7,
            "offload_optimizer": {"device": "cpu"},
            "offload_param": {"device": "none"},
        }
    }
    assert zero_of(config) == Zero(frozenset({"optimizer"}), 3, 500_000_000, True, "auto", 10, 7)
    assert zero_of({}) == zero_of({"zero_optimization": {"stage": 0}}) == Sharding()
    assert zero_of({"zero_optimization": {"stage": 2}}) == Zero(stage=2, overlaps=False)


@settings(deadline=None)
@given(case=fits(), size=st.integers(1, 20_000))
def test_fsdp_keeps_a_part_of_each_tensor_and_no_copy(case: dict[str, Any], size: int) -> None:
    processes = 1 + case["processes"]
    alone, fsdp, accumulating, offloaded = (
        fit_of(case, sharding=how, processes=processes).need(size)
        for how in (Sharding(), FullyShard(), FullyShard(accumulates=True), SHARDINGS[-1])
    )
    setting_ = setting(case["how"], checkpointing=case["checkpointing"])
    rows = {t.shape[0] for t in setting_.stored if t.held != "aside"}
    for name in (STATE, "gradients"):
        share = 2 if case["how"] == "full in bfloat16" else 1  # trained in float32
        steps = 4 * len(trained(setting_.stored)) if name == STATE else 0
        whole = share * (alone.kept[name] - steps) / processes
        assert fsdp.kept[name] - steps >= whole
        if all(count % processes == 0 for count in rows):
            assert fsdp.kept[name] - steps == whole
    assert COPIES not in fsdp.kept
    # Gradients stay whole until the last of several backward passes.
    whole = accumulating.kept[BUFFERS] - fsdp.kept[BUFFERS]
    assert whole == sum(2 * t.elements for t in trained(setting_.stored))
    assert fsdp.host.keys() == {LOADED}
    assert fsdp.host[LOADED] >= sum(t.nbytes for t in setting_.stored)
    assert not any(offloaded.kept.get(name) for name in (STATE, "gradients", Part.ADAPTER))
    assert {STATE, "gradients", "weights"} < offloaded.host.keys()


def test_fsdp_gathers_layer_after_layer() -> None:
    stored = setting("lora", checkpointing=True).stored
    layers = {f"model.layers.{n}" for n in range(CONFIG.num_hidden_layers)}
    # The embedding is the head too, which stays whole from forward to backward pass.
    assert {t.unit for t in stored} == layers | {""}
    layer = sum(2 * t.elements for t in stored if t.unit == "model.layers.0" and t.held != "aside")
    rest = sum(2 * t.elements for t in stored if not t.unit and t.held != "aside")
    assert rest == 2 * (CONFIG.vocab_size + 1) * CONFIG.hidden_size
    found = FullyShard().gathered(stored, compute="bfloat16", hidden=CONFIG.hidden_size)
    assert found == layer + max(2 * layer, 2 * rest, rest + 2 * layer)
    # A small part of what there is.
    assert found < sum(t.nbytes for t in stored)
