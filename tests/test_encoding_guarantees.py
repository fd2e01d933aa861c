"""Every family of tokenizers and templates keeps the guarantees, or is refused with the remedy."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from chat_templates import CHATML, FAMILIES, IM, LLAMA, TEXT, THINKING, Family, gpt2, llama3, qwen
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finqa_sft.encoding import IGNORED, BrokenGuarantee, EncodedRow, Encoder, Guarantee
from finqa_sft.encoding.guarantees import RowCheck
from finqa_sft.errors import DataError, ModelError
from finqa_sft.formatters.base import Message

PROMPT: list[Message] = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "Q"},
]
FLAGS = (
    "plain_template",
    "merges_system",
    "appends_eos",
    "thinking_off",
    "date_pinned",
    "completes_prompt",
    "trims_answer",
)
WORDS = [
    "\n",
    "\n\n",
    " ",
    "\t",
    "| a | 5 |\n",
    "Sales ",
    "it's",
    "412.6",
    "\u0301",
    "前年",
    "▁",
    "é",
]
TEXTS = st.lists(
    st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    max_size=8,
).map("".join)


def asked(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


@cache
def encoder_of(name: str) -> Encoder:
    return Encoder(FAMILIES[name].tokenizer())


def with_template(template: str, family: str = "smollm2") -> PreTrainedTokenizerBase:
    tokenizer = FAMILIES[family].tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def refusal(template: str, family: str = "smollm2") -> str:
    with pytest.raises(ModelError) as error:
        Encoder(with_template(template, family))
    return str(error.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_encoded_with_the_answer_and_its_end_supervised(name: str) -> None:
    encoder, family = encoder_of(name), FAMILIES[name]
    assert encoder.marked(encoder.encode(PROMPT, said("A"))) == family.row
    set_ = {flag: value for flag in FLAGS if (value := getattr(encoder, flag))}
    assert set_ == family.flags
    assert len(encoder.notes) == len(family.flags)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(system=TEXTS, user=TEXTS, answer=TEXTS)
def test_the_guarantees_hold_for_any_text(name: str, system: str, user: str, answer: str) -> None:
    encoder = encoder_of(name)
    tokenizer = encoder._tokenizer
    prompt = encoder.taken_apart([{"role": "system", "content": system}, *asked(user)])
    completion = encoder.taken_apart(said(answer))
    row = encoder.encode(prompt, completion)
    given_ids = tokenizer.apply_chat_template(
        encoder.messages(prompt), add_generation_prompt=True, return_dict=False
    )
    begin = len(given_ids)
    assert row["input_ids"][:begin] == given_ids == encoder.encode_prompt(prompt)
    assert row["labels"][:begin] == [IGNORED] * begin
    assert row["labels"][begin:] == row["input_ids"][begin:] != []
    learnt = tokenizer.decode(row["labels"][begin:], clean_up_tokenization_spaces=False)
    if encoder._check._exact:
        assert completion[0]["content"].strip() in learnt
    assert encoder.length(prompt, completion) == len(row["input_ids"])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_saved_template_gives_the_same_rows_and_needs_no_more_help(
    name: str, tmp_path: Path
) -> None:
    encoder = encoder_of(name)
    encoder._tokenizer.save_pretrained(tmp_path)
    again = Encoder(AutoTokenizer.from_pretrained(tmp_path))
    assert again.encode(PROMPT, said("A b")) == encoder.encode(PROMPT, said("A b"))
    assert (again.thinking_off, again.date_pinned, again.completes_prompt) == (False, False, "")


@pytest.mark.parametrize("name", FAMILIES)
def test_an_encoder_goes_to_another_process_without_its_memory(name: str) -> None:
    encoder = encoder_of(name)
    row = encoder.encode(PROMPT, said("A"))
    assert encoder.is_far_longer(asked("long " * 9000), than=5)
    sent = pickle.loads(pickle.dumps(encoder))
    assert sent._tokens._memory == {}
    assert sent.encode(PROMPT, said("A")) == row


def wordpiece() -> Tokenizer:
    """Drops white space; a word that it does not know is one unknown token."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """One unknown token for any run of unknown characters."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


@pytest.mark.parametrize("backend", [wordpiece, unigram])
def test_tokenizers_with_unknown_tokens_keep_the_guarantees_or_refuse_the_row(
    backend: Callable[[], Tokenizer],
) -> None:
    encoder = Encoder(Family(backend, CHATML, IM, eos="<|im_end|>", row="").tokenizer())
    for answer in ("$ 412.6 million", "add(5, 4), divide(#0, const_100)", "前年比 3.6%"):
        row = encoder.encode(PROMPT, said(answer))
        assert "".join(answer.split()) in "".join(encoder.marked(row).split())
    with pytest.raises(BrokenGuarantee) as error:
        encoder.encode(PROMPT, said("5 ж"))
    assert error.value.guarantee is Guarantee.SAYS


