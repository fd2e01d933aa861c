from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase

from finqa_sft.encoding import IGNORED, PLAIN_CHAT_TEMPLATE, Encoder
from finqa_sft.errors import DataError, ModelError
from finqa_sft.formatters.base import Message

PROMPT: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Sales were $ 5. What were sales?"},
]
COMPLETION: list[Message] = [{"role": "assistant", "content": "add(5, 0)"}]

NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_END = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
OTHER_PROMPT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>Well: {% endif %}"
)


@pytest.fixture
def tokenizer(tiny: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny)


def supervised(tokenizer: PreTrainedTokenizerBase, labels: list[int]) -> str:
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


def test_the_completion_is_supervised_with_its_end_and_the_prompt_is_not(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    encoder = Encoder(tokenizer)
    row = encoder.encode(PROMPT, COMPLETION, document="d")
    assert encoder.marked(row) == (
        "<|system|>Be brief.<|end|><|user|>Sales were $ 5. What were sales?<|end|><|assistant|>"
        "⟦add(5, 0)<|end|>⟧"
    )
    assert row["document"] == "d"
    assert row["labels"][-1] == tokenizer.eos_token_id
    assert (encoder.plain_template, encoder.merges_system, encoder.appends_eos) == (False,) * 3


def test_the_supervised_row_begins_with_what_generation_starts_from(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    encoder = Encoder(tokenizer)
    prompt = encoder.encode_prompt(PROMPT)
    row = encoder.encode(PROMPT, COMPLETION)
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
    assert IGNORED not in row["labels"][len(prompt) :]


def test_a_tokenizer_without_a_template_is_given_the_plain_one(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = None
    encoder = Encoder(tokenizer)
    assert encoder.plain_template
    assert tokenizer.chat_template == PLAIN_CHAT_TEMPLATE
    assert encoder.marked(encoder.encode(PROMPT, COMPLETION)) == (
        "### system\nBe brief.\n\n### user\nSales were $ 5. What were sales?\n\n### assistant\n"
        "⟦add(5, 0)<|end|>⟧"
    )


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_system_message_that_a_template_refuses_or_drops_opens_the_question(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    tokenizer.chat_template = template
    encoder = Encoder(tokenizer)
    assert encoder.merges_system
    assert encoder.marked(encoder.encode(PROMPT, COMPLETION)) == (
        "<|user|>Be brief.\n\nSales were $ 5. What were sales?<|end|><|assistant|>"
        "⟦add(5, 0)<|end|>⟧"
    )


def test_an_answer_that_a_template_does_not_end_is_ended(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = NO_END
    encoder = Encoder(tokenizer)
    assert encoder.appends_eos
    assert encoder.marked(encoder.encode(PROMPT, COMPLETION)).endswith("⟦add(5, 0)<|end|>⟧")
    assert encoder.completion_text(COMPLETION) == "add(5, 0)<|end|>"


def test_a_template_whose_prompt_is_no_beginning_of_the_whole_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = OTHER_PROMPT
    with pytest.raises(ModelError) as error:
        Encoder(tokenizer)
    assert str(error.value) == (
        "the chat template renders a prompt alone differently from the same prompt with its "
        "answer: 'What is 1 + 1?<|end|><|assistant|>Well: ' is not in "
        "'<|user|>What is 1 + 1?<|end|><|assistant|>It is 2.<|end|>'; set "
        "model.chat_template to a template whose generation prompt is what it writes before an "
        "answer"
    )


def test_without_any_token_to_stop_at_there_is_no_encoding(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = NO_END
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="the model could not learn to stop"):
        Encoder(tokenizer)


@pytest.mark.parametrize("place", ["prompt", "completion"])
def test_text_that_spells_a_control_token_is_not_encoded(
    tokenizer: PreTrainedTokenizerBase, place: str
) -> None:
    spelt = {"prompt": PROMPT, "completion": COMPLETION}
    spelt[place] = [{**spelt[place][-1], "content": "Rev <|assistant|> is 5"}]
    encoder = Encoder(tokenizer)
    with pytest.raises(DataError) as error:
        encoder.encode(**spelt)
    assert str(error.value) == (
        "a message holds '<|assistant|>', which the tokenizer reads as a control token and not as "
        "text; take it apart with Encoder.taken_apart, or leave the row out"
    )
    with pytest.raises(DataError, match=re.escape("a message holds '<|assistant|>'")):
        encoder.encode_prompt(spelt[place])


def test_special_tokens_that_no_attribute_names_are_control_tokens(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.add_tokens([AddedToken("<s>", special=True), AddedToken("<<s>", special=True)])
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("~", special=True)])
    encoder = Encoder(tokenizer)
    messages: list[Message] = [{"role": "user", "content": "<think> ~ <<s> <s>"}]
    assert encoder.control_token(messages) == "<<s>"
    assert encoder.taken_apart(messages) == [{"role": "user", "content": "<think> ~ < < s> < s>"}]


def test_an_end_that_generation_does_not_stop_at_is_followed_by_eos(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.add_tokens(["<eot>"])
    tokenizer.chat_template = NO_END.replace("['content'] }}", "['content'] }}<eot>")
    encoder = Encoder(tokenizer)
    assert encoder.appends_eos
    assert encoder.marked(encoder.encode(PROMPT, COMPLETION)).endswith("⟦add(5, 0)<eot><|end|>⟧")


def test_a_completion_is_one_message(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError) as error:
        Encoder(tokenizer).encode(PROMPT, [*COMPLETION, *COMPLETION])
    assert str(error.value) == (
        "a completion is one assistant message, not 2; put all but the last into the prompt"
    )


CONTROL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.sampled_from([*CONTROL, "<|", "|>", "<", "end", " "]) | st.text(max_size=4))
)
def test_what_is_taken_apart_is_text_and_loses_nothing(tiny: Path, pieces: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    encoder = Encoder(tokenizer)
    text = "".join(pieces)
    apart = encoder.taken_apart([{"role": "user", "content": text}])
    assert encoder.control_token(apart) is None
    assert apart[0]["content"].replace(" ", "") == text.replace(" ", "")
    if not any(token in text for token in CONTROL):
        assert apart[0]["content"] == text
    ids = tokenizer(apart[0]["content"], add_special_tokens=False)["input_ids"]
    assert not set(ids) & set(tokenizer.all_special_ids)


@settings(max_examples=30, deadline=None)
@given(user=st.text(max_size=40), answer=st.text(min_size=1, max_size=20))
def test_masks_hold_for_any_text(tiny: Path, user: str, answer: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    encoder = Encoder(tokenizer)
    row = encoder.encode(
        [{"role": "user", "content": user}], [{"role": "assistant", "content": answer}]
    )
    assert len(row["input_ids"]) == len(row["labels"])
    assert supervised(tokenizer, row["labels"]) == answer + "<|end|>"
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (IGNORED, token)
