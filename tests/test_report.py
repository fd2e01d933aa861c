"""The report as text: whole, escaped, small, and the same for the same run."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import (
    HOSTILE,
    LOG,
    SEEN,
    hostile_run,
    sample_questions,
    sample_run,
)

from finqa_sft.documents import Document, Evidence, Paragraph, Question, Table
from finqa_sft.errors import OutputError
from finqa_sft.evaluation.comparison import compare
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.report import ReportedRun, report_html, write_report
from finqa_sft.evaluation.report.entries import entries
from finqa_sft.evaluation.report.pages import pages, places
from finqa_sft.evaluation.report.plots import Bar, bars, curves
from finqa_sft.evaluation.report.texts import clipped, visible
from finqa_sft.evaluation.scoring import Evaluation, score_predictions
from finqa_sft.formatters.base import Prediction

VOID = {"meta", "input", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def text(self) -> str:
        return "".join(text for tag, text in self.texts if tag not in ("script", "style"))


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return sample_questions(24, pages=8)


@pytest.fixture(scope="module")
def run(questions: list[Question]) -> ReportedRun:
    return sample_run(questions)


@pytest.fixture(scope="module")
def other(questions: list[Question]) -> ReportedRun:
    return sample_run(questions, title="Base, no training", seed=2)


@pytest.fixture(scope="module")
def compared(run: ReportedRun, other: ReportedRun) -> str:
    return report_html(run, against=other)


def test_the_page_is_whole_and_every_id_stands_once(compared: str) -> None:
    page = Page(compared)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "Quarterly reports, QLoRA 7B" in page.text()
    assert sum(tag == "template" for tag, _ in page.tags) == 8 + 1


def test_a_page_without_questions_is_whole() -> None:
    page = Page(report_html(ReportedRun(title="", evaluation=Evaluation(scored=(), figures={}))))
    assert "No metric applies to any question." in page.text()
    assert "0 questions about 0 documents" in page.text()


def test_the_same_runs_give_the_same_page(
    run: ReportedRun, other: ReportedRun, compared: str
) -> None:
    assert report_html(run, against=other) == compared


def test_nothing_is_fetched_and_only_our_script_may_run(run: ReportedRun) -> None:
    html = report_html(run)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' <]*", html)) <= namespaces
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img"), tag
        assert not attributes.keys() & {"src", "srcset", "action", "data", "poster", "style.src"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", html)
    policy = next(a for t, a in page.tags if t == "meta" and "http-equiv" in a)["content"]
    (script,) = (text for tag, text in page.texts if tag == "script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_what_others_wrote_is_shown_and_opens_no_element() -> None:
    plain, hostile = hostile_run(), hostile_run(title="Another")
    html = report_html(plain, against=hostile)
    page = Page(html)
    assert html.count("<script") == html.count("</script") == 1
    assert "<img" not in html
    assert SEEN in page.text()
    assert HOSTILE not in page.text()
    texts = page.text().count(SEEN)
    assert texts > 25
    html.encode("utf-8")
    for character in "\0\u202e\u202c\x1b\u200b":
        assert character not in html
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)


def test_a_thousand_questions_about_350_documents_stay_under_5_mb() -> None:
    questions = sample_questions(1_000, pages=350)
    assert len(questions) == 1_000
    run = sample_run(questions)
    other = sample_run(questions, title="Base, no training", seed=2)
    html = report_html(run, against=other)
    assert 3_000_000 < len(html.encode()) < 5_000_000
    assert "are not shown, to keep this file small" not in html


def test_documents_that_are_too_large_are_shortened_around_what_matters() -> None:
    filler = "Nothing of note happened in this part of the year. " * 400
    blocks = [Paragraph(f"{number}: {filler}") for number in range(60)]
    blocks[40] = Paragraph("Net revenue was $ 1,234 million.")
    documents = [Document(f"d{number}", (*blocks, Paragraph(str(number)))) for number in range(9)]
    questions = [
        Question(f"q{number}", "How much?", document, "1", evidence=(Evidence(40),))
        for number, document in enumerate(documents)
    ]
    run = ReportedRun(title="Long pages", evaluation=score_predictions(questions, {}, {}))
    html = report_html(run)
    assert 3_000_000 < len(html.encode()) < 5_000_000
    assert html.count("paragraphs and table rows are not shown, to keep this file small") == 9
    assert html.count('<p data-b="40">Net revenue was $ 1,234 million.</p>') == 9
    assert html.count('<p data-b="0">') < 9


def test_completions_that_are_too_long_are_cut_in_the_middle(run: ReportedRun) -> None:
    long = "begin " + "wandering " * 3_000 + "end"
    scored = []
    for one in run.evaluation.scored:
        if one.predicted:
            prediction = replace(one.predicted.prediction, text=long)
            one = replace(one, predicted=replace(one.predicted, prediction=prediction))
        scored.append(one)
    html = report_html(replace(run, evaluation=replace(run.evaluation, scored=scored * 45)))
    assert "characters not shown here …]" in html
    assert len(html.encode()) < 4_950 * len(scored * 45)


def test_scores_counts_and_facts_are_shown(run: ReportedRun) -> None:
    text = Page(report_html(run)).text()
    assert "the program's result is the gold answer" in text
    assert re.search(r"execution\s*\d+\.\d\d%\s*\d+\.\d\d% to \d+\.\d\d%", text)
    assert "redictions of other questions: 1 · predictions that stand twice: 1" in text
    assert "AB/2009/page_7.pdf-1" in text
    assert "Qwen/Qwen2.5-7B-Instruct" in text
    assert "Compared with" not in text


def test_a_comparison_shows_both_and_what_changed(compared: str) -> None:
    page = Page(compared)
    text = page.text()
    assert "Compared with Base, no training" in text
    changes = [a["data-change"] for t, a in page.tags if t == "details" and "data-change" in a]
    assert len(changes) == 24
    for change in ("better", "worse"):
        assert f"Got {change}: {changes.count(change)}" in text
    assert "Base, no training, as written" in text


def test_a_run_of_which_no_facts_are_known_has_no_column_of_them(
    run: ReportedRun, other: ReportedRun, compared: str
) -> None:
    head = '<th scope="col">Quarterly reports, QLoRA 7B</th><th scope="col">Base, no training</th>'
    assert head in compared
    assert head not in report_html(run, against=replace(other, facts={}))


@pytest.mark.parametrize(
    ("id", "source", "label"),
    [
        ("AAL/2018/page_13.pdf-2", "dev.json row 7", "AAL/2018/page_13.pdf-2"),
        ("context-b8919b572bc2cf44-1", "questions.csv row 1", "questions.csv row 1"),
        ("7c8ff8a7-51a4-4a4b-9f2d-6d1e2f3a4b5c", "tatqa.json row 3", "tatqa.json row 3"),
        ("context-b8919b572bc2cf44-1", "", "context-b8919b572bc2cf44-1"),
    ],
)
def test_a_question_is_called_by_its_row_where_its_id_is_a_hash(
    questions: list[Question], id: str, source: str, label: str
) -> None:
    one = sample_run([replace(questions[0], id=id, source=source)])
    (entry,) = entries(one.evaluation)[0]
    assert entry.label == label
    text = Page(report_html(one)).text()
    assert id in text
    assert label in text


def test_an_answer_is_not_shown_a_second_time_as_what_it_comes_to() -> None:
    question = Question("q", "How much?", Document("d", (Paragraph("It was 5."),)), "5")

    def rows(*said: Prediction) -> dict[str, list[str]]:
        now, *before = [
            score_predictions([question], {"q": Predicted(id="q", prediction=one)}, {})
            for one in said
        ]
        against = before[0] if before else None
        comparison = compare(now, against) if against else None
        (entry,) = entries(now, against=against, comparison=comparison)[0]
        return dict(entry.rows)

    plain, computed = Prediction("5", answer="5"), Prediction("", program="add(2, 3)")
    assert rows(plain) == {"Answer": ["5", "5"]}
    assert rows(plain, plain) == {"Answer": ["5", "5", "5"]}
    assert rows(computed)["Comes to"] == ["5", "5"]
    assert rows(plain, computed)["Comes to"] == ["5", "5", "5"]


def test_a_comparison_of_other_questions_says_so(questions: list[Question]) -> None:
    html = report_html(sample_run(questions[:5]), against=sample_run(questions[3:12]))
    text = Page(html).text()
    assert (
        "All figures here are of the 2 questions that both have; 3 are only here, 7 only there."
        in text
    )
    assert "with 9 questions." in text
    assert "has no such question" in text


def test_the_curves_take_finite_numbers_only() -> None:
    log = [{"loss": float("nan"), "step": 1}, {"loss": 2.0, "step": 2}, {"loss": 1.0}, *LOG]
    loss, finqa = curves(log)
    assert loss.title == "Loss"
    assert loss.words.startswith("Loss: loss from 2 at step 2 to ")
    assert finqa.words == (
        "finqa: execution from 0.3 at step 60 to 0.5611 at step 300; "
        "program from 0.25 at step 60 to 0.5111 at step 300"
    )
    assert curves([]) == []


def test_a_plot_keeps_text_as_text_and_takes_the_colours_of_the_page() -> None:
    plot = bars("By $x$", [Bar("costs $5$ & <b>", 0.5, 0.4, 0.6, 20), Bar("日本", 1, 1, 1, 3)])
    assert "costs $5$ &amp; &lt;b&gt; (20)</text>" in plot.svg
    assert "日本 (3)</text>" in plot.svg
    assert plot.words == "By $x$: costs $5$ & <b>: 50.0% of 20; 日本: 100.0% of 3"
    assert not re.search(r": #[0-9a-f]{6}|<\?xml|<!DOCTYPE|<metadata|<style", plot.svg)
    assert "var(--plot-1)" in plot.svg


def test_a_report_replaces_one_of_its_name_and_leaves_nothing_else(
    run: ReportedRun, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "report.html"
    for title in ("First", "Second"):
        write_report(path, replace(run, title=title))
    assert "<title>Second</title>" in path.read_text(encoding="utf-8")
    assert os.listdir(path.parent) == ["report.html"]
    assert path.stat().st_mode & 0o444 == 0o444


def test_a_report_that_cannot_be_written_is_an_error(run: ReportedRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "report.html"
    with pytest.raises(OutputError) as caught:
        write_report(path, run)
    assert str(caught.value).startswith(f"the report {path} cannot be written: [Errno ")
    assert str(caught.value).endswith("; name another file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="would replace a pipe or device; name another file"):
        write_report(Path(os.devnull), run)
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "folder", run)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@given(st.text())
def test_every_visible_text_can_be_encoded_and_printable_ones_stay(text: str) -> None:
    shown = visible(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert visible(shown) == shown
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\r\nc\u00a0d", "a\tb\nc\u00a0d"),
        ("\u202e1\u2066\ud800\0\x7f", r"\u202e1\u2066\ud800\x00\x7f"),
        ("日本 – 5 %", "日本 – 5 %"),
    ],
)
def test_what_cannot_be_seen_becomes_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_text_that_is_too_long_keeps_its_beginning_and_end() -> None:
    assert clipped("a" * 10, 10) == "a" * 10
    text = "a" * 75 + "b" * 1_000 + "c" * 25
    note = "\n[… 1,000 characters not shown here …]\n"
    assert clipped(text, 100) == "a" * 75 + note + "c" * 25


@given(
    st.lists(st.lists(st.text(max_size=60), min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(0, 3_000),
    st.data(),
)
def test_pages_keep_to_their_bytes_and_to_the_order_of_reading(
    texts: list[list[str]], room: int, data: st.DataObject
) -> None:
    documents = []
    for number, paragraphs in enumerate(texts):
        table = Table.from_cells([["", "2019"], *([text, "5"] for text in paragraphs)])
        document = Document(str(number), (*map(Paragraph, paragraphs), table))
        place = data.draw(st.integers(0, len(paragraphs)))
        documents.append((document, {Evidence(place)}))
    fixed = 680 * len(documents)
    shown = pages(documents, most_bytes=room + fixed)
    sizes = [sum(unit.size for block in page.blocks for unit in block.units) for page in shown]
    whole = pages(documents, most_bytes=10**9)
    assert all(page.left_out == 0 for page in whole)
    assert sum(sizes) <= room or all(page.left_out == 0 for page in shown)
    for page, full in zip(shown, whole, strict=True):
        units = [unit for block in page.blocks for unit in block.units]
        everything = [unit for block in full.blocks for unit in block.units]
        kept = [(unit.block, unit.row) for unit in units]
        assert [at for unit in everything if (at := (unit.block, unit.row)) in kept] == kept
        assert len(units) + page.left_out == len(everything)


def test_a_paragraph_that_matters_is_cut_where_it_is_too_long_itself() -> None:
    document = Document("d", (Paragraph("a" * 900), Paragraph("b" * 90_000)))
    (page,) = pages([(document, {Evidence(1)})], most_bytes=2_000)
    (block,) = page.blocks
    assert block.index == 1
    (text,) = block.units[0].cells
    assert "characters not shown here …]" in text
    assert 300 < text.count("b") < 1_400
    assert page.left_out == 1


def test_places_are_written_for_the_script() -> None:
    assert places([Evidence(4, 2), Evidence(1), Evidence(4, 2)]) == "1 4.2"
