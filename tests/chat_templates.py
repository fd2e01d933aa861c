"""Tokenizers as families of models have them, trained here, with chat templates of our own.

Each template does what is particular to its family, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finqa_sft.encoding.boundaries import LLAMA3, O200K, QWEN2

TEXT = (
    "Net revenue was $ 412.6 million in 2023, compared with $ 398.1 million in 2022.",
    "| year | revenue | growth |\n| --- | --- | --- |\n| 2023 | 412.6 | 3.6% |\n\n",
    "Question: what was the growth in revenue?\n\nadd(5, 4), divide(#0, const_100)",
    "it's what they'll say: l'année dernière, 前年比 3.6%, größer",
    "system user assistant model think INST Answer briefly.\n\n### \n",
)
"""What the tokenizers are trained on."""

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A default system message; a line break after the end of a turn."""

LLAMA = (
    "{{ bos_token }}{% set day = strftime_now('%d %b %Y') if strftime_now is defined else '-' %}"
    "{{ '<|head|>system<|/head|>\n\nToday: ' + day + '\n\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|eot|>' }}"
    "{% for m in messages %}"
    "{{ '<|head|>' + m.role + '<|/head|>\n\n' + m.content | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)
"""Writes a beginning and the day; takes white space off."""

THINKING = (
    "{% for m in messages %}{% set said = m.content %}"
    "{% if m.role == 'assistant' and '</think>' in said %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if m.role == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + said.lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
"""Thinks unless told not to: an empty thought stands before the last answer, none in history."""

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
"""No system message, no generation prompt, a space before the answer."""

LATE_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + (first + '\n\n' if first is defined and loop.last else '') + m.content }}"
    "{{ '[/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
"""Puts the system message into the last message if that is a question: with its answer, nowhere."""

GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""No system message; the model's role has another name; takes white space off."""

PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
"""Two special tokens after an answer; its tokens take the white space after them."""

DEEPSEEK = (
    "{% set first = namespace(text='') %}"
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set first.text = first.text + m['content'] %}{% endif %}{% endfor %}"
    "{{ bos_token + first.text }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% endif %}"
    "{% if m['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜></think>' + m['content'].split('</think>')[-1] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<｜Assistant｜>' + ('<think>' if thinking else '</think>') }}{% endif %}"
)
"""System messages of any place open the text; a closed thought stands before every answer."""

COMMAND_R = (
    "{{ bos_token }}{% for m in messages %}"
    "{% set role = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'}[m.role] %}"
    "{{ '<|START_OF_TURN_TOKEN|><|' + role + '_TOKEN|>' + m.content.strip() }}"
    "{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
"""Roles are tokens of their own; takes white space off."""

GRANITE = (
    "{%- if messages[0].role != 'system' %}{{- '<|start_of_role|>system<|end_of_role|>Today: ' }}"
    "{{- strftime_now('%B %d, %Y') + (' Think.' if thinking else '') + '<|end_of_text|>\n' }}"
    "{%- endif %}{%- for m in messages %}"
    "{{- '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}"
    "{%- if loop.last and add_generation_prompt %}"
    "{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}{%- endfor %}"
)
"""Asks for the day and for thinking, in a default system message; its prompt ends in the loop."""

OLMO = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token + ('' if loop.last else '\n') }}"
    "{% else %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""Roles are plain text; only answers end with a token, the last without a line break."""

