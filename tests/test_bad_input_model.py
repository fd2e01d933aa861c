"""Mistakes about the base, its tokenizer and its template, and what the command line answers."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_input import Shell

pytest_plugins = ["bad_input"]

USER = "<|user|>{{ m.content }}<|end|>"
ANSWER = "<|assistant|>{{ m.content }}<|end|>"
GO = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture
def base(shell: Shell, tiny: Path) -> Path:
    """A base of one's own in the folder `base`, good so far."""
    return Path(shutil.copytree(tiny, shell.folder / "base"))


def save_bert(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64}
    BertModel(BertConfig(num_hidden_layers=2, **small)).save_pretrained(folder)


def save_t5(folder: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    small = {"d_model": 32, "num_heads": 2, "d_ff": 32, "d_kv": 16, "vocab_size": 64}
    T5ForConditionalGeneration(T5Config(num_layers=1, **small)).save_pretrained(folder)


def save_adapter(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "bank/base-7b"}')


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (
            save_bert,
            "is an encoder (model type 'bert'); name a causal language model, such as a Llama, "
            "Mistral, Qwen or Gemma",
        ),
        (
            save_t5,
            "is an encoder-decoder (model type 't5'); name a causal language model, such as a "
            "Llama, Mistral, Qwen or Gemma",
        ),
        (
            save_adapter,
            "is an adapter, not a base; its base is 'bank/base-7b': name that in model.base",
        ),
        (
            Path.mkdir,
            "has no config.json; name the folder that save_pretrained wrote, with config, weights "
            "and tokenizer",
        ),
        (
            Path.touch,
            "is not a GGUF file (it does not begin with 'GGUF'); name a GGUF file or a folder",
        ),
    ],
)
def test_a_base_of_another_kind(shell: Shell, save: Callable[[Path], Any], said: str) -> None:
    save(shell.folder / "other")
    assert shell.refused("r.yaml", "model.base=./other") == (
        f"base {str(shell.folder / 'other')!r} {said}"
    )


def test_a_base_that_is_not_there(shell: Shell, base: Path) -> None:
    assert shell.refused("r.yaml", "model.base=./bsae") == (
        f"base {str(shell.folder / 'bsae')!r}: no such folder; did you mean {base}?"
    )


def test_a_name_on_the_hub_without_a_network(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *to: tried.append(to))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *of, **how: tried.append(of))
    assert shell.refused("r.yaml", "model.base=bank/base-7b") == (
        "base 'bank/base-7b': no such folder beside the recipe, it is not in the Hub's cache, and "
        "HF_HUB_OFFLINE is set; download it with `hf download bank/base-7b` where there is a "
        "network, or name a local folder in model.base"
    )
    assert tried == []


def cut(name: str) -> Callable[[Path], None]:
    """Leave the first half of a file."""

    def apply(base: Path) -> None:
        content = (base / name).read_bytes()
        (base / name).write_bytes(content[: len(content) // 2])

    return apply


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda base: (base / "model.safetensors").unlink(),
            "base '{}' has no model.safetensors; weights in other formats are not read, as pickled "
            "files can run code: save it again with save_pretrained",
        ),
        (
            cut("model.safetensors"),
            "base '{}' cannot be loaded: Error while deserializing header: incomplete metadata, "
            "file not fully covered; copy or download it again",
        ),
        (
            lambda base: (base / "config.json").write_text('{"model_type":'),
            "{}/config.json is not JSON: Expecting value: line 1 column 15 (char 14); copy or "
            "download it again",
        ),
        (
            lambda base: (base / "tokenizer.json").write_text('{"version":'),
            "base '{}' has no tokenizer that can be loaded: Expecting value: line 1 column 12 "
            "(char 11); copy its tokenizer files (tokenizer.json, tokenizer_config.json) beside "
            "its weights",
        ),
    ],
)
def test_a_base_that_is_damaged(
    shell: Shell, base: Path, harm: Callable[[Path], Any], said: str
) -> None:
    harm(base)
    assert shell.refused("r.yaml", "model.base=./base") == said.format(base)


def test_a_tokenizer_without_an_end(shell: Shell, base: Path) -> None:
    config = json.loads((base / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    (base / "chat_template.jinja").write_text(template)
    assert shell.refused("r.yaml", "model.base=./base") == (
        "the tokenizer has no EOS token and its chat template ends no assistant turn, so the model "
        "could not learn to stop; set model.chat_template to a template that ends the assistant's "
        "turn with a special token"
    )


LEAVES_OUT = (
    "the chat template leaves out what the {} says: a question and its answer become {!r}; set "
    "model.chat_template to a template that writes every message"
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            b"{{ raise_exception('nobody may speak') }}",
            "chat template t.jinja cannot render a question and its answer: nobody may speak; "
            "correct the template",
        ),
        (
            b"{% for m in %}",
            "chat template t.jinja, line 1: Expected an expression, got 'end of statement block'; "
            "correct the template",
        ),
        (
            b"{{ messages[9].content }}",
            "chat template t.jinja cannot render a question and its answer: list object has no "
            "element 9; correct the template",
        ),
        (
            b"\xe4",
            "chat template t.jinja is not UTF-8 text ('utf-8' codec can't decode byte 0xe4 in "
            "position 0: unexpected end of data); save it as UTF-8",
        ),
        (b"", LEAVES_OUT.format("user", "")),
        (b"Hello.", LEAVES_OUT.format("user", "Hello.")),
        (
            f"{{% for m in messages %}}{USER}{{% break %}}{{% endfor %}}{GO}".encode(),
            LEAVES_OUT.format("assistant", "<|user|>What is 1 + 1?<|end|>"),
        ),
        (
            f"{{% for m in messages[1:] %}}{ANSWER}{{% endfor %}}{GO}".encode(),
            LEAVES_OUT.format("user", "<|assistant|>It is 2.<|end|>"),
        ),
        (
            b"{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
            b"{% if add_generation_prompt %}So: {% endif %}",
            "the chat template renders a prompt alone differently from the same prompt with its "
            "answer: 'What is 1 + 1?<|end|>So: ' is not in 'What is 1 + 1?<|end|>It is 2.<|end|>'; "
            "set model.chat_template to a "
            "template whose generation prompt is what it writes before an answer",
        ),
    ],
)
def test_a_template_that_fails(shell: Shell, template: bytes, said: str) -> None:
    shell.write("t.jinja", template)
    assert shell.refused("r.yaml", "model.chat_template=t.jinja") == said


def test_a_template_that_refuses_system_messages_is_served(shell: Shell) -> None:
    shell.write(
        "t.jinja",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + GO,
    )
    said = shell("r.yaml", "model.chat_template=t.jinja", "formatter.system=Be brief.")
    assert (said.status, said.err) == (0, "")
    assert "the chat template takes no system message; it opens the question" in said.out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "model.chat_template=t.jinja",
            "chat template t.jinja cannot be read: No such file or directory; correct the path in "
            "model.chat_template",
        ),
        (
            "model.lora.target_modules=[q_prj]",
            "model.lora.target_modules: no linear layer is named 'q_prj'; there are q_proj, "
            "k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; did you mean 'q_proj'?",
        ),
        (
            "model.revision=main",
            "model.revision is set to 'main' and base 'tiny' is not on the Hub; take "
            "model.revision out",
        ),
    ],
)
def test_a_model_section_that_asks_for_what_is_not_there(
    shell: Shell, override: str, said: str
) -> None:
    assert shell.refused("r.yaml", override) == said
