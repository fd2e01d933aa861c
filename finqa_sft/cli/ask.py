"""`finqa-sft ask RUN --context FILE [QUESTION]`."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finqa_sft.cli.common import print_rows
from finqa_sft.cli.trained import add_trained_arguments, chosen_trained
from finqa_sft.documents import Document, Evidence, Question, Table, Turn
from finqa_sft.errors import DataError, FinqaSftError
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.trained import load_answerer
from finqa_sft.evaluation.used import used_evidence
from finqa_sft.metrics.computed import computed_prediction
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.readers.page import page_of_text, read_page
from finqa_sft.wording import visible

STANDARD_INPUT = "-"
EVIDENCE_SHOWN = 8

_END = "Ctrl-Z, Enter" if sys.platform == "win32" else "Ctrl-D"
_OVERRIDE = re.compile(r"[a-z_][\w.]*=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_trained_arguments(parser)
    parser.add_argument(
        "--context",
        required=True,
        metavar="FILE",
        help="the page: markdown, text, or a table as .csv or .tsv; - for standard input",
    )
    parser.add_argument(
        "--conversation",
        action="store_true",
        help="take each question as the next turn of one conversation",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object an answer")


def run(arguments: argparse.Namespace) -> int:
    """Answer one question, or one after the other as they are typed."""
    if arguments.adapter is not None and arguments.run is not None:
        arguments.overrides, arguments.run = [arguments.run, *arguments.overrides], None
    asked = [word for word in arguments.overrides if not _OVERRIDE.match(word)]
    arguments.overrides = [word for word in arguments.overrides if _OVERRIDE.match(word)]
    if len(asked) > 1:
        raise DataError(f"{len(asked)} questions are given; put one question in quotes")
    if asked and not _readable(asked[0], name="the question").strip():
        raise DataError("the question is empty; put one in quotes, or leave it out to be asked")
    if not asked and arguments.context == STANDARD_INPUT:
        raise DataError("the page comes from standard input, so the question must be an argument")
    page = _page(arguments.context)
    trained, _ = chosen_trained(arguments)
    quiet_libraries()
    answerer = load_answerer(trained)
    # Typed questions stand in the terminal already.
    shows_question = not asked and not sys.stdin.isatty()
    history: tuple[Turn, ...] = ()
    for number, text in enumerate(asked or _typed(), start=1):
        question = Question(id=str(number), text=text, document=page, answer="", history=history)
        (predicted,) = answerer.answer([question])
        if predicted.problem and not asked:
            # The next one may be shorter.
            print(_not_asked(predicted), file=sys.stderr)
            continue
        found = _found(question, predicted)
        if arguments.json:
            print(json.dumps(found, ensure_ascii=False), flush=True)
        elif shows_question:
            print_rows([("question", visible(text)), *_rows(found)])
            print()
        else:
            print_rows(_rows(found))
        if arguments.conversation:
            history = (*history, _turn(question, predicted))
    return 0


def _page(name: str) -> Document:
    """The page to ask about."""
    if name != STANDARD_INPUT:
        return read_page(Path(name))
    _let_bytes_through()
    name = "standard input"
    return page_of_text(_readable(sys.stdin.read(), name=name), name=name)


def _let_bytes_through() -> None:
    """Read bytes that are no text as halves of characters, whatever the locale."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def _readable(text: str, *, name: str) -> str:
    """The text, which must not hold such halves.

    Raises:
        DataError: It does.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name}: not UTF-8 text (character {error.start + 1}); give it with the encoding UTF-8"
        ) from error
    return text


def _typed() -> Iterator[str]:
    """Questions as they are typed, until the input ends; empty lines are none."""
    _let_bytes_through()
    prompt = f"question ({_END} to end): " if sys.stdin.isatty() else ""
    while True:
        try:
            text = input(prompt).strip()
        except EOFError:
            return
        if text:
            yield _readable(text, name="the question")


def _found(question: Question, predicted: Predicted) -> dict[str, Any]:
    """What came out, as plain values."""
    if predicted.problem:
        raise FinqaSftError(_not_asked(predicted))
    computed = computed_prediction(predicted.prediction, question)
    evidence = used_evidence(question.document, predicted.prediction)
    return {
        "question": question.text,
        "written": predicted.prediction.text,
        "program": predicted.prediction.program,
        "value": computed.text or None,
        "scale": computed.scale,
        "problem": computed.problem or ("" if predicted.finished else "it ran past its end"),
        "evidence": [_shown(question.document, one) for one in evidence],
        "left_out": predicted.left_out,
        "votes": predicted.votes if predicted.samples else None,
    }


def _not_asked(predicted: Predicted) -> str:
    return f"the question cannot be asked: {predicted.problem}"


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What came out, for a person."""
    if found["program"]:
        yield "program", visible(found["program"])
    value = visible(found["value"] or "none")
    yield "value", f"{value} {found['scale']}".strip()
    if found["problem"]:
        yield "problem", visible(found["problem"])
        if found["written"] != found["value"]:
            yield "written", visible(found["written"])
    if found["votes"]:
        yield "votes", str(found["votes"])
    for text in found["evidence"][:EVIDENCE_SHOWN]:
        yield "evidence", visible(text)
    more = len(found["evidence"]) - EVIDENCE_SHOWN
    if more > 0:
        yield "evidence", f"and {more} more rows and paragraphs"
    if found["left_out"]:
        yield "not shown", f"{found['left_out']} parts of the page, which is too long"


def _shown(document: Document, evidence: Evidence) -> str:
    """A row or a paragraph on one line."""
    block = document.blocks[evidence.block]
    if isinstance(block, Table):
        rows = block.rows if evidence.row is None else (block.rows[evidence.row],)
        return " / ".join(" | ".join(row) for row in rows)
    return " ".join(block.text.split())


def _value(text: str) -> float | str | None:
    """An answer as a number, where it is one."""
    try:
        return float(text)
    except ValueError:
        return text or None


def _turn(question: Question, predicted: Predicted) -> Turn:
    """The question with its answer, as a later one is told of it."""
    computed = computed_prediction(predicted.prediction, question)
    return Turn(
        question=question.text,
        answer=computed.text,
        program=predicted.prediction.program,
        executed_answer=_value(computed.text),
        scale=computed.scale,
    )
