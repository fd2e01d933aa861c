"""Parts of a text that came before keep their tokens; the ids are those of the whole text."""

from __future__ import annotations

import itertools
import json
import pickle
from functools import cache
from typing import Any

import pytest
from chat_templates import FAMILIES, Family, byte_level, gpt2, llama3, o200k, qwen, smollm, split
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from finqa_sft.encoding import Encoder, tokens
from finqa_sft.encoding.boundaries import GPT2, LINE, LLAMA3, O200K, QWEN2, TEKKEN, known_cuts
from finqa_sft.encoding.tokens import Tokens
from finqa_sft.encoding.words import any_of
from finqa_sft.formatters.base import Message

BACKENDS = {"gpt2": gpt2, "smollm": smollm, "llama3": llama3, "qwen": qwen, "o200k": o200k}
ALPHABET = "aB5 \n\r|'/é前\u0301"
"""Letters, a digit, white space, punctuation, an accent, a wide character, a combining mark."""


def family(backend: Any, **changes: Any) -> Family:
    return Family(backend, None, changes.pop("special", ("<a>",)), eos="</s>", row="", **changes)


@cache
def pair(name: str) -> tuple[Tokens, Tokens]:
    """The tokens of a family with and without a memory."""
    tokenizer = (
        FAMILIES[name].tokenizer() if name in FAMILIES else family(BACKENDS[name]).tokenizer()
    )
    return Tokens(tokenizer), Tokens(tokenizer, reuse=False)


PRE_TOKENIZERS = {
    "gpt2": (pre_tokenizers.ByteLevel(add_prefix_space=False), "before"),
    "gpt2 as a pattern": (split(GPT2), "before"),
    "digits": (
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        ),
        "before",
    ),
    "runs of digits": (
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        "before",
    ),
    "llama3": (split(LLAMA3), "after"),
    "qwen2": (split(QWEN2), "after"),
    "o200k": (split(O200K), "after"),
    "tekken": (split(TEKKEN), "after"),
}


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_no_piece_reaches_across_a_cut_in_any_short_text(name: str) -> None:
    """All texts over the alphabet with up to three characters before a cut and two behind it."""
    pre_tokenizer, side = PRE_TOKENIZERS[name]

    @cache
    def pieces(text: str) -> list[str]:
        # Byte-level ones write bytes as characters, without losing where pieces end.
        return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]

    def texts(length: int) -> list[str]:
        return ["".join(letters) for letters in itertools.product(ALPHABET, repeat=length)]

    for around, length in itertools.product(range(4), range(3)):
        if around + length > 4:
            continue
        for left, letter, right in itertools.product(texts(around), "a|", texts(length)):
            parts = (
                (left, f"\n{letter}{right}") if side == "before" else (f"{left}\n", letter + right)
            )
            whole = [piece for piece, _ in pre_tokenizer.pre_tokenize_str("".join(parts))]
            assert whole == pieces(parts[0]) + pieces(parts[1]), parts


@pytest.mark.parametrize("name", ["gpt2", "llama3", "o200k"])
@settings(max_examples=200, deadline=None)
@given(
    left=st.text(st.sampled_from(ALPHABET + "\t\u00a0\u2028sS,."), max_size=9),
    right=st.text(st.sampled_from(ALPHABET + "\t\u00a0\u2028sS,."), max_size=9),
)
def test_no_piece_reaches_across_a_cut_in_longer_texts(name: str, left: str, right: str) -> None:
    pre_tokenizer, side = PRE_TOKENIZERS[name]
    parts = (left, f"\na{right}") if side == "before" else (f"{left}\n", f"a{right}")
    whole, *apart = (
        [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]
        for text in ("".join(parts), *parts)
    )
    assert whole == apart[0] + apart[1]