@pytest.mark.parametrize("text", [" " * 9000 + "x", "ж" * 9000])
@pytest.mark.parametrize(
    "tokenizer",
    [
        FAMILIES["phi3"].tokenizer,
        FAMILIES["llama3"].tokenizer,
        Family(wordpiece, CHATML, IM, eos="<|im_end|>", row="").tokenizer,
        Family(unigram, CHATML, IM, eos="<|im_end|>", row="").tokenizer,
    ],
    ids=["takes white space", "trims", "wordpiece", "unigram"],
)
def test_no_row_is_taken_for_longer_than_it_is(
    tokenizer: Callable[[], PreTrainedTokenizerBase], text: str
) -> None:
    encoder = Encoder(tokenizer())
    length = encoder.length(asked(text), said("5"))
    assert encoder.length(asked(text), said("5"), limit=length) == length
    assert not encoder.is_far_longer(asked(text), than=length)


@pytest.mark.parametrize("token", [" <x>", "\n<x>", "aa", "a a", "< <"])
def test_any_control_token_can_be_taken_apart(token: str) -> None:
    encoder = Encoder(Family(gpt2, CHATML, (*IM, token), eos="<|im_end|>", row="").tokenizer())
    spelt = asked(f"q{token}{token} aaa a a< < <x>")
    apart = encoder.taken_apart(spelt)
    assert (encoder.control_token(spelt), encoder.control_token(apart)) == (token, None)
    assert apart[0]["content"].replace(" ", "") == spelt[0]["content"].replace(" ", "")
    assert encoder.encode(apart, said("5"))


def test_thinking_is_off_in_training_and_in_generation_by_others() -> None:
    tokenizer = FAMILIES["qwen3"].tokenizer()
    encoder = Encoder(tokenizer)
    for switch in (True, False):
        text = tokenizer.apply_chat_template(
            PROMPT, tokenize=False, add_generation_prompt=True, enable_thinking=switch
        )
        assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert encoder.notes[0] == (
        "the chat template can ask for thinking; it is switched off, also in the template that is "
        "saved"
    )


def test_the_day_is_held_fast_with_whatever_form_it_is_asked_for() -> None:
    tokenizer = with_template(LLAMA.replace("%d %b %Y", "%A, %-d %B %y (%Y-%m-%d)"), "llama3")
    encoder = Encoder(tokenizer)
    assert encoder.date_pinned
    assert "Today: Friday, 26 July 24 (2024-07-26)\n" in encoder.marked(
        encoder.encode(PROMPT, said("A"))
    )
    assert encoder.notes[0] == (
        "the chat template asks for the day; it is always 26 Jul 2024, also in the template that "
        "is saved"
    )


def test_of_several_templates_the_default_one_is_helped() -> None:
    tokenizer = FAMILIES["smollm2"].tokenizer()
    tokenizer.chat_template = {"tool_use": "tools", "default": THINKING}
    assert Encoder(tokenizer).thinking_off
    assert tokenizer.chat_template["tool_use"] == "tools"
    assert tokenizer.chat_template["default"].endswith(THINKING)


NO_PROMPT = CHATML.partition("{% if add_generation_prompt %}")[0]
INJECTS = THINKING.replace("enable_thinking", "never")


