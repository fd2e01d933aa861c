"""First weights of adapters, modules trained whole, and several adapters over one base."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from factories import (
    TEXT,
    arguments,
    frozen,
    logits,
    lora,
    qlora,
    refusal,
    same,
    train,
    trained,
)
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    OPTConfig,
    Qwen2MoeConfig,
)
from transformers.integrations import deepspeed

from finqa_sft.errors import ModelError
from finqa_sft.models import first_weights
from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.bases import BaseKind
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.options import (
    LoRAFactoryOptions,
    LoraOptions,
    QLoRAOptions,
)
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.models.saved_adapters import _same_base
from finqa_sft.models.tiny import tiny_base

pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded base's shape with an output head of its own."""
    folder = tmp_path_factory.mktemp("untied")
    AutoTokenizer.from_pretrained(tiny_base()).save_pretrained(folder)
    config = LlamaConfig.from_pretrained(tiny_base(), tie_word_embeddings=False)
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


# The adapter's first weights


@pytest.mark.parametrize(
    "factory",
    [qlora(init="gaussian"), qlora(bits=8, init="gaussian")]
    + [lora(init=init) for init in ("gaussian", "orthogonal", "mica")],
    ids=lambda factory: f"{type(factory).__name__} {factory.options.lora.init}",
)
def test_an_initialisation_leaves_base_and_first_answers_as_they_are(
    tmp_path: Path, factory: AdapterFactory
) -> None:
    plain = type(factory)(factory.options.model_copy(update={"lora": LoraOptions()}))
    expected = plain.load_model(arguments(tmp_path, plain))

    model = factory.load_model(arguments(tmp_path, factory))

    assert all(torch.equal(frozen(model)[n], w) for n, w in frozen(expected).items())
    torch.testing.assert_close(logits(model), logits(expected), rtol=1e-4, atol=1e-4)
    first = {name: weight for name, weight in trained(model).items() if "lora_A" in name}
    assert not any(torch.equal(w, trained(expected)[name]) for name, w in first.items())
    assert factory.memory.trained_parameters == sum(w.numel() for w in trained(model).values())


def test_an_orthogonal_adapter_adds_nothing_to_a_bfloat16_base(tmp_path: Path) -> None:
    """PEFT rounds both factors to the base's dtype, after which their product is not zero."""
    options = LoRAFactoryOptions(
        compute_dtype="bfloat16", lora=LoraOptions(init="orthogonal", r=64, alpha=128)
    )
    factory = LoRAFactory(options)
    model = factory.load_model(arguments(tmp_path, factory))
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    first, second = (part["default"].weight for part in (layer.lora_A, layer.lora_B))

    assert first.dtype == second.dtype == torch.float32
    assert float((second @ first).abs().max()) < 1e-6
    assert torch.linalg.matrix_rank(first) == torch.linalg.matrix_rank(second) == 32


@pytest.mark.parametrize("factory", [qlora, lora], ids=["qlora", "lora"])
def test_eva_begins_at_the_components_of_the_rows(tmp_path: Path, factory: Any) -> None:
    made = factory(r=4, init="eva")
    args = arguments(tmp_path, made)
    before = frozen(made.load_model(args))

    start = train(tmp_path, made, learning_rate=0.0, max_steps=1).model

    assert same(frozen(start), before)
    firsts = {name: weight for name, weight in trained(start).items() if "lora_A" in name}
    assert len(firsts) == 28
    for weight in firsts.values():
        # Principal components are orthonormal.
        torch.testing.assert_close(weight @ weight.T, torch.eye(4), rtol=1e-4, atol=1e-4)
    again = train(tmp_path, factory(r=4, init="eva"), learning_rate=0.0, max_steps=1).model
    assert same(trained(again), trained(start))
    moved = train(tmp_path, factory(r=4, init="eva")).model
    assert not any(torch.equal(w, trained(start)[n]) for n, w in trained(moved).items())


