"""The report in a browser: from disk, without a network, with nothing wrong in its console."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from report_samples import SEEN, hostile_run, sample_questions, sample_run

from finqa_sft.evaluation.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
Browser: TypeAlias = sync_api.Browser
Page: TypeAlias = sync_api.Page
Open: TypeAlias = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"needs one of {', '.join(names)}")
    try:
        driver = sync_api.sync_playwright().start()
    # Whatever keeps the package's driver from starting: an unfit platform, a missing file.
    except Exception as error:
        pytest.skip(f"needs playwright's driver, which does not start: {error}")
    try:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
    finally:
        driver.stop()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    questions = sample_questions(60, pages=20)
    run = sample_run(questions)
    other = sample_run(questions, title="Base, no training", seed=2)
    write_report(folder / "one.html", run)
    write_report(folder / "two.html", run, against=other)
    write_report(folder / "hostile.html", hostile_run(), against=hostile_run(title="Another"))
    return folder


@pytest.fixture
def opened(browser: Browser, reports: Path) -> Iterator[Open]:
    """Opens a report; afterwards, nothing may stand in the console or have been asked for."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_report(name: str, *, width: int = 1280, scheme: str = "light", hash: str = "") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((reports / name).as_uri() + hash)
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert said == []
    assert all(url.startswith(reports.as_uri()) for url in asked)
    assert len(asked) == len(contexts)


def shown(page: Page) -> int:
    return page.locator("details.question:visible").count()


def choose(page: Page, label: str) -> int:
    """Choose a filter by its label, and tell the number that stands on it."""
    chip = page.locator(".chip", has_text=re.compile(rf"^{label} \d+$"))
    chip.click()
    return int(chip.inner_text().split()[-1])


def test_all_questions_are_shown_first(opened: Open) -> None:
    page = opened("one.html")
    assert shown(page) == 60
    assert page.locator("#count").inner_text() == "60 of 60 questions"
    assert page.locator("#nothing").is_hidden()


def test_a_filter_shows_as_many_questions_as_it_says(opened: Open) -> None:
    page = opened("two.html")
    for label in ("right", "wrong", "wrong operator", "better", "worse"):
        number = choose(page, label)
        assert 0 < number < 60
        assert shown(page) == number
        assert page.locator("#count").inner_text() == f"{number} of 60 questions"
    assert choose(page, "all") == shown(page) == 60


def test_a_kind_of_error_leads_to_its_questions(opened: Open) -> None:
    page = opened("two.html")
    for button in page.locator(".kinds button").all():
        name, number = (button.locator(f".{part}").inner_text() for part in ("name", "count"))
        if number == "0":
            assert button.is_disabled()
            continue
        button.click()
        assert shown(page) == int(number)
        badges = page.locator("details.question:visible .badge").all_inner_texts()
        assert set(badges) == {f"✗ {name}"}
        assert page.locator("input:focus").get_attribute("value") == f"kind={name}"


def test_what_changed_can_be_shown_as_a_whole(opened: Open) -> None:
    page = opened("two.html")
    button = page.locator("button.more").first
    button.click()
    assert shown(page) == int(button.inner_text().split()[-1])
    marks = page.locator("details.question:visible .change").all_inner_texts()
    assert set(marks) == {"▲ better"}


def test_the_search_finds_words_of_questions_predictions_and_documents(opened: Open) -> None:
    page = opened("one.html")
    question = page.locator("details.question").nth(7)
    search = page.locator("#search")

    def found(words: str) -> int:
        search.fill(words)
        page.wait_for_timeout(200)
        return shown(page)

    text = question.locator(".summary-text span").inner_text()
    assert 1 <= found(text.upper()) < 10
    assert question.is_visible()
    program = question.locator("pre").first.text_content()
    assert 1 <= found(program.splitlines()[1]) < 10
    assert found("note n1/3:") == page.locator("details.question:visible").count() == 3
    assert (
        len(
            set(
                page.locator("details.question:visible").evaluate_all(
                    "all => all.map((question) => question.dataset.document)"
                )
            )
        )
        == 1
    )
    assert found("zebra crossing") == 0
    assert page.locator("#nothing").is_visible()
    assert found("") == 60


