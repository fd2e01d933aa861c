"""What prepared data is like, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from finqa_sft.collators.shared_context import SharedContextCollator
from finqa_sft.collators.trees import tokens_as_trees
from finqa_sft.documents import Question
from finqa_sft.encoding import Encoder
from finqa_sft.formatters.base import Formatter
from finqa_sft.preparation.parts import Part, PreparedData

if TYPE_CHECKING:
    from datasets import Dataset

WHOLE, CUT = "kept, document whole", "kept, document cut"


def data_statistics(
    data: PreparedData,
    *,
    encoder: Encoder,
    formatter: Formatter,
    tokens_per_batch: int | None = None,
) -> dict[str, Any]:
    """Counts, lengths in tokens and fates of both sides, as plain values for JSON.

    `left_out` counts the dropped questions of both sides again, and those left out before. A weight
    above 1 keeps a question several times; `repeated` counts the times beyond the first.
    Lengths are p50, p95 and max. `document`: tokens that the whole document adds to a prompt;
    `question`: the question's text alone; `completion`: what is supervised.

    Args:
        data: The prepared data.
        encoder: What it was encoded by.
        formatter: What it was formatted by.
        tokens_per_batch: Option of the collator `shared_context`, where a recipe names it: a larger
            document is then divided, as the run divides it. None for documents that stay whole.

    Raises:
        DataError: A question alone has more tokens than that.
    """
    sides = {"training": data.training, "held_out": data.held_out}
    return {
        "read": dict(data.counts.read),
        **{name: _side(part, encoder, formatter, tokens_per_batch) for name, part in sides.items()},
        "left_out": _filled(data.counts.left_out),
        "cleaned": _filled(data.counts.cleaned),
        "changed": _filled(data.counts.changed),
        "noticed": _filled(data.counts.noticed),
    }


def fates(part: Part) -> dict[str, int]:
    """The questions of one side by what became of them."""
    cuts = part.encoded["cut"][:]
    counted = Counter({WHOLE: cuts.count(""), CUT: len(cuts) - cuts.count("")})
    counted.update(f"dropped: {one.reason}" for one in part.dropped)
    return dict(counted)


def _side(
    part: Part, encoder: Encoder, formatter: Formatter, tokens_per_batch: int | None
) -> dict[str, Any]:
    """The numbers of one side."""
    once = {id(question): question for question in part.questions}.values()
    asked = Counter(question.document.id for question in once)
    rows = int(part.lengths.sum())
    trees = _tokens_once(part, tokens_per_batch)
    return {
        **part.summary,
        "repeated": len(part) - len(once),
        "questions_a_document": {
            "mean": len(once) / max(len(asked), 1),
            "max": max(asked.values(), default=0),
        },
        "lengths": {
            "row": _quantiles(part.lengths),
            "document": _quantiles(_document_lengths(once, encoder, formatter)),
            "question": _quantiles(encoder.text_length(question.text) for question in once),
            "completion": _quantiles(part.supervised),
        },
        "fates": fates(part),
        "tokens_an_epoch": {
            "one_row_a_question": rows,
            "one_row_a_document": trees,
            "ratio": rows / max(trees, 1),
        },
    }


def _tokens_once(part: Part, tokens_per_batch: int | None) -> int:
    """The tokens of one side with each document once for all its questions."""
    if tokens_per_batch is None:
        return tokens_as_trees(part.rows)
    return tokens_of(SharedContextCollator(tokens_per_batch=tokens_per_batch).arrange(part.rows))


def tokens_of(rows: Dataset) -> int:
    """All tokens of some rows, encoded or arranged."""
    tables = rows.select_columns("input_ids").with_format("arrow").iter(batch_size=1000)
    return sum(pc.sum(pc.list_value_length(table["input_ids"])).as_py() for table in tables)


def _document_lengths(
    questions: Iterable[Question], encoder: Encoder, formatter: Formatter
) -> list[int]:
    """Tokens that each document adds to the prompt of its first question."""
    first = {q.document.id: q for q in reversed(list(questions))}

    def length(question: Question, *, shown: bool) -> int:
        document = question.document if shown else replace(question.document, blocks=())
        prompt = formatter.prompt(question, document=document)
        return len(encoder.encode_prompt(encoder.taken_apart(prompt)))

    return [length(q, shown=True) - length(q, shown=False) for q in first.values()]


def _quantiles(values: Iterable[Any]) -> dict[str, int]:
    numbers = np.fromiter(values, np.int64)
    if not numbers.size:
        return {"p50": 0, "p95": 0, "max": 0}
    p50, p95 = np.quantile(numbers, [0.5, 0.95], method="inverted_cdf")
    return {"p50": int(p50), "p95": int(p95), "max": int(numbers.max())}


def _filled(counter: Counter[str]) -> dict[str, int]:
    return {reason: n for reason, n in counter.most_common() if n}