@pytest.mark.parametrize("name", [*FAMILIES, *BACKENDS])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_ids_are_those_of_the_whole_text(name: str, data: st.DataObject) -> None:
    reusing, whole = pair(name)
    added = [*reusing._tokenizer.get_added_vocab(), "<", "\n", "\n\n", "\nSales", "\n| 5 |", " "]
    pieces = st.sampled_from(added) | st.text(
        st.sampled_from(ALPHABET) | st.characters(exclude_categories=["Cs"]), max_size=4
    )
    first = "".join(data.draw(st.lists(pieces, max_size=12)))
    then = first[: data.draw(st.integers(0, len(first)))] + "".join(data.draw(st.lists(pieces)))
    for text in (first, then, first):
        assert reusing.ids(text) == whole.ids(text)
    assert "".join(reusing._cuts.apart(first)) == first


@pytest.mark.parametrize("name", FAMILIES)
def test_lines_are_cut_where_the_pre_tokenizer_is_known(name: str) -> None:
    cuts = known_cuts(FAMILIES[name].tokenizer())
    assert cuts is not None
    assert bool(cuts.lines) == FAMILIES[name].cuts_lines


def test_a_text_is_cut_at_its_lines_and_added_tokens() -> None:
    page = "<a>Sales\n\nIt\n5\n| b |\n c<a>d"
    apart = {
        name: list(known_cuts(family(BACKENDS[name]).tokenizer()).apart(page))
        for name in ("gpt2", "llama3")
    }
    assert apart == {
        "gpt2": ["<a>Sales\n", "\nIt\n5", "\n| b |\n c", "<a>d"],
        "llama3": ["<a>Sales\n\n", "It\n5\n", "| b |\n c", "<a>d"],
    }


def no_lines(tokenizer: PreTrainedTokenizerBase) -> bool:
    cuts = known_cuts(tokenizer)
    return cuts is not None and cuts.lines == "" and LINE not in cuts.places.pattern


