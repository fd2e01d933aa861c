"""The contract of a formatter, as a check."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from finqa_sft.documents import Document, Question, Table
from finqa_sft.formatters.base import Formatter, Message
from finqa_sft.formatters.budget import bare_document
from finqa_sft.testing.completions import (
    FormatterRule,
    check_completion,
    check_garbled,
    check_labels,
    check_round_trip,
    plain,
    text_of,
)
from finqa_sft.testing.contract import Checked, excerpt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_formatter(
    formatter: Formatter,
    questions: Iterable[Question],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Check what `finqa_sft.formatters.base.Formatter` promises, on some questions.

    Args:
        formatter: The formatter.
        questions: A few of each kind that it will meet: with and without a program, answered by
            numbers and by words, with earlier turns. `FilingsReader` yields all but the last.
        tokenizer: With it, what is learnt is checked too, in its chat template.

    Raises:
        ContractError: A rule of `FormatterRule` is broken.
        ValueError: There is no question.
    """
    checked = Checked("formatter", type(formatter).__name__)
    asked = list(questions)
    if not asked:
        raise ValueError("check_formatter needs at least one question")
    for question in asked:
        before = copy.deepcopy(question)
        _check_prompt(checked, formatter, question)
        check_completion(checked, formatter, question)
        check_round_trip(checked, formatter, question)
        checked.require(
            FormatterRule.UNCHANGED, question == before, f"question {question.id!r} was changed"
        )
        if tokenizer is not None:
            check_labels(checked, formatter, question, tokenizer)
    check_garbled(checked, formatter, asked)


def _check_prompt(checked: Checked, formatter: Formatter, question: Question) -> None:
    whole, named = question.document, f"question {question.id!r}"

    def prompt(asked: Question, document: Document) -> list[Message]:
        with checked.unraised(FormatterRule.ASKS, f"the prompt of {named}"):
            return formatter.prompt(asked, document=document)

    messages = prompt(question, whole)
    _check_messages(checked, messages, named)
    text = text_of(messages)
    # A formatter that hands out a list of its own would be changed by this.
    messages.clear()
    repeated = text_of(prompt(question, whole))
    checked.require(
        FormatterRule.SAME,
        repeated == text,
        f"the prompt of {named} changes to {_change(text, repeated)}",
    )
    for document in (whole, *_less(whole)):
        shown = prompt(question, document)
        _check_messages(checked, shown, named)
        checked.require(
            FormatterRule.ASKS,
            plain(question.text) in plain(text_of(shown)),
            f"{question.text!r} is not in {excerpt(text_of(shown))}",
        )
        checked.require(
            FormatterRule.SHOWS,
            len(text_of(shown)) <= len(text),
            f"with {len(document.blocks)} blocks the prompt of {named} has {len(text_of(shown))} "
            f"characters, with {len(whole.blocks)} {len(text)}",
        )
    checked.require(
        FormatterRule.SHOWS,
        text_of(prompt(question, replace(whole, blocks=()))) != text,
        f"the prompt of {named} is the same with and without the document",
    )
    hidden = replace(question, document=replace(whole, blocks=()))
    checked.require(
        FormatterRule.SHOWS,
        text_of(prompt(hidden, whole)) == text,
        f"the prompt of {named} depends on question.document beside the document it is given",
    )
    for field, twin in _twins(question):
        other = text_of(prompt(twin, whole))
        checked.require(
            FormatterRule.BLIND,
            other == text,
            f"with another {field}, the prompt of {named} changes to {_change(text, other)}",
        )


def _check_messages(checked: Checked, messages: list[Message], named: str) -> None:
    kept = isinstance(messages, list) and all(
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and isinstance(message["content"], str)
        for message in messages
    )
    roles = [message["role"] for message in messages] if kept else []
    talk = roles[1:] if roles[:1] == ["system"] else roles
    checked.require(
        FormatterRule.PROMPT,
        talk[-1:] == ["user"] and set(talk) <= {"user", "assistant"},
        f"{named} has a prompt of the roles {roles}" if kept else f"{named} has {messages!r}",
    )


def _less(document: Document) -> Iterator[Document]:
    """What the budget may leave of a document, down to nothing."""
    yield bare_document(document)
    yield replace(document, blocks=(Table(rows=(), header_rows=0),))
    yield replace(document, blocks=())


def _twins(question: Question) -> Iterator[tuple[str, Question]]:
    """The question with another answer, in each of the fields that tell of it."""
    yield "answer", replace(question, answer=f"7319 and not {question.answer}")
    for program in (None, "subtract(7319, 7318)"):
        yield "program", replace(question, program=program)
    for executed in (None, 7319.5, "yes", "no"):
        yield "executed_answer", replace(question, executed_answer=executed)
    yield "scale", replace(question, scale="percent" if question.scale != "percent" else "")
    yield "answer_type", replace(question, answer_type=f"not {question.answer_type}")
    yield "evidence", replace(question, evidence=())


def _change(before: str, after: str) -> str:
    """The place where a text is another."""
    pairs = enumerate(zip(before, after, strict=False))
    place = next((n for n, (a, b) in pairs if a != b), min(len(before), len(after)))
    return excerpt(after[max(place - 40, 0) :])
