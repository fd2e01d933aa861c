"""The contract of a formatter: its rules, and those of them that are about completions."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from finqa_sft.documents import SCALES, Question
from finqa_sft.encoding import IGNORED, Encoder
from finqa_sft.formatters.base import Formatter, Message, Prediction
from finqa_sft.formatters.chat import number_text
from finqa_sft.testing.contract import Checked, Rule, excerpt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class FormatterRule(Rule):
    """What holds for every formatter."""

    PROMPT = (
        "a prompt is chat messages, the last of them the user's",
        "Return dicts with role and content; a system message can only be the first.",
    )
    COMPLETION = (
        "a completion is one assistant message with text in it",
        "Return [{'role': 'assistant', 'content': text}], and text that is never empty.",
    )
    ASKS = (
        "the prompt asks the question, whatever is left of the document",
        "Write question.text into prompt() as it is, and expect any block to be left out.",
    )
    SHOWS = (
        "the prompt shows the document that it is given, and nothing else of the page",
        "In prompt(), read the argument document and never question.document.blocks; with less of "
        "the document the prompt must not get longer.",
    )
    BLIND = (
        "the prompt is the same whatever the answer is",
        "In prompt(), read nothing of answer, program, executed_answer, scale, answer_type and "
        "evidence: they are not known when the model is asked.",
    )
    SAME = (
        "one question gives the same messages every time",
        "Keep nothing from call to call, make a new list in each, and draw nothing at random.",
    )
    UNCHANGED = (
        "a question is left as it was",
        "Use dataclasses.replace instead of changing it.",
    )
    PARSES = (
        "parse takes any text and gives a Prediction",
        "Return Prediction(text=completion.strip()) where nothing can be read; raise nothing.",
    )
    SILENT = (
        "a completion without text states nothing",
        "Return a Prediction whose answer and program are None.",
    )
    STATES = (
        "parse reads in a completion of its own what was written there",
        "Make parse() the inverse of completion(): answer or program as it stands in the text, "
        "with white space around it or without.",
    )
    SUPERVISES = (
        "the tokens that are learnt are the completion and the end of its turn",
        "Write roles and text that the tokenizer's chat template renders as they are.",
    )


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


def check_completion(checked: Checked, formatter: Formatter, question: Question) -> None:
    """One message, the same every time, whatever is shown of the document."""
    with checked.unraised(FormatterRule.COMPLETION, f"the completion of question {question.id!r}"):
        first = formatter.completion(question)
        kept = (
            isinstance(first, list)
            and [message["role"] for message in first] == ["assistant"]
            and bool(first[0]["content"].strip())
        )
    checked.require(FormatterRule.COMPLETION, kept, f"question {question.id!r} has {first!r}")
    text = text_of(first)
    first.clear()
    formatter.prompt(question, document=replace(question.document, blocks=()))
    again = text_of(formatter.completion(question))
    checked.require(
        FormatterRule.SAME,
        again == text,
        f"the completion of question {question.id!r} was {text!r}, then {again!r}",
    )


def check_round_trip(checked: Checked, formatter: Formatter, question: Question) -> None:
    """What is read in a completion is what was written, with white space around it or without."""
    text = text_of(formatter.completion(question))
    predictions = [_parsed(checked, formatter, t) for t in (text, f"\n {text} \n")]
    for prediction in predictions:
        stated = prediction.program or prediction.answer
        checked.require(
            FormatterRule.STATES,
            stated is not None and _is_written(stated, text, question),
            f"in {excerpt(text)} parse() reads answer {prediction.answer!r} and program "
            f"{prediction.program!r}",
        )
    checked.require(
        FormatterRule.STATES,
        predictions[0] == predictions[1],
        f"white space around {excerpt(text)} makes another prediction of it",
    )


def check_garbled(checked: Checked, formatter: Formatter, questions: list[Question]) -> None:
    """Anything can be parsed: garbage, halves, repetitions."""
    texts = [text_of(formatter.completion(question)) for question in questions]
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
    )
    checked.require(
        FormatterRule.PARSES, kept, f"parse({excerpt(text)}) gives {excerpt(repr(prediction))}"
    )
    return prediction


def check_labels(
    checked: Checked, formatter: Formatter, question: Question, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The whole prompt is given, and the completion is learnt to its end."""
    prompt = formatter.prompt(question, document=question.document)
    completion = formatter.completion(question)
    with checked.unraised(FormatterRule.SUPERVISES, f"encoding question {question.id!r}"):
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


def _is_written(stated: str, text: str, question: Question) -> bool:
    """Whether a statement is what stands in a completion: the gold itself, or whole words of it."""
    executed = question.executed_answer
    value = number_text(executed) if isinstance(executed, int | float) else executed
    golds = {plain(g) for g in (question.answer, question.program, value) if g}
    said, whole = plain(stated), plain(text)
    if said in golds:
        return True
    cut_off = any(said in gold for gold in golds if gold in whole)
    return not cut_off and bool(re.search(rf"(?<![\w.,]){re.escape(said)}(?!\w|[.,]\d)", whole))


def text_of(messages: list[Message]) -> str:
    """What messages say."""
    return "\n".join(message["content"] for message in messages)


def plain(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())