def unknown_pattern() -> Tokenizer:
    return byte_level(split(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}{1,2}")))


def prefixed() -> Tokenizer:
    tokenizer = gpt2()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def lowercasing() -> Tokenizer:
    tokenizer = llama3()
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


@pytest.mark.parametrize("backend", [unknown_pattern, prefixed, lowercasing])
def test_lines_are_left_whole_where_nothing_is_proved(backend: Any) -> None:
    assert no_lines(family(backend).tokenizer())


@pytest.mark.parametrize(
    ("backend", "token"),
    [
        (llama3, AddedToken("\n\n", normalized=False)),
        (gpt2, AddedToken("<b>", rstrip=True, normalized=False)),
        (qwen, AddedToken("<b>", normalized=True)),
    ],
    ids=["a line break in it", "reaches on", "found in normalised text"],
)
def test_lines_are_left_whole_where_an_added_token_could_lie_across(
    backend: Any, token: AddedToken
) -> None:
    tokenizer = family(backend).tokenizer()
    assert not no_lines(tokenizer)
    tokenizer.add_tokens([token])
    assert no_lines(tokenizer)
    whole = Tokens(tokenizer, reuse=False)
    reusing = Tokens(tokenizer)
    for text in ("b\n\na<b>\na<b> a\nc", "<b>\nSales\n\n\nIt"):
        assert reusing.ids(text) == whole.ids(text)


@pytest.mark.parametrize("backend", [gpt2, llama3, qwen])
@pytest.mark.parametrize("lstrip", [False, True])
@pytest.mark.parametrize("word", ["Sales", "|||"])
def test_no_cut_is_made_at_a_line_break_that_an_added_token_follows(
    backend: Any, lstrip: bool, word: str
) -> None:
    tokenizer = family(backend).tokenizer()
    tokenizer.add_tokens([AddedToken(word, lstrip=lstrip, normalized=False)])
    reusing, whole = Tokens(tokenizer), Tokens(tokenizer, reuse=False)
    assert len(list(reusing._cuts.apart("It rose.\nIt fell."))) == 2
    for text in (f"It rose.\n\n{word}\n\nIt", f"a\n\n\n{word}{word}", f"\n\n{word} | 5"):
        assert reusing.ids(text) == whole.ids(text)


def test_no_cut_is_made_before_a_token_that_takes_the_white_space_before_it() -> None:
    tokenizer = family(llama3).tokenizer()
    tokenizer.add_tokens([AddedToken("<b>", lstrip=True, normalized=False)])
    cuts = known_cuts(tokenizer)
    assert list(cuts.apart("x <b>y<a>z")) == ["x <b>y", "<a>z"]


def test_nothing_is_cut_where_tokens_are_drawn_or_depend_on_their_neighbours() -> None:
    dropping, words, split_ = (family(llama3).tokenizer() for _ in range(3))
    dropping.backend_tokenizer.model.dropout = 0.1
    words.add_tokens([AddedToken("b", single_word=True)])
    split_.split_special_tokens = True
    assert [known_cuts(t) for t in (dropping, words, split_)] == [None] * 3
    encoder = Encoder(words)
    assert not encoder.reuses_tokens
    assert encoder.encode_prompt([{"role": "user", "content": "a\nb"}])


def test_a_library_that_no_longer_cuts_as_proved_is_not_relied_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = family(llama3).tokenizer()
    assert Tokens(tokenizer).reuses
    monkeypatch.setattr(
        tokens, "known_cuts", lambda tokenizer: known_cuts(family(gpt2).tokenizer())
    )
    assert not Tokens(tokenizer).reuses


def test_a_part_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reusing = Tokens(family(llama3).tokenizer())
    asked: list[list[str]] = []
    tokenised = reusing._tokenised
    monkeypatch.setattr(
        reusing, "_tokenised", lambda texts: asked.append(texts) or tokenised(texts)
    )
    reusing.ids("<a>A page\n| b |\nQ1<a>")
    reusing.ids("<a>A page\n| b |\nQ2<a>yes")
    reusing.ids("<a>A page\n| b |\nQ1<a>")
    assert asked == [["<a>A page\n", "| b |\n", "Q1", "<a>"], ["Q2", "<a>yes"]]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_CHARACTERS", 2000)
    reusing, whole = (
        Tokens(family(llama3).tokenizer()),
        Tokens(family(llama3).tokenizer(), reuse=False),
    )
    for number in range(300):
        text = f"page {number}\nSales rose\nquestion {number}"
        assert reusing.ids(text) == whole.ids(text)
        assert sum(map(len, reusing._memory)) == reusing._remembered <= 2000
    assert f"question {number}" in reusing._memory
    assert pickle.loads(pickle.dumps(reusing))._remembered == 0


def test_the_length_of_a_row_is_told_without_encoding_what_is_far_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Encoder(FAMILIES["smollm2"].tokenizer())
    prompt: list[Message] = [{"role": "user", "content": "Sales rose. " * 500}]
    completion: list[Message] = [{"role": "assistant", "content": "add(5, 4)"}]
    length = len(encoder.encode(prompt, completion)["input_ids"])
    assert encoder.length(prompt, completion) == length
    assert encoder.length(prompt, completion, limit=length) == length
    monkeypatch.setattr(encoder._tokens, "ids", None)
    assert 50 < encoder.length(prompt, completion, limit=50) <= length


@given(
    words=st.sets(st.text(st.sampled_from("ab<|.é"), max_size=5)),
    text=st.text(st.sampled_from("ab<|.é"), max_size=12),
)
def test_the_longest_of_many_words_is_found(words: set[str], text: str) -> None:
    import re

    longest_first = sorted(filter(None, words), key=len, reverse=True)
    plain = "|".join(map(re.escape, longest_first)) or "(?!)"
    assert re.findall(any_of(words), text) == re.findall(plain, text)


def test_settings_are_read_without_the_vocabulary() -> None:
    """The settings that `known_cuts` reads are those of tokenizer.json."""
    for backend in BACKENDS.values():
        tokenizer = backend()
        written = json.loads(tokenizer.to_str())
        assert json.loads(tokenizer.pre_tokenizer.__getstate__()) == written["pre_tokenizer"]