ZEPHYR = """\
{% for m in messages %}
{% if m['role'] in ('system', 'user', 'assistant') %}
{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
"""Line breaks around its tags; the one after the last role is of the template, not of the turn."""

CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
"""An answer stands in a channel that the prompt does not open; the last has its own end."""


@dataclass(frozen=True)
class Family:
    """A kind of tokenizer with a kind of template.

    Attributes:
        backend: Trains the tokenizer.
        template: Its chat template.
        special: Its special tokens beside those below.
        eos: Its EOS token.
        row: How a short conversation is encoded, the supervised span marked.
        bos: Its BOS token.
        plain: Added tokens that are not special.
        rstrip: Whether its tokens take the white space after them.
        flags: The attributes of the encoder that are set.
        cuts_lines: Whether its texts are cut at line breaks.
    """

    backend: Callable[[], Tokenizer]
    template: str | None
    special: tuple[str, ...]
    eos: str
    row: str
    bos: str | None = None
    plain: tuple[str, ...] = ()
    rstrip: bool = False
    flags: dict[str, Any] = field(default_factory=dict)
    cuts_lines: bool = True

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """A tokenizer of the family, trained."""
        backend = self.backend()
        backend.add_special_tokens(
            [
                AddedToken(word, special=True, normalized=False, rstrip=self.rstrip)
                for word in dict.fromkeys((*self.special, self.eos, *filter(None, [self.bos])))
            ]
        )
        backend.add_tokens([AddedToken(word, normalized=False) for word in self.plain])
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token=self.bos,
            eos_token=self.eos,
            pad_token=self.eos,
            chat_template=self.template,
            clean_up_tokenization_spaces=False,
            model_input_names=["input_ids", "attention_mask"],
        )


def byte_level(*before: pre_tokenizers.PreTokenizer, use_regex: bool = False) -> Tokenizer:
    """A byte-level BPE tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(), trainer)
    return tokenizer


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer that a pattern makes."""
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def smollm() -> Tokenizer:
    """GPT-2's pattern after single digits."""
    return byte_level(pre_tokenizers.Digits(individual_digits=True), use_regex=True)


def gpt2() -> Tokenizer:
    """GPT-2's pattern alone."""
    tokenizer = byte_level(use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def llama3() -> Tokenizer:
    """Llama 3's pattern."""
    return byte_level(split(LLAMA3))


def o200k() -> Tokenizer:
    """The pattern of o200k."""
    return byte_level(split(O200K))


def qwen() -> Tokenizer:
    """Qwen2's pattern, after NFC."""
    tokenizer = byte_level(split(QWEN2))
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def legacy_sentencepiece() -> Tokenizer:
    """As Llama 2: a space is put before the text, no pre-tokenizer, bytes for rare characters."""
    return _byte_fallback(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
        strips=True,
    )


def metaspace() -> Tokenizer:
    """As Mistral: a space is put before the first piece."""
    return _byte_fallback(
        None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), strips=True
    )


def gemma() -> Tokenizer:
    """As Gemma: spaces are written as ▁, and none is added."""
    return _byte_fallback(
        normalizers.Replace(" ", "▁"),
        pre_tokenizers.Split(" ", behavior="merged_with_previous"),
        strips=False,
    )


