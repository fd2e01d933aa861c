"""The fields of an entry in a file of predictions: what they may hold, and what is said if not."""

from __future__ import annotations

from typing import cast

from finqa_sft.documents import SCALES, Scale
from finqa_sft.readers.values import Row, RowProblem, kind


def question_id(row: Row) -> str:
    """The id under `id`, to which a turn's number is added as ConvFinQA does.

    Raises:
        RowProblem: There is none, or it is neither text nor a whole number.
    """
    if "id" not in row:
        near = next((key for key in row if key.lower().endswith("id")), None)
        hint = f"rename {near!r} to 'id'" if near else "expected the id of the question"
        raise RowProblem("id", f"missing; {hint}")
    id, turn = row["id"], row.get("turn")
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise RowProblem("id", f"{'empty' if id == '' else kind(id)}; expected text or a number")
    if turn is None:
        return str(id)
    if isinstance(turn, bool) or not isinstance(turn, int):
        raise RowProblem("turn", f"{kind(turn)}; expected a whole number, counted from 0")
    return f"{id}_{turn}"


def optional_text(row: Row, key: str) -> str | None:
    """A text, or None where there is none.

    Raises:
        RowProblem: It is something else.
    """
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise RowProblem(key, f"{kind(value)}; expected text or null")
    return value


def stated_scale(row: Row) -> Scale:
    """The scale, none where it is missing.

    Raises:
        RowProblem: It is no known one.
    """
    text = optional_text(row, "scale") or ""
    if text not in SCALES:
        known = ", ".join(filter(None, SCALES))
        raise RowProblem("scale", f"{text!r}; expected {known}, or an empty text")
    return cast("Scale", text)


def texts(row: Row, key: str) -> tuple[str, ...]:
    """A list of texts, empty where it is missing.

    Raises:
        RowProblem: It is something else.
    """
    value = row.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        found = "a list of other things" if isinstance(value, list) else kind(value)
        raise RowProblem(key, f"{found}; expected a list of texts")
    return tuple(value)


def count(row: Row, key: str, *, least: int) -> int | None:
    """A whole number, or None where it is missing.

    Raises:
        RowProblem: It is something else, or less than `least`.
    """
    value = row.get(key)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isinstance(value, int) or value < least:
        found = value if is_number else kind(value)
        raise RowProblem(key, f"{found}; expected a whole number from {least}")
    return value


def flag(row: Row, key: str) -> bool:
    """True or false, true where it is missing.

    Raises:
        RowProblem: It is something else.
    """
    value = row.get(key)
    if value is not None and not isinstance(value, bool):
        raise RowProblem(key, f"{kind(value)}; expected true or false")
    return value is not False
