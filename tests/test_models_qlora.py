"""A frozen 4-bit base with adapters, in a stock trainer on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bitsandbytes.nn.modules as bnb
import pytest
import torch
from datasets import Dataset
from factories import CPU, arguments, frozen, same, train, trained
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    FalconConfig,
    FalconForCausalLM,
    set_seed,
)
from transformers.integrations import deepspeed
from trl import SFTTrainer

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.devices import Device
from finqa_sft.models.options import LoraOptions, QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.models.tiny import tiny_base

pytestmark = pytest.mark.usefixtures("cpu_only")


def pretend_zero3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed, "is_deepspeed_zero3_enabled", lambda: True)


def small_model(folder: Path, **lora: Any) -> PeftModel:
    factory = QLoRAFactory(QLoRAOptions(lora=LoraOptions(**lora)))
    return factory.load_model(arguments(folder, factory))


# Training


@pytest.mark.parametrize("evaluated", [False, True], ids=["alone", "with evaluations"])
def test_training_changes_the_adapters_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluated: bool
) -> None:
    """Bitsandbytes is made to take the CPU for one that repacks the base in evaluations."""
    monkeypatch.setattr(bnb, "has_avx512bf16", lambda: True)
    before = small_model(tmp_path)

    options = {"eval_strategy": "steps", "eval_steps": 1} if evaluated else {}
    model = train(tmp_path, QLoRAFactory(QLoRAOptions()), **options).model

    assert same(frozen(model), frozen(before))
    start, end = trained(before), trained(model)
    assert start.keys() == end.keys()
    assert all("lora_" in name for name in end)
    assert not any(torch.equal(start[name], end[name]) for name in end)


def test_an_evaluation_leaves_gradients_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bnb, "has_avx512bf16", lambda: True)
    model = small_model(tmp_path)
    batch = {"input_ids": torch.arange(40, 72).reshape(2, 16)}
    batch["labels"] = batch["input_ids"]

    def gradients() -> dict[str, torch.Tensor]:
        model.train()
        model.zero_grad()
        model(**batch).loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    first = gradients()
    model.eval()
    with torch.no_grad():
        model(**batch)

    assert first
    assert same(gradients(), first)


@pytest.mark.skipif(not bnb.has_avx512bf16(), reason="this CPU has no AVX512-BF16 units")
def test_without_the_guard_an_evaluation_repacks_the_base(tmp_path: Path) -> None:
    """When this fails, bitsandbytes has mended it and the guard can go."""
    model = small_model(tmp_path)
    for module in model.modules():
        if isinstance(module, bnb.Linear4bit):
            module.support_avx512bf16_for_cpu = True
    before = frozen(model)

    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(40, 72).reshape(2, 16))

    assert not same(frozen(model), before)


def test_adapters_are_float32_on_the_cpu(tmp_path: Path) -> None:
    trainer = train(tmp_path, QLoRAFactory(QLoRAOptions()), max_steps=1)

    assert {weight.dtype for weight in trained(trainer.model).values()} == {torch.float32}


def test_adapters_are_float32_beside_a_base_that_computes_in_bfloat16(tmp_path: Path) -> None:
    trainer = train(tmp_path, QLoRAFactory(QLoRAOptions(compute_dtype="bfloat16")), max_steps=1)

    assert {weight.dtype for weight in trained(trainer.model).values()} == {torch.float32}
    assert trainer.model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("sharded_by", "dtype"), [("fsdp", torch.float32), ("zero3", torch.bfloat16)]
)
def test_only_zero3_is_left_to_cast_adapters_by_itself(
    sharded_by: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = QLoRAFactory(QLoRAOptions(compute_dtype="bfloat16"))
    args = arguments(tmp_path, factory)
    model = factory.load_model(args)
    rows = Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}])
    trainer = SFTTrainer(model, args, train_dataset=rows)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", str(sharded_by == "fsdp"))
    monkeypatch.setattr("finqa_sft.models.adapters.is_zero3", lambda: sharded_by == "zero3")

    factory.settle(trainer)

    assert {weight.dtype for weight in trained(model).values()} == {dtype}


def test_a_saved_adapter_loads_in_plain_peft(tmp_path: Path) -> None:
    trainer = train(tmp_path, QLoRAFactory(QLoRAOptions()))
    trainer.save_model(str(tmp_path / "adapter"))
    ids = torch.arange(40, 72).reshape(2, 16)

    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(
        written["base_model_name_or_path"],
        quantization_config=trainer.model.config.quantization_config,
        device_map={"": "cpu"},
        dtype=torch.float32,
    )
    for module in base.modules():
        if isinstance(module, bnb.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    trainer.model.eval()
    with torch.no_grad():
        expected, found = (model(input_ids=ids).logits for model in (trainer.model, loaded))

    assert written["base_model_name_or_path"] == str(tiny_base())
    assert torch.equal(found, expected)


# The model


def test_the_base_is_nf4_with_double_quantisation(tmp_path: Path) -> None:
    factory = QLoRAFactory(QLoRAOptions())
    model = factory.load_model(arguments(tmp_path, factory))
    layers = [module for module in model.modules() if isinstance(module, bnb.Linear4bit)]

    assert len(layers) == 28
    assert all(layer.weight.quant_state.quant_type == "nf4" for layer in layers)
    assert all(layer.weight.quant_state.nested for layer in layers)
    assert all(layer.weight.dtype == torch.uint8 for layer in layers)
    assert all(layer.compute_dtype == torch.float32 for layer in layers)
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_double_quantisation_and_storage_can_be_set(tmp_path: Path) -> None:
    options = QLoRAOptions(double_quant=False, storage_dtype="bfloat16")
    factory = QLoRAFactory(options)
    model = factory.load_model(arguments(tmp_path, factory))
    weights = [m.weight for m in model.modules() if isinstance(m, bnb.Linear4bit)]

    assert not any(weight.quant_state.nested for weight in weights)
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    assert factory.describe()["storage_dtype"] == "bfloat16"


def test_under_zero3_the_base_is_stored_as_one_dtype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_zero3(monkeypatch)

    model = small_model(tmp_path)

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_dora_under_zero3_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_zero3(monkeypatch)

    with pytest.raises(ModelError) as caught:
        small_model(tmp_path, dora=True)

    assert str(caught.value) == (
        "model.lora.dora does not work under DeepSpeed ZeRO-3: it computes with whole base "
        "weights, which ZeRO-3 shares out; use ZeRO-2, or set model.lora.dora to false"
    )


def test_the_same_seed_gives_the_same_adapter(tmp_path: Path) -> None:
    factory = QLoRAFactory(QLoRAOptions())
    first, second, other = (
        trained(factory.load_model(arguments(tmp_path, factory, seed=seed))) for seed in (1, 1, 2)
    )

    assert same(first, second)
    assert not same(first, other)


def test_all_linear_layers_are_those_that_peft_finds(tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_base())
    expected = get_peft_model(
        plain, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear")
    )

    found = trained(small_model(tmp_path))

    assert found.keys() == trained(expected).keys()
    assert not any("lm_head" in name or "embed" in name for name in found)


def test_adapters_go_where_the_options_say(tmp_path: Path) -> None:
    found = trained(small_model(tmp_path, r=2, target_modules=("q_proj", "mlp.down_proj")))

    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in found} == {
        "q_proj",
        "down_proj",
    }
    assert all(2 in weight.shape for weight in found.values())


@pytest.mark.parametrize("kind", ["dora", "rslora"])
def test_dora_and_rslora_train(tmp_path: Path, kind: str) -> None:
    options = QLoRAOptions(lora=LoraOptions.model_validate({"r": 4, "alpha": 8, kind: True}))

    trainer = train(tmp_path, QLoRAFactory(options), max_steps=2)

    config = trainer.model.peft_config["default"]
    names = trained(trainer.model).keys()
    scaling = next(m.scaling["default"] for n, m in trainer.model.named_modules() if "q_proj" in n)
    assert (config.use_dora, config.use_rslora) == (kind == "dora", kind == "rslora")
    assert any("lora_magnitude_vector" in name for name in names) == (kind == "dora")
    assert scaling == (8 / 4**0.5 if kind == "rslora" else 8 / 4)
    assert QLoRAFactory(options).memory.trained_parameters == sum(
        weight.numel() for weight in trained(trainer.model).values()
    )


# What is refused


def refusal(options: QLoRAOptions, *, free: int = 2**33) -> str:
    factory = QLoRAFactory(options)
    factory.device = Device("cpu", None, "CPU", 2**34, free, bfloat16=False)
    with pytest.raises((ModelError, HardwareError)) as caught:
        factory.check()
    return str(caught.value)


def test_a_layer_that_is_not_there_is_named() -> None:
    options = QLoRAOptions(lora=LoraOptions(target_modules=("q_proj", "qproj")))

    assert refusal(options) == (
        "model.lora.target_modules: no linear layer is named 'qproj'; there are q_proj, k_proj, "
        "v_proj, o_proj, gate_proj, up_proj, down_proj; did you mean 'q_proj'?"
    )


def test_an_adapter_on_the_head_is_refused() -> None:
    options = QLoRAOptions(lora=LoraOptions(target_modules=("q_proj", "lm_head")))

    assert refusal(options) == (
        "model.lora.target_modules names the output head 'lm_head'; SFTTrainer scores with the "
        "head's own weight, so an adapter there would never be trained; take it out, or train "
        "the head whole with model.lora.modules_to_save"
    )


def test_too_little_memory_is_refused_before_loading() -> None:
    assert refusal(QLoRAOptions(), free=2**20) == (
        "base 'tiny' needs at least 5.6 MiB (0.8 MiB for the base in 4 bits, 1.5 MiB for its other "
        "parts in float32, 3.3 MiB for the adapters and their optimizer), and cpu has 1.0 MiB free "
        "of 16.0 GiB; end what else runs there, take a smaller base, or lower model.lora.r"
    )


def test_a_base_without_layers_to_quantise_is_refused(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 96}
    FalconForCausalLM(FalconConfig(**shape)).save_pretrained(tmp_path)

    assert refusal(QLoRAOptions(base=str(tmp_path))) == (
        f"base '{tmp_path}' has no linear layer that an adapter could stand beside (model type "
        "'falcon'); take another base"
    )


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base())
    model.save_pretrained(tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    factory = QLoRAFactory(QLoRAOptions(base=str(tmp_path / "base")))

    with pytest.raises(ModelError) as caught:
        factory.load_model(arguments(tmp_path, factory))

    message = str(caught.value)
    assert message.startswith(f"base '{tmp_path / 'base'}' cannot be loaded: ")
    assert message.endswith("; copy or download it again")


# The tokenizer


def base_with(folder: Path, **changes: Any) -> QLoRAOptions:
    """The embedded base with another tokenizer config."""
    AutoModelForCausalLM.from_pretrained(tiny_base()).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return QLoRAOptions(base=str(folder))


def test_the_base_keeps_its_own_padding_token_and_template() -> None:
    factory = QLoRAFactory(QLoRAOptions())

    tokenizer = factory.load_tokenizer()

    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.chat_template is not None
    assert factory.describe()["pad_token"] == "<|pad|>, the base's own"
    assert factory.describe()["chat_template"] == "the base's own"


@pytest.mark.parametrize(
    ("changes", "token", "why"),
    [
        ({"pad_token": None}, "<|pad|>", "<|pad|>, reserved in the base"),
        (
            {"pad_token": None, "renamed": {"<|pad|>": "<|reserved_0|>"}},
            "<|reserved_0|>",
            "<|reserved_0|>, reserved in the base",
        ),
        (
            {"pad_token": None, "renamed": {"<|pad|>": "<|x|>"}, "unk_token": "<|user|>"},
            "<|user|>",
            "<|user|>, as the base has none of its own",
        ),
        (
            {"pad_token": None, "renamed": {"<|pad|>": "<|x|>"}},
            "<|end|>",
            "<|end|>, as the base has none of its own",
        ),
    ],
)
def test_padding_uses_a_token_that_is_there(
    tmp_path: Path, changes: dict[str, Any], token: str, why: str
) -> None:
    renamed = changes.pop("renamed", {})
    options = base_with(tmp_path, **changes)
    for old, new in renamed.items():
        for file in tmp_path.glob("tokenizer*.json"):
            file.write_text(file.read_text().replace(old, new))
    factory = QLoRAFactory(options)

    tokenizer = factory.load_tokenizer()

    assert tokenizer.pad_token == token
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(tiny_base()))
    assert factory.describe()["pad_token"] == why


def test_a_base_without_template_keeps_none(tmp_path: Path) -> None:
    factory = QLoRAFactory(base_with(tmp_path, chat_template=None))

    assert factory.load_tokenizer().chat_template is None
    assert factory.describe()["chat_template"] == "none; the plain one is used"


def test_a_template_of_ones_own_takes_the_place_of_the_bases(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}")
    factory = QLoRAFactory(QLoRAOptions(chat_template=file))

    text = factory.load_tokenizer().apply_chat_template(
        [{"role": "user", "content": "5?"}], tokenize=False
    )

    assert text == "user: 5?<|end|>"
    assert factory.describe()["chat_template"] == str(file)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "{% for m in messages %}\n{{ m.content }",
            ", line 2: unexpected '}'; correct the template",
        ),
        (
            "{{ raise_exception('no roles') }}",
            " cannot render a question and its answer: no roles; correct the template",
        ),
        (
            "{{ messages.append(1) }}",
            " cannot render a question and its answer: access to attribute 'append' of 'list' "
            "object is unsafe.; correct the template",
        ),
    ],
)
def test_a_broken_template_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(text)

    with pytest.raises(ModelError) as caught:
        QLoRAFactory(QLoRAOptions(chat_template=file)).load_tokenizer()

    assert str(caught.value) == f"chat template {file}{problem}"


def test_a_missing_template_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"

    with pytest.raises(ModelError) as caught:
        QLoRAFactory(QLoRAOptions(chat_template=file)).load_tokenizer()

    assert str(caught.value) == (
        f"chat template {file} cannot be read: No such file or directory; correct the path in "
        "model.chat_template"
    )


def test_a_base_without_tokenizer_is_refused(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(tiny_base()).save_pretrained(tmp_path)

    with pytest.raises(ModelError) as caught:
        QLoRAFactory(QLoRAOptions(base=str(tmp_path))).load_tokenizer()

    assert str(caught.value) == (
        f"base '{tmp_path}' has no tokenizer that can be loaded: it has no tokenizer.json; copy "
        "its tokenizer files (tokenizer.json, tokenizer_config.json) beside its weights"
    )


# The report


def test_its_arguments_make_the_same_model_without_it(tmp_path: Path) -> None:
    factory = QLoRAFactory(QLoRAOptions(lora=LoraOptions(r=4)))
    lora = factory.lora_arguments()

    base = AutoModelForCausalLM.from_pretrained(
        factory.base.location(),
        quantization_config=BitsAndBytesConfig(**factory.quantisation_arguments(sharded=False)),
        dtype=factory.compute_dtype,
        device_map={"": "cpu"},
    )
    set_seed(7)
    made = get_peft_model(base, LoraConfig(**lora))
    expected = factory.load_model(arguments(tmp_path, factory))

    assert same(trained(made), trained(expected))
    assert same(frozen(made), frozen(expected))
    assert lora["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]


def test_what_was_resolved_is_described() -> None:
    factory = QLoRAFactory(QLoRAOptions())
    factory.device = CPU

    facts = factory.describe()

    assert json.loads(json.dumps(facts)) == facts
    assert facts == {
        "base": "tiny",
        "kind": "embedded",
        "model_type": "llama",
        "parameters": 1967808,
        "quantisation": "nf4, double",
        "quantised_parameters": 1572864,
        "adapter": "LoRA, r=16, alpha=32, dropout=0.0",
        "adapted_layers": 28,
        "trained_parameters": 217088,
        "device": "cpu",
        "compute_dtype": "float32",
        "compute_dtype_why": "no GPU; the CPU is fastest in it",
        "memory_estimate": "5.6 MiB",
        "memory_free": "8.0 GiB",
    }
