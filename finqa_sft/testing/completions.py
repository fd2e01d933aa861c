"""The rules of a formatter's contract that are about completions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from finqa_sft.documents import SCALES, Question
from finqa_sft.encoding import IGNORED, Encoder
from finqa_sft.formatters.base import Formatter, Message, Prediction
from finqa_sft.testing.contract import Checked, excerpt
from finqa_sft.testing.fields import is_unicode
from finqa_sft.testing.formatter_rules import FormatterRule
from finqa_sft.testing.golds import gold_text, is_gold, other_answers, plain, stated_scales

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


GARBLED = (
    "",
    "\n \t",
    "\0",
    "\ud800",
    "NaN",
    "1e999",
    "9" * 5000,
    "add(1,",
    "add(#9, none), ),(",
    "divide(1, 0)",
    "(" * 5000,
    '{"answer": ',
    "```json\n[]\n```",
    "<think>",
    "</think> 5 <think>",
    "%s {} {0} \\1 $",
    "∑ ½ 一二三 \u200f\ufdfa e\u0301",
    "the same again " * 5000,
)
"""What a model may write that was never taught, or not yet."""


CHANGED = "changed by the caller"
"""What is written into the messages that a formatter gives."""

END_TOKENS = ("</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>")
"""Ends of a turn in wide use, for where no tokenizer says its own."""


def completed(checked: Checked, formatter: Formatter, question: Question) -> str:
    """The text of the one message that a completion is."""
    with checked.unraised(FormatterRule.COMPLETION, f"the completion of question {question.id!r}"):
        made = formatter.completion(question)
        kept = (
            isinstance(made, list)
            and [message["role"] for message in made] == ["assistant"]
            and bool(made[0]["content"].strip())
            and is_unicode(made[0]["content"])
        )
    checked.require(FormatterRule.COMPLETION, kept, f"question {question.id!r} has {made!r}")
    text = text_of(made)
    # A formatter that hands out a list of its own will give this the next time.
    made[0] = {"role": "assistant", "content": CHANGED}
    return text


def check_completion(
    checked: Checked,
    formatter: Formatter,
    question: Question,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """One message, the same every time, whatever is shown of the document."""
    text, named = completed(checked, formatter, question), f"question {question.id!r}"
    with checked.unraised(FormatterRule.ASKS, f"the prompt of {named} without a document"):
        formatter.prompt(question, document=replace(question.document, blocks=()))
    again = completed(checked, formatter, question)
    checked.require(
        FormatterRule.SAME,
        again == text,
        f"the completion of {named} was {text!r}, then {again!r}",
    )
    own = list(map(str, tokenizer.all_special_tokens)) if tokenizer is not None else []
    found = sorted(token for token in {*END_TOKENS, *own} if token.strip() and token in text)
    checked.require(
        FormatterRule.ENDS,
        not found,
        f"the completion of {named} is {excerpt(text)}, with {' and '.join(found)} in it",
    )


def check_round_trip(checked: Checked, formatter: Formatter, question: Question) -> None:
    """Every answer gives a completion of its own, in which it is read again."""
    text = completed(checked, formatter, question)
    twins = list(other_answers(question))
    for twin in twins:
        checked.require(
            FormatterRule.TELLS,
            completed(checked, formatter, twin) != text,
            f"the completion of question {question.id!r} is {excerpt(text)} with {gold_text(twin)} "
            f"and with {gold_text(question)}",
        )
    for asked in (question, *twins):
        _check_reading(checked, formatter, asked)


def _check_reading(checked: Checked, formatter: Formatter, question: Question) -> None:
    text = completed(checked, formatter, question)
    predictions = [_parsed(checked, formatter, t) for t in (text, f"\n {text} \n")]
    for prediction in predictions:
        checked.require(
            FormatterRule.STATES,
            is_gold(prediction, question),
            f"in {excerpt(text)} parse() reads answer {prediction.answer!r} and program "
            f"{prediction.program!r}; the question has {gold_text(question)}",
        )
        checked.require(
            FormatterRule.SCALE,
            prediction.scale in stated_scales(question),
            f"in {excerpt(text)} parse() reads scale {prediction.scale!r}; the question has "
            f"{question.scale!r}",
        )
    _check_citations(checked, formatter, question, predictions[0].evidence)
    checked.require(
        FormatterRule.STATES,
        predictions[0] == predictions[1],
        f"white space around {excerpt(text)} makes another prediction of it",
    )


def _check_citations(
    checked: Checked, formatter: Formatter, question: Question, cited: tuple[str, ...]
) -> None:
    """What is read as evidence was written, and what was written of it is read."""
    text = completed(checked, formatter, question)
    other = [piece for piece in cited if plain(piece) not in plain(text)]
    checked.require(
        FormatterRule.CITES,
        not other,
        f"in {excerpt(text)} parse() reads the evidence {excerpt(repr(other))}",
    )
    bare = completed(checked, formatter, replace(question, evidence=()))
    checked.require(
        FormatterRule.CITES,
        bool(cited) or bare == text,
        f"in {excerpt(text)} parse() reads no evidence; without any, the completion of question "
        f"{question.id!r} is {excerpt(bare)}",
    )


def check_garbled(checked: Checked, formatter: Formatter, questions: list[Question]) -> None:
    """Anything can be parsed: garbage, halves, repetitions."""
    texts = [completed(checked, formatter, question) for question in questions]
    halves = [text[: len(text) // 2] for text in texts]
    for text in (*GARBLED, *halves, *(f"{text}\n{text}" for text in texts)):
        prediction = _parsed(checked, formatter, text)
        checked.require(
            FormatterRule.SILENT,
            bool(text.strip()) or (prediction.answer is None and prediction.program is None),
            f"parse({text!r}) gives {prediction}",
        )


def _parsed(checked: Checked, formatter: Formatter, text: str) -> Prediction:
    """A prediction of the right types."""
    with checked.unraised(FormatterRule.PARSES, f"parse({excerpt(text)})"):
        prediction = formatter.parse(text)
    kept = (
        isinstance(prediction, Prediction)
        and isinstance(prediction.text, str)
        and prediction.text == prediction.text.strip()
        and all(
            value is None or (isinstance(value, str) and bool(value.strip()))
            for value in (prediction.answer, prediction.program)
        )
        and prediction.scale in SCALES
        and isinstance(prediction.evidence, tuple)
        and all(isinstance(cited, str) and cited.strip() for cited in prediction.evidence)
    )
    checked.require(
        FormatterRule.PARSES, kept, f"parse({excerpt(text)}) gives {excerpt(repr(prediction))}"
    )
    return prediction


def check_labels(
    checked: Checked, formatter: Formatter, question: Question, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The whole prompt is given, and the completion is learnt to its end."""
    with checked.unraised(FormatterRule.SUPERVISES, f"encoding question {question.id!r}"):
        prompt = formatter.prompt(question, document=question.document)
        completion = formatter.completion(question)
        row = Encoder(tokenizer).encode(prompt, completion)
    learnt = str(tokenizer.decode([label for label in row["labels"] if label != IGNORED]))
    _, found, after = plain(learnt).partition(plain(text_of(completion)))
    checked.require(
        FormatterRule.SUPERVISES,
        bool(found and after),
        f"of question {question.id!r} the completion is {excerpt(text_of(completion))}, and "
        f"{excerpt(learnt)} is learnt",
    )
    asked = zip(row["input_ids"], row["labels"], strict=True)
    given = str(tokenizer.decode([token for token, label in asked if label == IGNORED]))
    checked.require(
        FormatterRule.SUPERVISES,
        all(plain(message["content"]) in plain(given) for message in prompt),
        f"of question {question.id!r} the model is not given the whole prompt but {excerpt(given)}",
    )


def text_of(messages: list[Message]) -> str:
    """What messages say."""
    return "\n".join(message["content"] for message in messages)
