"""FinQA's and ConvFinQA's official scores: execution accuracy and program accuracy.

Source of the rules: `code/evaluate/evaluate.py` of github.com/czyssrs/FinQA and
`code/utils/general_utils.py` of github.com/czyssrs/ConvFinQA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finqa_sft.programs import matches_gold, official_result
from finqa_sft.programs.language import OPERATORS, TABLE_OPERATORS
from finqa_sft.programs.official import official_tokens

_ENDS_WITH_ERROR = (
    "the official script ends here with an AssertionError: the program equals the gold one, but "
    "its result does not"
)
_NOT_A_PROGRAM = "no program: neither text nor a list of tokens"

# White space, as the space is, but nothing that ends a token.
_INNER_SPACE = "\v"
_STEP = 4
_OPERATORS = frozenset((*OPERATORS, *TABLE_OPERATORS))


@dataclass(frozen=True, slots=True)
class FinQAScore:
    """What the official script makes of one predicted program.

    Attributes:
        valid: Whether it can be computed.
        result: What it computes, rounded to 5 digits; None where there is no result.
        execution: Whether it is valid and its result is the gold answer.
        program: Whether it is the gold program up to algebra.
        note: What the official script does in place of scoring; empty where it scores.
    """

    valid: bool
    result: float | str | None
    execution: bool
    program: bool
    note: str = ""


def score_finqa(
    predicted: object,
    *,
    program: str,
    executed: float | str | None,
    table: Sequence[Sequence[str]],
) -> FinQAScore:
    """Score a program as FinQA's script does.

    A program that is invalid can still be the gold program, as in the script, if the last result
    that it comes to is the gold answer.

    Args:
        predicted: The program as text, or FinQA's list of tokens, whose last one, "EOF", is not
            looked at. Everything else is an invalid program; nothing raises.
        program: The gold program.
        executed: The gold answer: a number, "yes" or "no".
        table: Rows of cells; the first cell of a row is its label.
    """
    return _score(predicted, program, executed, table, bare_numbers=False)


def score_convfinqa(
    predicted: object,
    *,
    program: str,
    executed: float | str | None,
    table: Sequence[Sequence[str]],
) -> FinQAScore:
    """Score a turn as ConvFinQA's script does.

    A lone number is a program that computes it. An invalid program counts as wrong in everything.

    Args:
        predicted: The program or number as text, or a list of tokens, as for `score_finqa`.
        program: The gold program, or the number that the turn picks from the page, as text.
        executed: The gold answer: a number, "yes" or "no".
        table: Rows of cells; the first cell of a row is its label.
    """
    return _score(predicted, program, executed, table, bare_numbers=True)


def _score(
    predicted: object,
    gold: str,
    executed: float | str | None,
    table: Sequence[Sequence[str]],
    *,
    bare_numbers: bool,
) -> FinQAScore:
    match predicted:
        case str():
            text: str | None = predicted
        case list() | tuple():
            text = _joined(predicted, bare_numbers=bare_numbers)
            table = _with_inner_space(predicted, table)
        case _:
            return FinQAScore(False, None, False, False, note=_NOT_A_PROGRAM)
    if text is None:
        return FinQAScore(False, None, False, False)
    result = official_result(text, table, bare_numbers=bare_numbers)
    is_gold_answer = result.value is not None and result.value == executed
    is_gold_program = (result.valid or not bare_numbers) and matches_gold(
        text, gold, bare_numbers=bare_numbers
    )
    return FinQAScore(
        valid=result.valid,
        result=result.value,
        execution=result.valid and is_gold_answer,
        program=is_gold_program and is_gold_answer,
        note=_ENDS_WITH_ERROR if is_gold_program and not is_gold_answer else "",
    )


def _joined(tokens: Sequence[object], *, bare_numbers: bool) -> str | None:
    """The program that a list of tokens stands for, less the last one; None where it is invalid.

    The script checks the tokens as they are given, so that is done here. A comma and a space within
    a token, as in the label "sales, net", do not end it: the space is written as another one.
    """
    kept = [
        token.replace(", ", f",{_INNER_SPACE}") for token in tokens[:-1] if isinstance(token, str)
    ]
    text = ", ".join(kept)
    if bare_numbers and len(tokens) == 2:
        is_sound = official_tokens(text) == kept
    else:
        # What is behind the last step is dropped; read as text, its parts could be found faulty.
        text = text[: text.rfind(")") + 1]
        is_sound = all(token.strip("(") in _OPERATORS for token in kept[::_STEP]) and all(
            token == ")" for token in kept[_STEP - 1 :: _STEP]
        )
    return text if is_sound and len(kept) == len(tokens[:-1]) else None


def _with_inner_space(
    tokens: Sequence[object], table: Sequence[Sequence[str]]
) -> Sequence[Sequence[str]]:
    """The table, its labels written as in `_joined`."""
    if not any(isinstance(token, str) and ", " in token for token in tokens):
        return table
    return [
        [*(cell.replace(", ", f",{_INNER_SPACE}") for cell in row[:1]), *row[1:]] for row in table
    ]
