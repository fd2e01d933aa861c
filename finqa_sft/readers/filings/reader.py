"""The reader `filings`: questions about made-up pages of annual reports."""

from __future__ import annotations

from collections.abc import Iterator

from finqa_sft.documents import Question
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.filings.draws import Draws
from finqa_sft.readers.filings.options import MOST_QUESTIONS, FilingsOptions
from finqa_sft.readers.filings.pages import make_page
from finqa_sft.readers.filings.questions import ask

_FEWEST_QUESTIONS = 4


class FilingsReader:
    """Makes pages of annual reports of invented companies, and asks questions about them.

    Layout, programs and kinds of questions are FinQA's; single figures are asked for too, as in
    TAT-QA. Three pages in a row are of one company. A page is made anew from the seed and its
    number, so that it is the same whatever other pages there are.
    """

    def __init__(self, options: FilingsOptions) -> None:
        """Take the options; nothing is made before the reader is iterated."""
        self._options = options

    def __iter__(self) -> Iterator[Question | BadRow]:
        """Make all pages from the first; there are no bad rows."""
        options = self._options
        for number in range(options.pages):
            draws = Draws(options.seed, "questions", number)
            drawn = _FEWEST_QUESTIONS + draws.below(MOST_QUESTIONS - _FEWEST_QUESTIONS + 1)
            yield from ask(
                make_page(number, options),
                count=options.questions_per_page or drawn,
                difficulty=options.difficulty,
                draws=draws,
            )
