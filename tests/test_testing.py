"""The contracts: ours keep them, and each rule is noticed when a component breaks it."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import finqa_sft.builtin
from finqa_sft.collators.flattened import FlattenedCollator
from finqa_sft.collators.padded import SFT_ARGS, PaddedCollator, PaddedOptions
from finqa_sft.collators.shared_context import SharedContextCollator
from finqa_sft.documents import Document, Evidence, Paragraph, Question, Table, Turn
from finqa_sft.encoding import IGNORED, EncodedRow
from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
from finqa_sft.formatters.base import Message, Prediction
from finqa_sft.formatters.linearize import document_text
from finqa_sft.formatters.program import ProgramFormatter, ProgramOptions
from finqa_sft.formatters.steps import StepsFormatter, StepsOptions
from finqa_sft.options import Options
from finqa_sft.plugins import CollatorRecord, MetricRecord, hookimpl
from finqa_sft.plugins.manager import Component, Plugins
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.filings import FilingsOptions, FilingsReader
from finqa_sft.testing import (
    CollatorRule,
    ContractError,
    FormatterRule,
    ModelFactoryRule,
    PluginRule,
    ReaderRule,
    Rule,
    check_collator,
    check_formatter,
    check_model_factory,
    check_plugin,
    check_reader,
)
from finqa_sft.testing.golds import agree
from finqa_sft.testing.rows import example_rows

OPTIONS_OF: dict[Any, type[Options]] = {
    AnswerFormatter: AnswerOptions,
    ProgramFormatter: ProgramOptions,
    StepsFormatter: StepsOptions,
}
PLUGINS = Plugins.load({"FINQA_SFT_PLUGINS": ""})


def named(component: Component[Any]) -> str:
    return component.record.name


# Ours

PAGE = {
    "filename": "QZX/2017/page_12.pdf",
    "pre_text": ["harbour freight grew in 2017 ."],
    "post_text": ["the dividend was $ 3 million ."],
    "table": [["", "2017", "2016"], ["revenue", "$ 120", "$ 100"], ["costs", "80", "70"]],
}
FINQA = {
    **PAGE,
    "id": "QZX/2017/page_12.pdf-1",
    "qa": {
        "question": "what was the growth of revenue?",
        "answer": "20%",
        "program": "subtract(120, 100), divide(#0, 100)",
        "exe_ans": 0.2,
        "gold_inds": {"table_1": "the revenue of 2017 is $ 120 ;"},
    },
}
CONVFINQA = {
    **PAGE,
    "id": "Single_QZX/2017/page_12.pdf-1",
    "annotation": {
        "dialogue_break": ["what was revenue in 2016?", "and the change to 2017?"],
        "turn_program": ["100", "subtract(120, 100)"],
        "exe_ans_list": [100.0, 20.0],
    },
}
TATQA = {
    "table": {"uid": "t-1", "table": [["", "2019", "2018"], ["Freight", "49", "40"]]},
    "paragraphs": [{"uid": "p-1", "order": 1, "text": "Amounts are in thousands."}],
    "questions": [
        {
            "uid": "q-1",
            "order": 1,
            "question": "What is the percentage change in freight?",
            "answer": 22.5,
            "derivation": "(49-40)/40",
            "answer_type": "arithmetic",
            "answer_from": "table-text",
            "rel_paragraphs": ["1"],
            "req_comparison": False,
            "scale": "percent",
        }
    ],
}
FINANCEBENCH = {
    "financebench_id": "financebench_id_90001",
    "company": "Quayside",
    "doc_name": "QUAYSIDE_2019_10K",
    "question_type": "metrics-generated",
    "question_reasoning": "Information extraction",
    "question": "What was freight in 2019?",
    "answer": "$5 thousand",
    "justification": "It is in the text.",
    "evidence": [
        {
            "evidence_text": "Freight was $5 thousand.",
            "doc_name": "QUAYSIDE_2019_10K",
            "evidence_page_num": 41,
            "evidence_text_full_page": "Page 41.\n\nFreight was $5 thousand.",
        }
    ],
}
FILES = {
    "columns": (
        "rows.json",
        json.dumps([{"question": "Rail?", "context": "Rail was 5.", "answer": "5"}]),
    ),
    "convfinqa": ("dev.json", json.dumps([CONVFINQA, {}])),
    "financebench": ("rows.jsonl", json.dumps(FINANCEBENCH) + "\n{}\n"),
    "finqa": ("dev.json", json.dumps([FINQA, {}])),
    "tatqa": ("dev.json", json.dumps([TATQA, {}])),
}
"""A small file for each reader of files; the second row is bad."""

QUESTIONS = [
    question
    for question in FilingsReader(FilingsOptions(pages=5, seed=3))
    if isinstance(question, Question)
]
QUESTIONS.append(
    replace(QUESTIONS[0], history=(Turn("And before?", "4"), Turn("Then?", "5", "add(4, 1)")))
)


@pytest.mark.parametrize("component", PLUGINS.components("readers"), ids=named)
def test_our_readers_keep_the_contract(component: Component[Any], tmp_path: Path) -> None:
    record, given = component.record, {}
    if record.name in FILES:
        name, text = FILES[record.name]
        (tmp_path / name).write_text(text, encoding="utf-8")
        given = {"files": (tmp_path / name,)}
    check_reader(record.build(record.config(**given)))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("convfinqa", "dev_421_cleaned.json"),
        ("finqa", "dev_200.json"),
        ("finqa", "train_100.json"),
        ("tatqa", "dev.json"),
    ],
)
def test_our_readers_keep_it_on_real_files(name: str, file: str, real_data: Path) -> None:
    record: Any = PLUGINS.find("readers", name).record
    check_reader(record.build(record.config(files=(real_data / name / file,))))


@pytest.mark.parametrize("component", PLUGINS.components("formatters"), ids=named)
def test_our_formatters_keep_the_contract(component: Component[Any], tokenizer: Any) -> None:
    record = component.record
    check_formatter(record.build(record.config()), QUESTIONS, tokenizer=tokenizer)


@pytest.mark.parametrize("build", [AnswerFormatter, ProgramFormatter, StepsFormatter])
@pytest.mark.parametrize(
    "options",
    [
        {"table_style": "pipe", "evidence": "none"},
        {"table_style": "tsv", "value": "executed"},
        {"table_style": "json", "evidence": "quote", "scale": "inside"},
        {"table_style": "html", "evidence": "short", "value": "written"},
        {"table_style": "sentences", "scale": "inside", "value": "written"},
        {"system": "Go.", "templates": {"opening": "{{ company }}: {{ document }}|{{ question }}"}},
        {"templates": {"follow_up": "And {{ question }}"}, "evidence": "short"},
    ],
    ids=str,
)
def test_our_formatters_keep_it_with_all_options(
    build: Any, options: dict[str, Any], tokenizer: Any
) -> None:
    chosen = OPTIONS_OF[build].model_validate(options)
    check_formatter(build(chosen), QUESTIONS, tokenizer=tokenizer)


@pytest.mark.parametrize("component", PLUGINS.components("collators"), ids=named)
def test_our_collators_keep_the_contract(
    component: Component[Any], tokenizer: Any, model: Any
) -> None:
    record = component.record
    collator = record.build(record.config(), tokenizer)
    before = model.config._attn_implementation
    check_collator(
        collator,
        pad_token_id=tokenizer.pad_token_id,
        model=model,
        attn_implementation=record.attn_implementation,
    )
    assert collator.sft_args == record.sft_args
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("component", PLUGINS.components("model_factories"), ids=named)
def test_our_model_factories_keep_the_contract(component: Component[Any], tmp_path: Path) -> None:
    record = component.record
    check_model_factory(record.build(record.config()), output_dir=tmp_path)


def test_our_plugin_keeps_the_contract() -> None:
    check_plugin(finqa_sft.builtin)


def test_the_padded_collator_keeps_it_with_wide_rows_too(tokenizer: Any) -> None:
    check_collator(PaddedCollator(0, pad_to_multiple_of=16), pad_token_id=0)


@pytest.mark.parametrize("tokens", [16, 20, 35])
def test_the_shared_context_collator_keeps_it_with_small_rows_too(model: Any, tokens: int) -> None:
    check_collator(
        SharedContextCollator(tokens_per_batch=tokens),
        model=model,
        attn_implementation="shared_context",
    )


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture(scope="session")
def model(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny)


# Errors

Case = tuple[Any, Rule, str]


def cases(*found: Case) -> Any:
    """Parameters named after the rule that they break."""
    ids = [f"{rule.name.lower()}-{number}" for number, (_, rule, _) in enumerate(found)]
    return pytest.mark.parametrize(("component", "rule", "seen"), found, ids=ids)


def breaks(check: Callable[[], None], rule: Rule) -> str:
    """What is seen when a rule is broken."""
    with pytest.raises(ContractError) as caught:
        check()
    assert caught.value.rule is rule, str(caught.value)
    return caught.value.seen


def test_an_error_names_component_rule_and_remedy_and_can_be_pickled() -> None:
    with pytest.raises(AssertionError) as caught:
        check_reader(())
    text = (
        "reader tuple breaks the rule 'it yields a question': 0 bad rows and no question\n"
        "Give the check a source with a few good rows; or the reader takes all of them for bad."
    )
    assert str(caught.value) == text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_rules_are_sentences_and_so_are_remedies() -> None:
    for rules in (ReaderRule, FormatterRule, CollatorRule, ModelFactoryRule, PluginRule):
        assert len({rule.says for rule in rules}) == len(rules)
        for rule in rules:
            assert not rule.says.endswith(".")
            assert rule.remedy.endswith(".")


def test_the_checks_import_neither_torch_nor_pytest() -> None:
    code = (
        "import sys; import finqa_sft.testing; "
        "print(*{'torch', 'transformers', 'trl', 'datasets', 'pytest'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# Readers

DOCUMENT = Document(
    id="p-1", blocks=(Paragraph("Rail was 5."), Table.from_cells([["", "2019"], ["Rail", "5"]]))
)
GOOD = Question(id="1", text="What was rail?", document=DOCUMENT, answer="5", source="a.csv row 1")


class Restless:
    """Gives another answer each time."""

    def __iter__(self) -> Iterator[Question]:
        return iter([replace(GOOD, answer=str(random.random()))])


class Stumbling:
    """Has no answer in its second row."""

    def __iter__(self) -> Iterator[Question]:
        for row in ({"answer": "5"}, {}):
            yield replace(GOOD, answer=row["answer"])


def paged(*blocks: Any) -> list[Question]:
    return [replace(GOOD, document=Document(id="p-1", blocks=blocks))]


BROKEN_READERS: list[Case] = [
    ([GOOD, "row 2"], ReaderRule.ITEMS, "item 2 is a str"),
    ([None], ReaderRule.ITEMS, "item 1 is a NoneType"),
    (5, ReaderRule.READS, "beginning to read raised TypeError: 'int' object is not iterable"),
    (
        Stumbling(),
        ReaderRule.READS,
        "reading item 2 raised KeyError: 'answer' (test_testing.py line ",
    ),
    ([replace(GOOD, answer=5)], ReaderRule.FIELDS, "in item 1 answer is 5, not of type str"),  # type: ignore[arg-type]
    (
        [GOOD, replace(GOOD, id=5, answer=None, program=["add(1, 2)"])],  # type: ignore[arg-type]
        ReaderRule.FIELDS,
        "in item 2 id is 5, not of type str; answer is None, not of type str; program is "
        "['add(1, 2)'], not of type str | NoneType",
    ),
    (
        [replace(GOOD, history="abc", executed_answer=[5])],  # type: ignore[arg-type]
        ReaderRule.FIELDS,
        "in item 1 executed_answer is [5], not of type float | str | NoneType; history is 'abc', "
        "not of type tuple[Turn, ...]",
    ),
    (
        [replace(GOOD, history=(Turn("And?", 4),))],  # type: ignore[arg-type]
        ReaderRule.FIELDS,
        "in item 1 history[0].answer is 4, not of type str",
    ),
    (
        paged(Paragraph("5"), "Rail", Table(rows=(("a", 5.0),))),  # type: ignore[arg-type]
        ReaderRule.FIELDS,
        "in item 1 document.blocks[1] is 'Rail', not of type Paragraph | Table; "
        "document.blocks[2].rows[0][1] is 5.0, not of type str",
    ),
    (
        [replace(GOOD, document=replace(DOCUMENT, blocks=[Paragraph("5")]))],  # type: ignore[arg-type]
        ReaderRule.FIELDS,
        "in item 1 document.blocks is [Paragraph(text='5')], not of type "
        "tuple[Paragraph | Table, ...]",
    ),
    (
        [replace(GOOD, document="Rail was 5. " * 9)],  # type: ignore[arg-type]
        ReaderRule.FIELDS,
        "in item 1 document is 'Rail was 5. Rail was 5. Rail was 5. Rail was 5. Rail was 5. Rail "
        "was 5. Rail wa…, not of type Document",
    ),
    (
        [GOOD, BadRow("a.csv", "text", 5)],  # type: ignore[arg-type]
        ReaderRule.FIELDS,
        "in item 2 problem is 5, not of type str",
    ),
    (
        [replace(GOOD, text="Rail \ud83d?")],
        ReaderRule.FIELDS,
        "in item 1 text is 'Rail \\ud83d?', with half of a surrogate pair",
    ),
    (iter([GOOD]), ReaderRule.AGAIN, "1 items at first, 0 then"),
    (Restless(), ReaderRule.AGAIN, "items [1] are others the second time"),
    (
        [BadRow("a.csv row 1", "text", "empty")],
        ReaderRule.SOME,
        "1 bad rows and no question; the first: a.csv row 1, field 'text': empty",
    ),
    (
        [GOOD, BadRow("", "text", " ")],
        ReaderRule.BAD_ROWS,
        "BadRow(source='', field='text', problem=' ') leaves source and problem empty",
    ),
    (
        [replace(GOOD, answer=" ", source="")],
        ReaderRule.TEXT,
        "question '1' has nothing in answer",
    ),
    (
        [replace(GOOD, text="", document=Document(id="", blocks=()))],
        ReaderRule.TEXT,
        "question '1' (a.csv row 1) has nothing in text and document.id and document.blocks",
    ),
    ([GOOD, GOOD], ReaderRule.IDS, "question '1' (a.csv row 1) is not the first of its id"),
    (
        [GOOD, replace(GOOD, id="2", document=replace(DOCUMENT, company="Rail"))],
        ReaderRule.DOCUMENTS,
        "question '2' (a.csv row 1) has another document 'p-1' than a question before it",
    ),
    (
        paged(Paragraph(" 5")),
        ReaderRule.BLOCKS,
        "block 0 of document 'p-1' is Paragraph(text=' 5')",
    ),
    (
        paged(Paragraph("5"), Table(rows=(("a",), ("b", "c")))),
        ReaderRule.BLOCKS,
        "block 1 of document 'p-1' has rows of [1, 2] cells",
    ),
    (
        paged(Table(rows=(("a",),), header_rows=2)),
        ReaderRule.BLOCKS,
        "block 0 of document 'p-1' has 2 header rows and 1 rows",
    ),
    (
        [replace(GOOD, evidence=(Evidence(1, row=1), Evidence(2)))],
        ReaderRule.EVIDENCE,
        "question '1' (a.csv row 1) points to Evidence(block=2, row=None), its document has 2 "
        "blocks",
    ),
    (
        [replace(GOOD, evidence=(Evidence(0, row=0),))],
        ReaderRule.EVIDENCE,
        "question '1' (a.csv row 1) points to Evidence(block=0, row=0), its document has 2 blocks",
    ),
    (
        [replace(GOOD, evidence=(Evidence(1, row=2),))],
        ReaderRule.EVIDENCE,
        "question '1' (a.csv row 1) points to Evidence(block=1, row=2), its document has 2 blocks",
    ),
    (
        [replace(GOOD, program="plus(1, 2)")],
        ReaderRule.VALUES,
        "question '1' (a.csv row 1) has program 'plus(1, 2)': ",
    ),
    (
        [replace(GOOD, executed_answer=float("nan"))],
        ReaderRule.VALUES,
        "question '1' (a.csv row 1) has executed answer nan",
    ),
    (
        [replace(GOOD, executed_answer=True)],
        ReaderRule.VALUES,
        "question '1' (a.csv row 1) has executed answer True",
    ),
    (
        [replace(GOOD, executed_answer="5")],
        ReaderRule.VALUES,
        "question '1' (a.csv row 1) has executed answer '5'",
    ),
    (
        [replace(GOOD, scale="billions")],  # type: ignore[arg-type]
        ReaderRule.VALUES,
        "question '1' (a.csv row 1) has scale 'billions'",
    ),
]


@cases(*BROKEN_READERS)
def test_a_broken_reader_is_told_what_it_breaks(component: Any, rule: Rule, seen: str) -> None:
    assert breaks(lambda: check_reader(component), rule).startswith(seen)


def test_a_reader_can_be_a_list_with_a_bad_row() -> None:
    values: list[float | str | None] = [None, "yes", 5, 0, -2.5, 10**400]
    good = [replace(GOOD, id=str(n), executed_answer=v) for n, v in enumerate(values)]
    check_reader([*good, BadRow("a.csv row 9", "text", "empty; expected text")])


# Formatters


class Terse:
    """Keeps the contract."""

    def prompt(self, question: Question, *, document: Document) -> list[Message]:
        return [{"role": "user", "content": f"{document_text(document)}\n\n{question.text}"}]

    def completion(self, question: Question) -> list[Message]:
        return [{"role": "assistant", "content": f"It is: {question.answer}"}]

    def parse(self, completion: str) -> Prediction:
        text = completion.strip()
        return Prediction(text=text, answer=text.partition("It is: ")[2].strip() or None)


ASKED = replace(GOOD, program="add(2, 3)", executed_answer=5.0, evidence=(Evidence(1, row=1),))


def terse(**methods: Any) -> Any:
    """The formatter with other methods; each is called with `self`."""
    return type("Terse", (Terse,), methods)()


def prompts(content: Callable[[Question, Document], str]) -> Any:
    """The formatter with another prompt."""

    def prompt(self: Any, question: Question, *, document: Document) -> list[Message]:
        return [{"role": "user", "content": content(question, document)}]

    return terse(prompt=prompt)


def completes(*contents: str, parse: Callable[[str], str | None]) -> Any:
    """The formatter with another completion and another way to read it."""

    def completion(self: Any, question: Question) -> list[Message]:
        return [{"role": "assistant", "content": c.format(question.answer)} for c in contents]

    return terse(
        completion=completion,
        parse=lambda self, text: Prediction(text=text.strip(), answer=parse(text.strip()) or None),
    )


def with_role(role: str) -> Any:
    def prompt(self: Any, question: Question, *, document: Document) -> list[Message]:
        return [*Terse().prompt(question, document=document), {"role": role, "content": "5"}]

    return terse(prompt=prompt)


class Counting(Terse):
    """Numbers its prompts."""

    def __init__(self, **counted: bool) -> None:
        self._numbers = itertools.count(1)
        self._counted = counted

    def prompt(self, question: Question, *, document: Document) -> list[Message]:
        (message,) = super().prompt(question, document=document)
        number = f" {next(self._numbers)}" if "prompt" in self._counted else ""
        return [{**message, "content": message["content"] + number}]

    def completion(self, question: Question) -> list[Message]:
        (message,) = super().completion(question)
        number = f" {next(self._numbers)}" if "completion" in self._counted else ""
        return [{**message, "content": message["content"] + number}]


class Hoarder(Terse):
    """Hands out one and the same list."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], list[Message]] = {}

    def completion(self, question: Question) -> list[Message]:
        return self._made.setdefault((question.id, 0), super().completion(question))


