"""What was predicted for each question, and the files that hold it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from finqa_sft.documents import SCALES, Scale
from finqa_sft.errors import DataError
from finqa_sft.evaluation.fields import (
    count,
    flag,
    optional_text,
    question_id,
    stated_scale,
    texts,
)
from finqa_sft.evaluation.submissions import Submission
from finqa_sft.formatters.base import Prediction
from finqa_sft.readers.files import text_chunks
from finqa_sft.readers.finqa import written_program
from finqa_sft.readers.tatqa import SPAN_SEPARATOR
from finqa_sft.readers.values import Row, RowProblem, kind
from finqa_sft.wording import did_you_mean

SAYING = ("answer", "program", "text", "predicted", "submitted", "problem")
"""Keys of which an entry has at least one: without them it says nothing about its question."""

_CUT_OFF = "the file seems cut off: was it copied, or written to its end?"
_FORMATS = (
    "a JSON object a line with 'id' and 'answer' or 'program', a list of such objects, FinQA's "
    "list of {'id', 'predicted'}, or TAT-QA's {uid: [answer, scale]}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What a model, or any other system, said to one question.

    Attributes:
        id: The question's id.
        prediction: What it said. Its program names rows as the document that was read does.
        tokens: How many tokens were generated, the end of the turn included; None if not known.
        finished: Whether it came to its end by itself, not by the limit of new tokens.
        problem: Why the question could not be asked; empty where it was.
        left_out: How many parts of the document the prompt did not show.
        samples: All completions, where several were drawn and voted.
        votes: How many of the samples came to this prediction.
        submission: The value in the benchmark's own prediction file, where it comes from one.
        question: The question's text, for readers of the file.
        source: File and row that the question was read from, for readers of the file.
    """

    id: str
    prediction: Prediction
    tokens: int | None = None
    finished: bool = True
    problem: str = ""
    left_out: int = 0
    samples: tuple[str, ...] = ()
    votes: int = 1
    submission: Submission | None = None
    question: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """What a file of predictions holds.

    Attributes:
        predictions: The predictions by their ids, in the file's order.
        duplicates: Ids that stand in the file more than once; the first entry of each counts.
        entries: How many entries the file has, the duplicates included.
    """

    predictions: Mapping[str, Predicted]
    duplicates: tuple[str, ...] = ()
    entries: int = 0


def read_predictions(path: Path) -> PredictionFile:
    """Read a file of predictions, whose format is told from its content.

    - One JSON object a line, as `prediction_line` writes it, or a JSON list of such objects. It
      has `id` and at least one of `answer`, `program` and `text`, the completion; where `text`
      stands alone, it is the answer. The other keys are those of `Prediction` and `Predicted`; keys
      of other names are passed over. An answer that is no text is scored as TAT-QA's script does.
    - FinQA's and ConvFinQA's official list: `[{"id": ..., "predicted": tokens or text}]`. With
      `turn`, a number, the question's id is `<id>_<turn>`.
    - TAT-QA's official object: `{uid: [answer, scale]}`.

    Raises:
        DataError: The file is missing, empty, no text, or in none of these formats; or an entry
            cannot be used. The text names line or row.
    """
    text = "".join(text_chunks(path))
    found: dict[str, Predicted] = {}
    twice: dict[str, None] = {}
    entries = 0
    for place, id, value in _entries(path, text):
        entries += 1
        try:
            predicted = _submitted_answer(id, value) if id is not None else _predicted(value)
        except RowProblem as problem:
            field = "" if problem.field == "row" else f"{problem.field!r}: "
            raise DataError(f"{path}: {place}: {field}{problem.problem}") from problem
        if found.setdefault(predicted.id, predicted) is not predicted:
            twice[predicted.id] = None
    if not entries:
        raise DataError(f"{path}: no predictions in it; expected {_FORMATS}")
    return PredictionFile(predictions=found, duplicates=tuple(twice), entries=entries)