def _byte_fallback(
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
    *,
    strips: bool,
) -> Tokenizer:
    """BPE over characters, with tokens for single bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        _text(),
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False),
    )
    vocabulary = trained.get_vocab()
    merges = _merges(trained)
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * strips)
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def _text() -> Iterator[str]:
    for _ in range(4):
        yield from TEXT


IM = ("<|im_start|>", "<|im_end|>")
HEADS = ("<|head|>", "<|/head|>", "<|eot|>")

FAMILIES = {
    "smollm2": Family(
        smollm,
        CHATML,
        IM,
        eos="<|im_end|>",
        row="<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n⟦A<|im_end|>\n⟧",
    ),
    "llama3": Family(
        llama3,
        LLAMA,
        HEADS,
        bos="<|begin|>",
        eos="<|end|>",
        row="<|begin|><|head|>system<|/head|>\n\nToday: 26 Jul 2024\n\nS<|eot|>"
        "<|head|>user<|/head|>\n\nQ<|eot|><|head|>assistant<|/head|>\n\n⟦A<|eot|>⟧",
        flags={"date_pinned": True, "trims_answer": True},
    ),
    "qwen2": Family(
        qwen,
        CHATML,
        IM,
        eos="<|im_end|>",
        row="<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n⟦A<|im_end|>\n⟧",
    ),
    "qwen3": Family(
        qwen,
        THINKING,
        IM,
        eos="<|im_end|>",
        plain=("<think>", "</think>"),
        row="<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦A<|im_end|>\n⟧",
        flags={"thinking_off": True, "trims_answer": True},
    ),
    "mistral": Family(
        metaspace,
        MISTRAL,
        (),
        bos="<s>",
        eos="</s>",
        row="<s>[INST] S\n\nQ [/INST]⟦A</s>⟧",
        flags={"merges_system": True},
        cuts_lines=False,
    ),
    "mistral with a late system message": Family(
        legacy_sentencepiece,
        LATE_SYSTEM,
        ("[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        row="<s>[INST]  S\n\nQ[/INST]⟦ A</s>⟧",
        flags={"merges_system": True},
        cuts_lines=False,
    ),
    "gemma": Family(
        gemma,
        GEMMA,
        ("<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        row="<bos><start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\n"
        "⟦A<end_of_turn>\n⟧",
        flags={"merges_system": True, "trims_answer": True},
        cuts_lines=False,
    ),
    "phi3": Family(
        legacy_sentencepiece,
        PHI,
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        eos="<|endoftext|>",
        rstrip=True,
        row="<|system|> S<|end|><|user|> Q<|end|><|assistant|>⟦A<|end|><|endoftext|>⟧",
        cuts_lines=False,
    ),
    "phi4": Family(
        o200k,
        CHATML.replace("Be helpful.", "Be kind."),
        IM,
        eos="<|im_end|>",
        row="<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n⟦A<|im_end|>\n⟧",
    ),
    "deepseek": Family(
        llama3,
        DEEPSEEK,
        ("<｜User｜>", "<｜Assistant｜>"),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        plain=("<think>", "</think>"),
        row="<｜begin▁of▁sentence｜>S<｜User｜>Q<｜Assistant｜></think>⟦A<｜end▁of▁sentence｜>⟧",
        flags={"thinking_off": True},
    ),
    "command-r": Family(
        gpt2,
        COMMAND_R,
        tuple(
            f"<|{name}_TOKEN|>"
            for name in ("START_OF_TURN", "END_OF_TURN", "SYSTEM", "USER", "CHATBOT")
        ),
        bos="<BOS_TOKEN>",
        eos="<EOS_TOKEN>",
        row="<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Q<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦A<|END_OF_TURN_TOKEN|>⟧",
        flags={"trims_answer": True},
    ),
    "granite": Family(
        gpt2,
        GRANITE,
        ("<|start_of_role|>", "<|end_of_role|>"),
        eos="<|end_of_text|>",
        row="<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Q<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>⟦A<|end_of_text|>\n⟧",
        flags={"thinking_off": True, "date_pinned": True},
    ),
    "olmo": Family(
        gpt2,
        OLMO,
        (),
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        plain=("|||EMAIL_ADDRESS|||",),
        row="<|endoftext|><|system|>\nS\n<|user|>\nQ\n<|assistant|>\n⟦A<|endoftext|>⟧",
    ),
    "zephyr": Family(
        metaspace,
        ZEPHYR,
        (),
        bos="<s>",
        eos="</s>",
        row="<|system|>\nS</s>\n<|user|>\nQ</s>\n<|assistant|>\n⟦A</s>\n⟧",
        cuts_lines=False,
    ),
    "gpt-oss": Family(
        o200k,
        CHANNELS,
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>"),
        eos="<|return|>",
        row="<|start|>system<|message|>S<|end|><|start|>user<|message|>Q<|end|>"
        "<|start|>assistant<|channel|>final<|message|>⟦A<|return|>⟧",
        flags={"completes_prompt": "<|channel|>final<|message|>"},
    ),
    "no template": Family(
        gpt2,
        None,
        (),
        eos="<|endoftext|>",
        row="### system\nS\n\n### user\nQ\n\n### assistant\n⟦A<|endoftext|>⟧",
        flags={"plain_template": True},
    ),
}