def scribbles(self: Any, question: Question) -> list[Message]:
    object.__setattr__(question, "source", "mine")
    return Terse.completion(self, question)


def without_sign(self: Any, question: Question) -> list[Message]:
    return Terse.completion(self, replace(question, answer=question.answer.strip("-()")))


def citing(parse: Callable[[str], tuple[str, ...]]) -> Any:
    """The formatter with the page's first block cited where a question has evidence."""

    def completion(self: Any, question: Question) -> list[Message]:
        cited = "Rail was 5." if question.evidence else ""
        return [{"role": "assistant", "content": f"{cited}: {question.answer}"}]

    return terse(
        completion=completion,
        parse=lambda self, text: Prediction(
            text.strip(), text.partition(": ")[2].strip() or None, evidence=parse(text)
        ),
    )


class SpacedOut(ProgramFormatter):
    """Joins the characters of a program for its steps."""

    def completion(self, question: Question) -> list[Message]:
        return [{"role": "assistant", "content": " ".join(question.program or question.answer)}]


spaced_out = SpacedOut()


def shown(question: Question, document: Document) -> str:
    return f"{document_text(document)}\n\n{question.text}"


def only(kind: type, document: Document) -> Document:
    return replace(document, blocks=tuple(b for b in document.blocks if isinstance(b, kind)))