def prediction_line(predicted: Predicted) -> str:
    """One line of a predictions file, without its end; `read_predictions` gives it back.

    Raises:
        ValueError: A submission holds NaN or an infinity, which JSON cannot.
    """
    said = predicted.prediction
    row: dict[str, Any] = {
        "id": predicted.id,
        "question": predicted.question,
        "source": predicted.source,
        "text": said.text,
        "answer": said.answer,
        "program": said.program,
        "scale": said.scale,
        "evidence": said.evidence,
        "tokens": predicted.tokens,
        "finished": predicted.finished,
        "problem": predicted.problem,
        "left_out": predicted.left_out,
        "samples": predicted.samples,
        "votes": predicted.votes,
    }
    submission = predicted.submission
    if submission:
        row["submitted"] = {"kind": submission.kind, "value": submission.value}
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def prediction_of_line(line: str) -> Predicted:
    """The prediction on one line that `prediction_line` wrote.

    Raises:
        DataError: It is no whole line of that kind.
    """
    try:
        return _predicted(_decoded("line", line))
    except RowProblem as problem:
        raise DataError(f"{problem.field!r}: {problem.problem}") from problem


class _Object(dict[str, Any]):
    """A JSON object, with the first value of each key, and all pairs of keys and values."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__()
        for key, value in pairs:
            self.setdefault(key, value)
        self.pairs = pairs


_DECODER = json.JSONDecoder(object_pairs_hook=_Object)


def _entries(path: Path, text: str) -> Iterator[tuple[str, str | None, object]]:
    """The entries of a file: what to call each, its id where that is a key, and its value."""
    begun = text.lstrip()
    if not begun:
        raise DataError(f"{path}: only white space; was it written to its end?")
    if begun[0] not in "[{":
        start = begun[:20].partition("\n")[0]
        raise DataError(
            f"{path}: begins with {start!r}, so it is no JSON object or list; expected {_FORMATS}"
        )
    first, _, rest = begun.partition("\n")
    if rest.strip() and _is_object(first):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", None, _decoded(path, line, before=number - 1)
        return
    value = _decoded(path, text)
    match value:
        case list():
            yield from ((f"row {number}", None, row) for number, row in enumerate(value, start=1))
        case _Object() if not value or _is_row(value):
            yield "line 1", None, value
        case _Object():
            yield from ((f"the entry {id!r}", id, answer) for id, answer in value.pairs)


def _is_row(value: _Object) -> bool:
    """Whether an object is the entry of one question, and not TAT-QA's of many."""
    if isinstance(value.get("id"), str | int):
        return True
    # An entry without an id, so that it is said what is missing.
    no_pairs = not any(isinstance(each, list) for each in value.values())
    return no_pairs and not value.keys().isdisjoint(SAYING)


def _is_object(line: str) -> bool:
    """Whether a line is a JSON object, and so the file one of JSON lines."""
    try:
        return isinstance(_DECODER.decode(line), dict)
    except (ValueError, RecursionError):
        return False


def _decoded(path: Path | str, text: str, *, before: int = 0) -> object:
    """The JSON value that a text is.

    Args:
        path: What to call the file that it stands in.
        text: The whole file, or a line of it.
        before: How many lines of the file stand before.
    """
    try:
        value: object = _DECODER.decode(text)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        torn = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        remedy = _CUT_OFF if torn else "mend it there"
        place = f"{path}:{before + error.lineno}:{error.colno}"
        cause = f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise DataError(f"{place}: not JSON: {cause}; {remedy}") from error
    except UnicodeEncodeError as error:
        problem = "half a surrogate pair in a text; expected valid Unicode"
        raise DataError(f"{path}:{before + 1}: {problem}") from error
    except RecursionError as error:
        raise DataError(f"{path}:{before + 1}: lists or objects nested too deeply") from error
    except ValueError as error:
        raise DataError(f"{path}:{before + 1}: a number with too many digits to be read") from error
    return value


