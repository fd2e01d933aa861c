"""`finqa-sft preview RECIPE [--rows N] [--document ID] [--html FILE] [key.path=value ...]`."""

from __future__ import annotations

import argparse
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from finqa_sft.cli.common import add_recipe_arguments, load_recipe, positive
from finqa_sft.encoding import Encoder
from finqa_sft.errors import DataError, OutputError
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.preparation import Part, PreparedData
from finqa_sft.preparation.counts import place
from finqa_sft.preparation.parts import Dropped, Example
from finqa_sft.preparation.prepare import prepared_recipe
from finqa_sft.preparation.report import (
    GIVEN,
    LEARNT_IS,
    count_lines,
    fate_lines,
    is_coloured,
    length_bars,
    omitted_text,
    row_text,
    row_title,
)
from finqa_sft.recipe import Recipe
from finqa_sft.signals import handled, interrupt
from finqa_sft.wording import did_you_mean, visible
from finqa_sft.writing import replace_text

ROWS = 3
PARTS_ON_SCREEN = 10
HTML_WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--rows", type=positive, metavar="N", help=f"how many rows to show; {ROWS} if left out"
    )
    parser.add_argument("--document", metavar="ID", help="show the rows of this document alone")
    parser.add_argument("--html", metavar="FILE", help="write a page with colours instead")


def run(arguments: argparse.Namespace) -> int:
    """Show rows as the model will read them, and what became of all of them."""
    recipe, _ = load_recipe(arguments)
    page = None if arguments.html is None else _page_file(arguments.html)
    quiet_libraries()
    with handled(signal.SIGTERM, by=interrupt):
        prepared = prepared_recipe(recipe)
    examples = _chosen(prepared.data, rows=arguments.rows, document=arguments.document)
    console = _page_console() if page else Console()
    coloured = is_coloured(console)
    at_most = None if page else PARTS_ON_SCREEN

    def show(text: Text) -> None:
        if console.is_terminal:
            console.print(text)
        else:
            # The console would wrap what goes into a file or a pipe, and turn tabs into spaces.
            print(text.plain)

    show(Text(f"{recipe.name}: what is learnt {LEARNT_IS[coloured]}"))
    for part, index in examples:
        for text in _example(part.example(index), prepared.encoder, coloured, at_most):
            show(text)
    for one in _dropped(prepared.data, arguments.document):
        show(Text())
        show(Text(visible(f"{place(one.question)} is dropped: {one.reason}"), "bold"))
        show(Text(visible(one.question.text), GIVEN))
    show(Text())
    for line in _footer(recipe, prepared.data):
        show(line)
    if page:
        _write(page, console.export_html(inline_styles=True))
        print(f"written: {page}")
    return 0


def _example(
    example: Example, encoder: Encoder, coloured: bool, at_most: int | None
) -> Iterator[Text]:
    """A row, and so many of the parts of its document that it does not show."""
    yield Text()
    yield row_title(example)
    yield row_text(example, encoder, coloured=coloured)
    if example.left_out:
        yield Text("left out of the document:", "bold")
        yield omitted_text(example, at_most=at_most)
    if at_most is not None and len(example.left_out) > at_most:
        more = len(example.left_out) - at_most
        yield Text(f"and {more} more; all of them with --html", "bold")


def _page_file(name: str) -> Path:
    """The file that a page is to be written to.

    Raises:
        OutputError: It is a folder, or in none.
    """
    file = Path(name)
    if not os.path.basename(name) or file.is_dir():
        raise OutputError(f"{name or '.'}: a folder; name a file")
    if not file.parent.is_dir():
        raise OutputError(f"{name}: no such folder; name a file in one that exists")
    return file


def _write(page: Path, text: str) -> None:
    """Replace a page in one step, so that it is never half written.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        replace_text(page, text)
    except OSError as error:
        raise OutputError(f"cannot write {page}: {error.strerror}") from error


def _page_console() -> Console:
    """What a page is made of; it has colours whatever the terminal has."""
    return Console(
        record=True,
        file=io.StringIO(),
        width=HTML_WIDTH,
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )


def _chosen(
    data: PreparedData, *, rows: int | None, document: str | None
) -> list[tuple[Part, int]]:
    """The rows to show: their side and their place there.

    Raises:
        DataError: There is no such document, or it was left out.
    """
    if document is None:
        return [(data.training, i) for i in _spread(len(data.training), rows or ROWS)]
    parts = (data.training, data.held_out)
    found = []
    for part in parts:
        # A question that is trained on several times is shown once.
        asked = {id(q): i for i, q in enumerate(part.questions) if q.document.id == document}
        found += [(part, i) for i in list(asked.values())[:rows]]
    if found:
        return found
    if dropped := _dropped(data, document):
        said = "; ".join(sorted({one.reason for one in dropped}))
        raise DataError(f"all questions of document {document!r} are left out: {said}")
    known = {question.document.id for part in parts for question in part.questions}
    hint = did_you_mean(document, known) or f"the first is {min(known)!r}"
    raise DataError(f"no document {document!r} in the data; {hint}")


def _dropped(data: PreparedData, document: str | None) -> list[Dropped]:
    """The questions of a document that were left out when they were fitted and encoded."""
    every = (*data.training.dropped, *data.held_out.dropped)
    return [one for one in every if one.question.document.id == document]


def _spread(rows: int, wanted: int) -> Iterator[int]:
    """Places of so many rows, from the first on at equal distances."""
    count = min(rows, wanted)
    return (i * rows // count for i in range(count))


def _footer(recipe: Recipe, data: PreparedData) -> Iterator[Text]:
    """Counts of both sides, lengths, fates, and what cleaning changed."""

    def line(word: str, text: str) -> Text:
        return Text.assemble((f"{word:<12}", "bold"), text)

    for name, part in (("training", data.training), ("held out", data.held_out)):
        s = part.summary
        if not (s["questions"] or part.dropped):
            continue
        yield line(
            name,
            f"{s['questions']} questions on {s['documents']} documents, {s['tokens']} tokens, "
            f"{s['supervised_share']:.1%} supervised",
        )
        for fate in fate_lines(part):
            yield line("", fate)
    yield line("row lengths", f"of training, up to formatter.max_length {recipe.max_length}")
    for bar in length_bars(data.training, max_length=recipe.max_length):
        yield line("", bar)
    for word, text in count_lines(data.counts):
        yield line(word, text)
