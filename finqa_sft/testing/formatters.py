"""The contract of a formatter, as a check."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from finqa_sft.documents import Document, Question, Table
from finqa_sft.formatters.base import Formatter, Message
from finqa_sft.testing.completions import (
    CHANGED,
    check_completion,
    check_garbled,
    check_labels,
    check_round_trip,
    text_of,
)
from finqa_sft.testing.contract import Checked, excerpt
from finqa_sft.testing.fields import is_unicode, misfits
from finqa_sft.testing.formatter_rules import FormatterRule
from finqa_sft.testing.golds import plain
from finqa_sft.testing.shown import check_shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MARK = "question-7319"
"""Asked in place of a question, to find where its prompt asks."""


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
        ValueError: There is no question, or one that is not made as its class says.
    """
    checked = Checked("formatter", type(formatter).__name__)
    asked = list(questions)
    if not asked:
        raise ValueError("check_formatter needs at least one question")
    for number, question in enumerate(asked, start=1):
        if wrong := "; ".join(misfits(question, Question, path=f"item {number}")):
            raise ValueError(f"check_formatter needs questions: {wrong}")
    shown: set[str] = set()
    for question in asked:
        before = copy.deepcopy(question)
        _check_prompt(checked, formatter, question, is_shown=question.document.id in shown)
        shown.add(question.document.id)
        check_completion(checked, formatter, question, tokenizer=tokenizer)
        check_round_trip(checked, formatter, question)
        checked.require(
            FormatterRule.UNCHANGED, question == before, f"question {question.id!r} was changed"
        )
        if tokenizer is not None:
            check_labels(checked, formatter, question, tokenizer)
    check_garbled(checked, formatter, asked)


def _check_prompt(
    checked: Checked, formatter: Formatter, question: Question, *, is_shown: bool
) -> None:
    """What holds for prompts.

    Args:
        checked: The formatter, under check.
        formatter: The formatter.
        question: The question to ask.
        is_shown: Its document was looked at with a question before it.
    """
    whole, named = question.document, f"question {question.id!r}"

    def prompt(asked: Question, document: Document) -> str:
        with checked.unraised(FormatterRule.ASKS, f"the prompt of {named}"):
            messages = formatter.prompt(asked, document=document)
        _check_messages(checked, messages, named)
        text = text_of(messages)
        # A formatter that hands out a list of its own will give this the next time.
        messages.append({"role": "user", "content": CHANGED})
        return text

    text, repeated = prompt(question, whole), prompt(question, whole)
    checked.require(
        FormatterRule.SAME,
        repeated == text,
        f"the prompt of {named} changes to {_change(text, repeated)}",
    )
    for document in (whole, *_less(whole)):
        shown = prompt(question, document)
        checked.require(
            FormatterRule.ASKS,
            plain(question.text) in plain(shown),
            f"{question.text!r} is not in {excerpt(shown)}",
        )
        checked.require(
            FormatterRule.SHOWS,
            len(shown) <= len(text),
            f"with {len(document.blocks)} blocks the prompt of {named} has {len(shown)} "
            f"characters, with {len(whole.blocks)} {len(text)}",
        )
    checked.require(
        FormatterRule.SHOWS,
        prompt(question, replace(whole, blocks=())) != text,
        f"the prompt of {named} is the same with and without the document",
    )
    hidden = replace(question, document=replace(whole, blocks=()))
    checked.require(
        FormatterRule.SHOWS,
        prompt(hidden, whole) == text,
        f"the prompt of {named} depends on question.document beside the document it is given",
    )
    if not is_shown:
        check_shown(checked, whole, prompt=lambda part: prompt(question, part), named=named)
    lost = [turn.question for turn in question.history if plain(turn.question) not in plain(text)]
    checked.require(
        FormatterRule.HISTORY,
        not lost,
        f"the prompt of {named} does not hold {lost} from before it",
    )
    checked.require(
        FormatterRule.HISTORY,
        not question.history or prompt(replace(question, history=()), whole) != text,
        f"the prompt of {named} is the same with and without the turns before it",
    )
    for field, twin in _twins(question):
        other = prompt(twin, whole)
        checked.require(
            FormatterRule.BLIND,
            other == text,
            f"with another {field}, the prompt of {named} changes to {_change(text, other)}",
        )
    first, *others = (prompt(one, whole).partition(MARK)[0] for one in _asking_first(question))
    for other in (*others, text[: len(first)]):
        checked.require(
            FormatterRule.SHARED,
            other == first,
            f"before the question, the prompt of {named} changes to {_change(first, other)}",
        )


def _check_messages(checked: Checked, messages: list[Message], named: str) -> None:
    kept = isinstance(messages, list) and all(
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and isinstance(message["content"], str)
        and is_unicode(message["content"])
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
    """What may be left of a document that is too long, down to nothing."""
    tables = document.tables
    bare = (replace(table, rows=table.rows[: table.header_rows]) for table in tables)
    yield replace(document, blocks=tuple(bare))
    yield replace(document, blocks=(Table(rows=(), header_rows=0),))
    yield replace(document, blocks=())


def _twins(question: Question) -> Iterator[tuple[str, Question]]:
    """The question with another answer, in each of the fields that tell of it."""
    yield "answer", replace(question, answer=f"7319 and not {question.answer}")
    for program in (None, "subtract(7319, 7318)"):
        yield "program", replace(question, program=program)
    for executed in (None, 7319.5, "yes", "no"):
        yield "executed_answer", replace(question, executed_answer=executed)
    yield "derivation", replace(question, derivation=f"7319 and not {question.derivation}")
    yield "scale", replace(question, scale="percent" if question.scale != "percent" else "")
    yield "answer_type", replace(question, answer_type=f"not {question.answer_type}")
    yield "evidence", replace(question, evidence=())


def _asking_first(question: Question) -> Iterator[Question]:
    """Questions about the same document, in which `MARK` stands for the first one asked."""
    alone = replace(question, text=MARK, history=())
    yield alone
    yield replace(alone, id=f"not {question.id}", source=f"not {question.source}")
    yield replace(alone, text=f"{MARK} and {question.text}")
    if question.history:
        turn, *turns = question.history
        yield replace(question, history=(replace(turn, question=MARK), *turns))


def _change(before: str, after: str) -> str:
    """The place where a text is another."""
    pairs = enumerate(zip(before, after, strict=False))
    place = next((n for n, (a, b) in pairs if a != b), min(len(before), len(after)))
    return excerpt(after[max(place - 40, 0) :])
