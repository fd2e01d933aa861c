"""How the texts that a run leaves behind are rendered: our own templates over our own values."""

from __future__ import annotations

from collections.abc import Mapping
from pprint import pformat
from typing import Any

import jinja2


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render a file of `finqa_sft/training/templates`.

    Args:
        template: The file's name.
        values: What the template names; one that is missing is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("finqa_sft.training"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.filters["python"] = _python
    return environment.get_template(template).render(values)


def _python(value: Any) -> str:
    """A value as Python source."""
    return pformat(value, width=90, sort_dicts=False)