def first_words(document: Document) -> str:
    return "".join(b.text.split()[0] for b in document.blocks if isinstance(b, Paragraph))


BROKEN_FORMATTERS: list[Case] = [
    (
        terse(prompt=lambda self, question, document: question.text),
        FormatterRule.PROMPT,
        "question '1' has 'What was rail?'",
    ),
    (
        terse(prompt=lambda self, question, document: [{"role": "user", "content": 5}]),
        FormatterRule.PROMPT,
        "question '1' has [{'role': 'user', 'content': 5}]",
    ),
    (
        with_role("assistant"),
        FormatterRule.PROMPT,
        "question '1' has a prompt of the roles ['user', 'assistant']",
    ),
    (
        with_role("system"),
        FormatterRule.PROMPT,
        "question '1' has a prompt of the roles ['user', 'system']",
    ),
    (
        completes("{}", "{}", parse=str),
        FormatterRule.COMPLETION,
        "question '1' has [{'role': 'assistant', 'content': '5'}, "
        "{'role': 'assistant', 'content': '5'}]",
    ),
    (
        completes(" ", parse=str),
        FormatterRule.COMPLETION,
        "question '1' has [{'role': 'assistant', 'content': ' '}]",
    ),
    (
        terse(completion=lambda self, question: ["5"]),
        FormatterRule.COMPLETION,
        "the completion of question '1' raised TypeError: string indices must be integers",
    ),
    (
        terse(completion=lambda self, question: question.missing),
        FormatterRule.COMPLETION,
        "the completion of question '1' raised AttributeError: 'Question' object has no attribute",
    ),
    (
        prompts(lambda question, document: document_text(document) + question.text.upper()),
        FormatterRule.ASKS,
        "'What was rail?' is not in 'Rail was 5.\\n\\n|  | 2019 |",
    ),
    (
        prompts(lambda q, document: shown(q, document) if document.blocks[0] else ""),
        FormatterRule.ASKS,
        "the prompt of question '1' raised IndexError: tuple index out of range",
    ),
    (
        prompts(lambda question, document: f"{document.blocks or 'gone ' * 99} {question.text}"),
        FormatterRule.SHOWS,
        "with 0 blocks the prompt of question '1' has 510 characters, with 2 ",
    ),
    (
        prompts(lambda question, document: question.text),
        FormatterRule.SHOWS,
        "the prompt of question '1' is the same with and without the document",
    ),
    (
        prompts(lambda q, document: f"{len(q.document.blocks)} blocks {shown(q, document)}"),
        FormatterRule.SHOWS,
        "the prompt of question '1' depends on question.document beside the document it is given",
    ),
    (
        prompts(lambda question, document: f"{shown(question, document)} ({question.answer})"),
        FormatterRule.BLIND,
        "with another answer, the prompt of question '1' changes to "
        "'- | --- |\\n| Rail | 5 |\\n\\nWhat was rail? (7319 and not 5)'",
    ),
    (
        prompts(lambda q, document: shown(q, document) + (" Compute." if q.program else "")),
        FormatterRule.BLIND,
        "with another program, the prompt of question '1' changes to ",
    ),
    (
        prompts(lambda q, document: shown(q, document) + (" In %." * (q.scale == "percent"))),
        FormatterRule.BLIND,
        "with another scale, the prompt of question '1' changes to ",
    ),
    (
        prompts(lambda q, document: shown(q, document) + f" {q.executed_answer}"),
        FormatterRule.BLIND,
        "with another executed_answer, the prompt of question '1' changes to ",
    ),
    (
        prompts(lambda q, document: shown(q, document) + f" {q.answer_type}"),
        FormatterRule.BLIND,
        "with another answer_type, the prompt of question '1' changes to ",
    ),
    (
        prompts(lambda q, document: shown(q, document) + f" {q.derivation}"),
        FormatterRule.BLIND,
        "with another derivation, the prompt of question '1' changes to ",
    ),
    (
        prompts(lambda q, document: shown(q, document) + f" {len(q.evidence)}"),
        FormatterRule.BLIND,
        "with another evidence, the prompt of question '1' changes to ",
    ),
    (
        Counting(prompt=True),
        FormatterRule.SAME,
        "the prompt of question '1' changes to '-- | --- |\\n| Rail | 5 |\\n\\nWhat was rail? 2'",
    ),
    (
        Counting(completion=True),
        FormatterRule.SAME,
        "the completion of question '1' was 'It is: 5 1', then 'It is: 5 2'",
    ),
    (
        Hoarder(),
        FormatterRule.SAME,
        "the completion of question '1' was 'It is: 5', then 'changed by the caller'",
    ),
    (terse(completion=scribbles), FormatterRule.UNCHANGED, "question '1' was changed"),
    (
        prompts(lambda question, document: f"{question.id}: {shown(question, document)}"),
        FormatterRule.SHARED,
        "before the question, the prompt of question '1' changes to 'not 1: Rail was 5.",
    ),
    (
        prompts(lambda q, document: f"{len(q.text)}. {shown(q, document)}"),
        FormatterRule.SHARED,
        "before the question, the prompt of question '1' changes to '32. Rail was 5.",
    ),
    (
        prompts(lambda q, document: f"{'Digits. ' * ('7' in q.text)}{shown(q, document)}"),
        FormatterRule.SHARED,
        "before the question, the prompt of question '1' changes to 'Rail was 5.",
    ),
    (
        citing(parse=lambda text: ("Rail was 6.",)),
        FormatterRule.CITES,
        "in 'Rail was 5.: 5' parse() reads the evidence \"['Rail was 6.']\"",
    ),
    (
        citing(parse=lambda text: ()),
        FormatterRule.CITES,
        "in 'Rail was 5.: 5' parse() reads no evidence; without any, the completion of question "
        "'1' is ': 5'",
    ),
    (
        citing(parse=lambda text: (" ",)),
        FormatterRule.PARSES,
        "parse('Rail was 5.: 5') gives ",
    ),
    (
        completes("{}", parse=lambda text: text if float(text) else None),
        FormatterRule.PARSES,
        "parse('412.6 net') raised ValueError: could not convert string to float: '412.6 net'",
    ),
    (
        completes("{}", parse=lambda text: text if not text.isdigit() or int(text) else None),
        FormatterRule.PARSES,
        f"parse({'9' * 160!r}…) raised ValueError: Exceeds the limit (4300 digits)",
    ),
    (
        terse(parse=lambda self, text: text),
        FormatterRule.PARSES,
        "parse('It is: 5') gives \"'It is: 5'\"",
    ),
    (
        terse(parse=lambda self, text: Prediction(text=text, answer="5")),
        FormatterRule.PARSES,
        "parse('\\n It is: 5 \\n') gives ",
    ),
    (
        completes("{}", parse=lambda text: text or "none"),
        FormatterRule.SILENT,
        "parse('') gives Prediction(text='', answer='none', program=None, scale='', evidence=())",
    ),
    (
        completes("It is: {}", parse=lambda text: "42"),
        FormatterRule.STATES,
        "in 'It is: 5' parse() reads answer '42' and program None",
    ),
    (
        completes("It is: {}", parse=lambda text: None),
        FormatterRule.STATES,
        "in 'It is: 5' parse() reads answer None and program None",
    ),
    (
        completes("{}", parse=lambda text: " ".join(text.split()[:1])),
        FormatterRule.STATES,
        "in '412.6 net' parse() reads answer '412.6' and program None",
    ),
    (
        completes("It is: {}", parse=lambda text: "".join(re.findall(r"-?\d+", text)[:1])),
        FormatterRule.STATES,
        "in 'It is: 412.6 net' parse() reads answer '412' and program None",
    ),
    (
        completes("EUR {} net", parse=lambda text: "".join(re.findall(r"[\d.]+", text)[:1])),
        FormatterRule.STATES,
        "in 'EUR -5 net' parse() reads answer '5' and program None; the question has answer '-5', "
        "program 'subtract(0, 5)', executed '-5'",
    ),
    (
        spaced_out,
        FormatterRule.STATES,
        "in 'a d d ( 2 ,   3 )' parse() reads answer 'a d d ( 2 ,   3 )' and program None",
    ),
    (
        terse(
            parse=lambda self, text: Prediction(
                text.strip(), text.strip()[7:] or None, scale="million"
            )
        ),
        FormatterRule.SCALE,
        "in 'It is: 5' parse() reads scale 'million'; the question has ''",
    ),
    (
        completes("n/a", parse=str),
        FormatterRule.TELLS,
        "the completion of question '1' is 'n/a' with answer '6', program 'add(6, 0)', executed "
        "'6' and with answer '5', program 'add(2, 3)', executed '5'",
    ),
    (
        terse(completion=without_sign),
        FormatterRule.TELLS,
        "the completion of question '1' is 'It is: 5' with answer '-5', program 'subtract(0, 5)', "
        "executed '-5' and with answer '5'",
    ),
    (
        completes("It is: {}</s>", parse=lambda text: text[7:].removesuffix("</s>")),
        FormatterRule.ENDS,
        "the completion of question '1' is 'It is: 5</s>', with </s> in it",
    ),
    (
        completes("It is: {}\ud83d", parse=lambda text: text[7:-1]),
        FormatterRule.COMPLETION,
        "question '1' has [{'role': 'assistant', 'content': 'It is: 5\\ud83d'}]",
    ),
    (
        prompts(lambda q, document: shown(q, only(Paragraph, document))),
        FormatterRule.COMPLETE,
        "the prompt of question '1' has 27 characters with the table in block 1 of document "
        "'p-1', 27 without",
    ),
    (
        prompts(lambda q, document: shown(q, document)[-40:]),
        FormatterRule.COMPLETE,
        "the prompt of question '1' has 40 characters with the paragraph in block 0 of document "
        "'p-1', 40 without",
    ),
    (
        prompts(lambda q, document: first_words(document) + shown(q, only(Table, document))),
        FormatterRule.COMPLETE,
        "the prompt of question '1' does not show word 2, 'was', of the paragraph in block 0 of "
        "document 'p-1'",
    ),
    (
        prompts(lambda q, document: re.sub(r"\| 2019.*", "", shown(q, document))),
        FormatterRule.COMPLETE,
        "the prompt of question '1' does not show '2019' (row 0, column 1) of the table in block 1",
    ),
    (
        prompts(lambda q, document: re.sub(r"\| 5 .*", "", shown(q, document))),
        FormatterRule.COMPLETE,
        "the prompt of question '1' does not show '5' (row 1, column 1) of the table in block 1",
    ),
    (
        prompts(shown),
        FormatterRule.HISTORY,
        "the prompt of question '3' does not hold ['And rail before?', 'Then?'] from before it",
    ),
    (
        prompts(lambda q, document: shown(q, document) + "And rail before? Then?"),
        FormatterRule.HISTORY,
        "the prompt of question '3' is the same with and without the turns before it",
    ),
    (
        prompts(lambda q, document: shown(q, document) + q.history[-1].question[:0]),
        FormatterRule.ASKS,
        "the prompt of question '1' raised IndexError: tuple index out of range (test_testing.py "
        "line ",
    ),
    (
        terse(parse=lambda self, text: Prediction(text.strip(), text[7:].strip() or None)),
        FormatterRule.STATES,
        "in 'It is: 5' parse() reads answer ': 5' and program None",
    ),
    (
        terse(parse=lambda self, text: Prediction(text.strip(), text.partition(": ")[2] or None)),
        FormatterRule.STATES,
        "white space around 'It is: 5' makes another prediction of it",
    ),
]


