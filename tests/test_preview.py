"""`finqa-sft preview`: rows as the model reads them, on a screen, in a pipe and as a page."""

from __future__ import annotations

import errno
import html
import re
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from bad_input import OWN, ROWS, Shell
from rich.text import Text

from finqa_sft.preparation import Part
from finqa_sft.preparation.counts import NO_DOCUMENT, TOO_LONG
from finqa_sft.preparation.report import length_bars
from finqa_sft.wording import visible

pytest_plugins = ["bad_input"]

BAR = "█" * 40
SMALL = OWN.replace("  max_length: 512\n", "  system: Answer.\n  max_length: 64\n")
HEAD = "document,question,context,answer\n"
HELD_OUT = "evaluation:\n  sources:\n    - reader: columns\n      files: dev.csv\n"


NO_ROWS = "own.csv: no rows; expected at least one"


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the terminal of whoever runs the tests, nor a switch of theirs."""
    for name in ("FORCE_COLOR", "NO_COLOR", "COLORTERM", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(shell: Shell, *words: str) -> str:
    """What the command prints, which must go well."""
    said = shell("preview", "r.yaml", *words)
    assert (said.status, said.err) == (0, ""), said
    return said.out


def refused(shell: Shell, *words: str) -> str:
    return shell.refused("preview", "r.yaml", *words)


def many(shell: Shell) -> None:
    """Nine pages with a question each, and a tenth of which nothing fits."""
    rows = [f"p{n},Sales {n}?,Sales were {n}.,{n}\n" for n in range(9)]
    shell.write("own.csv", HEAD + "".join(rows) + f"long,{'Sales? ' * 60},Sales were 5.,5\n")
    shell.write("r.yaml", SMALL)


def titles(out: str) -> list[str]:
    """Which rows are shown: the documents."""
    return re.findall(r"^\S+ row \d+, document (\S+): \d+ tokens, \d+ supervised", out, re.M)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_without_colours_what_is_learnt_stands_in_brackets(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shell.write("r.yaml", SMALL)
    out = Text.from_ansi(shown(shell)).plain
    lines = out.splitlines()
    assert lines[0] == "r: what is learnt stands between ⟦ and ⟧"
    assert re.fullmatch(r"own\.csv row 1, document context-\w+: 28 tokens, 2 supervised", lines[2])
    assert lines[3:6] == [
        "<|system|>Answer.<|end|><|user|>Sales were 5.",
        "",
        "Question: What were sales?<|end|><|assistant|>⟦5<|end|>⟧",
    ]


def test_in_a_terminal_what_is_learnt_is_bright(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shell.write("r.yaml", SMALL)
    out = shown(shell)
    assert "⟦" not in out
    assert out.startswith("r: what is learnt is bright\n")
    assert "\x1b[1;32m5<|end|>\x1b[0m" in out
    assert "\x1b[2m<|system|>Answer.<|end|><|user|>Sales were 5.\x1b[0m" in out


def test_in_a_pipe_no_line_is_wrapped(shell: Shell) -> None:
    line = "Sales of " + "many " * 2500 + "kinds were 5."
    shell.write("own.csv", f"{HEAD}p,What?,{line},5\n")
    shell.write("r.yaml", SMALL.replace("64", "20000"))
    assert line in shown(shell)


def test_tabs_stay_tabs_and_other_control_characters_are_escaped(shell: Shell) -> None:
    assert visible("a\tb\nc\r\x1b\x00\u202e") == "a\tb\nc\\r\\x1b\\x00\\u202e"
    shell.write("own.csv", f'{HEAD}p,What?,"Year\t2012\t2013\nSales\t5\t6",5\n')
    shell.write("r.yaml", SMALL)
    assert "Year\t2012\t2013\nSales\t5\t6\n" in shown(shell)
    shown(shell, "--html", "page.html")
    text = Page(shell.folder / "page.html").text
    assert re.search(r"Year +2012 +2013\s+Sales +5 +6", text)


@pytest.mark.parametrize(
    ("words", "documents"),
    [
        ([], ["p0", "p3", "p6"]),
        (["--rows", "1"], ["p0"]),
        (["--rows", "9"], [f"p{n}" for n in range(9)]),
        (["--rows", "100"], [f"p{n}" for n in range(9)]),
        (["--document", "p4"], ["p4"]),
        (["--document", "p4", "--rows", "5"], ["p4"]),
    ],
)
def test_rows_are_chosen_from_all_of_the_data(
    shell: Shell, words: list[str], documents: list[str]
) -> None:
    many(shell)
    assert titles(shown(shell, *words)) == documents


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", ""])
def test_a_number_of_rows_that_is_none_is_a_usage_error(
    shell: Shell, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        shell("preview", "r.yaml", f"--rows={number}")
    said = capsys.readouterr()
    said_of_it = f"expected a whole number from 1, not '{number}'"
    assert said.out == ""
    assert said.err.endswith(f"error: argument --rows: {said_of_it}\n")


def test_the_rows_of_a_document_are_shown_on_either_side(shell: Shell) -> None:
    shell.write("own.csv", f"{HEAD}a,Sales?,Sales were 5.,5\na,More?,Sales were 5.,6\n")
    shell.write("dev.csv", f"{HEAD}b,Rent?,Rent was 2.,2\n")
    shell.write("r.yaml", SMALL + HELD_OUT)
    assert titles(shown(shell, "--document", "a")) == ["a", "a"]
    assert titles(shown(shell, "--document", "a", "--rows", "1")) == ["a"]
    out = shown(shell, "--document", "b")
    assert titles(out) == ["b"]
    assert "dev.csv row 1, document b: " in out


def test_a_document_of_which_all_is_left_out_is_explained(shell: Shell) -> None:
    many(shell)
    text = (shell.folder / "own.csv").read_text()
    shell.write("own.csv", text + "end,Sales?,Sales were 1.,5<|end|>\n")
    assert refused(shell, "--document", "long") == (
        f"all questions of document 'long' are left out: {TOO_LONG}"
    )
    assert refused(shell, "--document", "end") == (
        "all questions of document 'end' are left out: control token '<|end|>' of the tokenizer "
        "in the answer"
    )


def test_a_question_of_a_shown_document_that_is_dropped_is_named(shell: Shell) -> None:
    many(shell)
    text = (shell.folder / "own.csv").read_text()
    shell.write("own.csv", text + f"p3,{'Rent? ' * 60},Sales were 3.,3\n")
    out = shown(shell, "--document", "p3")
    assert titles(out) == ["p3"]
    assert f"own.csv row 11 is dropped: {TOO_LONG}\nRent? Rent?" in out


def test_a_question_that_is_trained_on_twice_is_shown_once(shell: Shell) -> None:
    many(shell)
    assert titles(shown(shell, "--document", "p3", "data.sources.0.weight=2")) == ["p3"]


@pytest.mark.parametrize(
    ("document", "hint"),
    [("page_7", "did you mean 'page_6'?"), ("GS/2014", "the first is 'page_1'"), ("", "the first")],
)
def test_a_document_that_is_not_there_is_answered_with_one_that_is(
    shell: Shell, document: str, hint: str
) -> None:
    shell.write("own.csv", f"{HEAD}page_1,Sales?,Sales were 5.,5\npage_6,Rent?,Rent was 2.,2\n")
    said = refused(shell, "--document", document)
    assert said.startswith(f"no document {document!r} in the data; {hint}")
    assert shell("preview", "r.yaml", "--document", document).out == ""


CUT = "Nothing of note here. " * 25 + "Sales were 5 in 2012. " + "Weather was fine. " * 5


def test_what_is_left_out_is_marked_and_listed(shell: Shell) -> None:
    shell.write("own.csv", f"{HEAD}p,What were sales in 2012?,{CUT},5\n")
    shell.write("r.yaml", SMALL)
    out = shown(shell)
    title = next(line for line in out.splitlines() if line.startswith("own.csv row 1"))
    parts = int(re.search(r"; (\d+) parts of the document left out$", title)[1])  # type: ignore[index]
    row, _, listed = out.partition("left out of the document:\n")
    lines = listed.partition("\n\n")[0].splitlines()
    assert lines.pop() == f"and {parts - 10} more; all of them with --html"
    assert len(lines) == 10
    assert set(lines) <= {"− Nothing of note here. ", "− Weather was fine. ", "− Weather was fine."}
    assert "Sales were 5 in 2012." in row
    assert "[…]" in row


def test_on_a_screen_ten_of_the_parts_left_out_are_listed_and_on_a_page_all(shell: Shell) -> None:
    table = "\n".join(f"| item {n} | {n} |" for n in range(100))
    table = table.replace("\n", "\n|---|---|\n", 1)
    shell.write("own.csv", f'{HEAD}p,What is item 7?,"{table}",7\n')
    shell.write("r.yaml", SMALL)
    out = shown(shell)
    parts = int(re.search(r"; (\d+) parts of the document left out$", out, re.M)[1])  # type: ignore[index]
    assert parts > 11
    listed = out.partition("left out of the document:\n")[2].partition("\n\n")[0].splitlines()
    assert [line[:2] for line in listed[:-1]] == ["− "] * 10
    assert listed[-1] == f"and {parts - 10} more; all of them with --html"
    shown(shell, "--html", "page.html")
    text = Page(shell.folder / "page.html").text
    assert len(re.findall("^− ", text, re.M)) == parts
    assert "all of them with" not in text


def test_in_a_terminal_the_marks_of_what_is_left_out_stand_out(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shell.write("own.csv", f"{HEAD}p,What were sales in 2012?,{CUT},5\n")
    shell.write("r.yaml", SMALL)
    out = shown(shell)
    assert "\x1b[2;33m[…]\x1b[0m" in out
    assert "\x1b[33m− Nothing of note here. \x1b[0m" in out


def test_the_footer_tells_of_all_rows(shell: Shell) -> None:
    text = f"{HEAD}p,What were sales in 2012?,{CUT},5\nq,Rent?,Rent\u00a0was 2.,2\n"
    shell.write("own.csv", text + f"r,{'Sales? ' * 60},Sales were 5.,5\n")
    shell.write("dev.csv", f"{HEAD}d,Rent?,Rent was 3.,3\nd,{'Rent? ' * 70},Rent was 3.,3\n")
    shell.write("r.yaml", SMALL + HELD_OUT)
    out = shown(shell)
    lines = [line.rstrip() for line in out.rpartition("\n\n")[2].splitlines()]
    assert re.fullmatch(
        r"training    2 questions on 2 documents, \d+ tokens, \d\.\d% supervised", lines[0]
    )
    assert lines[1:4] == [
        "            1 × kept, document whole",
        "            1 × kept, document cut",
        f"            1 × dropped: {TOO_LONG}",
    ]
    assert re.fullmatch(
        r"held out    1 questions on 1 documents, \d+ tokens, \d+\.\d% supervised", lines[4]
    )
    assert lines[5:7] == [
        "            1 × kept, document whole",
        f"            1 × dropped: {TOO_LONG}",
    ]
    assert lines[7] == "row lengths of training, up to formatter.max_length 64"
    end = next(n for n, line in enumerate(lines) if line.startswith("left out"))
    bars = lines[8:end]
    first = int(bars[0].split("–")[0])
    ranges = [f"{n}–{n + 7}" for n in range(first, 65, 8)]
    assert [bar.split()[0] for bar in bars] == ranges[: len(bars)]
    heights = [int(bar.split()[-1]) for bar in bars]
    assert sum(heights) == 2
    assert heights[0]
    assert heights[-1]
    assert all(bar.count("█") == 40 * height for bar, height in zip(bars, heights, strict=True))
    assert lines[end] == f"left out    2 × {TOO_LONG}; first own.csv row 3"
    assert lines[end + 1] == (
        "cleaned     1 × spaces_and_minus; first q, block 0: 'Rent\\xa0was 2.' became 'Rent was 2.'"
    )
    assert "changed     1 × document cut to formatter.max_length" in lines[end + 2 :]


def test_a_row_of_the_longest_length_is_in_a_bar(shell: Shell) -> None:
    shell.write("r.yaml", SMALL)
    length = int(re.search(r": (\d+) tokens", shown(shell, "--rows", "1"))[1])  # type: ignore[index]
    for limit in (32, max(32, length), 33):
        out = shown(shell, f"formatter.max_length={limit}")
        bars = [line for line in out.splitlines() if re.match(r" +\d+–\d+ ", line)]
        assert sum(int(bar.split()[-1]) for bar in bars) == 2


class Lengths:
    """A side of which only the lengths are known."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths, np.int64)


