"""Which bases are found, which are refused, and on what device."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import huggingface_hub
import numpy as np
import psutil
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BitsAndBytesConfig,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    T5Config,
)
from transformers import __version__ as transformers_version

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.models.bases import BaseKind, resolve_base
from finqa_sft.models.cache import cached
from finqa_sft.models.devices import (
    Device,
    find_device,
    precision_args,
    resolve_compute_dtype,
    resolve_storage_dtype,
)
from finqa_sft.models.gguf import dequantised
from finqa_sft.models.memory import require_memory, short_names, size, skeleton
from finqa_sft.models.options import LoraOptions, QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.models.stored import nbytes, nf4
from finqa_sft.models.tiny import tiny_base

CPU = Device("cpu", None, "CPU", 2**34, 2**33, bfloat16=False)
H100 = Device("cuda", 0, "NVIDIA H100", 80 * 2**30, 79 * 2**30, bfloat16=True)
T4 = Device("cuda", 1, "Tesla T4", 16 * 2**30, 15 * 2**30, bfloat16=False)

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}


def refusal(action: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """The message with which an action is refused."""
    with pytest.raises((ModelError, HardwareError)) as caught:
        action(*args, **kwargs)
    return str(caught.value)


# Options


def test_the_embedded_base_is_the_default_and_stays_a_name(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    context = {"folder": tmp_path}

    assert QLoRAOptions().base == "tiny"
    assert QLoRAOptions.model_validate({"base": "tiny"}, context=context).base == "tiny"
    assert QLoRAOptions.model_validate({"base": "./tiny"}, context=context).base == str(
        tmp_path / "tiny"
    )


def test_a_path_is_taken_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "bases" / "llama").mkdir(parents=True)

    def base(written: str) -> str:
        return QLoRAOptions.model_validate({"base": written}, context={"folder": tmp_path}).base

    assert base("bases/llama") == str(tmp_path / "bases" / "llama")
    assert base("../x") == str(tmp_path.parent / "x")
    assert base("m.gguf") == str(tmp_path / "m.gguf")
    assert base("~/x") == str(Path.home() / "x")
    assert base("/x") == "/x"
    assert base("org/name") == "org/name"


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": ""},
        {"lora": {"r": 0}},
        {"lora": {"dropout": 1.0}},
        {"lora": {"target_modules": []}},
        {"lora": {"target_modules": "q_proj"}},
        {"compute_dtype": "int8"},
        {"bits": 5},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QLoRAOptions.model_validate(wrong)


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole, very small base."""
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(tmp_path / "llama-small")
    return tmp_path / "llama-small"


def test_a_folder_is_found(folder: Path) -> None:
    base = resolve_base(str(folder))

    assert base.kind is BaseKind.FOLDER
    assert base.location() == str(folder)
    assert base.config.hidden_size == 64


def test_the_embedded_base_is_found() -> None:
    base = resolve_base("tiny")

    assert base.kind is BaseKind.EMBEDDED
    assert base.location() == str(tiny_base())


def test_local_bases_open_no_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[object] = []

    def refuse(*args: object) -> None:
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "socket", refuse)

    for name in ("tiny", str(folder)):
        AutoModelForCausalLM.from_pretrained(resolve_base(name).location())
    AutoTokenizer.from_pretrained(resolve_base("tiny").location())

    assert attempts == []


def test_a_missing_folder_is_named_with_its_neighbour(folder: Path) -> None:
    wrong = folder.with_name("lama-small")

    assert refusal(resolve_base, str(wrong)) == (
        f"base '{wrong}': no such folder; did you mean {folder}?"
    )
    assert refusal(resolve_base, "/nowhere/at/all") == (
        "base '/nowhere/at/all': no such folder; correct the path in model.base"
    )


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    assert refusal(resolve_base, str(tmp_path)) == (
        f"base '{tmp_path}' has no config.json; name the folder that save_pretrained wrote, with "
        "config, weights and tokenizer"
    )
    (tmp_path / "a.gguf").touch()
    assert refusal(resolve_base, str(tmp_path)) == (
        f"base '{tmp_path}' has no config.json; to take the GGUF file in it, name {tmp_path}/a.gguf"
    )


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    assert refusal(resolve_base, str(folder)) == (
        f"base '{folder}' has no model.safetensors; weights in other formats are not read, as "
        "pickled files can run code: save it again with save_pretrained"
    )


