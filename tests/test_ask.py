"""The verb `ask`: one page of one's own, and questions about it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_input import Shell, shell
from evaluated import trained, wild

from finqa_sft.generation.generator import Generator

__all__ = ["shell", "trained", "wild"]

PAGE = """\
Net sales grew by 4% in 2020.

| | 2020 | 2019 |
| --- | --- | --- |
| Net sales | 5.1 | 4.9 |
| Costs | 3.2 | 3.0 |
"""
QUESTION = "What were net sales less costs in 2020?"


@pytest.fixture
def asking(shell: Shell, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask the run about page.md; the model writes what `says` holds, or what it comes to."""
    shell.write("page.md", PAGE)
    real = Generator._completion

    def ask(*words: str, says: str | None = None, typed: str = "") -> Any:
        def completion(generator: Generator, tokens: list[int], most: int) -> Any:
            found = real(generator, tokens, most)
            return found if says is None else type(found)(says, 3, True)

        monkeypatch.setattr(Generator, "_completion", completion)
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return shell("ask", str(trained / "run"), *words)

    return ask


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Computed:
    text, scale, problem = "5.2", "", "it is cut off"


def rows(out: str) -> list[str]:
    return [" ".join(line.split()) for line in out.splitlines()]


def test_an_answer_is_a_program_its_value_and_what_it_works_with(
    asking: Callable[..., Any],
) -> None:
    said = asking("--context", "page.md", QUESTION, says="subtract(5.1, 3.2)\nscale: million")
    assert (said.status, said.err) == (0, "")
    assert rows(said.out) == [
        "program subtract(5.1, 3.2)",
        "value 1.9 million",
        "evidence Net sales | 5.1 | 4.9",
        "evidence Costs | 3.2 | 3.0",
    ]


def test_a_table_operator_works_with_its_row(asking: Callable[..., Any]) -> None:
    said = asking("--context", "page.md", QUESTION, says="table_sum(Costs, none)")
    assert rows(said.out) == [
        "program table_sum(Costs, none)", "value 6.2", "evidence Costs | 3.2 | 3.0"
    ]  # fmt: skip


def test_a_program_that_cannot_be_executed_is_shown_with_its_problem(
    asking: Callable[..., Any],
) -> None:
    said = asking("--context", "page.md", QUESTION, says="divide(5.1, 0)")
    found = rows(said.out)
    assert said.status == 0
    assert found[:2] == ["program divide(5.1, 0)", "value none"]
    assert found[2].startswith("problem ")
    assert "written divide(5.1, 0)" in found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", PAGE),
        ("p.md", PAGE),
        ("p.csv", ",2020,2019\nNet sales,5.1,4.9\nCosts,3.2,3.0\n"),
        ("p.csv", ";2020;2019\nNet sales;5.1;4.9\nCosts;3.2;3.0\n"),
        ("p.tsv", "\t2020\t2019\nNet sales\t5.1\t4.9\nCosts\t3.2\t3.0\n"),
    ],
)
def test_a_page_is_text_or_a_table(
    asking: Callable[..., Any], shell: Shell, name: str, content: str
) -> None:
    shell.write(name, content)
    said = asking("--context", name, QUESTION, "--json", says="subtract(5.1, 3.2)")
    assert json.loads(said.out) == {
        "question": QUESTION,
        "written": "subtract(5.1, 3.2)",
        "program": "subtract(5.1, 3.2)",
        "value": "1.9",
        "scale": "",
        "problem": "",
        "evidence": ["Net sales | 5.1 | 4.9", "Costs | 3.2 | 3.0"],
        "left_out": 0,
        "votes": None,
    }


def test_a_page_comes_from_standard_input(asking: Callable[..., Any]) -> None:
    said = asking("--context", "-", QUESTION, says="5.1", typed=PAGE)
    assert rows(said.out)[0] == "value 5.1"
    assert (said.status, said.err) == (0, "")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_bytes_that_are_no_text_are_told(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, errors: str
) -> None:
    def piped(*words: str) -> Any:
        pipe = io.TextIOWrapper(io.BytesIO(b"caf\xe9?\n"), encoding="utf-8", errors=errors)
        monkeypatch.setattr("test_ask.io.StringIO", lambda typed: pipe)
        return asking(*words, says="5.1")

    remedy = "not UTF-8 text (character 4); give it with the encoding UTF-8\n"
    for words, name in (
        (("--context", "-", QUESTION), "standard input"),
        (("--context", "page.md"), "the question"),
    ):
        said = piped(*words)
        assert (said.status, said.out, said.err) == (2, "", f"{name}: {remedy}")
    said = piped("--context", "page.md", "caf\udce9?")
    assert (said.status, said.err) == (2, f"the question: {remedy}")


def test_questions_are_taken_from_a_pipe(asking: Callable[..., Any]) -> None:
    said = asking("--context", "page.md", "--json", says="5.1", typed=f"{QUESTION}\nAnd 2019?\n")
    assert (said.status, said.err) == (0, "")
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [one["question"] for one in found] == [QUESTION, "And 2019?"]
    assert asking("--context", "page.md", typed="").out == ""