@cases(*BROKEN_FORMATTERS)
def test_a_broken_formatter_is_told_what_it_breaks(component: Any, rule: Rule, seen: str) -> None:
    questions = [ASKED, replace(GOOD, id="2", answer="412.6 net")]
    if rule is FormatterRule.HISTORY:
        earlier = (Turn("And rail before?", "4"), Turn("Then?", "5"))
        questions.append(replace(ASKED, id="3", history=earlier))
    assert breaks(lambda: check_formatter(component, questions), rule).startswith(seen)


def from_json(text: str) -> str | None:
    try:
        return str(json.loads(text)["answer"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def with_commas(text: str) -> str:
    """Thousands and decimals as they are written in Germany."""
    return text.translate(str.maketrans(".,", ",."))


def styled(write: Callable[[Question], str], parse: Callable[[str], str | None]) -> Any:
    return terse(
        completion=lambda self, question: [{"role": "assistant", "content": write(question)}],
        parse=lambda self, text: Prediction(text.strip(), parse(text.strip()) or None),
    )


STYLES = {
    "json": styled(lambda q: json.dumps({"answer": q.answer}), from_json),
    "decimal comma": styled(lambda q: f"{with_commas(q.answer)} €", str),
    "currency": styled(lambda q: f"US$ {q.answer}", str),
    "capitals": styled(lambda q: q.answer.upper(), str),
    "brackets": styled(lambda q: re.sub(r"^-(.*)", r"(\1)", q.answer), str),
    "minus": styled(lambda q: q.answer.replace("-", "\u2212"), str),
    "rounded": styled(lambda q: f"{q.executed_answer:,.3f}", str),
    "step by step": styled(
        lambda q: f"{q.program} makes {q.executed_answer}.\nSo: {q.answer}",
        lambda text: text.rpartition("So: ")[2],
    ),
    "rows as sentences": prompts(
        lambda q, document: (
            "\n".join(
                f"the {row[0]} of {head} is {cell.lstrip('$ ')} ;".lower()
                for table in document.tables
                for row in table.rows[1:]
                for head, cell in zip(table.rows[0][1:], row[1:], strict=True)
                if cell
            )
            + " ".join(b.text.lower() for b in document.blocks if isinstance(b, Paragraph))
            + q.text
        )
    ),
    "tables as json": prompts(
        lambda q, document: json.dumps([str(block) for block in document.blocks]) + q.text
    ),
}
"""Formatters of a house's own style that keep the contract."""

STYLED = [
    replace(ASKED, id=answer, answer=answer, executed_answer=value, program=f"add({value}, 0)")
    for answer, value in (
        ("5", 5.0),
        ("-412.6", -412.6),
        ("(12.5)", -12.5),
        ("$ 1,234,567", 1234567.0),
        ("28.1%", 0.28127),
        ("0.07", 0.07),
        ("3.5 million", 3.5),
    )
]


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_and_a_page_may_be_written_in_a_style_of_its_own(style: str) -> None:
    check_formatter(STYLES[style], STYLED)


@pytest.mark.parametrize(
    ("stated", "gold"),
    [
        ("412", "412.6"),
        ("412.6", "-412.6"),
        ("12.5", "(12.5)"),
        ("4126", "412.6"),
        ("28", "0.28"),
        ("0.0", "0.007"),
        ("5 net", "5"),
        ("5", "5 net"),
        ("n/a", "5"),
    ],
)
def test_what_is_another_number_is_not_taken_for_the_answer(stated: str, gold: str) -> None:
    assert not agree(stated, gold)


def test_brackets_are_a_sign_that_must_not_be_lost() -> None:
    formatter = styled(lambda question: question.answer.strip("()"), str)
    loss = replace(GOOD, answer="(12.5)")
    seen = breaks(lambda: check_formatter(formatter, [loss]), FormatterRule.TELLS)
    assert seen == (
        "the completion of question '1' is '12.5' with answer '12.5' and with answer '(12.5)'"
    )


def test_a_question_for_a_formatter_must_be_one() -> None:
    with pytest.raises(ValueError, match=r"^check_formatter needs questions: item 2 is BadRow"):
        check_formatter(Terse(), [ASKED, BadRow("a", "b", "c")])  # type: ignore[list-item]


def test_the_special_tokens_of_a_tokenizer_are_not_for_completions(tokenizer: Any) -> None:
    token = str(tokenizer.eos_token)
    formatter = completes("It is: {}" + token, parse=lambda text: text[7:].removesuffix(token))
    seen = breaks(
        lambda: check_formatter(formatter, [ASKED], tokenizer=tokenizer), FormatterRule.ENDS
    )
    assert seen == f"the completion of question '1' is 'It is: 5{token}', with {token} in it"


class Mumbling(Terse):
    """Completions that no template keeps."""

    def completion(self, question: Question) -> list[Message]:
        return [{"role": "assistant", "content": f"<think>5</think>It is: {question.answer}"}]


LOSING = """\
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>' + message['content'].split('</think>')[-1] -}}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""
"""A chat template that drops the reasoning from answers, as those of reasoning models do."""


def test_what_is_learnt_must_be_the_completion(tokenizer: Any) -> None:
    losing = copy.deepcopy(tokenizer)
    losing.chat_template = LOSING
    check_formatter(Mumbling(), [ASKED])
    check_formatter(Mumbling(), [ASKED], tokenizer=tokenizer)
    seen = breaks(
        lambda: check_formatter(Mumbling(), [ASKED], tokenizer=losing), FormatterRule.SUPERVISES
    )
    assert "'<think>5</think>It is: 5'" in seen
    assert "'It is: 5<|end|>'" in seen


def test_the_model_must_be_given_the_whole_prompt(tokenizer: Any) -> None:
    losing = copy.deepcopy(tokenizer)
    losing.chat_template = LOSING
    formatter = prompts(lambda question, document: f"<b></think>{shown(question, document)}")
    seen = breaks(
        lambda: check_formatter(formatter, [ASKED], tokenizer=losing), FormatterRule.SUPERVISES
    )
    assert seen.startswith("of question '1' the model is not given the whole prompt but '<|user|>")


def test_a_prompt_that_the_template_refuses_is_told(tokenizer: Any) -> None:
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('no roles here') }}"
    seen = breaks(
        lambda: check_formatter(Terse(), [ASKED], tokenizer=strict), FormatterRule.SUPERVISES
    )
    assert seen.startswith("encoding question '1' raised ModelError: the chat template cannot")


def test_without_a_question_nothing_can_be_checked() -> None:
    with pytest.raises(ValueError, match=r"^check_formatter needs at least one question$"):
        check_formatter(Terse(), [])


# Collators


class Padded(PaddedCollator):
    """Keeps the contract; the ones below break it in one place each."""

    def __init__(self) -> None:
        super().__init__(0)


class Misnamed(Padded):
    def __init__(self) -> None:
        super().__init__()
        self.sft_args = {**SFT_ARGS, "max_seq_length": 1024}


class Dropping(Padded):
    def arrange(self, dataset: Any) -> Any:
        return dataset.select(range(1, len(dataset)))


class Doubling(Padded):
    def arrange(self, dataset: Any) -> Any:
        return dataset.select([*range(len(dataset)), 0])


class Forgetting(Padded):
    """Loses the document whose rows supervise nothing."""

    def arrange(self, dataset: Any) -> Any:
        return dataset.filter(lambda row: row["document"] != "c")


class Batched(Padded):
    """Changes a finished batch."""

    def change(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        return self.change(super().__call__(rows))


def batched(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    return type("Batched", (Batched,), {"change": lambda self, batch: change(batch)})()


def rows_changed(change: Callable[[EncodedRow], EncodedRow]) -> Any:
    """A collator that changes the rows before it pads them."""

    def call(self: Any, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        return PaddedCollator.__call__(self, [change(row) for row in rows])

    return type("Changing", (Padded,), {"__call__": call})()


def cut(row: EncodedRow, *, start: int = 0, end: int | None = None) -> EncodedRow:
    return {
        "input_ids": row["input_ids"][start:end],
        "labels": row["labels"][start:end],
        "document": row["document"],
    }


def supervised_padding(batch: dict[str, Any]) -> dict[str, Any]:
    filler = batch["attention_mask"] == 0
    return {**batch, "labels": batch["labels"].masked_fill(filler, 0)}


def cleared(row: EncodedRow) -> EncodedRow:
    """The row, after its first label was written over."""
    row["labels"][0] = 0
    return cut(row)


def raises(self: Any, rows: Any) -> Any:
    assert len(rows) == 1
    return rows["length"]


class Sorting(Padded):
    """Arranges by a column that is not there."""

    def arrange(self, dataset: Any) -> Any:
        return dataset.sort("length")


def by_id(batch: dict[str, Any], *, key: str, value: int) -> dict[str, Any]:
    """The batch with something done to all that looks like padding."""
    return {**batch, key: batch[key].masked_fill(batch["input_ids"] == 0, value)}


class Blurred(FlattenedCollator):
    """Rows one after another, with nothing that keeps them apart."""

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        import torch

        batch = super().__call__(rows)
        ids, labels = batch["input_ids"], batch["labels"]
        return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


BROKEN_COLLATORS: list[Case] = [
    (Misnamed(), CollatorRule.SFT_ARGS, "SFTConfig has no max_seq_length"),
    (Sorting(), CollatorRule.WORKS, "arrange() raised ValueError: Column 'length' not found"),
    (
        type("Raising", (Padded,), {"__call__": raises})(),
        CollatorRule.WORKS,
        "a batch of 6 rows raised AssertionError: assert 6 == 1",
    ),
    (
        type("Raising", (Padded,), {"__call__": lambda self, rows: rows[0]["length"]})(),
        CollatorRule.WORKS,
        "a batch of 6 rows raised KeyError: 'length' (test_testing.py line ",
    ),
    (
        type("Listing", (Padded,), {"__call__": lambda self, rows: list(rows)})(),
        CollatorRule.TENSORS,
        "6 rows make a list",
    ),
    (
        batched(lambda batch: by_id(batch, key="labels", value=-100)),
        CollatorRule.LEARNS,
        "a row supervises [26, 0], the batch has [26] of it",
    ),
    (
        batched(lambda batch: by_id(batch, key="attention_mask", value=0)),
        CollatorRule.PADDING,
        "attention_mask is wrong on 1 of 96 tokens",
    ),
    (
        Dropping(),
        CollatorRule.ARRANGES,
        "of 17 supervised tokens, 2 are lost and 0 are more than there were",
    ),
    (
        Doubling(),
        CollatorRule.ARRANGES,
        "of 17 supervised tokens, 0 are lost and 2 are more than there were",
    ),
    (Forgetting(), CollatorRule.ARRANGES, "the documents ['c'] are lost"),
    (
        batched(lambda batch: {**batch, "labels": batch["labels"].int()}),
        CollatorRule.TENSORS,
        "6 rows make {'input_ids': (6, 16), 'attention_mask': (6, 16), 'labels': (6, 16)} of "
        "['torch.int64', 'torch.int64', 'torch.int32']",
    ),
    (
        batched(lambda batch: {**batch, "labels": batch["labels"][:, 1:]}),
        CollatorRule.TENSORS,
        "6 rows make {'input_ids': (6, 16), 'attention_mask': (6, 16), 'labels': (6, 15)}",
    ),
    (
        batched(lambda batch: {key: batch[key] for key in ("input_ids", "labels")}),
        CollatorRule.POSITIONS,
        "6 rows make {'input_ids': (6, 16), 'labels': (6, 16)}",
    ),
    (
        batched(lambda batch: {**batch, "labels": batch["labels"].clamp(max=-100)}),
        CollatorRule.LEARNS,
        "a row supervises [26, 27], the batch has [] of it",
    ),
    (
        batched(lambda batch: {**batch, "labels": batch["labels"].flip(1)}),
        CollatorRule.LEARNS,
        "a row supervises [26, 27], the batch has [27, 26] of it",
    ),
    (batched(supervised_padding), CollatorRule.LEARNS, "25 labels are of no row"),
    (
        rows_changed(lambda row: {**row, "labels": list(row["input_ids"])}),
        CollatorRule.LEARNS,
        "54 labels are of no row",
    ),
    (
        batched(lambda batch: {**batch, "labels": batch["labels"].roll(-1, 1)}),
        CollatorRule.ALIGNED,
        "17 labels stand on another token",
    ),
    (rows_changed(lambda row: cut(row, start=1)), CollatorRule.KEEPS, "3 of 49 tokens are lost"),
    (
        batched(lambda b: {**b, "attention_mask": b["attention_mask"].clamp(min=1)}),
        CollatorRule.PADDING,
        "attention_mask is wrong on 25 of 96 tokens",
    ),
    (rows_changed(cleared), CollatorRule.UNCHANGED, "the rows of a batch were changed"),
]


@cases(*BROKEN_COLLATORS)
def test_a_broken_collator_is_told_what_it_breaks(component: Any, rule: Rule, seen: str) -> None:
    assert breaks(lambda: check_collator(component), rule).startswith(seen)


def test_rows_that_see_each_other_are_noticed_by_their_loss(model: Any) -> None:
    check_collator(Blurred())
    seen = breaks(lambda: check_collator(Blurred(), model=model), CollatorRule.LOSS)
    assert re.fullmatch(r"\d+\.\d{4} together, \d+\.\d{4} alone", seen)


class Astray(SharedContextCollator):
    """Branches leave their parents one token too early."""

    def __call__(self, rows: Any) -> dict[str, Any]:
        early = [[max(depth - 1, 0) for depth in row["depths"]] for row in rows]
        return super().__call__([{**r, "depths": d} for r, d in zip(rows, early, strict=True)])


class Unchecked(Astray):
    def check_model(self, model: Any, dataset: Any) -> dict[str, Any]:
        return {}


def test_branches_that_see_other_tokens_are_noticed_by_their_loss(model: Any) -> None:
    def check(collator: Any) -> str:
        return breaks(
            lambda: check_collator(collator, model=model, attn_implementation="shared_context"),
            CollatorRule.LOSS,
        )

    assert re.fullmatch(r"\d+\.\d{4} together, \d+\.\d{4} alone", check(Unchecked()))
    assert check(Astray()).startswith(
        "the model raised ModelError: model type 'llama' gives a question in shared context a loss "
    )
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("measured", "seen"),
    [
        (None, "it gives a NoneType"),
        ({"loss": float("nan")}, "writing it as JSON raised ValueError: "),
        ({"loss": {1}}, "writing it as JSON raised TypeError: "),
    ],
)
def test_what_a_collator_measures_must_be_plain_values(
    model: Any, measured: Any, seen: str
) -> None:
    collator = type("Measuring", (Padded,), {"check_model": lambda *_: measured})()
    said = breaks(lambda: check_collator(collator, model=model), CollatorRule.MEASURES)
    assert said.startswith(seen)


def test_padding_with_another_id_is_told() -> None:
    seen = breaks(lambda: check_collator(Padded(), pad_token_id=2), CollatorRule.PADDING)
    assert seen == "rows are filled with {0}, not 2"
    check_collator(PaddedCollator(11), pad_token_id=11)


def test_the_rows_of_the_check_share_tokens_within_a_document_only() -> None:
    rows = example_rows(without=12)
    assert all(12 not in row["input_ids"] for row in rows)
    assert max(token for row in rows for token in row["input_ids"]) < 128
    learnt = [label for row in rows for label in row["labels"] if label != IGNORED]
    assert len(set(learnt)) == len(learnt)
    assert [len(row["input_ids"]) for row in rows if row["document"] == "c"] == [1]
    for one, other in itertools.combinations(rows, 2):
        shared = set(one["input_ids"]) & set(other["input_ids"])
        assert bool(shared) == (one["document"] == other["document"])


# Model factories


class Small:
    """Keeps the contract: the embedded base, of which one kind of layer is trained."""

    trained = "down_proj"

    def check(self) -> None:
        pass

    def sft_args(self) -> dict[str, Any]:
        return {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}

    def load_config(self) -> Any:
        from transformers import AutoConfig

        from finqa_sft.models.tiny import tiny_base

        return AutoConfig.from_pretrained(tiny_base())

    def load_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        from finqa_sft.models.tiny import tiny_base

        return AutoTokenizer.from_pretrained(tiny_base())

    def load_model(self, args: Any) -> Any:
        from transformers import AutoModelForCausalLM

        from finqa_sft.models.tiny import tiny_base

        model = AutoModelForCausalLM.from_pretrained(tiny_base())
        for name, weight in model.named_parameters():
            weight.requires_grad_(self.trained in name)
        return model

    def load_trained(self, folder: Path | None) -> Any:
        from transformers import AutoModelForCausalLM

        from finqa_sft.models.tiny import tiny_base

        return AutoModelForCausalLM.from_pretrained(folder or tiny_base())

    def settle(self, trainer: Any) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"base": "tiny", "device": "cpu", "numbers": [1, 2.5, None]}


def small(**methods: Any) -> Any:
    """The factory with other methods; each is called with `self`."""
    return type("Small", (Small,), methods)()


def refuses(self: Any) -> None:
    raise OSError("no such base")


def fails(self: Any, *_: Any) -> Any:
    raise KeyError("weights")


def of_another(self: Any) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config()


def cannot_pad(self: Any) -> Any:
    tokenizer = Small.load_tokenizer(self)
    tokenizer.pad_token = tokenizer.chat_template = None
    return tokenizer


def drawn(self: Any, args: Any) -> Any:
    import torch

    model = Small.load_model(self, args)
    torch.seed()
    torch.nn.init.normal_(model.model.layers[0].mlp.down_proj.weight)
    return model


def not_finite(self: Any, args: Any) -> Any:
    model = Small.load_model(self, args)
    model.model.layers[0].mlp.down_proj.weight.data.fill_(float("nan"))
    return model


def untrained(self: Any, folder: Path | None) -> Any:
    return Small.load_trained(self, None)


def in_training(self: Any, folder: Path | None) -> Any:
    return Small.load_trained(self, folder).train()


def unfreezes(self: Any, trainer: Any) -> None:
    trainer.model.model.norm.weight.requires_grad_()


def overwrites(self: Any, args: Any) -> Any:
    model = Small.load_model(self, args)

    def write(module: Any, inputs: Any) -> None:
        module.weight.data.mul_(1.5)

    model.model.norm.register_forward_pre_hook(write)
    return model


def detached(self: Any, args: Any) -> Any:
    model = Small.load_model(self, args)
    model.model.layers[0].mlp.down_proj.register_forward_hook(
        lambda module, inputs, output: output.detach()
    )
    return model


def saves_nothing(self: Any, args: Any) -> Any:
    model = Small.load_model(self, args)
    model.save_pretrained = lambda *args, **kwargs: None
    return model


def saves_the_first(self: Any, args: Any) -> Any:
    model = Small.load_model(self, args)
    first = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    save = model.save_pretrained
    model.save_pretrained = lambda folder, **kwargs: save(folder, state_dict=first)
    return model


BROKEN_FACTORIES: list[Case] = [
    (small(check=refuses), ModelFactoryRule.CHECKS, "check() raised OSError: no such base"),
    (
        small(sft_args=lambda self: {"fp8": True}),
        ModelFactoryRule.SFT_ARGS,
        "SFTConfig has no fp8",
    ),
    (
        small(sft_args=lambda self: {"use_cpu": True, "save_strategy": "often"}),
        ModelFactoryRule.SFT_ARGS,
        "SFTConfig with {'use_cpu': True, 'save_strategy': 'often'} raised ValueError: ",
    ),
    (
        small(load_config=fails),
        ModelFactoryRule.CONFIG,
        "load_config() raised KeyError: 'weights' (test_testing.py line ",
    ),
    (
        small(load_config=of_another),
        ModelFactoryRule.CONFIG,
        "the config is of model type 'qwen2', the model of 'llama'",
    ),
    (
        small(load_tokenizer=cannot_pad),
        ModelFactoryRule.TOKENIZER,
        "it has no padding token and no chat template",
    ),
    (
        small(sft_args=fails),
        ModelFactoryRule.SFT_ARGS,
        "sft_args() raised KeyError: 'weights' (test_testing.py line ",
    ),
    (
        small(load_tokenizer=fails),
        ModelFactoryRule.TOKENIZER,
        "load_tokenizer() raised KeyError: 'weights' (test_testing.py line ",
    ),
    (
        small(load_model=fails),
        ModelFactoryRule.LOADS,
        "load_model() raised KeyError: 'weights' (test_testing.py line ",
    ),
    (
        small(settle=fails),
        ModelFactoryRule.FINITE,
        "training raised KeyError: 'weights' (test_testing.py line ",
    ),
    (
        small(describe=fails),
        ModelFactoryRule.DESCRIBES,
        "describe() raised KeyError: 'weights' (test_testing.py line ",
    ),
    (
        small(trained="no such layer"),
        ModelFactoryRule.TRAINABLE,
        "of 38 weights none requires gradients",
    ),
    (
        small(load_model=drawn),
        ModelFactoryRule.SEED,
        "loaded twice, it differs in model.layers.0.mlp.down_proj.weight",
    ),
    (small(load_model=not_finite), ModelFactoryRule.FINITE, "the loss is nan"),
    (small(load_model=overwrites), ModelFactoryRule.FROZEN, "model.norm.weight changed"),
    (small(settle=unfreezes), ModelFactoryRule.FROZEN, "model.norm.weight changed"),
    (
        small(load_model=detached),
        ModelFactoryRule.TRAINED,
        "model.layers.0.mlp.down_proj.weight did not change",
    ),
    (
        small(load_model=saves_nothing),
        ModelFactoryRule.SAVED,
        "saving and loading raised ValueError: Unrecognized model in ",
    ),
    (
        small(load_model=saves_the_first),
        ModelFactoryRule.SAVED,
        "what is loaded again differs in model.layers.0.mlp.down_proj.weight, "
        "model.layers.1.mlp.down_proj.weight, model.layers.2.mlp.down_proj.weight and 1 more",
    ),
    (
        small(load_trained=fails),
        ModelFactoryRule.ASKED,
        "load_trained() raised KeyError: 'weights' (test_testing.py line ",
    ),
    (
        small(load_trained=untrained),
        ModelFactoryRule.ASKED,
        "load_trained() differs in model.layers.0.mlp.down_proj.weight, "
        "model.layers.1.mlp.down_proj.weight, model.layers.2.mlp.down_proj.weight and 1 more",
    ),
    (
        small(load_trained=in_training),
        ModelFactoryRule.ASKED,
        "load_trained() gives a model in training",
    ),
    (
        small(describe=lambda self: {"model": "tiny"}),
        ModelFactoryRule.DESCRIBES,
        "it has no base and no device",
    ),
    (
        small(describe=lambda self: {"base": Path("tiny"), "device": "cpu"}),
        ModelFactoryRule.DESCRIBES,
        "writing it as JSON raised TypeError: Object of type PosixPath is not JSON serializable",
    ),
]


@cases(*BROKEN_FACTORIES)
def test_a_broken_factory_is_told_what_it_breaks(
    component: Any, rule: Rule, seen: str, tmp_path: Path, tiny: Path
) -> None:
    said = breaks(lambda: check_model_factory(component, output_dir=tmp_path), rule)
    assert said.startswith(seen)


def test_a_factory_may_train_some_of_a_base_s_own_weights(tmp_path: Path, tiny: Path) -> None:
    check_model_factory(Small(), output_dir=tmp_path)


# Plugins


class Silent(Options):
    depth: int = 1


def metric(**fields: Any) -> MetricRecord:
    return MetricRecord(**{"name": "m", "summary": "a metric", "build": len, **fields})


def collator(**fields: Any) -> CollatorRecord:
    return CollatorRecord(
        **{"name": "c", "summary": "rows", "config": PaddedOptions, "build": pow, **fields}
    )


def offering(*records: Any) -> ModuleType:
    """A plugin that offers metrics and collators."""

    @hookimpl
    def finqa_sft_metrics() -> list[Any]:
        return [record for record in records if not isinstance(record, CollatorRecord)]

    @hookimpl
    def finqa_sft_collators() -> list[Any]:
        return [record for record in records if isinstance(record, CollatorRecord)]

    made = ModuleType("mine")
    made.finqa_sft_metrics = finqa_sft_metrics  # type: ignore[attr-defined]
    made.finqa_sft_collators = finqa_sft_collators  # type: ignore[attr-defined]
    return made


def imported(folder: Path, code: str) -> ModuleType:
    """A plugin from a file, imported."""
    path = folder / "mine.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("mine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BROKEN_PLUGINS: list[Case] = [
    (
        offering(metric(name="Two Words")),
        PluginRule.LOADS,
        "plugin mine (mine) was left out: finqa_sft_metrics returned the name 'Two Words'; ",
    ),
    (offering(), PluginRule.OFFERS, "no hook returns a record"),
    (offering(metric(summary=" ")), PluginRule.SUMMARY, "the metric 'm' has the summary ' '"),
    (
        offering(metric(config=Silent)),
        PluginRule.OPTIONS,
        "Silent of the metric 'm' says nothing of depth",
    ),
    (
        offering(metric(build=lambda: None)),
        PluginRule.BUILDS,
        "build of the metric 'm' takes (), and is given (config)",
    ),
    (
        offering(collator(build=len)),
        PluginRule.BUILDS,
        "build of the collator 'c' takes (obj, /), and is given (config, tokenizer)",
    ),
    (
        offering(collator(sft_args={"packing": False}, reasons={"packed": "no", "p": "no"})),
        PluginRule.REASONS,
        "the collator 'c' does not need p, packed",
    ),
    (
        offering(collator(sft_args={"max_seq_length": 5})),
        PluginRule.SFT_ARGS,
        "SFTConfig has no max_seq_length (the collator 'c')",
    ),
    (None, PluginRule.LIGHT, "it imports datasets"),
]


@cases(*BROKEN_PLUGINS)
def test_a_broken_plugin_is_told_what_it_breaks(
    component: Any, rule: Rule, seen: str, tmp_path: Path
) -> None:
    plugin = component or imported(tmp_path, "import datasets\n" + PLUGIN)
    assert breaks(lambda: check_plugin(plugin), rule).startswith(seen)


PLUGIN = """\
from finqa_sft.plugins import ReaderRecord, hookimpl

@hookimpl
def finqa_sft_readers():
    return [ReaderRecord(name="mine", summary="mine", build=len)]
"""


def test_a_plugin_may_be_a_file(tmp_path: Path) -> None:
    check_plugin(imported(tmp_path, PLUGIN))


def test_a_plugin_must_load_alone_too(tmp_path: Path) -> None:
    plugin = imported(tmp_path, PLUGIN)
    (tmp_path / "mine.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    assert "No module named 'nothing_of_this_name'" in breaks(
        lambda: check_plugin(plugin), PluginRule.LOADS
    )


# Every rule

CASES = {
    "readers": BROKEN_READERS,
    "formatters": BROKEN_FORMATTERS,
    "collators": BROKEN_COLLATORS,
    "factories": BROKEN_FACTORIES,
    "plugins": BROKEN_PLUGINS,
}
UNLISTED = {FormatterRule.SUPERVISES, CollatorRule.LOSS, CollatorRule.MEASURES}
"""Rules that are broken in tests of their own."""


@pytest.mark.parametrize(
    "rules", [ReaderRule, FormatterRule, CollatorRule, ModelFactoryRule, PluginRule]
)
def test_every_rule_has_a_case_that_breaks_it(rules: type[Rule]) -> None:
    broken = {rule for found in CASES.values() for _, rule, _ in found} | UNLISTED
    assert set(rules) <= broken
