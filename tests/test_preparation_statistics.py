"""The numbers of `finqa-sft stats`, against data that can be counted by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from bad_input import Shell
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from finqa_sft.collators.trees import tokens_as_trees
from finqa_sft.documents import Document, Question
from finqa_sft.encoding import IGNORED, EncodedRow, Encoder
from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
from finqa_sft.preparation.counts import EVIDENCE_CUT, TOO_LONG

pytest_plugins = ["bad_input"]

RECIPE = """\
model:
  base: tiny
data:
  sources:
    - reader: columns
      files: own.csv
evaluation:
  sources:
    - reader: columns
      files: dev.csv
formatter:
  name: answer
  system: Answer.
  max_length: 64
"""

PAGES = {"a": "Sales were 5.", "b": "Costs were 3.", "c": "Sales\u00a0were 4 . " * 40}
ASKED = [
    ("a", "Sales?", "5"),
    ("a", "Were sales 5?", "yes"),
    ("a", "Sales?", "5"),
    ("b", "Costs?", "3"),
    ("c", "Sales?", "4"),
    ("b", "Costs and sales? " * 20, "8"),
    ("b", "Costs?<|pad|>", "3<|end|>"),
]
HELD_OUT = [("d", "Rent?", "2")]
PAGES["d"] = "Rent was 2."


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(tiny))


@pytest.fixture
def counted(shell: Shell) -> Shell:
    for name, asked in (("own", ASKED), ("dev", HELD_OUT)):
        rows = "".join(f"{page},{text},{PAGES[page]},{said}\n" for page, text, said in asked)
        shell.write(f"{name}.csv", f"document,question,context,answer\n{rows}")
    shell.write("r.yaml", RECIPE)
    return shell


def numbers(shell: Shell, *overrides: str) -> dict[str, Any]:
    said = shell("stats", "r.yaml", "--json", *overrides)
    assert (said.status, said.err) == (0, "")
    found: dict[str, Any] = json.loads(said.out)
    return found


def tokens(encoder: Encoder, page: str, text: str, said: str = "") -> int:
    """The tokens of a row whose document is shown whole, or of its prompt."""
    formatter = AnswerFormatter(AnswerOptions(system="Answer."))
    question = Question("q", text, Document("d", ()), said)
    shown = f"{page}\n\n" if page else ""
    prompt = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": f"{shown}Question: {text}"},
    ]
    if not said:
        return len(encoder.encode_prompt(prompt))  # type: ignore[arg-type]
    return len(encoder.encode(prompt, formatter.completion(question))["input_ids"])  # type: ignore[arg-type]


def test_documents_and_questions_are_counted(counted: Shell) -> None:
    found = numbers(counted)
    assert found["read"] == {"columns 1": 8}
    training, held_out = found["training"], found["held_out"]
    assert (training["documents"], training["questions"]) == (3, 5)
    assert training["questions_a_document"] == {"mean": 5 / 3, "max": 3}
    assert (held_out["documents"], held_out["questions"]) == (1, 1)
    assert held_out["questions_a_document"] == {"mean": 1, "max": 1}


def test_every_question_has_a_fate_and_every_change_is_counted(counted: Shell) -> None:
    found = numbers(counted)
    control = "control token '<|end|>' of the tokenizer in the answer"
    assert found["training"]["fates"] == {
        "kept, document whole": 4,
        "kept, document cut": 1,
        f"dropped: {control}": 1,
        f"dropped: {TOO_LONG}": 1,
    }
    assert sum(found["training"]["fates"].values()) == len(ASKED)
    assert found["held_out"]["fates"] == {"kept, document whole": 1, "kept, document cut": 0}
    assert found["left_out"] == {control: 1, TOO_LONG: 1}
    assert found["cleaned"] == {"spaces_and_minus": 1}
    assert found["noticed"] == {"question that stands twice": 1}
    changed = found["changed"]
    assert changed["document cut to formatter.max_length"] == 1
    assert changed["paragraph shortened"] == 1


def test_lengths_and_shares_are_those_of_the_rows(counted: Shell, encoder: Encoder) -> None:
    found = numbers(counted, "data.sources.0.files=dev.csv", "evaluation.sources=[]")
    row = tokens(encoder, PAGES["d"], "Rent?", "2")
    bare, whole = tokens(encoder, "", "Rent?"), tokens(encoder, PAGES["d"], "Rent?")
    lengths = {name: of["max"] for name, of in found["training"]["lengths"].items()}
    assert lengths == {
        "row": row,
        "document": whole - bare,
        "question": encoder.text_length("Rent?"),
        "completion": 2,
    }
    assert row == whole + 2
    assert found["training"]["supervised_share"] == 2 / row
    assert found["training"]["tokens_an_epoch"] == {
        "one_row_a_question": row,
        "one_row_a_document": row,
        "ratio": 1.0,
    }


def test_the_length_of_a_document_is_that_of_the_whole(counted: Shell, encoder: Encoder) -> None:
    found = numbers(counted)["training"]["lengths"]
    cleaned = PAGES["c"].replace("\u00a0", " ").strip()
    lengths = sorted(
        tokens(encoder, page, "Sales?") - tokens(encoder, "", "Sales?")
        for page in (PAGES["a"], PAGES["b"], cleaned)
    )
    assert found["document"] == {"p50": lengths[1], "p95": lengths[2], "max": lengths[2]}
    assert found["document"]["max"] > 64 >= found["row"]["max"]
    assert found["completion"] == {"p50": 2, "p95": 2, "max": 2}
    alike = encoder.text_length("Sales?")
    assert found["question"]["p50"] == alike
    assert found["question"]["max"] == encoder.text_length("Were sales 5?")


def test_a_weight_repeats_rows_but_no_question_of_a_document(counted: Shell) -> None:
    once, twice = numbers(counted), numbers(counted, "data.sources.0.weight=2")
    one, two = once["training"], twice["training"]
    assert two["questions"] == 2 * one["questions"]
    assert two["tokens"] == 2 * one["tokens"]
    assert two["questions_a_document"] == one["questions_a_document"]
    assert two["lengths"]["document"] == one["lengths"]["document"]
    assert two["lengths"]["row"] == one["lengths"]["row"]
    assert two["supervised_share"] == one["supervised_share"]


def cells(block: str) -> dict[str, list[str]]:
    """The lines of a printed block by their first column."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in block.splitlines()]
    return {first: rest for first, *rest in rows}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["evaluation.sources=[]"],
        ["data.sources.0.weight=2"],
        ["data.sources.0.weight=1.5"],
        ["data.sources.0.weight=0.5"],
    ],
)
def test_what_is_read_is_kept_dropped_or_left_out(counted: Shell, overrides: list[str]) -> None:
    said = counted("stats", "r.yaml", *overrides)
    assert (said.status, said.err) == (0, "")
    of_sides, of_both = map(cells, said.out.split("\nboth sides\n"))

    def total(table: dict[str, list[str]], *words: str) -> int:
        found = [line for first, line in table.items() if first.startswith(words)]
        return sum(int(n) for line in found for n in line)

    kept = total(of_sides, "kept, ") - total(of_sides, "of these, repeated by a weight")
    dropped, left_out = total(of_sides, "dropped: "), total(of_both, "left out: ")
    assert total(of_both, "read: ") == kept + dropped + left_out
    assert kept
    assert ("of these, repeated by a weight" in of_sides) == any(
        f"weight={n}" in " ".join(overrides) for n in ("2", "1.5")
    )