def test_an_empty_line_is_no_question(asking: Callable[..., Any]) -> None:
    said = asking("--context", "page.md", "--json", says="5.1", typed=f"{QUESTION}\n \nAnd 2019?\n")
    assert [json.loads(line)["question"] for line in said.out.splitlines()] == [
        QUESTION, "And 2019?"
    ]  # fmt: skip


def test_answers_to_questions_from_a_pipe_stand_below_their_question(
    asking: Callable[..., Any],
) -> None:
    said = asking("--context", "page.md", says="5.2", typed=f"{QUESTION}\nAnd 2019?\n")
    assert rows(said.out) == [
        f"question {QUESTION}", "value 5.2", "", "question And 2019?", "value 5.2", ""
    ]  # fmt: skip


def test_questions_that_are_typed_in_a_terminal_are_not_repeated(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("test_ask.io.StringIO", _Terminal)
    said = asking("--context", "page.md", says="5.2", typed=f"{QUESTION}\n")
    assert rows(said.out)[0].endswith("to end): value 5.2")


def test_what_was_written_is_not_repeated_where_it_is_the_value(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finqa_sft.cli.ask.computed_prediction", lambda *_: _Computed())
    said = asking("--context", "page.md", QUESTION, says="5.2")
    assert rows(said.out) == ["value 5.2", "problem it is cut off"]


def test_a_typed_question_that_is_too_long_does_not_end_the_conversation(
    asking: Callable[..., Any],
) -> None:
    typed = "word " * 3000 + f"\n{QUESTION}\n"
    said = asking("--context", "page.md", "--json", says="5.1", typed=typed)
    assert said.status == 0
    assert said.err.startswith("the question cannot be asked: ")
    assert [json.loads(line)["question"] for line in said.out.splitlines()] == [QUESTION]


def test_a_conversation_tells_later_questions_of_earlier_ones(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from finqa_sft.formatters.program import ProgramFormatter

    seen: list[str] = []
    real = ProgramFormatter.prompt

    def prompt(formatter: Any, question: Any, *, document: Any) -> Any:
        messages = real(formatter, question, document=document)
        seen.append("\n".join(message["content"] for message in messages))
        return messages

    monkeypatch.setattr(ProgramFormatter, "prompt", prompt)
    typed = "What were sales?\nAnd costs?\n"
    asking("--context", "page.md", "--conversation", says="5.1", typed=typed)
    assert "And costs?" in seen[-1]
    assert "What were sales?" in seen[-1]
    asking("--context", "page.md", says="5.1", typed=typed)
    assert "And costs?" in seen[-1]
    assert "What were sales?" not in seen[-1]


def test_samples_show_how_many_agree(asking: Callable[..., Any]) -> None:
    said = asking("--context", "page.md", QUESTION, "evaluation.samples=3", says="5.1")
    assert rows(said.out)[:2] == ["value 5.1", "votes 3"]


def test_what_the_model_really_writes_is_shown(asking: Callable[..., Any]) -> None:
    said = asking("--context", "page.md", QUESTION)
    assert said.status == 0
    assert "problem it ran past its end" in rows(said.out)


def test_an_adapter_is_asked_like_its_run(
    asking: Callable[..., Any], shell: Shell, trained: Path
) -> None:
    first = asking("--context", "page.md", QUESTION)
    adapter = ("--adapter", str(trained / "run" / "adapter"))
    for words in ([QUESTION, *adapter], [*adapter, QUESTION]):
        assert shell("ask", *words, "--context", "page.md").out == first.out
    shell.write("own/page.md", PAGE)
    assert shell("ask", "--context", "own/page.md", *adapter, QUESTION).out == first.out


def test_a_long_page_is_cut_and_says_so(asking: Callable[..., Any], shell: Shell) -> None:
    shell.write("long.txt", "\n\n".join(f"In {year} sales were {year}." for year in range(900)))
    said = asking("--context", "long.txt", QUESTION, says="5.1")
    assert said.status == 0
    assert rows(said.out)[-1].startswith("not shown ")
    assert rows(said.out)[-1].endswith(" parts of the page, which is too long")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--context", "gone.md", "q"], "gone.md: no such file"),
        (["--context", "blank.md", "q"], "blank.md: no text; expected the page that the question "
                                         "is about"),
        (["--context", "blank.csv", "q"], "blank.csv: only blank lines; expected a header and "
                                          "rows"),
        (["--context", "page.md", "What?", "And?"], "2 questions are given; put one question in "
                                                    "quotes"),
        (["--context", "page.md", " "], "the question is empty; put one in quotes, or leave it out "
                                        "to be asked"),
        (["--context", "-"], "the page comes from standard input, so the question must be an "
                             "argument"),
        (["--context", "page.md", "What?", "formater.name=answer"], "formatter"),
        (["--context", "page.md", "word " * 3000], "the question cannot be asked: "),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_said(
    asking: Callable[..., Any], shell: Shell, words: list[str], said: str
) -> None:
    shell.write("blank.md", " \n")
    shell.write("blank.csv", ",\n,\n")
    found = asking(*words)
    assert found.status == 2
    assert said in found.err
    assert found.out == ""