@pytest.mark.parametrize(
    ("template", "lacked"),
    [
        (NO_PROMPT, "<|im_start|>assistant\n"),
        (NO_PROMPT + "\n", "<|im_start|>assistant\n"),
        (INJECTS, "<think>\n\n</think>\n\n"),
        (CHATML.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>' }}"), "assistant\n"),
    ],
    ids=["none at all", "and a line break", "a thought is injected", "half of it"],
)
def test_a_generation_prompt_is_completed_with_what_stands_before_answers(
    template: str, lacked: str
) -> None:
    tokenizer = with_template(template)
    encoder = Encoder(tokenizer)
    assert encoder.completes_prompt == lacked
    assert f"{lacked}⟦A<|im_end|>\n⟧" in encoder.marked(encoder.encode(PROMPT, said("A")))
    asked_for = tokenizer.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    assert asked_for.endswith(lacked)
    assert encoder.notes[0] == (
        f"the chat template's generation prompt is completed with {lacked!r}, which it writes "
        "before an answer"
    )


def test_white_space_before_an_answer_is_learnt_with_it() -> None:
    template = CHATML.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant' }}")
    encoder = Encoder(with_template(template))
    assert encoder.completes_prompt == ""
    assert encoder.marked(encoder.encode(PROMPT, said("A"))).endswith(
        "<|im_start|>assistant⟦\nA<|im_end|>\n⟧"
    )


def test_a_template_that_numbers_the_answers_in_training_only_is_refused() -> None:
    numbered = NO_PROMPT.replace("m.role + '\n'", "m.role + messages | length | string + '\n'")
    numbered += "{% if add_generation_prompt %}{% endif %}"
    assert refusal(numbered) == (
        "the chat template renders a prompt alone differently from the same prompt with its "
        "answer: 'm_start|>user1\\nWhat is 1 + 1?<|im_end|>\\n' is not in "
        "'start|>user2\\nWhat is 1 + 1?<|im_end|>\\n<|im_start|>assistant2\\nIt is 2."
        "<|im_end|>\\n'; set model.chat_template to a template whose generation prompt is what "
        "it writes before an answer"
    )


def test_a_thought_that_is_opened_for_generation_alone_is_refused() -> None:
    opens = CHATML.replace(
        "{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n' }}"
    )
    assert refusal(opens) == (
        "the chat template opens a thought before generation ('<think>\\n') and none before an "
        "answer in training, so the model would be asked for what it was not taught; set "
        "model.chat_template to a template without thinking"
    )


@pytest.mark.parametrize("thought", ["<|channel>thought\n<channel|>", "<think></think>\n\n"])
def test_an_empty_thought_of_the_generation_prompt_alone_stands_in_rows_too(thought: str) -> None:
    template = CHATML.replace("assistant\n' }}{% endif", f"assistant\n{thought}' }}}}{{% endif")
    encoder = Encoder(with_template(template))
    assert encoder.empty_thought == thought
    row = encoder.encode(PROMPT, said("A"))
    assert encoder.marked(row).endswith(f"assistant\n{thought}⟦A<|im_end|>\n⟧")
    begin = encoder.encode_prompt(PROMPT)
    assert row["input_ids"][: len(begin)] == begin
    assert encoder.notes == [
        f"the chat template's generation prompt ends with {thought!r}, which it does not write "
        "before an answer; rows have it, as generation does"
    ]


def test_an_end_that_is_no_token_of_the_tokenizer_is_refused() -> None:
    assert refusal(CHATML, "llama3") == (
        "the chat template ends an answer with '<|im_end|>\\n', of which '<|im_end|>' is no "
        "token of its own in the tokenizer: it would be learnt as text; set model.chat_template to "
        "a template that was written for this tokenizer"
    )


def test_a_template_that_leaves_out_an_answer_is_refused() -> None:
    drops = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    assert refusal(drops) == (
        "the chat template leaves out what the assistant says: a question and its answer become "
        "'What is 1 + 1?'; set model.chat_template to a template that writes every message"
    )


@pytest.mark.parametrize("name", ["mistral", "gemma"])
def test_messages_that_a_template_refuses_are_named_by_their_roles(name: str) -> None:
    with pytest.raises(DataError) as error:
        encoder_of(name).encode([*PROMPT, *asked("again")], said("A"))
    assert str(error.value) == (
        "the chat template refuses messages of the roles user, user: roles must alternate "
        "user/assistant; change the formatter's messages, or set model.chat_template to a "
        "template that takes them"
    )


def test_a_system_message_alone_is_a_question() -> None:
    encoder = encoder_of("gemma")
    assert encoder.messages(PROMPT[:1]) == asked("S")


def test_an_answer_that_the_template_changes_breaks_a_guarantee() -> None:
    with pytest.raises(BrokenGuarantee) as error:
        encoder_of("qwen3").encode(PROMPT, said("so </think>5"))
    assert error.value.guarantee is Guarantee.SAYS
    assert str(error.value) == (
        "a row is not as it must be (what is supervised is the answer and the end of its turn): "
        "the chat template writes the answer 'so </think>5' as '5<|im_end|>\\n'; set "
        "model.chat_template to a template that writes answers as they are, or leave the row out"
    )
    copy = pickle.loads(pickle.dumps(error.value))
    assert (str(copy), copy.guarantee) == (str(error.value), Guarantee.SAYS)


def test_a_prompt_that_depends_on_its_answer_breaks_a_guarantee() -> None:
    template = CHATML.replace(
        "m.content", "(m.content if loop.index < 3 else messages | length | string)"
    )
    encoder = Encoder(with_template(template))
    earlier = [*asked("1"), *said("2"), *asked("3")]
    with pytest.raises(BrokenGuarantee) as error:
        encoder.encode(earlier, said("4"))
    assert error.value.guarantee is Guarantee.SAME_PROMPT
    assert str(error.value) == (
        "a row is not as it must be (the prompt is what generation starts from): with its answer "
        "the chat template writes the prompt otherwise: "
        "'>user\\n3<|im_end|>\\n<|im_start|>assistant\\n' is not in "
        "'tant\\n2<|im_end|>\\n<|im_start|>user\\n4<|im_end|>\\n<|im_start|>assistant\\n4"
        "<|im_end|>\\n'; set model.chat_template to a template that writes earlier messages the "
        "same way in both cases"
    )


def test_a_character_that_the_tokenizer_cannot_write_breaks_a_guarantee() -> None:
    tokenizer = FAMILIES["gemma"].tokenizer()
    encoder = Encoder(tokenizer)
    tokenizer.backend_tokenizer.model.byte_fallback = False
    with pytest.raises(BrokenGuarantee) as error:
        encoder.encode(PROMPT, said("5 €"))
    assert str(error.value) == (
        "a row is not as it must be (what is supervised is the answer and the end of its turn): "
        "its tokens decode to '5 <unk><end_of_turn>\\n' and not to '5 €<end_of_turn>\\n'; where a "
        "character was lost, write the answer without it, or leave the row out"
    )


@pytest.mark.parametrize(
    ("labels", "guarantee", "what"),
    [
        ([IGNORED] * 5, Guarantee.SUPERVISED, "nothing stands after 'ab'"),
        ([IGNORED, 1, 2, 3, 4], Guarantee.GIVEN, "'b' of the prompt is supervised"),
        (
            [IGNORED, IGNORED, IGNORED, 3, 4],
            Guarantee.SAYS,
            "its tokens decode to 'de' and not to 'cde'; where a character was lost, write the "
            "answer without it, or leave the row out",
        ),
    ],
)
def test_a_row_with_wrong_labels_is_found(
    labels: list[int], guarantee: Guarantee, what: str
) -> None:
    tokenizer = FAMILIES["smollm2"].tokenizer()
    ids = [tokenizer.get_vocab()[letter] for letter in "abcde"]
    row: EncodedRow = {
        "input_ids": ids,
        "labels": [label if label == IGNORED else ids[label] for label in labels],
        "document": "",
    }
    with pytest.raises(BrokenGuarantee) as error:
        RowCheck(tokenizer).require(row, prompt=ids[:2], says="cde")
    assert error.value.guarantee is guarantee
    assert str(error.value) == f"a row is not as it must be ({guarantee}): {what}"
    with pytest.raises(BrokenGuarantee, match="it begins with 'ab', generation with 'ba'"):
        RowCheck(tokenizer).require(row, prompt=[ids[1], ids[0]], says="cde")


def test_half_a_character_is_refused() -> None:
    with pytest.raises(DataError) as error:
        encoder_of("smollm2").encode(asked("Sales of \ud83d rose"), said("A"))
    assert str(error.value) == (
        "a message holds '\\ud83d', half of a character, after 'tart|>user\\nSales of '; mend "
        "the text, or leave the row out"
    )


def test_a_tokenizer_that_merges_across_the_border_keeps_the_prompt_of_generation() -> None:
    template = (
        "{% for m in messages %}{{ m.content }}{{ eos_token if loop.index0 % 2 }}{% endfor %}"
    )
    encoder = Encoder(Family(llama3, template, (), eos="</s>", row="").tokenizer())
    prompt, completion = asked("reve"), said("nue")
    row = encoder.encode(prompt, completion)
    stock = encoder._tokenizer("revenue</s>", add_special_tokens=False)["input_ids"]
    assert row["input_ids"] != stock
    assert encoder.marked(row) == "reve⟦nue</s>⟧"
    assert row["input_ids"][: len(encoder.encode_prompt(prompt))] == encoder.encode_prompt(prompt)


@pytest.mark.parametrize("backend", [gpt2, qwen])
def test_spaces_that_decoding_would_clean_up_are_no_fault(backend: object) -> None:
    family = Family(backend, CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>", row="")  # type: ignore[arg-type]
    tokenizer = family.tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    encoder = Encoder(tokenizer)
    assert "⟦it 's 5 , no .<|im_end|>\n⟧" in encoder.marked(
        encoder.encode(PROMPT, said("it 's 5 , no ."))
    )


@pytest.mark.skipif(
    "FINQA_SFT_TEST_GGUF" not in os.environ, reason="FINQA_SFT_TEST_GGUF names no GGUF file"
)
def test_a_real_tokenizer_keeps_the_guarantees() -> None:
    from finqa_sft.models.bases import resolve_base

    location = resolve_base(os.environ["FINQA_SFT_TEST_GGUF"]).location()
    tokenizer = AutoTokenizer.from_pretrained(location)
    encoder, stock = Encoder(tokenizer), Encoder(tokenizer, reuse=False)
    assert encoder.notes == []
    assert encoder.reuses_tokens
    page = "Sales rose .\n\n| a | 5 |\n| --- | --- |\n\nIt's l'été\n\t\nB\n"
    for question in ("What were sales?", "5\nIs it?\n"):
        row = encoder.encode(asked(page + question), said("add(5, 4)"))
        assert row == stock.encode(asked(page + question), said("add(5, 4)"))
        assert encoder.marked(row).endswith("⟦add(5, 4)<|im_end|>\n⟧")