def test_eva_gives_up_instead_of_waiting_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 4 batches: the limit is reached in the second pass."""
    monkeypatch.setattr(first_weights, "MOST_BATCHES", 6)

    with pytest.raises(ModelError) as caught:
        train(tmp_path, lora(r=64, init="eva"))

    assert str(caught.value) == (
        "model.lora.init eva: after 6 batches the components of some layer still move; lower "
        "model.lora.r, or take init gaussian"
    )


def test_eva_needs_as_many_tokens_as_ranks(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        train(tmp_path, lora(r=128, init="eva"), per_device_train_batch_size=1)

    assert str(caught.value) == (
        "model.lora.init eva takes r=128 directions from each batch, and no batch has so many "
        "tokens; lower model.lora.r, or raise trainer.per_device_train_batch_size "
        "(collator.tokens_per_batch with the collator shared_context)"
    )


@pytest.mark.parametrize(
    "config",
    [
        OPTConfig(vocab_size=2048, hidden_size=64, ffn_dim=128, num_hidden_layers=1,
                  num_attention_heads=4, word_embed_proj_dim=64),
        Qwen2MoeConfig(**TEXT, moe_intermediate_size=32, shared_expert_intermediate_size=64,
                       num_experts=2, num_experts_per_tok=1),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_eva_looks_into_layers_without_a_batch_dimension(tmp_path: Path, config: Any) -> None:
    AutoTokenizer.from_pretrained(tiny_base()).save_pretrained(tmp_path)
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    targets = ("q_proj", "fc1", "fc2") if config.model_type == "opt" else ("q_proj", "down_proj")
    options = LoRAFactoryOptions(
        base=str(tmp_path), lora=LoraOptions(r=4, init="eva", target_modules=targets)
    )
    model = train(tmp_path, LoRAFactory(options), learning_rate=0.0, max_steps=1).model
    firsts = [weight for name, weight in trained(model).items() if "lora_A" in name]
    assert len(firsts) >= 2
    for weight in firsts:
        torch.testing.assert_close(weight @ weight.T, torch.eye(4), rtol=1e-4, atol=1e-4)


def test_a_second_adapter_in_fewer_layers_can_begin_at_the_rows(tmp_path: Path) -> None:
    model = lora(r=4).load_model(arguments(tmp_path, lora()))
    second = lora(r=4, init="eva", target_modules=("q_proj",))
    second.add_adapter(model, "second", seed=7)
    trained_model = train(tmp_path, second, model=model, learning_rate=0.0, max_steps=1).model
    firsts = {name: w for name, w in trained(trained_model).items() if "lora_A" in name}
    assert all("q_proj.lora_A.second" in name for name in firsts)
    for weight in firsts.values():
        torch.testing.assert_close(weight @ weight.T, torch.eye(4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"init": "pissa_niter_16"},
            "pissa_niter_16 changes the weights of the base, so that the adapter would fit no "
            "other copy of it; eva also starts from principal components, and leaves the base as "
            "it is",
        ),
        *(({"init": init}, f"{init} changes the weights") for init in
          ("pissa", "olora", "corda", "loftq", "lora_ga")),
        ({"init": False}, "PEFT's true is called default here"),
        ({"init": "orthogonal", "r": 5}, "init orthogonal needs an even rank; r is 5"),
        ({"init": "mica", "dora": True}, "PEFT has no init mica with dora; leave one of them out"),
    ],
)  # fmt: skip
def test_initialisations_that_cannot_be_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LoraOptions.model_validate(options)
    assert problem in str(caught.value)


@pytest.mark.parametrize("init", ["orthogonal", "mica"])
def test_initialisations_for_whole_bases_are_refused_on_quantised_ones(init: str) -> None:
    with pytest.raises(ValidationError) as caught:
        qlora(init=init)
    assert (
        f"init {init} works on bases that are not quantised; take factory lora, or init gaussian "
        "or eva" in str(caught.value)
    )


def test_there_are_no_more_directions_than_the_layers_are_wide() -> None:
    rest = "; lower model.lora.r to that, or leave the layer out of model.lora.target_modules"
    assert refusal(lora(init="mica", r=96)) == (
        "model.lora.init mica takes r directions of each layer, and "
        f"model.layers.0.self_attn.k_proj has 64{rest}"
    )
    assert refusal(qlora(init="eva", r=200)) == (
        "model.lora.init eva takes r directions of each layer, and "
        f"model.layers.0.mlp.gate_proj has 192{rest}"
    )


def test_eva_under_zero3_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed, "is_deepspeed_zero3_enabled", lambda: True)

    with pytest.raises(ModelError) as caught:
        lora(init="eva").load_model(arguments(tmp_path, lora()))

    assert str(caught.value) == (
        "model.lora.init eva does not work under DeepSpeed ZeRO-3: it runs the base before ZeRO-3 "
        "has taken it over; use ZeRO-2, or init gaussian"
    )


# Modules that are trained whole


@pytest.mark.parametrize("factory", [qlora, lora], ids=["qlora", "lora"])
@pytest.mark.parametrize("named", ["embed_tokens", "lm_head"])
def test_embedding_and_head_that_share_weights_share_them_to_the_end(
    tmp_path: Path, factory: Any, named: str
) -> None:
    made = factory(modules_to_save=(named,))
    trainer = train(tmp_path, made)
    model = trainer.model

    head, embedding = (
        m.weight for m in (model.get_output_embeddings(), model.get_input_embeddings())
    )
    before = AutoModelForCausalLM.from_pretrained(tiny_base()).get_input_embeddings().weight
    assert torch.equal(head, embedding)
    assert not torch.equal(embedding, before)
    assert made.memory.trained_parameters == sum(w.numel() for w in trained(model).values())
    trainer.save_model(str(tmp_path / "adapter"))
    loaded = made.load_adapters({"saved": tmp_path / "adapter"})
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("kind", ["qlora", "lora"])
def test_a_head_of_its_own_is_trained_without_the_embedding(
    tmp_path: Path, untied: str, kind: str
) -> None:
    adapter = LoraOptions(modules_to_save=("lm_head", "norm"))
    made: AdapterFactory = (
        QLoRAFactory(QLoRAOptions(base=untied, lora=adapter))
        if kind == "qlora"
        else LoRAFactory(LoRAFactoryOptions(base=untied, lora=adapter))
    )
    before = AutoModelForCausalLM.from_pretrained(untied)

    model = train(tmp_path, made).model

    assert torch.equal(model.get_input_embeddings().weight, before.get_input_embeddings().weight)
    assert not torch.equal(model.get_output_embeddings().weight, before.lm_head.weight)
    whole = {name for name in trained(model) if "lora_" not in name}
    assert whole == {
        "base_model.model.lm_head.modules_to_save.default.weight",
        "base_model.model.model.norm.modules_to_save.default.weight",
    }
    assert made.describe()["trained_whole"] == "lm_head, model.norm"


def test_modules_trained_whole_beside_a_bfloat16_base_are_float32(tmp_path: Path) -> None:
    """In bfloat16 a norm of ones would stay ones: such updates are below its precision."""
    adapter = LoraOptions(modules_to_save=("norm",))
    factory = LoRAFactory(LoRAFactoryOptions(compute_dtype="bfloat16", lora=adapter))

    model = train(tmp_path, factory, learning_rate=1e-4).model

    (norm,) = (w for name, w in trained(model).items() if "modules_to_save" in name)
    assert norm.dtype == torch.float32
    assert 0 < float((norm - 1).abs().max()) < 1e-3


def test_a_module_inside_of_another_is_trained_with_it(tmp_path: Path) -> None:
    made = lora(modules_to_save=("mlp", "mlp.gate_proj"), target_modules=("q_proj",))
    model = made.load_model(arguments(tmp_path, made))
    assert made.memory.trained_parameters == sum(w.numel() for w in trained(model).values())


def test_modules_that_cannot_be_trained_whole_are_refused(tmp_path: Path) -> None:
    assert refusal(lora(modules_to_save=("rotary_emb",))) == (
        "model.lora.modules_to_save: 'rotary_emb' is model.rotary_emb, which has no weights to "
        "train; take it out"
    )
    assert refusal(qlora(modules_to_save=("embed_token",))) == (
        "model.lora.modules_to_save: 'embed_token' is no module of the base; did you mean "
        "'embed_tokens'?; common ones are embed_tokens and lm_head"
    )
    assert refusal(qlora(modules_to_save=("mlp",), target_modules=("q_proj",))) == (
        "model.lora.modules_to_save: 'mlp' covers model.layers.0.mlp.gate_proj, which is "
        "quantised, which cannot be trained; take it out, as adapters train linear layers"
    )
    lora(modules_to_save=("mlp",), target_modules=("q_proj",)).check()
    assert refusal(lora(modules_to_save=("self_attn",), target_modules=("q_proj",))) == (
        "model.lora.modules_to_save: 'self_attn' covers model.layers.0.self_attn.q_proj, which has "
        "an adapter; take it out, as adapters train linear layers"
    )
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 96}
    GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(tmp_path)
    options = LoRAFactoryOptions(base=str(tmp_path), lora=LoraOptions(modules_to_save=("wte",)))
    assert refusal(LoRAFactory(options)) == (
        "model.lora.modules_to_save names the embedding, whose weights the output head shares, and "
        "PEFT keeps them shared where it is called embed_tokens, not 'wte'; take it out, or take "
        "factory full"
    )


# Several adapters over one base

OTHERS = [
    {
        "prompt": [{"role": "user", "content": f"Costs fell by {n}%. By how much did they fall?"}],
        "completion": [{"role": "assistant", "content": f"{n} percent"}],
    }
    for n in range(20, 36)
]


@pytest.mark.parametrize("kind", ["qlora", "qlora in 8 bits", "lora", "lora with head"])
def test_a_second_adapter_learns_nothing_from_the_first(
    tmp_path: Path, untied: str, kind: str
) -> None:
    def factory() -> AdapterFactory:
        match kind:
            case "lora":
                return lora()
            case "lora with head":
                adapter = LoraOptions(modules_to_save=("lm_head",))
                return LoRAFactory(LoRAFactoryOptions(base=untied, lora=adapter))
            case _:
                return qlora(bits=8 if "8" in kind else 4)

    alone = train(tmp_path, factory(), rows=OTHERS)
    alone.save_model(str(tmp_path / "alone"))
    made = factory()
    first = train(tmp_path, made)
    first.save_model(str(tmp_path / "first"))
    kept = trained(first.model)

    made.add_adapter(first.model, "second", seed=7)
    second = train(tmp_path, made, model=first.model, rows=OTHERS)

    assert second.model.active_adapter == "second"
    found = {name.replace(".second.", ".default."): w for name, w in trained(second.model).items()}
    assert same(found, trained(alone.model))
    assert all(torch.equal(w, frozen(second.model)[name]) for name, w in kept.items())

    second.model.save_pretrained(str(tmp_path / "both"))
    folders = {"first": tmp_path / "both", "second": tmp_path / "both" / "second"}
    both = made.load_adapters(folders)
    alone_logits = {
        name: logits(factory().load_adapters({"x": tmp_path / folder}))
        for name, folder in (("first", "first"), ("second", "alone"))
    }
    for name in ("first", "second", "first"):
        both.set_adapter(name)
        assert torch.equal(logits(both), alone_logits[name])
    assert not torch.equal(*alone_logits.values())


def test_what_is_no_adapter_of_this_base_is_refused(tmp_path: Path, untied: str) -> None:
    made = lora()
    other = LoRAFactory(LoRAFactoryOptions(base=untied))
    other.load_model(arguments(tmp_path, other)).save_pretrained(str(tmp_path / "other"))

    def problem(folders: dict[str, Path]) -> str:
        with pytest.raises(ModelError) as caught:
            made.load_adapters(folders)
        return str(caught.value)

    assert problem({}) == "no adapter was named; give at least one name with its folder"
    tying = lora(modules_to_save=("embed_tokens",))
    tied = tying.load_model(arguments(tmp_path, tying))
    tied.save_pretrained(str(tmp_path / "tied"))
    only_first = (
        "adapter 'b' trains an embedding whose weights the output head shares, and PEFT keeps them "
        "shared in the first adapter of a model alone; make it the first, give it a base of its "
        "own, or leave model.lora.modules_to_save out"
    )
    assert problem({"a": tmp_path / "tied", "b": tmp_path / "tied"}) == only_first
    with pytest.raises(ModelError) as caught:
        tying.add_adapter(tied, "b", seed=1)
    assert str(caught.value) == only_first
    assert problem({"a": tmp_path}) == (
        f"{tmp_path} holds no adapter_config.json; name the folder that a run saved its adapter "
        "in, such as runs/NAME/adapter"
    )
    assert problem({"a": tmp_path / "other"}) == (
        f"adapter {tmp_path / 'other'} was trained on {untied}, and the base here is tiny; load it "
        "over its own base, or correct base_model_name_or_path in "
        f"{tmp_path / 'other' / 'adapter_config.json'} if they are the same"
    )
    model = made.load_model(arguments(tmp_path, made))
    for name in ("a.b", "", "keys", "a b"):
        bad_name = (
            f"{name!r} cannot be an adapter's name; take letters, digits and underscores, as in "
            "'finqa'"
        )
        assert problem({name: tmp_path}) == bad_name
        with pytest.raises(ModelError) as caught:
            made.add_adapter(model, name, seed=1)
        assert str(caught.value) == bad_name
    with pytest.raises(ModelError) as caught:
        other.add_adapter(model, "second", seed=1)
    assert str(caught.value) == (
        f"the model stands on {tiny_base()}, and this factory's base is {untied}; take the factory "
        "that made the model"
    )
    with pytest.raises(ModelError) as caught:
        made.add_adapter(model, "default", seed=1)
    assert str(caught.value) == (
        "the model has an adapter named 'default' already; take another name, or "
        "model.delete_adapter() first"
    )


def test_an_adapter_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    made = qlora()
    saved = tmp_path / "saved"
    made.load_model(arguments(tmp_path, made)).save_pretrained(str(saved))
    config, weights = saved / "adapter_config.json", saved / "adapter_model.safetensors"
    written = json.loads(config.read_text())

    def problem() -> str:
        with pytest.raises(ModelError) as caught:
            made.load_adapters({"a": saved})
        return str(caught.value)

    for wrong, said in (
        ({"peft_type": "PROMPT_TUNING"}, " is not of a LoRA adapter (peft_type 'PROMPT_TUNING'); "),
        (
            {"peft_type": ...},
            " is not of a LoRA adapter (peft_type None); load it with peft itself",
        ),
        (
            {"base_model_name_or_path": ...},
            " was trained on None, and the base here is tiny; load ",
        ),
        ({"r": 8}, f"adapter {saved} cannot be loaded over tiny: "),
        ({"init_lora_weights": "mica"}, f"adapter {saved} cannot be loaded over tiny: "),
    ):
        changed = {k: v for k, v in (written | wrong).items() if v is not ...}
        config.write_text(json.dumps(changed))
        assert said in problem()
    config.write_text("{")
    assert problem().startswith(f"{config} is not JSON: ")
    config.write_text(json.dumps(written))
    weights.write_bytes(weights.read_bytes()[:100])
    assert problem().startswith(f"adapter {saved} cannot be loaded over tiny: ")
    weights.unlink()
    assert problem() == (
        f"{saved} has no adapter_model.safetensors; weights in other formats are not read, as "
        "pickled files can run code: save the adapter again"
    )


def test_a_base_of_the_same_name_in_another_folder_is_another_base(tmp_path: Path) -> None:
    bases = [tmp_path / name / "model" for name in ("one", "two")]
    for seed, base in enumerate(bases):
        AutoTokenizer.from_pretrained(tiny_base()).save_pretrained(base)
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(LlamaConfig(**TEXT)).save_pretrained(base)
    one, two = (LoRAFactory(LoRAFactoryOptions(base=str(base))) for base in bases)
    one.load_model(arguments(tmp_path, one)).save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ModelError, match=r"was trained on .*one/model, and the base here is .*two"):
        two.load_adapters({"a": tmp_path / "saved"})
    bases[0].rename(tmp_path / "one" / "gone")
    two.load_adapters({"a": tmp_path / "saved"})


def test_a_base_in_a_folder_that_this_user_may_not_enter_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path, other: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "samefile", refuse)
    base: Any = SimpleNamespace(kind=BaseKind.FOLDER, location=lambda: "here/base-7b")
    assert _same_base("/homes/colleague/base-7b", base)
    assert not _same_base("/homes/colleague/base-1b", base)