def test_a_folder_that_lacks_shards_is_refused(folder: Path) -> None:
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))

    assert refusal(resolve_base, str(folder)) == (
        f"base '{folder}' lacks 1 of its 2 weight files, model-2.safetensors first; copy or "
        "download it again"
    )


def test_an_adapter_is_refused_with_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/name"}')

    assert refusal(resolve_base, str(tmp_path)) == (
        f"base '{tmp_path}' is an adapter, not a base; its base is 'org/name': name that in "
        "model.base"
    )


def test_a_quantised_base_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))

    assert refusal(resolve_base, str(folder)) == (
        f"base '{folder}' is already quantised (bitsandbytes); factory qlora quantises a base "
        "itself: name the one that it was made from"
    )


def test_a_config_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{,}")

    assert refusal(resolve_base, str(folder)) == (
        f"{folder}/config.json is not JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1); copy or download it again"
    )
    (folder / "config.json").write_text("[]")
    assert refusal(resolve_base, str(folder)) == (
        f"{folder}/config.json is not a JSON object; copy or download it again"
    )


@pytest.mark.parametrize(
    "wrong",
    [{"hidden_size": "big"}, {"hidden_size": 65}, {"num_attention_heads": 0}, {"vocab_size": -1}],
    ids=str,
)
def test_a_config_of_no_model_is_refused(folder: Path, wrong: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | wrong))
    factory = QLoRAFactory(QLoRAOptions(base=str(folder)))
    factory.device = H100

    message = refusal(factory.check)

    assert message.startswith(
        (
            f"{folder}/config.json describes no model: ",
            f"base '{folder}' has a config that no model can be built from: ",
        )
    )
    assert message.endswith("; copy or download it again")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (BertConfig(), "an encoder (model type 'bert')"),
        (T5Config(), "an encoder-decoder (model type 't5')"),
        (Gemma3Config().vision_config, "not a causal language model (model type {type!r})"),
    ],
)
def test_other_kinds_of_model_are_refused(tmp_path: Path, config: Any, problem: str) -> None:
    config.save_pretrained(tmp_path)

    assert refusal(resolve_base, str(tmp_path)) == (
        f"base '{tmp_path}' is {problem.format(type=config.model_type)}; name a causal language "
        "model, such as a Llama, Mistral, Qwen or Gemma"
    )


def test_code_of_a_base_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}'
    )

    assert refusal(resolve_base, str(tmp_path)) == (
        f"base '{tmp_path}' needs code of its own, which is never run (trust_remote_code is off); "
        "upgrade transformers or name a base that it supports"
    )
    assert not (tmp_path / "ran").exists()


def test_an_unknown_model_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama9"}')

    assert refusal(resolve_base, str(tmp_path)) == (
        f"base '{tmp_path}' has model type 'llama9', unknown to transformers "
        f"{transformers_version}; upgrade transformers or name a base that it supports"
    )


def test_a_revision_of_a_local_base_is_refused() -> None:
    assert refusal(resolve_base, "tiny", revision="v2") == (
        "model.revision is set to 'v2' and base 'tiny' is not on the Hub; take model.revision out"
    )


# The Hub


def answer(error: type[Exception]) -> Callable[..., str]:
    """A download that fails."""

    def download(*args: object, **kwargs: object) -> str:
        raise error("no", response=SimpleNamespace(headers={}, request=None))

    return download


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            GatedRepoError,
            "base 'org/name' is gated on the Hub; accept its terms at "
            "https://huggingface.co/org/name and log in with `hf auth login`",
        ),
        (
            RevisionNotFoundError,
            "base 'org/name' has no revision 'v2' on the Hub; correct model.revision",
        ),
        (
            RepositoryNotFoundError,
            "base 'org/name': no such folder beside the recipe and no such model on the Hub, or a "
            "private one; correct model.base, or log in with `hf auth login`",
        ),
        (
            RemoteEntryNotFoundError,
            "base 'org/name' on the Hub has no config.json: it may be an adapter or a collection "
            "of GGUF files; name its base, or download one GGUF file and name that",
        ),
    ],
)
def test_what_the_hub_answers_is_explained(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer(error))

    assert refusal(resolve_base, "org/name", revision="v2") == message


