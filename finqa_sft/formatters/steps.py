"""The formatter `steps`: evidence, program, answer and scale, a line each."""

from __future__ import annotations

from finqa_sft.documents import Question
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.chat import ChatFormatter, ChatOptions
from finqa_sft.formatters.citations import EvidenceStyle
from finqa_sft.formatters.lines import generated_text, read_lines
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
        """Read the lines, in any order and case, marked up, fenced, and with text around them."""
        text = generated_text(completion)
        said, cited = read_lines(text, bare=False)
        program = said.get("program")
        answer, scale = split_scale(
            said.get("answer", ""), said.get("scale"), place=self._options.scale
        )
        return Prediction(
            text=text,
            answer=answer or None,
            program=None if program is None or program.lower() == "none" else program,
            scale=scale,
            evidence=cited,
        )
