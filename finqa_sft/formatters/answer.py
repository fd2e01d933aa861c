"""The formatter `answer`: the completion is the answer itself, with its scale."""

from __future__ import annotations

from finqa_sft.documents import Question
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.chat import ChatFormatter, ChatOptions
from finqa_sft.formatters.lines import bare_line, generated_text, read_lines
from finqa_sft.formatters.values import scale_lines, split_scale, taught_value, with_scale

SYSTEM = (
    "You answer questions about a page of a financial report. Give the answer alone: a number, a "
    "short phrase from the page, or yes or no. Write no explanation. Where the page gives the "
    "number in thousands, millions, billions or percent, say so on a second line, as in "
    "scale: million."
)
_INSIDE = SYSTEM.replace("on a second line, as in scale: million", "too, as in 12.5 million or 4%")
_CITING = " Before the answer cite what it rests on, a line each, as in evidence: Net sales."


class AnswerOptions(ChatOptions):
    """Options of the formatter `answer`."""


class AnswerFormatter(ChatFormatter):
    """Teaches the answer as a value or a phrase."""

    def __init__(self, options: AnswerOptions | None = None) -> None:
        """Take the options; all have defaults."""
        super().__init__(options or AnswerOptions())

    def _instruction(self) -> str:
        """What to write, and where the scale stands."""
        text = SYSTEM if self._options.scale == "separate" else _INSIDE
        return text if self._options.evidence == "none" else text + _CITING

    def _written(self, question: Question) -> str:
        """What is cited, the answer on one line, and its scale, if it has one, on the next."""
        options = self._options
        value = taught_value(question, value=options.value)
        line, stated = with_scale(value, question.scale, place=options.scale)
        return self._cited_above(question, [bare_line(line), *scale_lines(stated)])

    def parse(self, completion: str) -> Prediction:
        """The first line that is no evidence, program or scale is the answer."""
        text = generated_text(completion)
        said, cited = read_lines(text, bare=True)
        line = next((said[key] for key in said if key in ("", "answer")), "")
        answer, scale = split_scale(line, said.get("scale"), place=self._options.scale)
        return Prediction(text=text, answer=answer or None, scale=scale, evidence=cited)
