"""What a broken contract looks like: the rules, and the error that names one."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path


class Rule(Enum):
    """A rule of a contract; each kind of component has a subclass with its own rules.

    Attributes:
        says: The rule, as a sentence that is true of a component that keeps it.
        remedy: What to do about a component that breaks it.
    """

    def __init__(self, says: str, remedy: str) -> None:
        """Take the two texts of a member."""
        self.says = says
        self.remedy = remedy


class ContractError(AssertionError):
    """A component breaks a rule of its contract.

    Attributes:
        component: Kind and class, as `formatter TerseFormatter`.
        rule: The rule that is broken.
        seen: What was seen instead.
    """

    def __init__(self, component: str, rule: Rule, seen: str) -> None:
        """Keep the parts; the message is made of them."""
        super().__init__(component, rule, seen)
        self.component = component
        self.rule = rule
        self.seen = seen

    def __str__(self) -> str:
        return (
            f"{self.component} breaks the rule {self.rule.says!r}: {self.seen}\n{self.rule.remedy}"
        )


class Checked:
    """A component under check; raises in its name."""

    def __init__(self, kind: str, name: str) -> None:
        """Take the kind in words, and a name that its author knows."""
        self._name = f"{kind} {name}"

    def require(self, rule: Rule, kept: bool, seen: str) -> None:
        """Raise unless a rule is kept.

        Raises:
            ContractError: The rule is not kept.
        """
        if not kept:
            raise ContractError(self._name, rule, seen)

    @contextmanager
    def unraised(self, rule: Rule, doing: str) -> Iterator[None]:
        """Take any exception inside for a break of a rule.

        Raises:
            ContractError: Something was raised; it is the cause.
        """
        try:
            yield
        except ContractError:
            raise
        # Whatever a stranger's component raises, its author is told where.
        except Exception as error:
            seen = f"{doing} raised {type(error).__name__}: {error}{_place(error)}"
            raise ContractError(self._name, rule, seen) from error


def _place(error: Exception) -> str:
    """The last line of the component's own file that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent]
    own = [frame for frame in outside if frame.filename == outside[0].filename]
    return f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""


def excerpt(text: str, *, around: str = "") -> str:
    """A text as an error shows it: quoted, and cut where it is long.

    Args:
        text: Any text.
        around: What must be visible, where the text holds it.
    """
    start = max(text.find(around) - 60, 0) if around else 0
    shown = text[start : start + 160]
    before = "…" if start else ""
    after = "…" if start + 160 < len(text) else ""
    return before + repr(shown) + after
