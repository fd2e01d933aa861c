"""What holds of every row, over documents, questions, formatters and lengths of every kind."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from finqa_sft.documents import SCALES, Document, Evidence, Paragraph, Question, Table, Turn
from finqa_sft.encoding import IGNORED, Encoder
from finqa_sft.plugins.manager import Component, Plugins
from finqa_sft.plugins.records import FormatterRecord
from finqa_sft.preparation.counts import EVIDENCE_TOO_LONG, LENGTH_REASONS
from finqa_sft.preparation.pages import PageEncoder, Row
from finqa_sft.testing.golds import is_gold, stated_scales

END = "<|end|>"
PLUGINS = Plugins.load({"FINQA_SFT_PLUGINS": ""})

WORDS = [
    "sales", "rose", "2012", "net income", "$ 5.2", "(1,234)", "5.6%", "of", "was", "U.S.", "収入",
    "—", "é\u0301", "ﷺ", "🏦", "a\u200db", "\u202eabc", "< |end|>", END, "<|assistant|>", "[…]",
    "evidence: x", "<script>", "&amp;x", "{{ document }}", "x" * 30, "Question:",
]  # fmt: skip
OPENINGS = [
    "{{ document }}\n\nQuestion: {{ question }}",
    "Page of {{ company }}:\n{{ document }}\n\n{{ question }}",
    "{% if company %}{{ company | upper }}\n{% endif %}{{ document }}\nQ: {{ question }}\nAnswer:",
    "{% if document %}Read <|end|>\n{{ document }}\n\n{% endif %}{{ question }}",
]
ANSWERS = ["5.2", "14.2%", "$ -5.2 million", "yes", "no sales | 2012", "(1,234)", f"5{END}6",
           "scale: none", "answer: 7", "evidence: x", "add(1, 2)", "収入", "a\nb"]  # fmt: skip
PROGRAMS = [None, "subtract(5829, 5735), divide(#0, 5735)", "table_sum(net income, none)"]
TAG = re.compile(r"@(\d+)")

words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Documents in which each sentence and each row below the headers begins with its number."""
    numbers = iter(range(10**6))

    def numbered(text: str) -> str:
        return f"@{next(numbers)} {text}"

    def paragraph() -> Paragraph:
        sentences = draw(st.lists(words, min_size=1, max_size=draw(st.sampled_from([1, 3, 12]))))
        return Paragraph(". ".join(map(numbered, sentences)))

    def table() -> Table:
        header = ["", *draw(st.lists(st.sampled_from(["2012", "%", "a b"]), max_size=2))]
        rows = draw(st.lists(st.lists(words, max_size=2), max_size=6))
        return Table.from_cells([header, *([numbered("row"), *row] for row in rows)])

    kinds = draw(st.lists(st.sampled_from([paragraph, paragraph, table]), max_size=7))
    company = draw(st.sampled_from([None, "Acme", f"A{END}B"]))
    return Document("page", tuple(kind() for kind in kinds), company=company)


@st.composite
def pages(draw: st.DrawFn) -> list[Question]:
    """One to four questions about a document."""
    document = draw(documents())
    places = [Evidence(block) for block in range(len(document.blocks))]
    for index, block in enumerate(document.blocks):
        if isinstance(block, Table):
            places += [Evidence(index, row) for row in range(len(block.rows))]
    evidence = st.lists(st.sampled_from(places), max_size=3) if places else st.just([])
    asked = draw(st.lists(st.tuples(words, st.sampled_from(ANSWERS)), min_size=1, max_size=4))
    return [
        Question(
            id=f"page/{number}",
            text=text,
            document=document,
            answer=answer,
            program=draw(st.sampled_from(PROGRAMS)),
            executed_answer=draw(st.sampled_from([None, 0.14212, -5.2e6, 407.0, "yes"])),
            scale=draw(st.sampled_from(SCALES)),  # type: ignore[arg-type]
            evidence=tuple(dict.fromkeys(draw(evidence))),
            history=tuple(draw(st.lists(st.builds(Turn, words, st.just("7")), max_size=1))),
            source=f"own.csv row {number}",
        )
        for number, (text, answer) in enumerate(asked)
    ]


@st.composite
def recipes(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A formatter's name and options."""
    return draw(st.sampled_from(["answer", "program", "steps"])), {
        "system": draw(st.sampled_from(["Answer.", None])),
        "templates": {"opening": draw(st.sampled_from(OPENINGS))},
        "table_style": draw(st.sampled_from(["markdown", "tsv", "pipe", "html", "sentences"])),
        "evidence": draw(st.sampled_from(["none", "short", "quote"])),
        "scale": draw(st.sampled_from(["separate", "inside"])),
        "value": draw(st.sampled_from(["executed", "written"])),
    }


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(tiny))


def made(name: str, options: dict[str, Any]) -> tuple[Any, Component[Any]]:
    component = PLUGINS.find("formatters", name)
    assert isinstance(component.record, FormatterRecord)
    return component.record.build(component.record.config(**options)), component


LONG = Document("page", (Paragraph(" ".join(f"@{n} {END} was." for n in range(40))),))
ABOUT_LONG = Question("page/0", "sales?", LONG, "5")