def test_what_is_counted_of_both_sides_stands_in_a_block_of_its_own(counted: Shell) -> None:
    text = (counted.folder / "own.csv").read_text()
    counted.write("own.csv", text + "e,,Sales were 5.,5\n")
    said = counted("stats", "r.yaml", "data.bad_rows=skip")
    of_sides, of_both = map(cells, said.out.split("\nboth sides\n"))
    assert of_sides[f"dropped: {TOO_LONG}"] == ["1", "0"]
    assert of_both == {
        "read: columns 1": ["8"],
        "left out: bad row: question": ["1"],
        "cleaned: spaces_and_minus": ["1"],
        "changed: document cut to formatter.max_length": ["1"],
        "changed: paragraph shortened": ["1"],
        "noticed: question that stands twice": ["1"],
    }


def test_the_table_says_the_same_numbers(counted: Shell) -> None:
    found = numbers(counted)
    said = counted("stats", "r.yaml")
    assert (said.status, said.err) == (0, "")
    table = cells(said.out.partition("\nboth sides\n")[0])
    assert said.out.split("\n")[0].split() == ["training", "held", "out"]
    sides = found["training"], found["held_out"]
    assert table["documents"] == ["3", "1"]
    assert table["questions"] == ["5", "1"]
    assert table["questions a document, mean"] == ["1.7", "1.0"]
    for part in ("row", "document", "question", "completion"):
        for quantile in ("p50", "p95", "max"):
            assert table[f"tokens of a {part}, {quantile}"] == [
                str(side["lengths"][part][quantile]) for side in sides
            ]
    epoch = [side["tokens_an_epoch"] for side in sides]
    assert table["tokens an epoch, one row a question"] == [
        str(of["one_row_a_question"]) for of in epoch
    ]
    assert table["tokens an epoch, one row a document"] == [
        str(of["one_row_a_document"]) for of in epoch
    ]
    assert table["ratio of the two"] == [f"{of['ratio']:.2f}" for of in epoch]
    assert table["supervised share"] == [f"{side['supervised_share']:.1%}" for side in sides]
    assert table[f"dropped: {TOO_LONG}"] == ["1", "0"]


