"""Generation: what ends a completion, sampling, memory, and a training that notices nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import FAMILIES
from factories import ROWS, arguments, frozen, full, lora, qlora, same
from peft import PeftModel
from small_models import small_model, some_prompts
from transformers import AttentionInterface, AutoTokenizer, GenerationConfig, PreTrainedModel

from finqa_sft.attention.stock import stock_attention
from finqa_sft.encoding import Encoder
from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.generation.decoding import Completion, Decoding, Prompt
from finqa_sft.generation.generator import Generator, stop_ids
from finqa_sft.generation.sampling import OwnDraws
from finqa_sft.generation.state import generating
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.options import LoRAFactoryOptions, LoraOptions

Model = PreTrainedModel | PeftModel


pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny)


def generator(model: Model, tokenizer: Any, **changes: Any) -> Generator:
    asked = {"max_new_tokens": 10, **changes.pop("decoding", {})}
    named = {"stop_ids": (), "batch_size": 8, "decoding": Decoding(**asked), **changes}
    return Generator(model, tokenizer, **named)


def completions(
    model: Model, tokenizer: Any, prompts: list[Prompt], **changes: Any
) -> list[list[Completion]]:
    found = dict(generator(model, tokenizer, **changes).complete(prompts))
    return [found[index] for index in range(len(prompts))]


# Stops


STOPS = {
    "llama3": ["<|end|>", "<|eot|>"],
    "gemma": ["<end_of_turn>", "<eos>"],
    "phi3": ["<|endoftext|>", "<|end|>"],
    "command-r": ["<EOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_is_ended_by_what_the_template_writes_and_by_eos(name: str) -> None:
    tokenizer = FAMILIES[name].tokenizer()
    found = Encoder(tokenizer).stop_ids
    assert found == tuple(sorted(found))
    ends = [tokenizer.convert_ids_to_tokens(token) for token in found]
    assert sorted(ends) == STOPS.get(name, [FAMILIES[name].eos])


def test_a_template_that_ends_no_answer_leaves_the_eos_alone() -> None:
    tokenizer = FAMILIES["smollm2"].tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    encoder = Encoder(tokenizer)
    assert encoder.appends_eos
    assert encoder.stop_ids == (tokenizer.eos_token_id,)


def test_what_the_base_names_counts_if_it_is_a_control_token(tokenizer: Any) -> None:
    encoder, model = Encoder(tokenizer), small_model("llama")
    end, pad, user = tokenizer.convert_tokens_to_ids(["<|end|>", "<|pad|>", "<|user|>"])
    assert encoder.stop_ids == (end,)
    for named, found in (
        (None, (end,)),
        (user, (end, user)),
        ([pad, user, 700], (pad, end, user)),
        (700, (end,)),
        (5000, (end,)),
    ):
        model.generation_config.eos_token_id = named
        assert stop_ids(encoder, model) == found


def test_a_completion_ends_at_the_first_stop(tokenizer: Any) -> None:
    model, prompts = small_model("llama"), some_prompts()
    whole = completions(model, tokenizer, prompts)
    assert {(one.tokens, one.finished) for (one,) in whole} == {(10, False)}
    ids: list[list[int]] = []
    with generating(model) as inside:
        for prompt in prompts:
            output = inside.generate(
                input_ids=torch.tensor([prompt.ids]),
                attention_mask=torch.ones(1, len(prompt.ids), dtype=torch.long),
                generation_config=GenerationConfig(max_new_tokens=10, pad_token_id=0),
            )
            ids.append(output[0, len(prompt.ids) :].tolist())
    stops = (ids[0][0], ids[1][4], ids[2][9])

    ended = completions(model, tokenizer, prompts, stop_ids=stops)

    for (one,), tokens in zip(ended, ids, strict=True):
        end = next((place for place, token in enumerate(tokens) if token in stops), None)
        assert one == Completion(
            tokenizer.decode(tokens[:end], skip_special_tokens=True),
            10 if end is None else end + 1,
            end is not None,
        )
    assert (ended[0][0].text, ended[0][0].tokens) == ("", 1)
    assert ended[2][0].finished


def test_control_tokens_are_left_out_of_the_text(tokenizer: Any) -> None:
    user, word = tokenizer.convert_tokens_to_ids("<|user|>"), tokenizer.encode("revenue")
    made = generator(small_model("llama"), tokenizer, stop_ids=(1,))
    assert made._completion([user, *word, 1, 0, 0], 9) == Completion("revenue", len(word) + 2, True)


def test_what_the_base_wants_of_generation_has_no_say(
    tokenizer: Any, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    model, prompts = small_model("qwen2"), some_prompts()
    expected = completions(model, tokenizer, prompts)
    wants = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_p=0.5,
        top_k=3,
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
        max_length=4,
        num_beams=2,
        eos_token_id=list(range(2000)),
    )
    model.generation_config = wants
    transformers_logger = logging.getLogger("transformers")
    transformers_logger.addHandler(caplog.handler)
    recwarn.clear()
    assert completions(model, tokenizer, prompts) == expected
    transformers_logger.removeHandler(caplog.handler)
    assert model.generation_config is wants
    assert caplog.records == []
    assert list(recwarn) == []


# Sampling


def test_samples_repeat_and_do_not_depend_on_the_batches(tokenizer: Any) -> None:
    model, prompts = small_model("llama"), some_prompts(documents=3, questions=2)
    asked = {"samples": 3, "temperature": 1.5, "top_p": 0.9, "seed": 4}
    expected = completions(model, tokenizer, prompts, decoding=asked)
    assert {len(each) for each in expected} == {3}
    assert sum(len({one.text for one in each}) > 1 for each in expected) > len(prompts) // 2
    for changes in ({"batch_size": 1}, {"batch_size": 3}, {"share_prefix": False}):
        assert completions(model, tokenizer, prompts, decoding=asked, **changes) == expected
    some = completions(model, tokenizer, prompts[2:4], decoding=asked)
    assert some == expected[2:4]
    assert completions(model, tokenizer, prompts, decoding={**asked, "seed": 5}) != expected


def test_torch_goes_on_with_its_own_random_numbers(tokenizer: Any) -> None:
    model, prompts = small_model("llama"), some_prompts()
    before = torch.get_rng_state()
    completions(model, tokenizer, prompts, decoding={"samples": 2})
    assert torch.equal(torch.get_rng_state(), before)


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    probabilities = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])
    rows = 20_000
    numbers = torch.rand(rows, 1, generator=torch.Generator().manual_seed(3))
    scores = probabilities.log().expand(rows, -1)

    def shares(*, temperature: float = 1.0, top_p: float = 1.0) -> torch.Tensor:
        draws = OwnDraws(numbers, prompt=7, temperature=temperature, top_p=top_p)
        drawn = draws(torch.zeros(rows, 7, dtype=torch.long), scores).argmax(dim=-1)
        return torch.bincount(drawn, minlength=5) / rows

    close = {"rtol": 0, "atol": 0.012}
    torch.testing.assert_close(shares(), probabilities, **close)
    squared = probabilities**2 / (probabilities**2).sum()
    torch.testing.assert_close(shares(temperature=0.5), squared, **close)
    nucleus = torch.tensor([0, 0.4, 0, 0.25, 0.2]) / 0.85
    torch.testing.assert_close(shares(top_p=0.8), nucleus, **close)
    assert shares(top_p=0.3).tolist() == [0, 1, 0, 0, 0]


# Length and memory


def test_the_model_s_positions_end_a_completion(tokenizer: Any) -> None:
    model = small_model("gpt2", max_position_embeddings=64)
    page = list(range(100, 140))
    prompts = [Prompt([*page, *range(200, 200 + more)], "page") for more in (3, 20, 24, 5, 17, 14)]
    found = completions(model, tokenizer, prompts)
    assert [one.tokens for (one,) in found] == [10, 5, 1, 10, 8, 10]
    assert found == completions(model, tokenizer, prompts, batch_size=1, share_prefix=False)
    with pytest.raises(ModelError) as caught:
        completions(model, tokenizer, [Prompt(list(range(65)), "page 7")])
    assert str(caught.value) == (
        "a prompt of document 'page 7' has 65 tokens, and the model has positions for 64; lower "
        "formatter.max_length to 64"
    )


def test_positions_that_are_rotated_have_no_end(tokenizer: Any) -> None:
    model = small_model("llama", max_position_embeddings=16)
    assert completions(model, tokenizer, [Prompt(list(range(40)), "")])[0][0].tokens == 10


def limit(model: Model, most: int) -> list[int]:
    """Let a model run out of memory in batches above a size; gives the sizes that were tried."""
    tried: list[int] = []
    generate = model.generate

    def limited(**named: Any) -> Any:
        tried.append(len(named["input_ids"]))
        # Else, under ZeRO-3, processes with different numbers of batches would wait for ever.
        assert named["synced_gpus"] is False
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**named)

    model.generate = limited
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_later_ones_stay_small(tokenizer: Any) -> None:
    prompts = some_prompts(documents=6)
    expected = completions(small_model("llama"), tokenizer, prompts)
    for share in (True, False):
        model = small_model("llama")
        tried = limit(model, 3)
        made = generator(model, tokenizer, batch_size=16, share_prefix=share)
        found = list(made.complete(prompts))
        assert sorted(index for index, _ in found) == list(range(len(prompts)))
        assert [dict(found)[index] for index in range(len(prompts))] == expected
        assert made.batch_size <= 3
        assert sum(rows > 3 for rows in tried) <= 3


def test_a_row_that_does_not_fit_alone_is_told(tokenizer: Any) -> None:
    model = small_model("llama")
    limit(model, 0)
    own = model.generation_config
    with pytest.raises(HardwareError) as caught:
        completions(model.train(), tokenizer, [Prompt([5] * 30, "a"), Prompt([6] * 20, "b")])
    assert str(caught.value) == (
        "a prompt of 30 tokens with up to 10 new ones does not fit into the memory of cpu; lower "
        "formatter.max_length or evaluation.max_new_tokens, hold the base in 4 bits with "
        "model.factory=qlora, or end what else runs there"
    )
    assert model.training
    assert model.generation_config is own


def test_the_longest_prompts_come_first_and_the_order_is_the_same_each_time(
    tokenizer: Any,
) -> None:
    model, prompts = small_model("llama"), some_prompts(documents=8)
    orders = [
        [index for index, _ in generator(model, tokenizer, batch_size=4).complete(prompts)]
        for _ in range(2)
    ]
    assert orders[0] == orders[1]
    longest = max(range(len(prompts)), key=lambda index: len(prompts[index].ids))
    assert longest in orders[0][:4]


def test_completions_come_as_their_batches_are_done(tokenizer: Any) -> None:
    model = small_model("llama").train()
    tried = limit(model, 99)
    batches = generator(model, tokenizer, batch_size=4, share_prefix=False).complete(some_prompts())
    for done in range(1, 9):
        next(batches)
        assert len(tried) == -(-done // 4)
        assert model.training
    batches.close()
    assert list(generator(model, tokenizer).complete([])) == []


# A model in training


def gradients(model: Any, tokenizer: Any, *, between: Callable[[], Any]) -> dict[str, Any]:
    """The gradients of two batches, with something done between their forward passes."""
    text = [row["prompt"][0]["content"] + row["completion"][0]["content"] for row in ROWS]
    torch.manual_seed(11)
    for part in (text[:4], text[4:8]):
        batch = tokenizer(part, return_tensors="pt", padding=True)
        model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        between()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("factory", [lora, qlora, full])
def test_training_goes_on_as_if_nothing_had_been_generated(
    factory: Any, tokenizer: Any, tmp_path: Path
) -> None:
    made = factory() if factory is full else factory(dropout=0.2)
    prompts = some_prompts(documents=2)

    def fresh() -> Any:
        model = made.load_model(arguments(tmp_path, made))
        model.config.use_cache = False
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        return model.train()

    expected = gradients(fresh(), tokenizer, between=lambda: None)
    model = fresh()
    next(module for module in model.modules() if isinstance(module, torch.nn.Linear)).eval()
    modes = [module.training for module in model.modules()]
    weights, config = frozen(model), model.generation_config
    found = gradients(
        model,
        tokenizer,
        between=lambda: completions(model, tokenizer, prompts, decoding={"samples": 2}),
    )

    assert expected
    assert same(found, expected)
    assert same(frozen(model), weights)
    assert [module.training for module in model.modules()] == modes
    assert True in modes
    assert False in modes
    assert model.generation_config is config
    assert model.config.use_cache is False
    assert model.is_gradient_checkpointing
    assert all(not weight.is_inference() for weight in [*model.parameters(), *model.buffers()])


def test_weights_in_two_precisions_are_computed_with_as_in_training(
    tokenizer: Any, tmp_path: Path
) -> None:
    options = LoraOptions(modules_to_save=("embed_tokens",))
    made = LoRAFactory(LoRAFactoryOptions(compute_dtype="bfloat16", lora=options))
    model = made.load_model(arguments(tmp_path, made))
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    prompts = some_prompts(documents=2)
    found = completions(model, tokenizer, prompts)
    assert len(found) == len(prompts)
    assert not torch.is_autocast_enabled("cpu")
    with generating(model):
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") is torch.bfloat16
    with generating(small_model("llama")):
        assert not torch.is_autocast_enabled("cpu")


def of_its_own(*arguments: Any, **named: Any) -> Any:
    raise AssertionError("attention without its layout")


@pytest.mark.parametrize(("kind", "instead"), [("llama", "sdpa"), ("gemma2", "eager")])
def test_an_attention_of_a_collator_gives_way_to_a_stock_one(
    kind: str, instead: str, tokenizer: Any
) -> None:
    AttentionInterface.register("of_its_own", of_its_own)
    model, prompts = small_model(kind), some_prompts()
    expected = completions(model, tokenizer, prompts)
    model.set_attn_implementation("of_its_own")

    with stock_attention(model):
        assert model.config._attn_implementation == instead
    assert completions(model, tokenizer, prompts) == expected
    assert model.config._attn_implementation == "of_its_own"
    with pytest.raises(AssertionError, match="without its layout"):
        model(input_ids=torch.tensor([[5, 6]]))


def test_a_stock_attention_stays() -> None:
    model = small_model("llama")
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        with stock_attention(model):
            assert model.config._attn_implementation == name
        assert model.config._attn_implementation == name


def test_rope_that_grew_is_as_before(tokenizer: Any) -> None:
    model = small_model(
        "llama",
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        max_position_embeddings=32,
    )
    ids = torch.arange(40)[None] + 5
    before = model(input_ids=ids).logits
    completions(model, tokenizer, [Prompt(list(range(5, 95)), "")])
    assert torch.equal(model(input_ids=ids).logits, before)