def test_a_base_that_was_never_downloaded_is_refused_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    assert refusal(resolve_base, "finqa-sft-tests/nothing") == (
        "base 'finqa-sft-tests/nothing': no such folder beside the recipe, it is not in the Hub's "
        "cache, and HF_HUB_OFFLINE is set; download it with `hf download finqa-sft-tests/nothing` "
        "where there is a network, or name a local folder in model.base"
    )


def test_a_downloaded_base_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *args, **kwargs: str(folder / "config.json")
    )

    base = resolve_base("org/name", revision="v2")

    assert base.kind is BaseKind.HUB
    assert (base.location(), base.revision) == ("org/name", "v2")


# GGUF files


def write_gguf(path: Path, *, split: str = "smollm", architecture: str = "llama") -> Path:
    """The embedded base as a GGUF file of 32-bit weights."""
    source = tiny_base()
    model = LlamaForCausalLM.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)

    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    unused = [f"<|unused{i}|>" for i in range(config.vocab_size - len(tokens))]
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens + unused)
    writer.add_token_types([3 if t in special else 1 for t in tokens] + [3] * len(unused))
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)

    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    state = {name: weight.numpy() for name, weight in model.model.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["norm.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            weight = state[f"layers.{layer}.{ours}.weight"]
            if theirs in heads:
                # GGUF keeps the two halves of a rotated pair side by side.
                halves = weight.reshape(heads[theirs], 2, -1, weight.shape[1])
                weight = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_becomes_the_model_that_it_was_made_from(tmp_path: Path) -> None:
    base = resolve_base(str(write_gguf(tmp_path / "tiny.gguf")))
    made = base.location()

    expected = LlamaForCausalLM.from_pretrained(tiny_base()).state_dict()
    model = AutoModelForCausalLM.from_pretrained(made)
    assert base.kind is BaseKind.GGUF
    assert model.dtype == torch.float32
    assert not hasattr(model, "hf_quantizer")
    assert expected.keys() == model.state_dict().keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())
    assert resolve_base(str(tmp_path / "tiny.gguf")).location() == made


def test_a_gguf_file_keeps_its_tokenizer(tmp_path: Path) -> None:
    folder = dequantised(write_gguf(tmp_path / "tiny.gguf"))
    text = "Revenue:\n\n2019 |  1,234.5 <|end|> it's 漢字"

    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = AutoTokenizer.from_pretrained(tiny_base())

    assert tokenizer(text)["input_ids"] == expected(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.chat_template == expected.chat_template
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")


def test_a_gguf_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"

    assert refusal(resolve_base, str(path)) == (
        f"base '{path}': no such file; correct the path in model.base"
    )
    path.write_bytes(b"PK\x03\x04")
    assert refusal(resolve_base, str(path)) == (
        f"base '{path}' is not a GGUF file (it does not begin with 'GGUF'); name a GGUF file or a "
        "folder"
    )


def test_a_broken_gguf_file_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:4000])

    message = refusal(resolve_base, str(path))

    assert message.startswith(f"base '{path}' cannot be read as a causal language model: ")
    assert message.endswith("; download it again, or name the model that it was made from")


def test_a_gguf_file_with_an_unknown_split_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", split="future")

    assert refusal(dequantised, path) == (
        f"base '{path}' splits text by 'future', which is not known here, and a wrong split "
        "changes the tokens of numbers; name the model that the file was made from"
    )


