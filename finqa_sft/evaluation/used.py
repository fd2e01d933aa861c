"""Which rows and paragraphs of a page a prediction works with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from finqa_sft.documents import Document, Evidence, Question, Table
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.citations import WHOLE_TABLE
from finqa_sft.programs import ProgramSyntaxError, parse_program
from finqa_sft.traces import Traces, traces

_LONGEST_ANSWER = 10_000
"""Characters of an answer beyond which it is not looked for."""


def used_evidence(document: Document, prediction: Prediction) -> tuple[Evidence, ...]:
    """What a prediction rests on, in reading order.

    That is what it cites, as `finqa_sft.formatters.citations` writes it: a row by its cells or its
    label, a paragraph by its text, a sentence or its first words. A prediction that cites nothing
    of the page uses the rows and paragraphs that hold the numbers and row labels of its program,
    or of its answer where it has no program.
    """
    cited: set[Evidence] = set()
    for text in prediction.evidence:
        cited.update(_cited(document, _folded(text)))
    if cited:
        return tuple(sorted(cited, key=lambda evidence: (evidence.block, evidence.row or 0)))
    known = _traces(document, prediction)
    return tuple(evidence for evidence in _parts(document) if _shows(document, evidence, known))


def _parts(document: Document) -> Iterator[Evidence]:
    """All rows below the headers, and all paragraphs."""
    for index, block in enumerate(document.blocks):
        if isinstance(block, Table):
            yield from (Evidence(index, row) for row in range(block.header_rows, len(block.rows)))
        else:
            yield Evidence(index)


def _cited(document: Document, quote: str) -> list[Evidence]:
    """What one citation means: rows, else whole tables, else paragraphs."""
    rows: list[Evidence] = []
    paragraphs: list[Evidence] = []
    for evidence in _parts(document) if quote else ():
        block = document.blocks[evidence.block]
        if isinstance(block, Table) and evidence.row is not None:
            cells = block.rows[evidence.row]
            label = next(filter(None, map(_folded, cells)), "")
            if quote in (label, _folded(" ".join(cells))):
                rows.append(evidence)
        elif not isinstance(block, Table) and _holds(_folded(block.text), quote):
            paragraphs.append(evidence)
    if not rows and quote == WHOLE_TABLE:
        blocks = enumerate(document.blocks)
        rows = [Evidence(index) for index, block in blocks if isinstance(block, Table)]
    return rows or paragraphs


def _holds(text: str, quote: str) -> bool:
    """Whether a paragraph is meant: one word in it is no citation of it."""
    return quote == text or (" " in quote and quote in text)


def _shows(document: Document, evidence: Evidence, known: Traces) -> bool:
    block = document.blocks[evidence.block]
    if not isinstance(block, Table):
        return known.show_in_text(block.text)
    assert evidence.row is not None
    return known.show_in_row(block.rows[evidence.row])


def _traces(document: Document, prediction: Prediction) -> Traces:
    """What the program works with, as a reader would mend it; else the answer."""
    answer = prediction.answer or ""
    # What is so long stands nowhere on a page, and would be looked for at every place of it.
    answer = answer if len(answer) <= _LONGEST_ANSWER else ""
    asked = Question(id="", text="", document=document, answer=answer)
    if not prediction.program:
        return traces(asked)
    try:
        program = str(parse_program(prediction.program, strictness="lenient"))
    except ProgramSyntaxError:
        return traces(asked)
    return traces(replace(asked, program=program))


def _folded(text: str) -> str:
    """The words of a text in lower case."""
    return " ".join(text.replace("|", " ").split()).casefold()