@pytest.mark.parametrize(
    ("lengths", "bars"),
    [
        ([], []),
        ([8], [f" 1–8  {BAR} 1"]),
        ([9, 16], [f" 9–16 {BAR} 2"]),
        ([1, 17, 17], [f" 1–8  {BAR[:20]} 1", " 9–16  0", f"17–24 {BAR} 2"]),
        ([64], [f"57–64 {BAR} 1"]),
    ],
)
def test_bars_go_from_the_shortest_row_to_the_longest(lengths: list[int], bars: list[str]) -> None:
    assert list(length_bars(cast("Part", Lengths(lengths)), max_length=64)) == bars


STRANGE = "Sales <script>alert(1)</script> & [bold]rose[/bold] :smile: &lt; \x1b[31m were 5."
VISIBLE = STRANGE.replace("\x1b", "\\x1b")


def test_markup_and_escapes_in_a_document_are_shown_as_they_are(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.write("own.csv", f'{HEAD}"[red]p",[/bold] & :smile:?,"{STRANGE}",5\n')
    shell.write("r.yaml", SMALL.replace("64", "200"))
    out = shown(shell)
    assert VISIBLE in out
    assert "Question: [/bold] & :smile:?" in out
    assert "document [red]p: " in out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31m" not in shown(shell)


class Page:
    """A page that was written."""

    def __init__(self, path: Path) -> None:
        self.source = path.read_text(encoding="utf-8")
        body = self.source.partition("<body")[2]
        self.text = html.unescape(re.sub(r"<[^>]*>", "", "<body" + body))
        self.tags = set(re.findall(r"<([a-zA-Z]+)", self.source))


@pytest.mark.parametrize(
    "environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1"}]
)
def test_a_page_has_colours_and_needs_nothing_else(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shell.write("own.csv", f'{HEAD}p,What?,"{STRANGE}",5\n')
    shell.write("r.yaml", SMALL.replace("64", "200"))
    assert shown(shell, "--html", "page.html") == "written: page.html\n"
    page = Page(shell.folder / "page.html")
    assert page.tags <= {"html", "head", "meta", "style", "body", "pre", "code", "span", "DOCTYPE"}
    assert "http" not in page.source
    assert "what is learnt is bright" in page.text
    assert "⟦" not in page.text
    assert " ".join(VISIBLE.split()) in " ".join(page.text.split())
    assert re.search(r'font-weight: bold">5&lt;\|end\|&gt;</span>', page.source)
    assert "row lengths" in page.text
    assert "training    1 questions on 1 documents" in page.text


def test_a_page_replaces_an_earlier_one_and_shows_what_was_asked_for(shell: Shell) -> None:
    many(shell)
    shell.write("page.html", "an earlier page")
    assert shown(shell, "--html", "page.html", "--rows", "2") == "written: page.html\n"
    assert titles(Page(shell.folder / "page.html").text) == ["p0", "p4"]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("nowhere/page.html", "nowhere/page.html: no such folder; name a file in one that exists"),
        ("own.csv/page.html", "own.csv/page.html: no such folder; name a file in one that exists"),
        (".", ".: a folder; name a file"),
        ("", ".: a folder; name a file"),
        ("new/", "new/: a folder; name a file"),
        ("own.csv/", "own.csv/: a folder; name a file"),
        ("/dev/full", "cannot write /dev/full: No space left on device"),
    ],
)
def test_a_page_that_cannot_be_written_is_named(shell: Shell, file: str, said: str) -> None:
    assert refused(shell, "--html", file) == said