def test_a_side_of_which_all_is_dropped_is_shown(counted: Shell) -> None:
    counted.write("dev.csv", f"document,question,context,answer\nd,{'Rent? ' * 80},Rent was 2.,2\n")
    found = numbers(counted)
    assert found["held_out"]["questions"] == 0
    assert found["held_out"]["lengths"]["row"] == {"p50": 0, "p95": 0, "max": 0}
    table = counted("stats", "r.yaml").out.splitlines()
    assert table[0].split() == ["training", "held", "out"]
    [line] = [line for line in table if line.startswith(f"dropped: {TOO_LONG}")]
    assert line.split()[-2:] == ["1", "1"]


def test_without_held_out_data_there_is_one_column(counted: Shell) -> None:
    said = counted("stats", "r.yaml", "evaluation.sources=[]")
    assert said.out.splitlines()[0].split() == ["training"]


def test_held_out_evidence_that_is_cut_off_is_noticed(shell: Shell) -> None:
    page = {
        "pre_text": ["nothing of note . " * 60],
        "post_text": ["sales were 5 ."],
        "table": [["", "2012"], ["x", "1"]],
        "filename": "a.pdf",
    }
    labels = {"answer": "5", "exe_ans": 5.0, "program": "add(5, 0)"}
    row = {
        **page,
        "id": "one",
        "qa": {**labels, "question": "sales?", "gold_inds": {"text_0": "x"}},
    }
    other = {**row, "filename": "b.pdf", "pre_text": ["other ."], "id": "two"}
    shell.write("dev.json", json.dumps([row]))
    shell.write("own.json", json.dumps([other]))
    shell.write("r.yaml", RECIPE.replace("columns", "finqa").replace(".csv", ".json"))
    found = numbers(shell, "formatter.max_length=100")
    assert found["noticed"] == {EVIDENCE_CUT: 1}
    assert found["held_out"]["fates"] == {"kept, document whole": 0, "kept, document cut": 1}


def test_a_plugin_that_raises_without_a_document_is_named(counted: Shell) -> None:
    counted.write(
        "first.py",
        "from finqa_sft import AnswerFormatter, hookimpl\n"
        "from finqa_sft.plugins.records import FormatterRecord\n"
        "class First(AnswerFormatter):\n"
        "    def prompt(self, question, *, document):\n"
        "        document.blocks[0]\n"
        "        return super().prompt(question, document=document)\n"
        "@hookimpl\n"
        "def finqa_sft_formatters():\n"
        "    return [FormatterRecord(name='first', summary='s', build=lambda o: First())]\n",
    )
    with pytest.raises(IndexError) as caught:
        counted("stats", "r.yaml", "plugins=[first.py]", "formatter={name: first}")
    assert caught.value.__notes__ == ["raised in the formatter 'first' of first.py"]