def test_a_gguf_file_without_room_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "a.gguf", split="gpt-2")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    needed = size(4 * skeleton(resolve_base(str(path)).config).parameters)

    assert refusal(dequantised, path) == (
        f"base '{path}' takes {needed} when dequantised to float32, and there are 1.0 MiB of "
        "memory free; dequantise it on a larger machine and copy the folder, or name the model "
        "that the file was made from"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_while_weights_are_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setenv("FINQA_SFT_CACHE", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def build(folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
        try:
            save_file({"weight": torch.zeros(2**20)}, folder / "model.safetensors")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert refusal(cached, "full", build) == (
        f"cannot write {tmp_path / 'full'}: File too large; set FINQA_SFT_CACHE to a folder that "
        "can be written and has room"
    )
    assert [path.name for path in tmp_path.glob("full*")] == ["full.lock"]


def test_safetensors_errors_about_the_disk_alone_are_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINQA_SFT_CACHE", str(tmp_path))

    def build(said: str) -> Callable[[Path], None]:
        def fail(folder: Path) -> None:
            raise SafetensorError(said)

        return fail

    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert refusal(cached, "full", build(full)) == (
        f"cannot write {tmp_path / 'full'}: No space left on device; set FINQA_SFT_CACHE to a "
        "folder that can be written and has room"
    )
    for said in (
        "Error while deserializing header: incomplete metadata, file not fully covered",
        "Error while serializing: invalid shape",
        "Error while deserializing: I/O error: Input/output error (os error 5)",
    ):
        with pytest.raises(SafetensorError):
            cached("other", build(said))


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_cache_that_is_a_file_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FINQA_SFT_CACHE", str(tmp_path / name))

    assert refusal(cached, "new", Path.touch) == (
        f"cannot write {tmp_path / name / 'new'}: {tmp_path / 'file'} is a file; set "
        "FINQA_SFT_CACHE to a folder that can be written and has room"
    )


@pytest.mark.skipif(
    "FINQA_SFT_TEST_GGUF" not in os.environ, reason="FINQA_SFT_TEST_GGUF names no GGUF file"
)
def test_a_real_gguf_file_writes_and_reads_numbers() -> None:
    folder = resolve_base(os.environ["FINQA_SFT_TEST_GGUF"]).location()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "In 2019, $ 1,234.5 (12.3%)\n\n2018"

    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer.chat_template is not None
    assert tokenizer.eos_token is not None


# Memory


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, tie_word_embeddings=True),
        GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=96),
        MixtralConfig(**SMALL, num_local_experts=4),
        Gemma3Config(
            text_config={**SMALL, "head_dim": 16},
            vision_config={
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "image_size": 28,
                "patch_size": 14,
            },
            mm_tokens_per_image=4,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_the_estimate_counts_what_bitsandbytes_stores(config: Any, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        ),
        device_map={"": "cpu"},
    )
    layers = {n: m.weight for n, m in model.named_modules() if isinstance(m, Linear4bit)}
    stored = sum(
        tensor.nbytes
        for weight in layers.values()
        for state in [weight.quant_state]
        for tensor in (
            weight, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code
        )
    )  # fmt: skip

    bones = skeleton(config)

    assert (bones.linears | bones.others).keys() == layers.keys()
    assert nbytes(nf4(bones, double_quant=True)) == stored
    assert not any("vision" in name for name in bones.targets(LoraOptions()))

    targets = short_names(bones.targets(LoraOptions()), among=layers)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=targets))
    names = {n.split(".lora_")[0] for n, p in adapted.named_parameters() if p.requires_grad}
    assert names == {f"base_model.model.{name}" for name in bones.linears}


@pytest.fixture
def seven_billion() -> QLoRAFactory:
    """A factory that has found a base of that size, on a large GPU."""
    factory = QLoRAFactory(QLoRAOptions(base="org/7b"))
    factory.skeleton = skeleton(LlamaConfig(vocab_size=32000))
    factory.device = H100
    return factory


def test_the_estimate_of_a_7b_base(seven_billion: QLoRAFactory) -> None:
    assert seven_billion.skeleton.parameters == 6_738_415_616
    assert seven_billion.memory.trained_parameters == 39_976_960
    assert {part: size(count) for part, count in seven_billion.memory.parts.items()} == {
        "the base in 4 bits": "3.1 GiB",
        "its other parts in bfloat16": "500.5 MiB",
        "the adapters and their optimizer": "610.0 MiB",
    }
    assert size(seven_billion.memory.total) == "4.2 GiB"


def test_a_base_that_does_not_fit_is_refused_with_the_numbers(seven_billion: QLoRAFactory) -> None:
    estimate = seven_billion.memory
    small = Device("cuda", 0, "GPU", 4 * 2**30, 3 * 2**30, bfloat16=True)
    named = {"base": "org/7b", "remedy": "lower model.lora.r"}

    require_memory(estimate, H100, **named)
    assert refusal(require_memory, estimate, small, **named) == (
        "base 'org/7b' needs at least 4.2 GiB (3.1 GiB for the base in 4 bits, 500.5 MiB for its "
        "other parts in bfloat16, 610.0 MiB for the adapters and their optimizer), and cuda:0 "
        "(GPU) has 3.0 GiB free of 4.0 GiB; end what else runs there, take a smaller base, or "
        "lower model.lora.r"
    )


