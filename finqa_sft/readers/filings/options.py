"""Options of the reader `filings`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from finqa_sft.options import Options

Length: TypeAlias = Literal["short", "medium", "long"]
Difficulty: TypeAlias = Literal["easy", "medium", "hard"]

MOST_QUESTIONS = 8
"""Every page, of whatever kind, can be asked this many different questions."""


class FilingsOptions(Options):
    """Options of the reader `filings`. Equal options give equal questions, on any machine."""

    pages: Annotated[int, Field(ge=1)] = 40
    """How many pages to make. More pages leave the first ones as they are."""

    questions_per_page: Annotated[int, Field(ge=1, le=MOST_QUESTIONS)] | None = None
    """Questions about each page, at most 8. Unset: 4 to 8, drawn for each page."""

    length: Length = "medium"
    """How long a page is without its questions: `short` is about 160 tokens of one digit or four
    letters, `medium` about 450, and `long` about 950 with two tables. Hard pages are longer, as
    their tables are larger."""

    difficulty: Difficulty = "medium"
    """What is asked, and among how many rows and years: `easy` asks for one figure or one step;
    `medium` adds averages, shares and table operators; `hard` adds several steps and drops
    the plainest."""

    seed: int = 0
    """Another seed gives other companies, figures and questions."""
