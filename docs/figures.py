"""Figures of the documentation, drawn from what the code itself computes.

Written as SVG by hand: the same text on every machine, so that a test can compare it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from finqa_sft.attention.branches import paths_of
from finqa_sft.collators.trees import Row, Tree, tree_of
from finqa_sft.encoding import IGNORED

PAGE = ("Sales", "412", "Costs", "398")
QUESTIONS = (
    (("Q:", "Sales?"), ("412", "end")),
    (("Q:", "Costs?"), ("398", "end")),
    (("Q:", "Profit?"), ("14", "end")),
)
"""What is asked about the page, and the answers that are learnt."""

WIDTH = 980
MARGIN = 40
GUTTER = 86
CELL, HEIGHT = 58, 30
SQUARE = 26

INK, FAINT, CARD, LINE = "#1f2937", "#6b7280", "#ffffff", "#d5dae1"
SHARED = "#c9d3df"
PALE = ("#fbd9c0", "#cdebd0", "#dcd2f3")
STRONG = ("#e8894a", "#4fae63", "#a68ae0")
"""For each question: what is read, and what is learnt."""


@dataclass(frozen=True)
class Token:
    """A token of the flat row.

    Attributes:
        word: What it stands for.
        position: Its depth in the tree.
        learnt: Whether it is supervised.
        question: Of which question it is; None if several share it.
    """

    word: str
    position: int
    learnt: bool
    question: int | None

    @property
    def fill(self) -> str:
        """The colour of its cell."""
        if self.question is None:
            return SHARED
        return (STRONG if self.learnt else PALE)[self.question]


def shared_context() -> str:
    """A page with three questions as rows, as a tree, and what each token of the tree sees."""
    words, rows = _encoded()
    tree = tree_of(rows)
    paths = paths_of(tree.lengths, parents=tree.parents, depths=tree.depths)
    tokens = _tokens(tree, words, paths)
    sees = _seen(tree, paths)

    parts: list[str] = []
    top = MARGIN
    apart = sum(len(row.ids) for row in rows)
    parts.append(_title(top, "A row for each question", f"{apart} tokens"))
    top += 24
    for number, row in enumerate(rows):
        parts.append(_text(MARGIN, top + 20, f"question {number + 1}", size=12, fill=FAINT))
        for n, (token, learnt) in enumerate(zip(row.ids, row.learnt, strict=True)):
            shade = (STRONG if learnt else PALE)[number] if n >= len(PAGE) + 1 else SHARED
            parts.append(_cell(_left(n), top, words[token], shade, strong=bool(learnt)))
        top += HEIGHT + 6
    top += 34
    parts.append(
        _title(top, "The same in shared context: one row, three branches", f"{len(tokens)} tokens")
    )
    top += 24
    parts += _flat(tokens, tree, top)
    top += HEIGHT + 92
    parts.append(_title(top, "What each token sees", "a row for each token, a column for each key"))
    top += 24
    parts += _matrix(tokens, sees, top)
    parts += _notes(tokens, tree, top)
    return _svg(parts, top + len(tokens) * SQUARE + MARGIN - 4)


def _encoded() -> tuple[list[str], list[Row]]:
    """The words that ids stand for, and the rows as an encoder would give them."""
    words: list[str] = []
    rows = []
    for asked, answer in QUESTIONS:
        row = [*PAGE, *asked, *answer]
        words += [word for word in dict.fromkeys(row) if word not in words]
        learnt = np.arange(len(row)) >= len(row) - len(answer)
        rows.append(Row(np.array([words.index(word) for word in row]), learnt))
    return words, rows


def _tokens(
    tree: Tree, words: Sequence[str], paths: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]
) -> list[Token]:
    """The tokens of the flat row, each with what the figure says of it."""
    found = []
    place = 0
    for branch, (length, depth) in enumerate(zip(tree.lengths, tree.depths, strict=True)):
        for n in range(length):
            shared = sum(place in path for path in paths) > 1
            found.append(
                Token(
                    word=words[tree.input_ids[place]],
                    position=depth + n,
                    learnt=bool(tree.labels[place] != IGNORED),
                    question=None if shared else branch,
                )
            )
            place += 1
    return found


def _seen(
    tree: Tree, paths: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]
) -> list[set[int]]:
    """For each token of the flat row the places that it sees."""
    return [
        {int(place) for place in path[: depth + n + 1]}
        for path, length, depth in zip(paths, tree.lengths, tree.depths, strict=True)
        for n in range(length)
    ]


def _flat(tokens: Sequence[Token], tree: Tree, top: float) -> Iterator[str]:
    """The flat row with positions, and a bracket under each branch."""
    for n, token in enumerate(tokens):
        yield _cell(_left(n), top, token.word, token.fill, strong=token.learnt)
        middle = _left(n) + (CELL - 2) / 2
        yield _text(middle, top + HEIGHT + 17, str(token.position), anchor="middle", size=12)
    yield _text(MARGIN, top + HEIGHT + 17, "position", size=12, fill=FAINT)
    start = 0
    for branch, (length, parent, depth) in enumerate(
        zip(tree.lengths, tree.parents, tree.depths, strict=True)
    ):
        left, right = _left(start) + 2, _left(start + length) - 4
        y = top + HEIGHT + 30
        yield (
            f'<path d="M{left} {y}v7H{right}v-7" fill="none" stroke="{STRONG[branch]}" '
            'stroke-width="2"/>'
        )
        says = (
            "branch 0: the first row, whole"
            if parent < 0
            else f"branch {branch}: leaves {parent} after {depth}"
        )
        yield _text((left + right) / 2, y + 24, says, anchor="middle", size=12)
        start += length


def _matrix(tokens: Sequence[Token], sees: Sequence[set[int]], top: float) -> Iterator[str]:
    """A square for each token and key."""
    left = MARGIN + GUTTER
    for y, token in enumerate(tokens):
        line = top + y * SQUARE
        weight = "600" if token.learnt else "400"
        yield _text(left - 10, line + 17, token.word, anchor="end", size=12, weight=weight)
        for x, key in enumerate(tokens):
            fill = key.fill if x in sees[y] else "#f3f5f8"
            yield (
                f'<rect x="{left + x * SQUARE}" y="{line}" width="{SQUARE - 2}" '
                f'height="{SQUARE - 2}" rx="4" fill="{fill}"/>'
            )


def _notes(tokens: Sequence[Token], tree: Tree, top: float) -> Iterator[str]:
    """What the colours are, and what to see in the squares."""
    left = MARGIN + GUTTER + len(tokens) * SQUARE + 40
    keys = [
        (SHARED, "shared: computed once"),
        *(
            (shade, f"question {n + 1}{word}")
            for n in range(len(QUESTIONS))
            for shade, word in ((PALE[n], ""), (STRONG[n], ", its answer: learnt"))
        ),
    ]
    for n, (shade, says) in enumerate(keys):
        y = top + n * 25
        yield f'<rect x="{left}" y="{y}" width="18" height="18" rx="4" fill="{shade}"/>'
        yield _text(left + 28, y + 14, says, size=13)
    says = (
        "Each row, read from left to right without its",
        "gaps, is the sequence up to that token as it",
        "stands alone. The page sees no question, and",
        "no question sees another.",
    )
    for n, line in enumerate(says):
        yield _text(left, top + len(keys) * 25 + 38 + n * 20, line, size=13, fill=FAINT)


def _left(n: int) -> int:
    """Where the n-th cell of a row begins."""
    return MARGIN + GUTTER + n * CELL


def _cell(x: float, y: float, word: str, fill: str, *, strong: bool) -> str:
    """A token."""
    box = f'<rect x="{x}" y="{y}" width="{CELL - 3}" height="{HEIGHT}" rx="6" fill="{fill}"/>'
    middle = x + (CELL - 3) / 2
    weight = "600" if strong else "400"
    return box + _text(middle, y + 20, word, anchor="middle", size=12.5, weight=weight)


def _title(y: float, words: str, beside: str) -> str:
    """A heading, and on the right what it comes to."""
    return _text(MARGIN, y + 8, words, size=15, weight="600") + _text(
        WIDTH - MARGIN, y + 8, beside, anchor="end", size=13, fill=FAINT
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: float = 13,
    weight: str = "400",
    fill: str = INK,
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size:g}" '
        f'font-weight="{weight}" fill="{fill}">{escape(words)}</text>'
    )


def _svg(parts: Iterable[str], height: int) -> str:
    """The drawing, on a card of its own: it reads the same on a light and on a dark page."""
    lines = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, '
        'Arial, sans-serif">\n'
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="14" fill="{CARD}" '
        f'stroke="{LINE}"/>\n{lines}\n</svg>\n'
    )