def test_a_full_disk_leaves_the_earlier_page(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.write("page.html", "an earlier page")
    write = Path.write_text

    def full(path: Path, text: str, **how: str) -> int:
        if "html" in path.name:
            write(path, text[:100], **how)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, **how)

    monkeypatch.setattr(Path, "write_text", full)
    said = "cannot write page.html: No space left on device"
    assert refused(shell, "--html", "page.html") == said
    shell("preview", "r.yaml", "--html", "new.html")
    assert not list(shell.folder.glob("new.html*"))


def test_a_link_to_a_page_stays_a_link(shell: Shell) -> None:
    (shell.folder / "link.html").symlink_to("page.html")
    shown(shell, "--html", "link.html")
    assert (shell.folder / "link.html").is_symlink()
    assert "what is learnt is bright" in Page(shell.folder / "page.html").text
    assert not list(shell.folder.glob("*.part"))


def test_no_page_is_written_where_the_data_cannot_be_used(shell: Shell) -> None:
    shell.write("own.csv", HEAD)
    assert refused(shell, "--html", "page.html") == NO_ROWS


@pytest.mark.parametrize("verb", ["preview", "stats"])
@pytest.mark.parametrize(
    ("rows", "limit", "said"),
    [
        (
            HEAD,
            "64",
            NO_ROWS,
        ),
        (
            f"{HEAD}p,{'Sales? ' * 60},Sales were 5.,5\n",
            "64",
            "no token is left to train on: of 1 questions read, 0 remain "
            f"({TOO_LONG}: 1); raise formatter.max_length",
        ),
        (
            f"{HEAD}p,What were the sales?,{'x' * 3000},5\n",
            "32",
            "no token is left to train on: of 1 questions read, 0 remain "
            f"({NO_DOCUMENT}: 1); raise formatter.max_length",
        ),
    ],
)
def test_data_of_which_nothing_is_left_is_an_error(
    shell: Shell, verb: str, rows: str, limit: str, said: str
) -> None:
    shell.write("own.csv", rows)
    shell.write("r.yaml", SMALL.replace("64", limit))
    assert shell.refused(verb, "r.yaml") == said


