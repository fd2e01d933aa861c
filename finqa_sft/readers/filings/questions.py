"""Asks questions about a page, and answers them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from string import Formatter

from finqa_sft.documents import Question, Scale
from finqa_sft.programs import execute_program, parse_program
from finqa_sft.readers.filings.bindings import Binding
from finqa_sft.readers.filings.draws import Draws
from finqa_sft.readers.filings.options import Difficulty
from finqa_sft.readers.filings.pages import Page
from finqa_sft.readers.filings.patterns import PATTERNS, Pattern, Show

_MOST_DECIMALS = 2
_ANSWER_TYPES = {Show.SPAN: "span", Show.VERDICT: "comparison"}


def ask(page: Page, *, count: int, difficulty: Difficulty, draws: Draws) -> Iterator[Question]:
    """Ask about a page: in another pattern each time, as long as there are any.

    Args:
        page: The page.
        count: How many questions.
        difficulty: Which patterns to use.
        draws: Where random numbers come from; the first questions do not depend on `count`.
    """
    patterns = [pattern for pattern in PATTERNS if difficulty[0] in pattern.levels]
    waiting = deque(_questions(pattern, page, draws) for pattern in draws.shuffled(patterns))
    texts: set[str] = set()
    while waiting and len(texts) < count:
        questions = waiting.popleft()
        new = next((question for question in questions if question.text not in texts), None)
        if new is not None:
            yield replace(new, id=f"{page.document.id}-{len(texts)}")
            texts.add(new.text)
            waiting.append(questions)


def _questions(pattern: Pattern, page: Page, draws: Draws) -> Iterator[Question]:
    """All questions of one pattern that are worth asking, in random order."""
    found = [binding for section in page.sections for binding in pattern.find(section)]
    for binding in draws.shuffled(found):
        text = draws.pick(pattern.texts).format(**binding.words())
        program = pattern.program.format(**binding.cells)
        result = _result(pattern, program, binding=binding, page=page)
        answer, scale = _written(pattern, result, binding=binding)
        if _worth_asking(pattern, result, answer):
            slots = [slot for _, slot, _, _ in Formatter().parse(pattern.program) if slot]
            yield Question(
                id="",
                text=text,
                document=page.document,
                answer=answer,
                program=None if pattern.show is Show.SPAN else program,
                executed_answer=result,
                scale=scale,
                answer_type=_ANSWER_TYPES.get(pattern.show, "arithmetic"),
                evidence=tuple(dict.fromkeys(binding.cells[slot].where for slot in slots)),
                source=f"filings page {page.document.id.rpartition('_')[2]}",
            )


def _result(pattern: Pattern, program: str, *, binding: Binding, page: Page) -> float | str:
    """What the program computes; a figure that is merely looked up is its own result."""
    if pattern.show is Show.SPAN:
        return binding.cells["a"].number
    return execute_program(parse_program(program), page.document.tables[0].rows)


def _written(pattern: Pattern, result: float | str, *, binding: Binding) -> tuple[str, Scale]:
    """A result as a person writes it, and what it counts in."""
    unit = binding.subject.unit
    percent: Scale = "percent"
    if isinstance(result, str):
        return result, ""
    if pattern.show is Show.SPAN:
        return binding.cells["a"].shown, percent if unit.percent else unit.scale
    finer = pattern.show is Show.FINER
    if unit.percent or pattern.show is Show.PERCENT:
        return _decimal(100 * Decimal(repr(result)), 1, finer=finer) + "%", percent
    return _decimal(Decimal(repr(result)), unit.decimals, finer=finer), unit.scale


def _decimal(value: Decimal, decimals: int, *, finer: bool) -> str:
    """A number rounded as people do, halves away from zero."""
    text = f"{value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):f}"
    if not finer or decimals >= _MOST_DECIMALS:
        return text
    closer = _decimal(value, decimals + 1, finer=False)
    return text if closer.endswith("0") else closer


def _worth_asking(pattern: Pattern, result: float | str, answer: str) -> bool:
    """Whether a result is plausible and does not vanish when it is written down."""
    if isinstance(result, str):
        return True
    low, high = pattern.bounds
    return low < result < high and any(digit in answer for digit in "123456789")