def test_a_question_that_is_opened_shows_its_document_with_marked_rows(opened: Open) -> None:
    page = opened("one.html")
    question = page.locator("details.question[data-gold='7.3'], details.question[data-gold*='.']")
    question = question.first
    assert question.locator(".page").count() == 0
    question.locator("> summary").click()
    box = question.locator(".page")
    box.locator(".gold").first.wait_for()
    marks = question.get_attribute("data-gold").split()
    assert box.locator(":is(tr, p, table).gold").count() == len(marks)
    row = next(mark.split(".") for mark in marks if "." in mark)
    marked = box.locator(f"[data-b='{row[0]}'] [data-r='{row[1]}']")
    assert marked.locator(".tag").first.inner_text() == "gold"
    assert marked.is_visible()
    used = question.get_attribute("data-used").split()
    assert box.locator(":is(tr, p, table).used").count() == len(used)
    # Closing and opening again adds nothing.
    for _ in range(2):
        question.locator("> summary").click()
    assert question.locator(".page").count() == 1
    assert question.locator(".legend").is_visible()


def test_each_question_can_be_reached_and_opened_by_keyboard(opened: Open) -> None:
    page = opened("one.html")
    page.locator("details.question > summary").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    second = page.locator("details.question").nth(1)
    second.locator(".page").wait_for()
    assert page.locator("details.question[open]").count() == 1
    page.locator("#search").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("input[name=filter]:checked").get_attribute("value") == "right=yes"
    assert 0 < shown(page) < 60


def test_a_link_opens_its_question_even_if_it_is_filtered_out(opened: Open) -> None:
    page = opened("two.html")
    link = page.locator("a[href^='#q']").first
    choose(page, "worse")
    link.click()
    question = page.locator(link.get_attribute("href"))
    question.locator(".page").wait_for()
    assert shown(page) == 60
    assert "No metric" not in question.inner_text()
    page = opened("two.html", hash="#q5")
    page.locator("#q5 .page").wait_for()
    opened("two.html", hash="#nowhere")


def test_hostile_markup_is_text_and_nothing_runs(opened: Open) -> None:
    page = opened("hostile.html")
    for summary in page.locator("details.question > summary").all():
        summary.click()
    page.locator(".page").nth(1).wait_for()
    for summary in page.locator("details:not(.question) > summary:visible").all():
        summary.click()
    page.mouse.move(300, 400)
    page.wait_for_timeout(200)
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    for place in ("h1", ".facts", "details.question .summary-text", ".answers", "pre", ".page"):
        assert SEEN in page.locator(place).first.inner_text(), place
    page.locator("#search").fill("<script>window.hacked")
    page.wait_for_timeout(200)
    assert shown(page) == 1


def test_the_policy_stops_what_would_get_through(opened: Open, browser: Browser) -> None:
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(opened("one.html").url)
    page.evaluate(
        "() => { const script = document.createElement('script');"
        " script.textContent = 'window.hacked = 1'; document.body.append(script);"
        " document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"hacked = 2\">') }"
    )
    page.wait_for_timeout(200)
    assert page.evaluate("typeof window.hacked") == "undefined"
    context.close()


@pytest.mark.parametrize("name", ["two.html", "hostile.html"])
def test_a_page_400_pixels_wide_does_not_scroll_sideways(opened: Open, name: str) -> None:
    page = opened(name, width=400)
    for number in (0, 1):
        page.locator("details.question > summary").nth(number).click()
        page.locator("details.question").nth(number).locator(".page").wait_for()
    for summary in page.locator("details:not(.question) > summary:visible").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(opened: Open, scheme: str) -> None:
    """A contrast of 4.5 and more, as WCAG 2.2, 1.4.3, asks for."""
    page = opened("two.html", scheme=scheme)
    pairs = (
        *(("ink", "paper"), ("quiet", "paper"), ("ink", "panel"), ("quiet", "panel")),
        *(("accent", "paper"), ("paper", "accent"), ("right", "right-tint")),
        *(("wrong", "wrong-tint"), ("gold", "gold-tint"), ("used", "used-tint")),
        *(("ink", "gold-tint"), ("ink", "used-tint"), ("right", "paper"), ("wrong", "paper")),
    )
    for ink, paper in pairs:
        bright, dark = sorted((luminance(page, ink), luminance(page, paper)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def luminance(page: Page, name: str) -> float:
    value = page.evaluate(
        "name => getComputedStyle(document.documentElement).getPropertyValue('--' + name)", name
    ).strip()
    parts = [int(value[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_without_scripts_questions_still_open(browser: Browser, reports: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((reports / "one.html").as_uri())
    assert page.locator(".tools").is_hidden()
    question = page.locator("details.question").first
    question.locator("> summary").click()
    assert question.locator(".answers").is_visible()
    assert page.locator("noscript").inner_text().startswith("Without scripts, questions open")
    context.close()
