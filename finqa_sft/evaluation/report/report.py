"""An evaluation as one HTML file: no network, no server, nothing beside it.

Everything that data or a model wrote goes through `visible` and Jinja's escaping, and the page's
Content-Security-Policy admits no script but its own.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from finqa_sft.errors import OutputError
from finqa_sft.evaluation.comparison import compare
from finqa_sft.evaluation.report.contents import (
    breakdowns,
    counted,
    filters,
    headline,
    kinds,
    shown_figures,
)
from finqa_sft.evaluation.report.entries import entries, phrase
from finqa_sft.evaluation.report.pages import pages
from finqa_sft.evaluation.report.plots import curves
from finqa_sft.evaluation.report.texts import clipped, visible
from finqa_sft.evaluation.scoring import Evaluation
from finqa_sft.evaluation.summary import summary
from finqa_sft.wording import one_line
from finqa_sft.writing import replace_text

# A report of up to 1,000 questions stays under 5 MB; a larger one grows with its questions.
_QUESTIONS = 1_000
_BYTES_A_QUESTION = 4_950

_LONGEST_TEXTS = (4_000, 1_000, 300)
"""Most characters of a text, tried one after the other until room is left for the documents."""

_LONGEST_TITLE = 100
"""Most characters of the other run's title, which stands at every question."""

_ROOM_FOR_DOCUMENTS = 0.4
"""Share of the report that the documents may take, unless all other texts are as short as can be;
then they have half of it in any case."""


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """What a report is about.

    Attributes:
        title: How the run is called.
        evaluation: Its questions, scored.
        log: The lines of its `metrics.jsonl`: `{"loss": 1.2, "step": 10}`,
            `{"eval_finqa/execution": 0.4, "step": 100}`.
        facts: What else is to be known of it, by name: base, adapter, decoding.
    """

    title: str
    evaluation: Evaluation
    log: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def write_report(path: Path, run: ReportedRun, *, against: ReportedRun | None = None) -> None:
    """Write a report; a file of that name is replaced, at once and as a whole.

    Args:
        path: The HTML file; its folder is made where it is missing.
        run: What is reported.
        against: Another run over the same questions, to compare with.

    Raises:
        OutputError: The file cannot be written.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OutputError(f"the report {path} would replace a pipe or device; name another file")
    html = report_html(run, against=against)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, html)
    except OSError as error:
        raise OutputError(
            f"the report {path} cannot be written: {one_line(error)}; name another file"
        ) from error


def report_html(run: ReportedRun, *, against: ReportedRun | None = None) -> str:
    """The report as one page; the same run gives the same text.

    Args:
        run: What is reported.
        against: Another run over the same questions, to compare with.
    """
    environment = _environment()
    here = summary(run.evaluation)
    there = comparison = None
    if against is not None:
        there = summary(against.evaluation)
        comparison = compare(run.evaluation, against.evaluation)
    listed, documents = entries(
        run.evaluation, against=against.evaluation if against else None, comparison=comparison
    )
    figures = shown_figures(here)
    found_kinds = kinds(here, there)
    script = _source(environment, "report.js")
    values = {
        "style": _source(environment, "report.css"),
        "script": script,
        "script_hash": _hash(script),
        "title": run.title,
        "other_title": clipped(against.title, _LONGEST_TITLE) if against else "",
        "facts": _facts(run, against),
        "n_there": len(against.evaluation.scored) if against else 0,
        "numbers": here,
        "headline": headline(figures),
        "figures": figures,
        "counted": counted(here),
        "odd_ids": _odd_ids(run.evaluation),
        "comparison": comparison,
        "kinds": found_kinds,
        "filters": filters(listed, found_kinds, compared=against is not None),
        "breakdowns": list(breakdowns(here)),
        "curves": curves(run.log),
        "entries": listed,
        "n_documents": len(documents),
    }
    limit = _BYTES_A_QUESTION * max(len(listed), _QUESTIONS)
    for longest in _LONGEST_TEXTS:
        page = environment.get_template("report.html.jinja").render(values, longest=longest)
        room = limit - len(page.encode())
        if room >= _ROOM_FOR_DOCUMENTS * limit:
            break
    template = environment.get_template("document.html.jinja")
    shown = pages(documents, most_bytes=max(room, round(limit * _ROOM_FOR_DOCUMENTS / 2)))
    written = [template.render(number=number, page=page) for number, page in enumerate(shown)]
    return page + "".join(written) + environment.get_template("end.html.jinja").render(values)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("finqa_sft.evaluation.report"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=_finalized,
    )
    environment.filters.update(
        clipped=clipped, percent=_percent, points=_points, phrase=phrase, number=_number
    )
    return environment


def _finalized(value: Any) -> Any:
    """A value as it goes into the page, before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(environment: jinja2.Environment, name: str) -> Markup:
    """A file of our own that goes into the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _hash(script: str) -> str:
    """The source of a script in the words of Content-Security-Policy, level 2, section 4.2.5."""
    digest = hashlib.sha256(f"\n{script}".encode()).digest()
    return f"sha256-{b64encode(digest).decode()}"


def _facts(run: ReportedRun, against: ReportedRun | None) -> list[tuple[str, list[str]]]:
    """Each fact of a run, beside the same one of the other, where anything is known of that."""
    runs = [run, against] if against and against.facts else [run]
    names = dict.fromkeys(name for each in runs for name in each.facts)
    return [(name, [each.facts.get(name, "") for each in runs]) for name in names]


def _odd_ids(evaluation: Evaluation) -> list[tuple[str, Sequence[str]]]:
    """Ids that ought not to be in the predictions."""
    found = (
        ("Predictions of other questions", evaluation.extra),
        ("Predictions that stand twice", evaluation.duplicates),
    )
    return [(name, ids) for name, ids in found if ids]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}%"


def _points(value: float) -> str:
    """A difference in percentage points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def _number(number: int) -> str:
    return f"{number:,}"
