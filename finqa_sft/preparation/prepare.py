"""Preparation on one screen: a recipe in, encoded rows out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finqa_sft.documents import Question
from finqa_sft.encoding import Encoder
from finqa_sft.errors import DataError
from finqa_sft.formatters.base import Formatter
from finqa_sft.formatters.chat import ChatOptions
from finqa_sft.models.base import ModelFactory
from finqa_sft.preparation.counts import (
    ANSWER_CUT,
    DOCUMENT_CUT,
    EVIDENCE_CUT,
    LENGTH_REASONS,
    NOTHING_TO_CITE,
    PARAGRAPH_LEFT_OUT,
    PARAGRAPH_SHORTENED,
    ROW_LEFT_OUT,
    SEVERAL_CUTS,
    TAKEN_APART,
    Counts,
    place,
)
from finqa_sft.preparation.encoded import cache_key, encode_questions
from finqa_sft.preparation.mending import Mender
from finqa_sft.preparation.pages import PageEncoder
from finqa_sft.preparation.parts import Dropped, Part, PreparedData
from finqa_sft.preparation.sources import BAD_ROWS_SHOWN, Pool, read_sources
from finqa_sft.preparation.splits import divided, refuse_leaks
from finqa_sft.recipe import Recipe, Source

if TYPE_CHECKING:
    from datasets import Dataset

MOST_PROCESSES = 8
"""More do not encode faster: reading and writing become the narrow place."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepared data with what it was made with."""

    data: PreparedData
    encoder: Encoder
    formatter: Formatter


def prepared_recipe(
    recipe: Recipe,
    *,
    factory: ModelFactory | None = None,
    say: Callable[[str], None] | None = None,
) -> Prepared:
    """Prepare what a recipe names, without its model: only the tokenizer of the base is loaded.

    Args:
        recipe: The resolved recipe.
        factory: Has the tokenizer, where the recipe's model factory was built already.
        say: Is told every few seconds how far the work is.

    Raises:
        FinqaSftError: As `prepare_data`, or the tokenizer cannot be loaded or used.
    """
    encoder = Encoder((factory or recipe.model.build()).load_tokenizer())
    formatter = recipe.formatter.build()
    data = prepare_data(recipe, encoder=encoder, formatter=formatter, say=say)
    return Prepared(data, encoder, formatter)


def prepare_data(
    recipe: Recipe,
    *,
    encoder: Encoder,
    formatter: Formatter,
    say: Callable[[str], None] | None = None,
) -> PreparedData:
    """Read, mix, clean, split and encode what a recipe names.

    Args:
        recipe: The resolved recipe.
        encoder: Encodes with the base's tokenizer.
        formatter: The recipe's formatter.
        say: Is told every few seconds how far the work is.

    Raises:
        DataError: A source cannot be read, rows are bad or too long and the recipe does not leave
            them out, a document stands on both sides, or nothing is left to train on.
    """
    counts = Counts()
    sides = read_sides(recipe, counts)

    def part(questions: Sequence[Question], *, keep_evidence: bool) -> Part:
        return _part(
            recipe, questions, encoder, formatter, counts, keep_evidence=keep_evidence, say=say
        )

    data = PreparedData(
        training=part(sides.training, keep_evidence=True),
        held_out=part(sides.held_out, keep_evidence=False),
        gold=sides.gold,
        counts=counts,
    )
    if recipe.data.too_long == "error":
        _refuse_long([*data.training.dropped, *data.held_out.dropped])
    if not data.training.summary["supervised_tokens"]:
        reasons = "; ".join(f"{reason}: {n}" for reason, n in counts.left_out.items() if n)
        short = any(counts.left_out[reason] for reason in LENGTH_REASONS)
        others = f", {len(data.held_out)} are held out" if len(data.held_out) else ""
        raise DataError(
            f"no token is left to train on: of {counts.read.total()} questions read{others}, "
            f"{len(data.training)} remain ({reasons or 'none was left out'})"
            + ("; raise formatter.max_length" if short else "")
        )
    return data


@dataclass(frozen=True, slots=True)
class Sides:
    """The questions that a recipe names, read and divided.

    Attributes:
        training: Mended, to train on.
        held_out: Mended, to evaluate on.
        gold: The held-out questions as they were read, none mended or left out.
    """

    training: list[Question]
    held_out: list[Question]
    gold: list[Question]