@pytest.mark.parametrize("verb", ["preview", "stats"])
def test_held_out_data_alone_is_not_enough(shell: Shell, verb: str) -> None:
    shell.write("dev.csv", ROWS)
    shell.write("own.csv", f"{HEAD}p,{'Sales? ' * 60},Sales were 6.,5\n")
    shell.write("r.yaml", SMALL + HELD_OUT)
    assert shell.refused(verb, "r.yaml") == (
        "no token is left to train on: of 3 questions read, 2 are held out, 0 remain "
        f"({TOO_LONG}: 1); raise formatter.max_length"
    )
    shell.write(
        "r.yaml", SMALL.replace("data:\n  sources:\n", "x:\n").partition("x:")[0] + HELD_OUT
    )
    assert "data" in shell.refused(verb, "r.yaml")


@pytest.mark.parametrize("verb", ["preview", "stats"])
def test_recipes_and_options_with_mistakes_are_answered(
    shell: Shell, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert shell.refused(verb, "nowhere.yaml").startswith("nowhere.yaml: no such file; ")
    assert "formatter.max_lenth" in shell.refused(verb, "r.yaml", "formatter.max_lenth=5")
    with pytest.raises(SystemExit, match="2"):
        shell(verb, "r.yaml", "--colour")
    assert capsys.readouterr().err.endswith("error: unrecognized arguments: --colour\n")
    with pytest.raises(SystemExit, match="2"):
        shell(verb)