# The tokenizer and the search library are loaded by the first example.
@settings(max_examples=50, deadline=None)
@example([ABOUT_LONG], ("answer", {}), 48, True)
@example([ABOUT_LONG], ("answer", {"system": "Answer."}), 48, True)
@given(pages(), recipes(), st.integers(48, 600), st.booleans())
def test_every_row_is_what_it_must_be(
    encoder: Encoder,
    asked: list[Question],
    recipe: tuple[str, dict[str, Any]],
    max_length: int,
    keep_evidence: bool,
) -> None:
    formatter, component = made(*recipe)
    pages = PageEncoder(
        formatter,
        encoder,
        component=component,
        max_length=max_length,
        keep_evidence=keep_evidence,
    )
    rows = list(pages.page(list(enumerate(asked))))
    assert sorted(row["question"] for row in rows) == list(range(len(asked))), "each once"
    assert rows == list(pages.page(list(enumerate(asked)))), "the same again"
    for row in rows:
        question = asked[row["question"]]
        if row["reason"]:
            assert (row["input_ids"], row["labels"], row["cut"]) == ([], [], "")
            in_answer = row["reason"].startswith("control token ")
            assert in_answer == (encoder.control_token(formatter.completion(question)) is not None)
            assert in_answer or row["reason"] in LENGTH_REASONS
            assert keep_evidence or row["reason"] != EVIDENCE_TOO_LONG
            continue
        check_row(row, encoder, max_length=max_length)
        check_says(row, question, formatter)
        check_shows(row, question, encoder, keep_evidence=keep_evidence)
    check_shared(rows, asked, encoder)


def check_row(row: Row, encoder: Encoder, *, max_length: int) -> None:
    """Its length, what of it is learnt, and what generation starts from."""
    ids, labels = row["input_ids"], row["labels"]
    assert len(ids) == len(labels) <= max_length
    given = encoder.encode_prompt(json.loads(row["prompt"]))
    assert ids[: len(given)] == given
    assert set(labels[: len(given)]) <= {IGNORED}
    assert labels[len(given) :] == ids[len(given) :] != []
    [said] = json.loads(row["completion"])
    assert encoder.tokenizer.decode(ids[len(given) :]) == said["content"] + END


def check_says(row: Row, question: Question, formatter: Any) -> None:
    """Its completion is the question's, and is read as its answer."""
    [said] = json.loads(row["completion"])
    assert [said] == formatter.completion(question)
    read = formatter.parse(said["content"])
    assert is_gold(read, question), read
    assert read.scale in stated_scales(question)


def check_shows(row: Row, question: Question, encoder: Encoder, *, keep_evidence: bool) -> None:
    """Its prompt holds the question, the evidence, and of the document what was not left out."""
    prompt = json.loads(row["prompt"])
    opening, last = prompt[1]["content"], prompt[-1]["content"]
    assert apart(encoder, question.text) in last
    assert [message["role"] for message in prompt[1:]] == ["user", "assistant"] * len(
        question.history
    ) + ["user"]
    numbers = [int(number) for number in TAG.findall(opening)]
    assert numbers == sorted(numbers), "the document's order is kept"
    left_out = json.loads(row["cut"])["left_out"] if row["cut"] else []
    gone = [int(number) for text in left_out for number in TAG.findall(text)]
    whole = [text for block in question.document.blocks for text in texts_of(block)]
    every = [int(number) for text in whole for number in TAG.findall(text)]
    assert sorted({*numbers, *gone}) == every
    assert not set(numbers) & set(gone)
    lacks = False
    for place in question.evidence:
        block = question.document.blocks[place.block]
        texts = texts_of(block) if place.row is None else texts_of(block)[place.row : place.row + 1]
        needed = [int(number) for text in texts for number in TAG.findall(text)]
        lacks = lacks or not set(needed) <= set(numbers)
        if keep_evidence and isinstance(block, Paragraph):
            assert apart(encoder, block.text) in opening
    assert (row["lacks"] == "evidence") == lacks
    assert not (keep_evidence and lacks)


def texts_of(block: Paragraph | Table) -> list[str]:
    return [block.text] if isinstance(block, Paragraph) else [" ".join(row) for row in block.rows]


def apart(encoder: Encoder, text: str) -> str:
    return encoder.taken_apart([{"role": "user", "content": text}])[0]["content"]


def check_shared(rows: list[Row], asked: list[Question], encoder: Encoder) -> None:
    """Rows of one cut begin with the same tokens, at least to the end of the document."""
    by_cut: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if not row["reason"]:
            by_cut[row["cut"]].append(row)
    for alike in by_cut.values():
        for one, other in pairwise(alike):
            both = zip(one["input_ids"], other["input_ids"], strict=False)
            shared = [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], both)]
            opening = json.loads(one["prompt"])[1]["content"]
            history = asked[one["question"]].history
            first = history[0].question if history else asked[one["question"]].text
            shown = opening.removesuffix("\nAnswer:").removesuffix(apart(encoder, first))
            assert shown.rstrip().removesuffix("Q:").rstrip() in encoder.tokenizer.decode(shared)
