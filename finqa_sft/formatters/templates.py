"""How a page and a question are put together: Jinja templates that a recipe may replace.

A template holds the variables, plain text, and conditions on what is the same for all questions of
a document. It has no loops, calls or arithmetic: so it ends, what it writes is as long as what it
is given, and all questions of a document begin with the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Annotated

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator

from finqa_sft.options import Options
from finqa_sft.wording import did_you_mean

MAX_CHARACTERS = 10_000
"""Templates longer than this are refused."""

_FILTERS = ("lower", "title", "trim", "upper")
_OPERATORS = {"eq", "ne", "in", "notin"}
_WORDS: Mapping[type[nodes.Node], str] = MappingProxyType(
    {
        nodes.For: "a loop",
        nodes.Call: "a call",
        nodes.Macro: "a macro",
        nodes.Filter: "a filter",
        nodes.Test: "a test",
        nodes.Assign: "an assignment",
        nodes.AssignBlock: "an assignment",
        nodes.Include: "an include",
        nodes.Import: "an import",
        nodes.FromImport: "an import",
        nodes.Extends: "an extends",
        nodes.CondExpr: "an if inside {{ }}",
        nodes.Getattr: "an attribute",
        nodes.Getitem: "an index",
        nodes.Block: "a block",
        nodes.FilterBlock: "a filter",
        nodes.With: "a with",
        nodes.ScopedEvalContextModifier: "autoescape",
        nodes.Concat: "joining with ~",
        nodes.BinExpr: "arithmetic",
        nodes.Compare: "a comparison by size",
        nodes.Const: "a constant",
    }
)
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)


def _checked(text: str, *, variables: tuple[str, ...], shown: tuple[str, ...]) -> str:
    """Refuse a template that cannot be used, and say why.

    Args:
        text: The template.
        variables: What it may name.
        shown: What it must show on every way through it, in this order.

    Raises:
        ValueError: The template is not valid, may not do what it does, or does not show the page
            or the question.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"{len(text):,} characters; a template has {MAX_CHARACTERS:,} at most, and the text of "
            "the page comes from the data"
        )
    try:
        tree = _ENVIRONMENT.parse(text)
        _Check(variables, shown).check(tree.body)
        _compiled(text)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from error
    except (RecursionError, SyntaxError, MemoryError) as error:
        raise ValueError("nested too deeply; write it flat") from error
    return text