def read_sides(recipe: Recipe, counts: Counts) -> Sides:
    """Read, mix, clean and split what a recipe names; nothing is encoded.

    Raises:
        DataError: A source cannot be read, rows are bad and the recipe does not leave them out, or
            a document stands on both sides.
    """
    mender = Mender(recipe.data, counts)
    ids: set[str] = set()

    def read(sources: Sequence[Source]) -> Pool:
        return read_sources(recipe, sources, mender=mender, counts=counts, ids=ids)

    pool = read(recipe.sources)
    training, held_out = divided(pool.questions, recipe.data.split)
    evaluation = read(recipe.evaluation_sources)
    aside = {question.document.id for question in held_out}
    held_out += evaluation.questions
    refuse_leaks(training, held_out)
    gold = [*(q for q in pool.as_read if q.document.id in aside), *evaluation.as_read]
    return Sides(training, held_out, gold)


def _part(
    recipe: Recipe,
    questions: Sequence[Question],
    encoder: Encoder,
    formatter: Formatter,
    counts: Counts,
    *,
    keep_evidence: bool,
    say: Callable[[str], None] | None,
) -> Part:
    """Encode one side; a question that stands there several times is encoded once."""
    once = list({id(question): question for question in questions}.values())
    pages = PageEncoder(
        formatter,
        encoder,
        component=recipe.formatter.component,
        max_length=recipe.max_length,
        keep_evidence=keep_evidence,
    )
    key = (
        cache_key(
            encoder.tokenizer,
            formatter,
            recipe.formatter.options,
            recipe.max_length,
            keep_evidence,
        )
        if recipe.data.cache
        else None
    )
    encoded = encode_questions(
        once,
        pages,
        key=key,
        processes=recipe.data.processes or min(os.cpu_count() or 1, MOST_PROCESSES),
        say=say,
    )
    reasons = encoded["reason"][:]
    dropped = [Dropped(q, reason) for q, reason in zip(once, reasons, strict=True) if reason]
    _count(once, encoded.select_columns(["reason", "cut", "lacks", "taken_apart"]), counts)
    chat = recipe.formatter.options
    if isinstance(chat, ChatOptions) and chat.evidence != "none":
        for question in once:
            if not question.evidence:
                counts.note(counts.noticed, NOTHING_TO_CITE, place(question))
    row_of = {id(q): n for n, (q, why) in enumerate(zip(once, reasons, strict=True)) if not why}
    kept = [question for question in questions if id(question) in row_of]
    return Part(kept, encoded.select([row_of[id(question)] for question in kept]), dropped)


def _count(questions: Sequence[Question], encoded: Dataset, counts: Counts) -> None:
    """Count what became of questions, and of the documents that were cut."""
    cuts: dict[str, dict[str, None]] = {}
    apart: set[str] = set()
    for question, row in zip(questions, encoded, strict=True):
        document = question.document.id
        if row["reason"]:
            counts.note(counts.left_out, row["reason"], place(question))
        if row["cut"]:
            cuts.setdefault(document, {})[row["cut"]] = None
        if row["lacks"]:
            lacking = EVIDENCE_CUT if row["lacks"] == "evidence" else ANSWER_CUT
            counts.note(counts.noticed, lacking, place(question))
        if row["taken_apart"] and document not in apart:
            apart.add(document)
            counts.note(counts.changed, TAKEN_APART, place(question))
    counts.changed[DOCUMENT_CUT] += len(cuts)
    counts.changed[SEVERAL_CUTS] += sum(len(made) > 1 for made in cuts.values())
    for made in cuts.values():
        for cut in map(json.loads, made):
            counts.changed[PARAGRAPH_LEFT_OUT] += cut["paragraphs"]
            counts.changed[PARAGRAPH_SHORTENED] += cut["shortened"]
            counts.changed[ROW_LEFT_OUT] += cut["rows"]


def _refuse_long(dropped: Sequence[Dropped]) -> None:
    """Refuse questions that were left out for their length.

    Raises:
        DataError: Names the first of them.
    """
    long = [one for one in dropped if one.reason in LENGTH_REASONS]
    if not long:
        return
    shown = "\n".join(f"  {place(one.question)}: {one.reason}" for one in long[:BAD_ROWS_SHOWN])
    more = f"\n  and {len(long) - BAD_ROWS_SHOWN} more" if len(long) > BAD_ROWS_SHOWN else ""
    raise DataError(
        f"{len(long)} questions are too long:\n{shown}{more}\n"
        "Raise formatter.max_length, or leave such questions out with data.too_long=drop"
    )