def test_no_rows_have_no_tokens() -> None:
    assert tokens_as_trees([]) == 0


def row(ids: list[int], learnt: list[int], document: str = "d") -> EncodedRow:
    return {
        "input_ids": ids,
        "labels": [token if n in learnt else IGNORED for n, token in enumerate(ids)],
        "document": document,
    }


@pytest.mark.parametrize(
    ("rows", "tokens"),
    [
        ([row([1, 2, 3], [2])], 3),
        ([row([1, 2, 3], []), row([1, 2, 4], [])], 4),
        ([row([1, 2, 3], [], "a"), row([1, 2, 3], [], "b")], 6),
        # The end of one is the beginning of another.
        ([row([1, 2], []), row([1, 2, 3], [2])], 3),
        # One loss on a shared token, which the other row only reads.
        ([row([1, 2, 3], [2]), row([1, 2, 3], [])], 3),
        # Two losses on one token: it stands twice, and so does the one that predicts it.
        ([row([1, 2, 3], [2]), row([1, 2, 3], [2])], 5),
        # The second branch begins with a copy of the token that it leaves, the first goes on.
        ([row([1, 2, 3], [2]), row([1, 2, 4], [2])], 5),
        ([row([1, 2, 3], []), row([1, 2, 4], [2])], 5),
        ([row([1, 2, 3], [2]), row([1, 2, 4], [])], 4),
        ([row([1, 2, 3, 4], [3]), row([1, 2, 5, 4], [3])], 6),
        # Nothing stands before the first token, so it is never learnt.
        ([row([1, 2], [0]), row([3, 2], [0])], 4),
        ([row([1, 2], [0]), row([1, 2], [0])], 2),
    ],
)
def test_rows_share_the_tokens_that_they_can(rows: list[EncodedRow], tokens: int) -> None:
    assert tokens_as_trees(rows) == tokens


def by_brute_force(rows: list[EncodedRow], position: int = 0) -> int:
    """The tokens of the tree of one document's rows, which agree before a position."""

    def learns(row: EncodedRow) -> bool:
        return position > 0 and row["labels"][position] != IGNORED

    branches: list[list[EncodedRow]] = []
    for each in (r for r in rows if position < len(r["input_ids"])):
        for branch in branches:
            alike = branch[0]["input_ids"][position] == each["input_ids"][position]
            if alike and not (learns(each) and any(map(learns, branch))):
                branch.append(each)
                break
        else:
            branches.append([each])
    # The first goes on behind the token that foretells it.
    copies = sum(any(map(learns, branch)) for branch in branches[1:])
    return len(branches) + copies + sum(by_brute_force(branch, position + 1) for branch in branches)


@st.composite
def generated_rows(draw: st.DrawFn) -> list[EncodedRow]:
    """Rows over a few tokens, so that they share much."""
    rows = []
    for _ in range(draw(st.integers(0, 7))):
        length = draw(st.integers(0, 9))
        ids = draw(st.lists(st.sampled_from([1, 1, 1, 2]), min_size=length, max_size=length))
        begin = draw(st.integers(0, length))
        learnt = range(begin, draw(st.integers(begin, length)))
        rows.append(row(ids, list(learnt), draw(st.sampled_from("aab"))))
    return rows


@settings(max_examples=300)
@given(generated_rows())
def test_trees_have_as_many_tokens_as_by_brute_force(rows: list[EncodedRow]) -> None:
    by_document = [[r for r in rows if r["document"] == name] for name in "ab"]
    assert tokens_as_trees(rows) == sum(map(by_brute_force, by_document))
    assert tokens_as_trees(rows) <= 2 * sum(len(r["input_ids"]) for r in rows)