def _submitted_answer(id: str, value: object) -> Predicted:
    """An entry of TAT-QA's official object."""
    if not isinstance(value, list) or len(value) != 2:
        found = f"a list of {len(value)}" if isinstance(value, list) else kind(value)
        raise RowProblem("row", f"{found}; expected [answer, scale]; the formats are {_FORMATS}")
    answer, scale = value
    text = _shown(answer)
    stated = cast("Scale", scale) if scale in SCALES else ""
    return Predicted(
        id=id,
        prediction=Prediction(text=text or "", answer=text, scale=stated),
        submission=Submission("answers", value),
    )


def _predicted(row: object) -> Predicted:
    """An entry that is an object with an id."""
    if not isinstance(row, _Object):
        raise RowProblem("row", f"{kind(row)}; expected an object with 'id'")
    if len(row) < len(row.pairs):
        keys = [key for key, _ in row.pairs]
        key = next(key for key in keys if keys.count(key) > 1)
        raise RowProblem(key, "stands twice; leave one out")
    id = question_id(row)
    if row.keys().isdisjoint(SAYING):
        near = next(filter(None, (did_you_mean(key, SAYING) for key in row if key != "id")), "")
        choice = "answer, program, text or predicted"
        raise RowProblem("row", f"says nothing to its question; {near or f'expected {choice}'}")
    if "predicted" in row:
        return _submitted_program(id, row["predicted"])
    answer = row.get("answer")
    program, text = optional_text(row, "program"), optional_text(row, "text")
    if text is not None and not {"answer", "program", "submitted"}.intersection(row):
        answer = text
    scale = stated_scale(row)
    stated = _shown(answer)
    unlike_text = answer is not None and not isinstance(answer, str)
    return Predicted(
        id=id,
        prediction=Prediction(
            text=next((said for said in (text, program, stated) if said is not None), ""),
            answer=stated,
            program=program,
            scale=scale,
            evidence=texts(row, "evidence"),
        ),
        tokens=count(row, "tokens", least=0),
        finished=flag(row, "finished"),
        problem=optional_text(row, "problem") or "",
        left_out=count(row, "left_out", least=0) or 0,
        samples=texts(row, "samples"),
        votes=count(row, "votes", least=1) or 1,
        question=optional_text(row, "question") or "",
        source=optional_text(row, "source") or "",
        submission=_submission(row)
        or (Submission("answers", [answer, scale]) if unlike_text else None),
    )


def _submitted_program(id: str, value: object) -> Predicted:
    """An entry of FinQA's or ConvFinQA's official list.

    What has no parenthesis is no program but a number, as ConvFinQA's turns may be.
    """
    if value is None:
        return Predicted(id=id, prediction=Prediction(text=""))
    if not isinstance(value, str | list):
        raise RowProblem("predicted", f"{kind(value)}; expected a list of tokens, or text")
    text = written_program(value, field="predicted") if isinstance(value, list) else value
    said = Prediction(text=text, program=text) if "(" in text else Prediction(text, text or None)
    return Predicted(id=id, prediction=said, submission=Submission("programs", value))


def _shown(answer: object) -> str | None:
    """An answer as text: spans are joined as the TAT-QA reader joins them."""
    match answer:
        case None:
            return None
        case str():
            return answer
        case list():
            return SPAN_SEPARATOR.join(filter(None, map(_shown, _leaves(answer)))) or None
        case _:
            return json.dumps(answer, ensure_ascii=False)


def _leaves(values: list[object]) -> Iterator[object]:
    """What lists within lists hold, in order, however deep they are."""
    left = [iter(values)]
    while left:
        for value in left[-1]:
            if isinstance(value, list):
                left.append(iter(value))
                break
            yield value
        else:
            left.pop()


def _submission(row: Row) -> Submission | None:
    value = row.get("submitted")
    if value is None:
        return None
    match value:
        case {"kind": "programs", "value": str() | list() as program}:
            return Submission("programs", program)
        case {"kind": "answers", "value": [_, _] as pair}:
            return Submission("answers", pair)
    raise RowProblem(
        "submitted",
        "expected an object with 'kind', programs or answers, and a 'value' as its files have it",
    )
