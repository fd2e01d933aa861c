"""What all formatters share, and the formatters `answer` and `program`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.documents import SCALES, Document, Evidence, Paragraph, Question, Scale, Table, Turn
from finqa_sft.formatters import program
from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
from finqa_sft.formatters.base import Formatter
from finqa_sft.formatters.linearize import document_text
from finqa_sft.formatters.program import ProgramFormatter, ProgramOptions
from finqa_sft.formatters.steps import StepsFormatter, StepsOptions
from finqa_sft.formatters.values import number_text
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.filings import FilingsOptions, FilingsReader

TABLE = Table.from_cells([["(in millions)", "2012", "2011"], ["Net sales", "$ 5,829", "5,735"]])
PAGE = Document(
    id="ACME/2012/page_1",
    blocks=(Paragraph("Sales grew."), Paragraph("We make pipes."), TABLE, Paragraph("See note 4.")),
)
CHANGE = Question(
    id="ACME/2012/page_1-1",
    text="By what share did net sales grow?",
    document=PAGE,
    answer="1.6%",
    program="subtract(5829, 5735), divide(#0, 5735)",
    executed_answer=0.01639,
    evidence=(Evidence(2, row=1),),
)
LOOKUP = replace(CHANGE, text="What were net sales in 2012?", answer="5,829", program=None)


def answering(**options: Any) -> AnswerFormatter:
    return AnswerFormatter(AnswerOptions.model_validate(options))


def programming(**options: Any) -> ProgramFormatter:
    return ProgramFormatter(ProgramOptions.model_validate(options))


def stepping(**options: Any) -> StepsFormatter:
    return StepsFormatter(StepsOptions.model_validate(options))


def taught(formatter: Formatter, question: Question) -> str:
    return formatter.completion(question)[0]["content"]


def test_the_document_comes_before_the_question() -> None:
    prompt = ProgramFormatter().prompt(CHANGE, document=PAGE)
    assert [message["role"] for message in prompt] == ["system", "user"]
    assert prompt[0]["content"] == program.SYSTEM
    assert prompt[1]["content"] == (
        document_text(PAGE) + "\n\nQuestion: By what share did net sales grow?"
    )


def test_without_a_document_the_question_stands_alone() -> None:
    prompt = ProgramFormatter().prompt(CHANGE, document=replace(PAGE, blocks=()))
    assert prompt[1]["content"] == "Question: By what share did net sales grow?"


@pytest.mark.parametrize("style", ["markdown", "pipe", "tsv", "json", "html", "sentences"])
def test_tables_are_shown_in_the_style_of_the_recipe(style: Any) -> None:
    for formatter in (
        answering(table_style=style), programming(table_style=style), stepping(table_style=style)
    ):  # fmt: skip
        content = formatter.prompt(CHANGE, document=PAGE)[1]["content"]
        assert content.startswith(document_text(PAGE, table_style=style))


def test_the_instruction_says_what_is_taught() -> None:
    def instruction(formatter: Formatter) -> str:
        return formatter.prompt(CHANGE, document=PAGE)[0]["content"]

    assert "scale: million" in instruction(answering())
    assert "12.5 million or 4%" in instruction(answering(scale="inside"))
    assert "evidence" not in instruction(answering()) + instruction(programming())
    assert "evidence: Net sales" in instruction(answering(evidence="short"))
    assert "evidence: Net sales" in instruction(programming(evidence="quote"))
    assert "evidence: " in instruction(stepping())
    assert "evidence: " not in instruction(stepping(evidence="none"))
    assert "scale: " in instruction(stepping())
    assert "scale: " not in instruction(stepping(scale="inside"))
    assert "12.5 million or 4%" in instruction(programming(scale="inside"))
    for formatter in (answering(system="Go."), programming(system="Go."), stepping(system="Go.")):
        assert instruction(formatter) == "Go."


# Earlier turns


TURNS = (
    Turn("What were sales?", "5,829"),
    Turn("And\nbefore?", "5,735 \n", program="add(1, 2)"),
    Turn("Did they grow?", "yes"),
)


def conversation() -> list[Question]:
    """The turns as they are asked, each with those before it."""
    return [
        replace(
            LOOKUP,
            text=turn.question,
            answer=turn.answer,
            program=turn.program,
            executed_answer=None,
            evidence=(),
            history=TURNS[:number],
        )
        for number, turn in enumerate(TURNS)
    ]


def test_earlier_turns_follow_the_document_as_chat_turns() -> None:
    asked = replace(CHANGE, history=TURNS[:2], text="The growth?")
    for formatter, first, second in (
        (ProgramFormatter(), "5,829", "add(1, 2)"),
        (AnswerFormatter(), "5,829", "5,735"),
        (StepsFormatter(), "answer: 5,829", "program: add(1, 2)\nanswer: 5,735"),
    ):
        opening, *prompt = formatter.prompt(asked, document=PAGE)[1:]
        assert opening["content"].endswith("\n\nQuestion: What were sales?")
        assert [(m["role"], m["content"]) for m in prompt] == [
            ("assistant", first),
            ("user", "Question: And\nbefore?"),
            ("assistant", second),
            ("user", "Question: The growth?"),
        ]


@pytest.mark.parametrize("formatter", [answering(), programming(), stepping()])
def test_what_is_learnt_in_a_turn_is_what_later_turns_begin_with(formatter: Formatter) -> None:
    first, *later = conversation()
    messages = [*formatter.prompt(first, document=PAGE), *formatter.completion(first)]
    for question in later:
        prompt = formatter.prompt(question, document=PAGE)
        assert prompt[:-1] == messages
        messages = [*prompt, *formatter.completion(question)]


# Values


def test_an_executed_answer_is_taught_before_a_written_one() -> None:
    assert taught(answering(), CHANGE) == "0.01639"
    assert taught(answering(value="written"), CHANGE) == "1.6%"
    assert taught(answering(), replace(CHANGE, executed_answer=None)) == "1.6%"
    assert taught(answering(), replace(CHANGE, executed_answer="yes")) == "yes"


def test_a_question_without_a_program_is_taught_its_bare_value() -> None:
    question = replace(LOOKUP, executed_answer=5829.0)
    assert taught(programming(), question) == "5,829"
    assert taught(programming(value="executed"), question) == "5829"


@pytest.mark.parametrize(
    ("answer", "executed", "text"),
    [("9.1%", 0.09111, "9.111"), ("-22.22", -22.22, "-22.22"), ("4%", -0.04, "-4"),
     ("0.5%", 0.5, "0.5"), ("n/a", 0.2, "0.2"), ("0%", 0.0, "0")],
)  # fmt: skip
def test_a_fraction_is_taught_in_percent_where_the_scale_is_percent(
    answer: str, executed: float, text: str
) -> None:
    question = replace(LOOKUP, answer=answer, executed_answer=executed, scale="percent")
    assert taught(answering(), question) == f"{text}\nscale: percent"
    assert taught(answering(scale="inside"), question) == f"{text}%"
    assert taught(answering(), replace(question, scale="")) == number_text(executed)


@pytest.mark.parametrize(
    ("number", "text"),
    [(407.0, "407"), (0.34719, "0.34719"), (-2.4, "-2.4"), (122604300.0, "122604300"),
     (1e-05, "0.00001"), (1e22, "10000000000000000000000"), (-0.0, "0"), (100, "100")],
)  # fmt: skip
def test_numbers_are_written_without_exponents_or_empty_decimals(number: float, text: str) -> None:
    assert number_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_is_the_number(number: float) -> None:
    assert float(number_text(number)) == number


# Reading


@pytest.mark.parametrize("formatter", [ProgramFormatter(), AnswerFormatter()])
def test_parse_reads_every_completion_back(formatter: Formatter) -> None:
    questions = list(FilingsReader(FilingsOptions(pages=40, difficulty="hard")))
    assert len(questions) > 150
    for question in questions:
        assert not isinstance(question, BadRow)
        text = taught(formatter, question)
        prediction = formatter.parse(f" {text}\n")
        if isinstance(formatter, ProgramFormatter) and question.program:
            assert (prediction.program, prediction.answer) == (question.program, None)
        else:
            value, _, scale = text.partition("\nscale: ")
            assert (prediction.program, prediction.answer) == (None, value)
            assert prediction.scale == scale


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_stands_under_the_answer_and_is_read_back(scale: Scale) -> None:
    for formatter in (AnswerFormatter(), ProgramFormatter()):
        for answer in ("5,829", "5.8 million", "percent", "12%"):
            question = replace(LOOKUP, answer=answer, executed_answer=None, scale=scale)
            text = taught(formatter, question)
            assert text == (f"{answer}\nscale: {scale}" if scale else answer)
            prediction = formatter.parse(text)
            assert (prediction.answer, prediction.scale) == (answer, scale)


@pytest.mark.parametrize(
    ("answer", "scale", "text", "read"),
    [
        ("12.5", "million", "12.5 million", "12.5"),
        ("(12.5)", "percent", "(12.5)%", "(12.5)"),
        ("1.6%", "percent", "1.6%", "1.6"),
        ("1.6%", "", "1.6%\nscale: none", "1.6%"),
        ("5.8 million", "", "5.8 million\nscale: none", "5.8 million"),
        ("5.8 million", "percent", "5.8 million\nscale: percent", "5.8 million"),
        ("5.8 Millions", "million", "5.8 million", "5.8"),
        ("up", "percent", "up percent", "up"),
        ("percent", "", "percent", "percent"),
        ("%", "percent", "% percent", "%"),
        ("yes", "", "yes", "yes"),
        ("5 s", "", "5 s", "5 s"),
    ],
)
def test_a_scale_inside_an_answer_is_read_back(
    answer: str, scale: Scale, text: str, read: str
) -> None:
    question = replace(LOOKUP, answer=answer, executed_answer=None, scale=scale)
    for formatter in (answering(scale="inside"), programming(scale="inside")):
        assert taught(formatter, question) == text
        prediction = formatter.parse(text)
        assert (prediction.answer, prediction.scale) == (read, scale)
    steps = stepping(scale="inside", evidence="none")
    assert taught(steps, question) == f"answer: {text}"
    assert (steps.parse(f"answer: {text}").answer, steps.parse(f"answer: {text}").scale) == (
        read,
        scale,
    )


@pytest.mark.parametrize(
    ("text", "answer", "scale"),
    [
        ("12.5\n\nscale: million\nmore", "12.5", "million"),
        ("12.5\nScale : Millions.", "12.5", "million"),
        ("12.5\nscale: %", "12.5", "percent"),
        ("12.5\nscale: none", "12.5", ""),
        ("12.5\nscale: millionth", "12.5", ""),
        ("12.5\nscale: dozen", "12.5", ""),
        ("scale: million", None, "million"),
        ("scale: million\n12.5", "12.5", "million"),
        ("12.5\nand more\nscale: million", "12.5", ""),
        ("12.5 million", "12.5 million", ""),
    ],
)
def test_a_scale_is_read_from_a_line_of_its_own_alone(
    text: str, answer: str | None, scale: str
) -> None:
    prediction = AnswerFormatter().parse(text)
    assert (prediction.answer, prediction.scale) == (answer, scale)


def test_a_program_that_computes_a_fraction_states_no_scale_and_others_theirs() -> None:
    for formatter in (programming(), programming(scale="inside")):
        assert taught(formatter, replace(CHANGE, scale="percent")) == CHANGE.program
        millions = replace(CHANGE, scale="million")
        assert taught(formatter, millions) == f"{CHANGE.program}\nscale: million"
        prediction = formatter.parse(taught(formatter, millions))
        assert (prediction.program, prediction.scale) == (CHANGE.program, "million")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "answer",
    ["add(1, 2)", "answer: 5", "Answer : add(1, 2)", "answer:", "program: add(1, 2)",
     "scale: million", "- Scale: none", "1. evidence: x", "evidence:", "```", "```text", "-", "%",
     "<think>5</think>", "<think>a</think> 5", "</think>", "**5**", "{{ question }}", "\u200b"],
)  # fmt: skip
def test_a_value_that_looks_like_something_else_is_read_back(answer: str, scale: Scale) -> None:
    for formatter in (
        programming(), programming(evidence="short"), answering(), answering(evidence="quote")
    ):  # fmt: skip
        for evidence in ((), CHANGE.evidence):
            question = replace(LOOKUP, answer=answer, scale=scale, executed_answer=None)
            question = replace(question, evidence=evidence)
            prediction = formatter.parse(taught(formatter, question))
            assert (prediction.program, prediction.answer) == (None, answer)
            assert prediction.scale == scale


@pytest.mark.parametrize(
    ("text", "answer", "program", "scale"),
    [
        ("```\n5\nscale: million\n```", "5", None, "million"),
        ("Answer: 5\n**Scale:** million", "5", None, "million"),
        ("**answer:** 5\n\nQuestion: And?\n6\nscale: million", "5", None, ""),
        ("```text\nadd(1, 2)\n```", None, "add(1, 2)", ""),
        ("Program: `add(1, 2)`\nscale: none", None, "add(1, 2)", ""),
        ("program:\nadd(1, 2)\nanswer: 3", None, "add(1, 2)", ""),
        ("", None, None, ""),
    ],
)
def test_slips_in_the_layout_of_a_program_or_value_are_passed_over(
    text: str, answer: str | None, program: str | None, scale: str
) -> None:
    prediction = ProgramFormatter().parse(text)
    assert (prediction.answer, prediction.program, prediction.scale) == (answer, program, scale)
    if program is None:
        assert AnswerFormatter().parse(text) == prediction


@given(st.text())
def test_parse_takes_any_text(text: str) -> None:
    for formatter in (
        programming(), programming(evidence="short"), answering(), answering(scale="inside"),
        stepping(), stepping(scale="inside"),
    ):  # fmt: skip
        prediction = formatter.parse(text)
        assert prediction.answer != ""
        assert prediction.program != ""


def test_a_reasoning_block_before_the_completion_is_passed_over() -> None:
    prediction = ProgramFormatter().parse("<think>\n12?\n</think>\n\nadd(1, 2)\nadd(3, 4)")
    assert prediction.program == "add(1, 2)"
    assert AnswerFormatter().parse("5 <think>6</think>").answer == "5 <think>6</think>"


# Evidence


FIGURES = Table.from_cells(
    [["", "2019", "2018"], ["Rail", "$ 1,049", "40"], ["Road", "(1,049)", "7"], ["Sea", "3", "9"]]
)
LONG = (
    "The port grew. " + "Nothing was said of it again and again. " * 9 + "Berths cost 88.5 a day."
)
WHERE = Document(id="w", blocks=(FIGURES, Paragraph("Rail\nwas 49 in the north of it and also."),
                                 Paragraph(LONG.strip())))  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "program", "answer", "quote", "short"),
    [
        ((Evidence(0, row=3),), None, "3", ["Sea | 3 | 9"], ["Sea"]),
        ((Evidence(0, row=0),), None, "3", ["| 2019 | 2018"], ["2019"]),
        ((Evidence(0),), "subtract(1049, 40)", "1009",
         ["Rail | $ 1,049 | 40", "Road | (1,049) | 7"], ["Rail", "Road"]),
        ((Evidence(0),), "add(#0, const_3), add(7, 1)", "3", ["Road | (1,049) | 7"], ["Road"]),
        ((Evidence(0),), None, "$ 9.0 million", ["Sea | 3 | 9"], ["Sea"]),
        ((Evidence(0),), None, "2019", ["table"], ["table"]),
        ((Evidence(0),), "table_max(sea, none)", "9", ["Sea | 3 | 9"], ["Sea"]),
        ((Evidence(0),), None, "rail | SEA", ["Rail | $ 1,049 | 40", "Sea | 3 | 9"],
         ["Rail", "Sea"]),
        ((Evidence(0),), "what is this", "9", ["Sea | 3 | 9"], ["Sea"]),
        ((Evidence(1), Evidence(1)), None, "49", ["Rail was 49 in the north of it and also."],
         ["Rail was 49 in the north of it"]),
        ((Evidence(2),), None, "88.5", ["Berths cost 88.5 a day."],
         ["The port grew. Nothing was said of it"]),
        ((Evidence(2),), None, "yes", ["The port grew. Nothing was said of it"],
         ["The port grew. Nothing was said of it"]),
        ((), None, "3", [], []),
    ],
)  # fmt: skip
def test_evidence_is_cited_by_what_the_page_says(
    evidence: tuple[Evidence, ...], program: str | None, answer: str, quote: list[str],
    short: list[str],
) -> None:  # fmt: skip
    question = replace(
        LOOKUP, document=WHERE, answer=answer, program=program, executed_answer=None,
        evidence=evidence,
    )  # fmt: skip
    for style, expected in (("none", []), ("quote", quote), ("short", short)):
        for formatter in (
            answering(evidence=style), programming(evidence=style), stepping(evidence=style)
        ):  # fmt: skip
            text = taught(formatter, question)
            assert text.startswith("".join(f"evidence: {cited}\n" for cited in expected))
            assert text.count("evidence: ") == len(expected)
            assert formatter.parse(text).evidence == tuple(expected)


def test_a_derivation_tells_which_rows_of_a_table_are_cited() -> None:
    for derivation, cited in (("9>7", ("Road", "Sea")), ("Rail##Sea", ("Rail", "Sea"))):
        question = replace(
            LOOKUP, document=WHERE, answer="1", derivation=derivation, evidence=(Evidence(0),)
        )
        formatter = answering(evidence="short")
        assert formatter.parse(taught(formatter, question)).evidence == cited


def test_evidence_stands_before_program_and_answer() -> None:
    assert taught(answering(evidence="short"), CHANGE) == "evidence: Net sales\n0.01639"
    assert taught(programming(evidence="quote"), CHANGE) == (
        "evidence: Net sales | $ 5,829 | 5,735\nsubtract(5829, 5735), divide(#0, 5735)"
    )
    assert AnswerFormatter().parse("evidence: x\n5").answer == "5"


def test_an_answer_that_looks_like_evidence_is_told_from_it() -> None:
    question = replace(LOOKUP, answer="Evidence: none", executed_answer=None)
    for formatter in (answering(evidence="short"), programming(evidence="short")):
        for evidence, lines, cited in (
            ((), "", ()),
            (CHANGE.evidence, "evidence: Net sales\n", ("Net sales",)),
        ):
            text = taught(formatter, replace(question, evidence=evidence))
            assert text == f"{lines}answer: Evidence: none"
            prediction = formatter.parse(text)
            assert (prediction.answer, prediction.evidence) == ("Evidence: none", cited)


def test_what_is_cited_does_not_depend_on_the_cut() -> None:
    cut = replace(PAGE, blocks=PAGE.blocks[:1])
    formatter = stepping()
    formatter.prompt(CHANGE, document=cut)
    assert taught(formatter, CHANGE).startswith("evidence: Net sales | $ 5,829 | 5,735\n")
