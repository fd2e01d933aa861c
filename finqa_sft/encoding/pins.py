"""What is written into a chat template so that training and every later generation agree.

A template is saved with the adapter. What a program would have to know and pass by itself (that
thinking is off, what day it was) is therefore written into the template.
"""

from __future__ import annotations

import re

THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates ask for thinking (Qwen3, SmolLM3, GLM; Granite, DeepSeek)."""

PINNED_DATE = "26 Jul 2024"
"""The day that Llama 3's templates write where they are told none."""

_DIRECTIVES = {
    "%-d": "26",
    "%d": "26",
    "%b": "Jul",
    "%B": "July",
    "%m": "07",
    "%Y": "2024",
    "%y": "24",
    "%a": "Fri",
    "%A": "Friday",
    "%H": "00",
    "%M": "00",
    "%S": "00",
}
"""What `strftime_now` is asked for, on that day."""


def pinned_thinking(template: str) -> str | None:
    """The template with thinking switched off, or None where it has no such switch."""
    switches = [
        name
        for name in THINKING_SWITCHES
        if re.search(rf"\b{name}\b", template) and _thinking_off(name) not in template
    ]
    if not switches:
        return None
    return "".join(map(_thinking_off, switches)) + template


def pinned_date(template: str) -> str | None:
    """The template with the day held fast, or None where it does not ask for it."""
    if not re.search(r"\bstrftime_now\b", template) or _MACRO in template:
        return None
    return _MACRO + template


def completed_prompt(template: str, *, missing: str) -> str:
    """The template, its generation prompt followed by what is missing from it."""
    # Jinja drops one line break at the end of a template, which would be in its middle now.
    return template.removesuffix("\n") + f"{{{{ {missing!r} if add_generation_prompt else '' }}}}"


def _thinking_off(name: str) -> str:
    return f"{{%- set {name} = false -%}}\n"


def _date_macro() -> str:
    """A macro in place of the function that gives the day."""
    filters = "".join(f" | replace({key!r}, {value!r})" for key, value in _DIRECTIVES.items())
    return f"{{%- macro strftime_now(pattern) -%}}{{{{- pattern{filters} -}}}}{{%- endmacro -%}}\n"


_MACRO = _date_macro()