# Devices


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretend that there are GPUs."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (2**33, 2**34))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
        monkeypatch.setattr(torch.cuda, "device", nullcontext)
        monkeypatch.delenv("LOCAL_RANK", raising=False)

    return pretend


def test_the_cpu_is_taken_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    device = find_device()

    assert (device.type, device.torch_name, str(device)) == ("cpu", "cpu", "cpu")
    assert 0 < device.free_memory <= device.total_memory


def test_one_gpu_needs_no_launcher(gpus: Callable[[int], None]) -> None:
    gpus(1)

    assert find_device() == Device("cuda", 0, "GPU 0", 2**34, 2**33, bfloat16=True)


def test_a_launched_process_takes_its_own_gpu(
    gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(2)
    monkeypatch.setenv("LOCAL_RANK", "1")

    assert str(find_device()) == "cuda:1 (GPU 1)"


def test_several_gpus_without_a_launcher_are_refused(gpus: Callable[[int], None]) -> None:
    gpus(2)

    assert refusal(find_device) == (
        "2 GPUs are visible to one process, and SFTTrainer trains on one GPU a process; start with "
        "`accelerate launch --num_processes 2 -m finqa_sft RECIPE` to use them all, or set "
        "CUDA_VISIBLE_DEVICES=0 to use one"
    )


def test_more_processes_than_gpus_are_refused(
    gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(2)
    monkeypatch.setenv("LOCAL_RANK", "2")

    assert refusal(find_device) == (
        "process 3 of this machine has no GPU: 2 visible, one a process; start with "
        "`--num_processes 2`, or make more visible in CUDA_VISIBLE_DEVICES"
    )


@pytest.mark.parametrize(
    ("device", "wanted", "resolved", "args"),
    [
        (CPU, "auto", "float32", {"bf16": False, "use_cpu": True}),
        (CPU, "bfloat16", "bfloat16", {"bf16": True, "use_cpu": True}),
        (H100, "auto", "bfloat16", {"bf16": True}),
        (H100, "float32", "float32", {"bf16": False}),
        (T4, "float16", "float16", {"bf16": False, "fp16": True}),
    ],
)
def test_precision_follows_the_device(
    device: Device, wanted: Any, resolved: str, args: dict[str, Any]
) -> None:
    compute = resolve_compute_dtype(wanted, device)

    assert compute == resolved
    assert precision_args(device, compute) == args


def test_a_gpu_without_bfloat16_is_refused_with_the_remedy() -> None:
    assert refusal(resolve_compute_dtype, "auto", T4) == (
        "cuda:1 (Tesla T4) has no bfloat16 units; set model.compute_dtype to float16, which trains "
        "with loss scaling, or use a GPU of compute capability 8.0 or later"
    )


def test_float16_on_the_cpu_is_refused() -> None:
    assert refusal(resolve_compute_dtype, "float16", CPU) == (
        "float16 training needs a GPU and this process has none; leave model.compute_dtype at "
        "auto, which is float32 on the CPU"
    )


def test_packed_weights_are_stored_as_the_compute_dtype_where_they_are_sharded() -> None:
    assert resolve_storage_dtype("auto", "bfloat16", sharded=False) == "uint8"
    assert resolve_storage_dtype("auto", "bfloat16", sharded=True) == "bfloat16"
    assert resolve_storage_dtype("uint8", "bfloat16", sharded=True) == "uint8"


# Importing bitsandbytes


def test_importing_bitsandbytes_downloads_and_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(
        f"def get_kernel(*args, **kwargs):\n    open({str(tmp_path / 'asked')!r}, 'w')\n"
    )
    code = (
        "from finqa_sft.models.quiet import import_bitsandbytes\n"
        "import_bitsandbytes()\n"
        "import bitsandbytes, kernels\n"
        "assert kernels.get_kernel\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not (tmp_path / "asked").exists()
