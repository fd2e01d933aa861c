"""The formatter `steps`: what it writes, what it still reads, and what holds for any question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.documents import (
    SCALES,
    Block,
    Document,
    Evidence,
    Paragraph,
    Question,
    Scale,
    Table,
    Turn,
)
from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
from finqa_sft.formatters.base import Formatter
from finqa_sft.formatters.chat import ChatOptions
from finqa_sft.formatters.citations import citations
from finqa_sft.formatters.program import ProgramFormatter, ProgramOptions
from finqa_sft.formatters.steps import StepsFormatter, StepsOptions
from finqa_sft.formatters.tables import TableStyle, read_table, table_text
from finqa_sft.formatters.values import result_scale, taught_value
from finqa_sft.plugins.manager import Plugins

TABLE = Table.from_cells([["(in millions)", "2012", "2011"], ["Net sales", "$ 5,829", "5,735"]])
PAGE = Document(id="p", blocks=(Paragraph("Sales grew by 1.6%."), TABLE))
CHANGE = Question(
    id="p-1",
    text="By what share did net sales grow?",
    document=PAGE,
    answer="1.6%",
    program="subtract(5829, 5735), divide(#0, 5735)",
    executed_answer=0.01639,
    evidence=(Evidence(1, row=1), Evidence(0)),
)
PROGRAM = "subtract(5829, 5735), divide(#0, 5735)"


def taught(formatter: Formatter, question: Question) -> str:
    return formatter.completion(question)[0]["content"]


def test_evidence_program_and_answer_have_a_line_each() -> None:
    assert taught(StepsFormatter(), CHANGE) == (
        "evidence: Net sales | $ 5,829 | 5,735\n"
        "evidence: Sales grew by 1.6%.\n"
        f"program: {PROGRAM}\n"
        "answer: 0.01639"
    )


def test_a_scale_has_a_line_too() -> None:
    question = replace(CHANGE, scale="percent", evidence=())
    assert taught(StepsFormatter(), question) == (
        f"program: {PROGRAM}\nanswer: 1.639\nscale: percent"
    )
    inside = StepsFormatter(StepsOptions(scale="inside"))
    assert taught(inside, question) == f"program: {PROGRAM}\nanswer: 1.639%"


def test_lines_that_a_question_has_nothing_for_are_left_out() -> None:
    question = replace(CHANGE, program=None, evidence=(), executed_answer=None)
    assert taught(StepsFormatter(), question) == "answer: 1.6%"


def test_a_prediction_holds_all_that_the_lines_say() -> None:
    prediction = StepsFormatter().parse(taught(StepsFormatter(), CHANGE))
    assert prediction.answer == "0.01639"
    assert prediction.program == PROGRAM
    assert prediction.scale == ""
    assert prediction.evidence == ("Net sales | $ 5,829 | 5,735", "Sales grew by 1.6%.")
    assert prediction.text == taught(StepsFormatter(), CHANGE)


@pytest.mark.parametrize(
    ("text", "answer", "program", "scale"),
    [
        ("ANSWER: 5\nScale: Million", "5", None, "million"),
        ("  answer :   5  \n  scale:   percent.", "5", None, "percent"),
        ("**answer:** 5\n**scale:** million", "5", None, "million"),
        ("**Answer**: 5", "5", None, ""),
        ("**answer: 5**", "5", None, ""),
        ("- Program: `add(1, 2)`\n- Answer: `3`", "3", "add(1, 2)", ""),
        ("### Answer:\n\n3\n", "3", None, ""),
        ("1. program: add(1, 2)\n2. answer: 3", "3", "add(1, 2)", ""),
        ("scale: million\nanswer: 5\nprogram: add(1, 4)\nevidence: rail", "5", "add(1, 4)",
         "million"),
        ("answer: 5\nIt is the sum of both.\nThat was all.", "5", None, ""),
        ("Let me see: rail was 5.\nanswer: 5", "5", None, ""),
        ("```\nprogram: add(1, 2)\nanswer: 3\n```", "3", "add(1, 2)", ""),
        ("```text\nanswer: 3\n```\nDone.", "3", None, ""),
        ("answer: 5\nanswer: 7\nscale: million", "5", None, ""),
        ("program: add(1, 2)\nanswer: 3\nprogram: add(2, 2)\nanswer: 4\nscale: million", "3",
         "add(1, 2)", ""),
        ("program: none\nanswer: 3\nscale: none", "3", None, ""),
        ("program: add(1, 2", None, "add(1, 2", ""),
        ("answer:\nscale: million", None, None, "million"),
        ("answer: scale: million", "scale: million", None, ""),
        ("answer: answer: 5", "answer: 5", None, ""),
        ("answer: 5\r\nscale: million\r\n", "5", None, "million"),
        ("answer: *5", "*5", None, ""),
        ("5", None, None, ""),
        ("the answer: 5", None, None, ""),
        ("<think>answer: 4</think>\nanswer: 5", "5", None, ""),
    ],
)  # fmt: skip
def test_slips_in_the_layout_are_passed_over(
    text: str, answer: str | None, program: str | None, scale: str
) -> None:
    prediction = StepsFormatter().parse(text)
    assert (prediction.answer, prediction.program, prediction.scale) == (answer, program, scale)


@pytest.mark.parametrize("piece", ["*", " ", "_ ", "1. ", "> ", "answer ", "5 ", "%", "program: "])
def test_a_very_long_line_is_read_at_once(piece: str) -> None:
    for scale in ("separate", "inside"):
        formatter = StepsFormatter(StepsOptions.model_validate({"scale": scale}))
        text = piece * 100_000
        assert formatter.parse(f"answer: {text}|").answer == f"{text}|".strip()
        formatter.parse(text)


def test_a_model_that_runs_on_is_read_up_to_where_it_begins_again() -> None:
    text = "evidence: a\nevidence: b\nanswer: 5\n\nQuestion: And?\nevidence: c\nanswer: 6"
    prediction = StepsFormatter().parse(text)
    assert (prediction.answer, prediction.evidence) == ("5", ("a", "b"))


@pytest.mark.parametrize(
    "answer",
    ["scale: million", "answer: 5", "Answer : 5", "evidence: none", "program: add(1, 2)", "**5**",
     "`5`", "```", "none", "5\n6\n\n7", "a\tb", "- 5", "1. answer: 3", "12.5 million", "x:", ":"],
)  # fmt: skip
def test_every_answer_is_read_back(answer: str) -> None:
    question = replace(CHANGE, answer=answer, executed_answer=None)
    prediction = StepsFormatter().parse(taught(StepsFormatter(), question))
    assert (prediction.answer, prediction.program) == (" ".join(answer.split()), PROGRAM)


# Any question


WORDS = st.one_of(
    st.sampled_from(
        ["5", "-2.4", "$ 5,829", "1.6%", "yes", "scale: million", "evidence: x", "answer: 5", "%",
         "12 million", "a | b", "{{ question }}", "add(1, 2)", "5\n6", "million", "none", "**5**"]
    ),
    st.text(min_size=1, max_size=12).filter(lambda text: text.strip()),
)  # fmt: skip
PARAGRAPHS = WORDS.map(lambda text: Paragraph(text.strip()))
TABLES = st.lists(st.lists(st.one_of(WORDS, st.just("")), min_size=1, max_size=3), min_size=1)
BLOCKS = st.one_of(PARAGRAPHS, TABLES.map(Table.from_cells))
DOCUMENTS = st.lists(BLOCKS, max_size=4).map(lambda found: Document(id="d", blocks=tuple(found)))
PROGRAMS = st.sampled_from(
    [None, "add(1, 2)", PROGRAM, "table_max(net  sales, none)", "greater(5829, 5735)"]
)
OPENINGS = st.builds(
    "{}{}{{{{ document }}}}{}{{{{ question }}}}{}".format,
    st.sampled_from(["", "Page:\n", "{# note #}"]),
    st.sampled_from(["", "{% if company %}{{ company }}{% endif %}", "{{ company | upper }}\n\n"]),
    st.sampled_from(["\n", "\n\nQ: ", "{% if not company %} | {% endif %}"]),
    st.sampled_from(["", "\nA:", "{% if company %}\n{{ document }}{% endif %}"]),
)
OPTIONS = st.fixed_dictionaries(
    {
        "table_style": st.sampled_from(["markdown", "pipe", "tsv", "json", "html", "sentences"]),
        "value": st.sampled_from(["executed", "written"]),
        "evidence": st.sampled_from(["none", "short", "quote"]),
        "scale": st.sampled_from(["separate", "inside"]),
        "templates": st.fixed_dictionaries({"opening": OPENINGS}),
    }
)
FORMATTERS: list[tuple[Any, type[ChatOptions]]] = [
    (AnswerFormatter, AnswerOptions),
    (ProgramFormatter, ProgramOptions),
    (StepsFormatter, StepsOptions),
]


def places(blocks: tuple[Block, ...]) -> list[Evidence]:
    rows = [
        Evidence(number, row=row)
        for number, block in enumerate(blocks)
        if isinstance(block, Table)
        for row in range(len(block.rows))
    ]
    return [*map(Evidence, range(len(blocks))), *rows]


@st.composite
def questions(draw: st.DrawFn) -> Question:
    document = draw(DOCUMENTS)
    found = places(document.blocks)
    turns = st.builds(Turn, WORDS, WORDS, PROGRAMS)
    return Question(
        id="1",
        text=draw(WORDS),
        document=replace(document, company=draw(st.sampled_from([None, "A", "{{ b }}"]))),
        answer=draw(WORDS),
        program=draw(PROGRAMS),
        executed_answer=draw(st.sampled_from([None, 0.016, -2.4, 1.6, 5829.0, "yes"])),
        scale=draw(st.sampled_from(SCALES)),  # type: ignore[arg-type]
        evidence=tuple(draw(st.lists(st.sampled_from(found), max_size=3))) if found else (),
        history=tuple(draw(st.lists(turns, max_size=2))),
    )


def expected(question: Question, options: ChatOptions) -> tuple[str, Scale]:
    """The value that is taught; inside, an answer that ends in its scale says it once."""
    value = taught_value(question, value=options.value)
    if options.scale == "inside" and question.scale:
        words = (f" {question.scale}s", f" {question.scale}", "%")
        for word in words if question.scale == "percent" else words[:2]:
            if value.endswith(word) and value != word:
                return value.removesuffix(word).rstrip(), question.scale
    return value, question.scale


@settings(deadline=None, max_examples=200)
@given(questions(), OPTIONS, st.sampled_from(FORMATTERS))
def test_parse_gives_back_what_any_completion_says(
    question: Question, chosen: dict[str, Any], kind: tuple[Any, type[ChatOptions]]
) -> None:
    build, model = kind
    options = model.model_validate(chosen)
    formatter = build(options)
    text = taught(formatter, question)
    prediction = formatter.parse(f"\n{text} ")
    assert prediction == formatter.parse(text)
    says_answer = build is not ProgramFormatter or not question.program
    if says_answer:
        assert (prediction.answer, prediction.scale) == expected(question, options)
    else:
        assert (prediction.answer, prediction.scale) == (None, result_scale(question))
    assert prediction.program == (None if build is AnswerFormatter else question.program)
    assert text.startswith("".join(f"evidence: {cited}\n" for cited in prediction.evidence))
    bare = taught(formatter, replace(question, evidence=()))
    assert len(text) - len(bare) == sum(len(f"evidence: {c}\n") for c in prediction.evidence)


@settings(deadline=None)
@given(questions(), WORDS, OPTIONS, st.sampled_from(FORMATTERS))
def test_prompts_of_a_document_begin_alike_and_know_no_answer(
    question: Question, other: str, chosen: dict[str, Any], kind: tuple[Any, type[ChatOptions]]
) -> None:
    formatter = kind[0](kind[1].model_validate(chosen))

    def prompt(asked: Question) -> list[Any]:
        return list(formatter.prompt(asked, document=question.document))

    alone = replace(question, history=())
    one, two = (prompt(replace(alone, text=text))[1]["content"] for text in ("<one>", "<two>"))
    assert one.partition("<one>")[0] == two.partition("<two>")[0]
    assert prompt(replace(alone, text=other))[1]["content"].startswith(one.partition("<one>")[0])
    blind = replace(
        question,
        answer=other,
        program=None,
        executed_answer=7319.0,
        scale="",
        evidence=(),
        answer_type="other",
        document=replace(question.document, blocks=()),
    )
    assert prompt(blind) == prompt(question)


@pytest.mark.parametrize(
    ("reader", "file"),
    [
        ("finqa", "finqa/dev_200.json"),
        ("tatqa", "tatqa/dev.json"),
        ("convfinqa", "convfinqa/dev_421_cleaned.json"),
    ],
)
def test_every_real_question_is_read_back(reader: str, file: str, real_data: Path) -> None:
    record: Any = Plugins.load({"FINQA_SFT_PLUGINS": ""}).find("readers", reader).record
    for question in record.build(record.config(files=(real_data / file,))):
        for build, model in FORMATTERS:
            options = model.model_validate({"evidence": "quote"})
            prediction = build(options).parse(taught(build(options), question))
            assert prediction.evidence == citations(question, style="quote")
            if build is not AnswerFormatter:
                assert prediction.program == question.program
            if build is not ProgramFormatter or not question.program:
                value = taught_value(question, value=options.value)
                assert (prediction.answer, prediction.scale) == (value, question.scale)
        for table in question.document.tables:
            for style in get_args(TableStyle)[:-1]:
                again = read_table(table_text(table, style), style)
                assert table_text(again, style) == table_text(table, style)
                assert again.header_rows == table.header_rows
