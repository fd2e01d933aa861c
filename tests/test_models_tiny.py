"""The embedded base and the cache folder that it is kept in."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from finqa_sft.errors import ModelError
from finqa_sft.models.cache import cached
from finqa_sft.models.memory import skeleton
from finqa_sft.models.tiny import build_tiny, tiny_base, training_text

SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


@pytest.fixture(scope="module")
def tokenizer(own_cache: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_base())


def test_every_digit_is_a_token_of_its_own(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenizer.tokenize("$ 1,234.5 (12.3%) in 2019\n\n2018")

    assert "".join(token for token in tokens if token.isdigit()) == "1234512320192018"
    assert all(len(token) == 1 for token in tokens if any(c.isdigit() for c in token))


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_text_comes_back_from_its_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]

    assert tokenizer.decode(ids) == text


def test_nothing_is_added_around_a_text(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer("Revenue")["input_ids"] == tokenizer.encode(
        "Revenue", add_special_tokens=False
    )


def test_the_template_writes_roles_and_ends_each_turn_with_eos(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " What? "},
        {"role": "assistant", "content": "5"},
    ]

    prompt = tokenizer.apply_chat_template(
        conversation[:2], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(conversation, tokenize=False)

    assert prompt == "<|system|>Be brief.<|end|><|user|> What? <|end|><|assistant|>"
    assert whole == prompt + "5<|end|>"
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token == "<|pad|>"


@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_are_single(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    assert tokenizer(token)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]


def test_its_shape_has_what_real_bases_have(tokenizer: PreTrainedTokenizerBase) -> None:
    config = AutoConfig.from_pretrained(tiny_base())
    bones = skeleton(config)

    assert config.tie_word_embeddings
    assert 1 < config.num_key_value_heads < config.num_attention_heads
    assert len(tokenizer) <= config.vocab_size < len(tokenizer) + 64
    assert config.eos_token_id == tokenizer.eos_token_id
    assert all(wide % 64 == high % 64 == 0 for wide, high in bones.linears.values())


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        build_tiny(tmp_path / name, training_text())

    files = sorted(file.name for file in (tmp_path / "first").iterdir())

    assert "model.safetensors" in files
    for file in files:
        first, second = (tmp_path / name / file for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), file


def test_what_is_cached_is_built_once() -> None:
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("made")

    folder = cached("once", build)

    assert cached("once", build) == folder
    assert (folder / "file").read_text() == "made"
    assert len(calls) == 1


def test_two_builders_at_once_do_the_work_once() -> None:
    calls: list[Path] = []
    started = threading.Event()

    def build(folder: Path) -> None:
        calls.append(folder)
        started.set()
        (folder / "file").write_text("made")

    first = threading.Thread(target=cached, args=("race", build))
    first.start()
    started.wait()
    folder = cached("race", build)
    first.join()

    assert (folder / "file").read_text() == "made"
    assert len(calls) == 1


def test_a_folder_that_appeared_meanwhile_is_taken(own_cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "file").write_text("ours")
        other = own_cache / "meanwhile"
        other.mkdir()
        (other / "file").write_text("theirs")

    assert (cached("meanwhile", build) / "file").read_text() == "theirs"


def test_a_failed_build_leaves_nothing(own_cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        cached("failed", build)

    assert [p.name for p in own_cache.glob("failed*")] == ["failed.lock"]


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FINQA_SFT_CACHE", str(tmp_path / "file"))

    with pytest.raises(ModelError) as caught:
        cached("new", lambda folder: None)

    assert str(caught.value) == (
        f"cannot write {tmp_path}/file/new: {tmp_path}/file is a file; set FINQA_SFT_CACHE to a "
        "folder that can be written and has room"
    )
