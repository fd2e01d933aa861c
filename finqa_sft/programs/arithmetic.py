"""Arithmetic as financial analysts write it: "-(0.9 + 0.1) / 2", "$1,234.5 - 1,200", "[(4+4)/2]".

A text is parsed by precedence climbing straight into the steps of a flat program: nothing is
evaluated as Python, and brackets and operations are limited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from finqa_sft.programs.arguments import CURRENCIES, DIGITS, MINUS_SIGNS, SCALE_WORDS
from finqa_sft.programs.flat import execute_program
from finqa_sft.programs.language import MAX_STEPS, Program, ProgramSyntaxError, Step
from finqa_sft.programs.plain import literal_value

MAX_LENGTH = 2_000
"""Longer texts are refused; TAT-QA's longest derivation that is arithmetic has 70 characters."""

MAX_BRACKETS = 32
"""Brackets within one another are followed this deep."""

_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{DIGITS})(?P<percent>\s*%)?(?P<scale>\s*(?:{'|'.join(SCALE_WORDS)})s?\b)?"
    rf"|(?P<sign>\*\*|[-+*/^()\[\]%\u00d7\u00b7\u00f7{MINUS_SIGNS}])|[{CURRENCIES}])\s*",
    re.IGNORECASE,
)
_OPERATIONS = {
    "+": ("add", 1),
    "-": ("subtract", 1),
    "*": ("multiply", 2),
    "/": ("divide", 2),
    "^": ("exp", 4),
}
_SIGN_BINDS = 3
_SPELLINGS = {"**": "^", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/"}
_SPELLINGS |= dict.fromkeys(MINUS_SIGNS, "-")
_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Arithmetic as steps.

    Attributes:
        steps: The operations, in an order in which they can be computed.
        result: The argument that holds the result: the last step's reference, or a lone number.
        has_scale_words: Whether a number was written with a word, as "60.3 million".
    """

    steps: tuple[Step, ...]
    result: str
    has_scale_words: bool


def evaluate_arithmetic(text: str) -> float:
    """Compute arithmetic written with + - * / ^, brackets, thousands commas, currencies and "%".

    "44.1%" is 0.441, "5 million" is 5000000. A lone number in parentheses is negative, as in
    financial tables, where it stands as a term: "3 + (13)" is -10. Beside *, / or ^ or behind a
    sign it could be either, and is refused.

    Returns:
        The value, rounded to 5 digits as programs round.

    Raises:
        ProgramError: It is no arithmetic, could be read in two ways, or cannot be computed. Where
            it cannot be read, the attribute `position` holds the character, counted from 1.
    """
    parsed = parse_arithmetic(text)
    if not parsed.steps:
        return round(literal_value(parsed.result), 5)
    value = execute_program(Program(parsed.steps))
    assert isinstance(value, float)
    return value


def parse_arithmetic(text: str) -> Arithmetic:
    """Parse arithmetic into the steps that compute it; see `evaluate_arithmetic` for what is read.

    Raises:
        ProgramSyntaxError: It is no arithmetic, or could be read in two ways.
    """
    parser = _Parser(_tokens(text))
    result = parser.expression(lowest=1, depth=0)
    if parser.kind:
        raise parser.unexpected("an operator")
    return Arithmetic(tuple(parser.steps), result, parser.has_scale_words)


@dataclass(frozen=True, slots=True)
class _Token:
    """A number or a sign.

    Attributes:
        kind: "number", a sign as ASCII, or "" for the end.
        text: A number without commas, with "%" where it has one.
        scale: The power of ten of the word behind a number.
        position: Its place, counted from 1.
    """

    kind: str
    text: str
    scale: int
    position: int


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_LENGTH:
        raise ProgramSyntaxError(
            f"{len(text)} characters; arithmetic has at most {MAX_LENGTH}", MAX_LENGTH + 1
        )
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ProgramSyntaxError(
                f"{text[at : at + 30]!r} at character {at + 1} is no arithmetic", at + 1
            )
        place, at = at + 1, match.end()
        if match["number"]:
            digits = match["number"].replace(",", "") + ("%" if match["percent"] else "")
            word = (match["scale"] or "").strip().lower().removesuffix("s")
            tokens.append(_Token("number", digits, SCALE_WORDS.get(word, 0), place))
        elif sign := match["sign"]:
            tokens.append(_Token(_SPELLINGS.get(sign, sign), sign, 0, place))
    tokens.append(_Token("", "", 0, len(text) + 1))
    return tokens


class _Parser:
    """Precedence climbing over tokens; every operation is a step."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.steps: list[Step] = []
        self.has_scale_words = False
        self._tokens = tokens
        self._at = 0

    @property
    def kind(self) -> str:
        """The kind of the token at hand."""
        return self._tokens[self._at].kind

    def expression(self, *, lowest: int, depth: int) -> str:
        """Read operations that bind at least as strongly as `lowest`; give the result."""
        if depth > MAX_BRACKETS:
            raise self.unexpected(f"at most {MAX_BRACKETS} brackets within one another")
        left = self._operand(depth, is_term=lowest < _SIGN_BINDS)
        while self.kind in _OPERATIONS and _OPERATIONS[self.kind][1] >= lowest:
            op, binds = _OPERATIONS[self.kind]
            self._at += 1
            # Powers group from the right, all others from the left.
            from_right = op == "exp"
            right = self.expression(lowest=binds + (not from_right), depth=depth + from_right)
            left = self._step(op, left, right)
        return left

    def unexpected(self, wanted: str) -> ProgramSyntaxError:
        """The error that something else stands here than should."""
        token = self._tokens[self._at]
        found = repr(token.text) if token.kind else "the end"
        return ProgramSyntaxError(
            f"{found} at character {token.position}; expected {wanted}", token.position
        )

    def _operand(self, depth: int, *, is_term: bool) -> str:
        """A number, a bracket, or either with a sign."""
        token = self._tokens[self._at]
        self._at += 1
        match token.kind:
            case "number":
                return self._number(token)
            case "-":
                return self._negative(self.expression(lowest=_SIGN_BINDS, depth=depth + 1))
            case "+":
                return self.expression(lowest=_SIGN_BINDS, depth=depth + 1)
            case "(" if self._is_lone_number():
                return self._number_in_parentheses(token, is_term=is_term)
            case "(" | "[":
                value = self.expression(lowest=1, depth=depth + 1)
                if self.kind != _CLOSING[token.kind]:
                    raise self.unexpected(repr(_CLOSING[token.kind]))
                self._at += 1
                return value
        self._at -= 1
        raise self.unexpected("a number")

    def _number(self, token: _Token) -> str:
        if not token.scale:
            return token.text
        self.has_scale_words = True
        return self._step("multiply", token.text, f"const_{10**token.scale}")

    def _is_lone_number(self) -> bool:
        kinds = [token.kind for token in self._tokens[self._at : self._at + 2]]
        return kinds == ["number", ")"]

    def _number_in_parentheses(self, opening: _Token, *, is_term: bool) -> str:
        """The negative number that "(5)" is in a financial table, also as "(5)%"."""
        token = self._tokens[self._at]
        self._at += 2
        if self.kind == "%" and not token.text.endswith("%"):
            token = _Token(token.kind, f"{token.text}%", token.scale, token.position)
            self._at += 1
        if not is_term or self.kind in ("*", "/", "^"):
            raise ProgramSyntaxError(
                f"({token.text}) at character {opening.position} can be {token.text} or "
                f"-{token.text}",
                opening.position,
            )
        return self._negative(self._number(token))

    def _negative(self, value: str) -> str:
        """The value with the other sign: of a number by its sign, of a step's result by const_m1.

        FinQA's programs have the constant -1, but none that is 0 to subtract from.
        """
        if value.startswith("#"):
            return self._step("multiply", value, "const_m1")
        return value[1:] if value.startswith("-") else f"-{value}"

    def _step(self, op: str, left: str, right: str) -> str:
        if len(self.steps) == MAX_STEPS:
            position = self._tokens[self._at].position
            raise ProgramSyntaxError(
                f"more than {MAX_STEPS} operations before character {position}", position
            )
        self.steps.append(Step(op, (left, right)))
        return f"#{len(self.steps) - 1}"
