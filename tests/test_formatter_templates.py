"""Templates of a recipe: what they may be, and what is refused before the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finqa_sft.documents import Document, Paragraph, Question, Turn
from finqa_sft.errors import RecipeError
from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
from finqa_sft.formatters.templates import Templates
from finqa_sft.plugins.manager import Plugins
from finqa_sft.recipe import load_recipe

PAGE = Document(id="p", blocks=(Paragraph("Rail was 5."),), company="Quayside")
ASKED = Question(id="1", text="What was rail?", document=PAGE, answer="5")
BOTH = "{{ document }}{{ question }}"
POSSIBLE = (
    "it may hold {{ document }}, {{ question }}, {{ company }}, {% if company %}, {% if document "
    "%} and, for the company, the filters lower, title, trim, upper"
)


def opening(template: str, *, document: Document = PAGE, question: Question = ASKED) -> str:
    options = AnswerOptions.model_validate({"templates": {"opening": template}})
    return AnswerFormatter(options).prompt(question, document=document)[1]["content"]


def test_the_first_message_is_what_the_template_makes_of_it() -> None:
    template = """\
{% if company %}A page of {{ company | upper }}'s report:{% endif %}
{# not shown #}
{{ document }}
# no comment
Q: {{ question }}
"""
    assert opening(template) == (
        "A page of QUAYSIDE's report:\n\nRail was 5.\n# no comment\nQ: What was rail?"
    )
    nameless = replace(PAGE, company=None)
    assert opening(template, document=nameless) == "Rail was 5.\n# no comment\nQ: What was rail?"
    assert opening("[{{ company }}]" + BOTH, document=nameless).startswith("[]Rail")


def test_an_empty_page_can_go_without_its_heading() -> None:
    template = "{% if document %}Page: {{ document }}\n{% endif %}Asked: {{ question }}"
    assert opening(template) == "Page: Rail was 5.\nAsked: What was rail?"
    assert opening(template, document=replace(PAGE, blocks=())) == "Asked: What was rail?"


def test_a_later_question_has_a_template_of_its_own() -> None:
    options = AnswerOptions.model_validate({"templates": {"follow_up": "And: {{ question }}\n"}})
    asked = replace(ASKED, history=(Turn("Road?", "7"),))
    prompt = AnswerFormatter(options).prompt(asked, document=PAGE)
    assert prompt[1]["content"] == "Rail was 5.\n\nQuestion: Road?"
    assert prompt[3]["content"] == "And: What was rail?"


def test_text_of_the_data_is_never_a_template() -> None:
    braces = "{{ 7 * 7 }} {% for i in range(9) %} {# gone #} {{ question }}"
    document = Document(id="p", blocks=(Paragraph(braces),), company="{{ document }}")
    asked = replace(ASKED, text="{{ company }} <b>&amp;")
    text = opening("{{ company }}|" + BOTH, document=document, question=asked)
    assert text == "{{ document }}|" + braces + "{{ company }} <b>&amp;"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ document }}\n{{ question", "line 2: unexpected end of template, expected 'end of "
         "print statement'."),
        ("{{ document }}\n{% fi %}", "line 2: Encountered unknown tag 'fi'."),
        ("{{ documnt }}{{ question }}", "line 1: no variable 'documnt'; did you mean 'document'?"),
        ("\n{{ page }}", "line 2: no variable 'page'; there is document, question, company"),
        (BOTH + "{% if compny %}{% endif %}", "line 1: no variable 'compny'; did you mean "
         "'company'?"),
        ("Answer!", "{{ document }} is not shown; the model must see it"),
        ("{{ document }}", "{{ question }} is not shown; the model must see it"),
        ("{{ question }}", "{{ document }} is not shown; the model must see it"),
        ("{% if company %}{{ document }}{% endif %}{{ question }}", "{{ document }} is not shown "
         "on every way through the conditions; the model must see it"),
        ("{% if company == 'A' %}" + BOTH + "{% elif document %}" + BOTH + "{% endif %}",
         "{{ question }} is not shown on every way through the conditions; the model must see it"),
        ("{{ question }}\n\n{{ document }}", "line 1: {{ question }} stands before {{ document }}; "
         "write the document first, so that all its questions begin with the same tokens"),
        ("{{ question }}" + BOTH, "line 1: {{ question }} stands before {{ document }}; write the "
         "document first, so that all its questions begin with the same tokens"),
        ("{{ document | truncate(400) }}{{ question }}", "line 1: the filter 'truncate' is not "
         f"possible in a template; {POSSIBLE}"),
        ("{{ document | upper }}{{ question }}", "line 1: document may only be written as it is, "
         "{{ document }}, so that nothing of it is lost or depends on it"),
        ("{% if 'tax' in question %}Tax.{% endif %}" + BOTH, "line 1: question may only be written "
         "as it is, {{ question }}, so that nothing of it is lost or depends on it"),
        ("{{ document[:400] }}{{ question }}", f"line 1: an index is not possible in a template; "
         f"{POSSIBLE}"),
        ("{{ document.__class__ }}", f"line 1: an attribute is not possible in a template; "
         f"{POSSIBLE}"),
        ("{{ cycler() }}", f"line 1: a call is not possible in a template; {POSSIBLE}"),
        (BOTH + "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
         f"line 1: a loop is not possible in a template; {POSSIBLE}"),
        (BOTH + "{{ 'a' * 9999999999 }}", f"line 1: arithmetic is not possible in a template; "
         f"{POSSIBLE}"),
        (BOTH + "{% set a = 'a' %}", f"line 1: an assignment is not possible in a template; "
         f"{POSSIBLE}"),
        (BOTH + "{% include 'secrets' %}", f"line 1: an include is not possible in a template; "
         f"{POSSIBLE}"),
        (BOTH + "{% if company > 'A' %}{% endif %}", "line 1: a comparison by size is not possible "
         f"in a template; {POSSIBLE}"),
        (BOTH + "{{ 'a' if company }}", f"line 1: an if inside {{{{ }}}} is not possible in a "
         f"template; {POSSIBLE}"),
        (BOTH + "{{ company | trim(5) }}", "line 1: the filter 'trim' is not possible in a "
         f"template; {POSSIBLE}"),
        (BOTH + "\n{% autoescape true %}{% endautoescape %}", "line 2: autoescape is not "
         f"possible in a template; {POSSIBLE}"),
        ("{% filter upper %}" + BOTH + "{% endfilter %}", "line 1: a filter is not possible in a "
         f"template; {POSSIBLE}"),
        (BOTH + "{{ company ~ company }}", "line 1: joining with ~ is not possible in a template; "
         f"{POSSIBLE}"),
        (BOTH + "{{ 5 }}", f"line 1: a constant is not possible in a template; {POSSIBLE}"),
        (BOTH + "x" * 10_000, "10,028 characters; a template has 10,000 at most, and the text of "
         "the page comes from the data"),
        (BOTH + "{% if company %}" * 200 + "{% endif %}" * 200, "nested too deeply; write it flat"),
        ("{{" + "(" * 5000, "nested too deeply; write it flat"),
    ],
)  # fmt: skip
def test_an_opening_that_cannot_be_used_is_refused(template: str, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AnswerOptions.model_validate({"templates": {"opening": template}})
    (error,) = caught.value.errors()
    assert error["loc"] == ("templates", "opening")
    assert str(error["ctx"]["error"]) == problem


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("And?", "{{ question }} is not shown; the model must see it"),
        (BOTH, "line 1: no variable 'document'; there is question"),
        (
            "{{ question | trim }}",
            "line 1: question may only be written as it is, {{ question }}, so that nothing of it "
            "is lost or depends on it",
        ),
        ("{{ question }}{{ 1 + 1 }}", "line 1: arithmetic is not possible in a template; it may "
         "hold {{ question }}"),
    ],
)  # fmt: skip
def test_a_follow_up_that_cannot_be_used_is_refused(template: str, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Templates(follow_up=template)
    (error,) = caught.value.errors()
    assert str(error["ctx"]["error"]) == problem


RECIPE = """\
data:
  sources:
    - reader: filings
formatter:
  name: program
  table_style: mark
  templates:
    opening: |
      {{ question }}
      {{ document }}
    folow_up: "{{ question }}"
"""


def test_a_recipe_with_a_bad_template_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path), [], Plugins.load({"FINQA_SFT_PLUGINS": ""}))
    assert [line.split(maxsplit=1) for line in str(caught.value).splitlines()[1:]] == [
        ["6:16", "formatter.table_style         no 'mark'; there are markdown, pipe, tsv, json, "
         "html, sentences"],
        ["8:14", "formatter.templates.opening   line 1: {{ question }} stands before "
         "{{ document }}; write the document first, so that all its questions begin with the same "
         "tokens"],
        ["11:5", "formatter.templates.folow_up  unknown key; did you mean "
         "formatter.templates.follow_up?"],
    ]  # fmt: skip


PIECES = st.lists(
    st.sampled_from(
        ["{{ document }}", "{{ question }}", "{{ company }}", "{% if company %}", "{% else %}",
         "{% if document %}", "{% elif company == 'A' %}", "{% endif %}", "{% if not company %}",
         "{{ company | title }}", " ", "text", "\n", "{% for x in company %}", "{% endfor %}", "{{"]
    ), max_size=9,
).map("".join)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(PIECES, st.sampled_from([None, "A", "B c"]), st.booleans())
def test_every_template_that_is_taken_shows_page_and_question_in_order(
    template: str, company: str | None, empty: bool
) -> None:
    try:
        templates = Templates(opening=template)
    except ValidationError:
        return
    document = "" if empty else "<the page>"
    one, other = (
        templates.opening_text(document=document, question=question, company=company)
        for question in ("<one>", "<two>")
    )
    assert document in one
    assert "<one>" in one
    before = one.partition("<one>")[0]
    assert document in before
    assert before == other.partition("<two>")[0]
