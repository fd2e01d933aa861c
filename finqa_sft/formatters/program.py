"""The formatter `program`: the completion is a program that computes the answer."""

from __future__ import annotations

from finqa_sft.documents import Question
from finqa_sft.errors import ProgramError
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.chat import ChatFormatter, ChatOptions
from finqa_sft.formatters.lines import bare_line, generated_text, read_lines
from finqa_sft.formatters.values import (
    Value,
    on_one_line,
    result_scale,
    scale_lines,
    split_scale,
    stated_scale,
    taught_value,
    with_scale,
)
from finqa_sft.programs import parse_program

SYSTEM = (
    "You answer questions about a page of a financial report with a short program. Steps are "
    "written op(a, b) and joined by a comma and a space; #0 is the result of the first step, #1 of "
    "the second. Operators: add, subtract, multiply, divide, exp, greater; table_max, table_min, "
    "table_sum, table_average take a row label and none. Where nothing has to be computed, give "
    "the value alone. Where the result is in a scale, say so on the next line, as in "
    "scale: million."
)
_INSIDE = " A value has its scale beside it, as in 12.5 million or 4%."
_CITING = " Before all that cite what it rests on, a line each, as in evidence: Net sales."


class ProgramOptions(ChatOptions):
    """Options of the formatter `program`."""

    value: Value = "written"
    """What is taught where a question has no program: what the analyst wrote ("14.2%"), which
    ConvFinQA compares with turns that pick a number, or the executed answer ("0.14212")."""


class ProgramFormatter(ChatFormatter):
    """Teaches FinQA's flat program, and a bare value where a question has no program.

    Both are followed by the scale that the result counts in, if it counts in one. Of a program that
    computes a fraction that is none, even if the analyst wrote it in percent.
    """

    def __init__(self, options: ProgramOptions | None = None) -> None:
        """Take the options; all have defaults."""
        super().__init__(options or ProgramOptions())

    def _instruction(self) -> str:
        """The language of the programs."""
        text = SYSTEM if self._options.scale == "separate" else SYSTEM + _INSIDE
        return text if self._options.evidence == "none" else text + _CITING

    def _written(self, question: Question) -> str:
        """What is cited, and the program as written, or the value."""
        options = self._options
        if question.program:
            line, stated = on_one_line(question.program), str(result_scale(question))
        else:
            value = taught_value(question, value=options.value)
            line, stated = with_scale(value, question.scale, place=options.scale)
            line = f"answer: {line}" if _is_program(line) else bare_line(line)
        return self._cited_above(question, [line, *scale_lines(stated)])

    def parse(self, completion: str) -> Prediction:
        """The first line that is no evidence or scale, as a program if it is one, else a value."""
        text = generated_text(completion)
        said, cited = read_lines(text, bare=True)
        key = next((key for key in said if key != "scale"), "answer")
        line, stated = said.get(key, ""), said.get("scale")
        if key == "program" or (not key and _is_program(line)):
            scale = stated_scale(stated) or ""
            return Prediction(text=text, program=line, scale=scale, evidence=cited)
        answer, scale = split_scale(line, stated, place=self._options.scale)
        return Prediction(text=text, answer=answer or None, scale=scale, evidence=cited)


def _is_program(text: str) -> bool:
    try:
        parse_program(text)
    except ProgramError:
        return False
    return True
