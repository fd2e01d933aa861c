"""The formatter `steps`: evidence, program, answer and scale, a line each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from finqa_sft.documents import Question
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.chat import ChatFormatter, ChatOptions, generated_text
from finqa_sft.formatters.citations import EvidenceStyle
from finqa_sft.formatters.values import (
    on_one_line,
    scale_lines,
    split_scale,
    taught_value,
    with_scale,
)

_SYSTEM = """\
You answer questions about a page of a financial report, in lines that each begin with a word:
{evidence}program: steps op(a, b), joined by a comma and a space; #0 is the result of the first \
step; the operators are add, subtract, multiply, divide, exp, greater, and table_max, table_min, \
table_sum, table_average of a row label and none; left out where nothing has to be computed
answer: a number, a short phrase from the page, or yes or no{scale}"""
_EVIDENCE = "evidence: {cited} that the answer rests on; a line each\n"
_CITED = {
    "quote": "a row of a table or a text",
    "short": "the label of a row or the first words of a text",
}
_SCALE = {
    "separate": "\nscale: thousand, million, billion or percent; left out where the answer is in "
    "none",
    "inside": ", with its scale where it is in one: 12.5 million, 4%",
}

_PLAIN = re.compile(r"(evidence|program|answer|scale): (.*)")
_ADORNED = re.compile(
    r"([\s>#*_`-]*)(?:\d+[.)][\s*_`]*)?"
    r"(evidence|program|answer|scale)[\s*_`]*:([\s*_`]*)(.*)",
    re.IGNORECASE,
)
_MARKS = "*_`"
_FENCE = re.compile(r"\s*```\w*\s*")


class StepsOptions(ChatOptions):
    """Options of the formatter `steps`."""

    evidence: EvidenceStyle = "quote"
    """What is cited before the answer: nothing; of each table row its label and of each paragraph
    its first words (`short`); or rows and paragraphs as they stand (`quote`). Of a table as a
    whole and of a long paragraph, the rows and sentences with the numbers of the answer are
    cited."""


class StepsFormatter(ChatFormatter):
    """Teaches to cite, to compute and then to answer.

        evidence: Net sales | $ 5,829 | 5,735
        program: subtract(5829, 5735), divide(#0, 5735)
        answer: 0.01639

    Each thing cited has a line. What a question does not have has none: evidence, program, scale.
    """

    def __init__(self, options: StepsOptions | None = None) -> None:
        """Take the options; all have defaults."""
        super().__init__(options or StepsOptions())

    def _instruction(self) -> str:
        """The lines that are taught with these options."""
        options = self._options
        cited = _CITED.get(options.evidence)
        evidence = _EVIDENCE.format(cited=cited) if cited else ""
        return _SYSTEM.format(evidence=evidence, scale=_SCALE[options.scale])

    def _written(self, question: Question) -> str:
        """The lines."""
        options = self._options
        value = taught_value(question, value=options.value)
        line, stated = with_scale(value, question.scale, place=options.scale)
        program = [f"program: {on_one_line(question.program)}"] if question.program else []
        return self._cited_above(question, [*program, f"answer: {line}", *scale_lines(stated)])

    def parse(self, completion: str) -> Prediction:
        """Read the lines, in any order and any case, marked up, fenced, and with text around them.

        What follows a line's word is taken from the next line where nothing stands beside it. Of
        several answers the first counts, as of programs and scales: a model that runs on past its
        answer begins another one, and reading ends there.
        """
        text = generated_text(completion)
        said: dict[str, str] = {}
        cited: list[str] = []
        previous = ""
        for key, value in _lines(text):
            if key in said or (key == "evidence" and cited and previous != key):
                break
            previous = key
            if key == "evidence":
                cited.append(value)
            else:
                said[key] = value
        program = said.get("program")
        answer, scale = split_scale(
            said.get("answer", ""), said.get("scale"), place=self._options.scale
        )
        return Prediction(
            text=text,
            answer=answer or None,
            program=None if program is None or program.lower() == "none" else program,
            scale=scale,
            evidence=tuple(cited),
        )


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The words that lines begin with, each with what it says; other lines are passed over."""
    waiting = ""
    for line in text.split("\n"):
        if _FENCE.fullmatch(line) or not line.strip():
            continue
        key, value = _parted(line)
        if key and not value:
            waiting = key
        elif key or waiting:
            yield key or waiting, value
            waiting = ""


def _parted(line: str) -> tuple[str, str]:
    """The word that a line begins with, in lower case, and the rest; or no word, and the line."""
    if plain := _PLAIN.fullmatch(line.strip()):
        return plain[1], plain[2].strip()
    found = _ADORNED.fullmatch(line.strip())
    if found is None:
        return "", line.strip()
    value = found[4].strip()
    if any(mark in found[1] + found[3] for mark in _MARKS):
        value = value.rstrip(_MARKS).strip()
    return found[2].lower(), value