class _Check:
    """Walks through a template by its syntax tree, along all ways that its conditions leave."""

    def __init__(self, variables: tuple[str, ...], shown: tuple[str, ...]) -> None:
        self._variables = variables
        self._shown = shown
        self._misplaced: ValueError | None = None

    def check(self, body: Iterable[nodes.Node]) -> None:
        """Refuse a template that does not show what it must, or not in order."""
        ways = self._ways(body, {frozenset()})
        for name in self._shown:
            if not all(name in way for way in ways):
                sometimes = any(name in way for way in ways)
                always = " on every way through the conditions" if sometimes else ""
                raise ValueError(f"{{{{ {name} }}}} is not shown{always}; the model must see it")
        if self._misplaced is not None:
            raise self._misplaced

    def _ways(self, body: Iterable[nodes.Node], ways: set[frozenset[str]]) -> set[frozenset[str]]:
        """What can have been shown after some nodes.

        Args:
            body: The nodes.
            ways: What can have been shown before them.
        """
        for node in body:
            if isinstance(node, nodes.If):
                ways = self._branches(node, ways)
            elif isinstance(node, nodes.Output):
                for child in node.nodes:
                    ways = self._output(child, ways)
            else:
                # The parser wraps `autoescape` into a scope without a line.
                raise self._refusal(node.body[0] if isinstance(node, nodes.Scope) else node)
        return ways

    def _branches(self, node: nodes.If, ways: set[frozenset[str]]) -> set[frozenset[str]]:
        """What can have been shown after a condition, whichever of its branches is taken."""
        after: set[frozenset[str]] = set()
        for branch in (node, *node.elif_):
            after |= self._ways(branch.body, ways)
            if "document" in self._variables and _is_name(branch.test, "document"):
                # Where there is no page, it is shown by writing nothing.
                ways = {way | {"document"} for way in ways}
            else:
                self._require_plain(branch.test)
        return after | self._ways(node.else_, ways)

    def _output(self, node: nodes.Node, ways: set[frozenset[str]]) -> set[frozenset[str]]:
        if isinstance(node, nodes.TemplateData):
            return ways
        if not isinstance(node, nodes.Name) or node.name not in self._shown:
            self._require_plain(node)
            return ways
        for first in self._shown[: self._shown.index(node.name)]:
            if self._misplaced is None and not all(first in way for way in ways):
                self._misplaced = ValueError(
                    f"line {node.lineno}: {{{{ {node.name} }}}} stands before {{{{ {first} }}}}; "
                    f"write the {first} first, so that all its questions begin with the same tokens"
                )
        return {way | {node.name} for way in ways}

    def _require_plain(self, node: nodes.Node) -> None:
        """Refuse what is more than a text or a comparison of the company's name."""
        match node:
            case nodes.Name() if node.name not in self._variables:
                known = ", ".join(self._variables)
                meant = did_you_mean(node.name, self._variables) or f"there is {known}"
                raise ValueError(f"line {node.lineno}: no variable {node.name!r}; {meant}")
            case nodes.Name() if node.name in self._shown:
                raise ValueError(
                    f"line {node.lineno}: {node.name} may only be written as it is, "
                    f"{{{{ {node.name} }}}}, so that nothing of it is lost or depends on it"
                )
            case nodes.Name() | nodes.Operand() | nodes.And() | nodes.Or() | nodes.Not():
                pass
            case nodes.Const() if isinstance(node.value, str):
                pass
            case nodes.Compare() if {operand.op for operand in node.ops} <= _OPERATORS:
                pass
            case nodes.Filter() if node.name in _FILTERS and not (node.args or node.kwargs):
                pass
            case _:
                raise self._refusal(node)
        for child in node.iter_child_nodes():
            self._require_plain(child)

    def _refusal(self, node: nodes.Node) -> ValueError:
        named = (word for kind, word in _WORDS.items() if isinstance(node, kind))
        what = next(named, f"{type(node).__name__.lower()!r}")
        if isinstance(node, nodes.Filter):
            what = f"the filter {node.name!r}"
        possible = ", ".join(f"{{{{ {name} }}}}" for name in self._variables)
        if "company" in self._variables:
            possible += ", {% if company %}, {% if document %} and, for the company, the filters "
            possible += ", ".join(_FILTERS)
        return ValueError(
            f"line {node.lineno}: {what} is not possible in a template; it may hold {possible}"
        )


def _is_name(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


_opening = partial(
    _checked, variables=("document", "question", "company"), shown=("document", "question")
)
_follow_up = partial(_checked, variables=("question",), shown=("question",))


class Templates(Options):
    """How page and question are put together, in Jinja.

    Line breaks at the beginning and at the end of what a template writes are left out.
    """

    opening: Annotated[str, AfterValidator(_opening)] = "{{ document }}\n\nQuestion: {{ question }}"
    """The first message: the page, then the first question. Variables: `document`, `question`, and
    `company`, which is empty where the data names none."""

    follow_up: Annotated[str, AfterValidator(_follow_up)] = "Question: {{ question }}"
    """A later question of a conversation. Variable: `question`."""

    def opening_text(self, *, document: str, question: str, company: str | None) -> str:
        """The first message. What the variables hold is never taken for a template."""
        return _rendered(
            self.opening, {"document": document, "question": question, "company": company or ""}
        )

    def follow_up_text(self, question: str) -> str:
        """A later question."""
        return _rendered(self.follow_up, {"question": question})


def _rendered(template: str, variables: Mapping[str, str]) -> str:
    return _compiled(template).render(variables).strip("\n")


@cache
def _compiled(text: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(text)
