"""What the option models of all components are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


class Options(BaseModel):
    """Base of all option models: unknown keys are errors, values are frozen and checked strictly.

    Every field has a docstring under it: the reference page and the JSON schema are made from them.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


class NoOptions(Options):
    """For components without options."""


def _relative_to_recipe(path: Path, info: ValidationInfo) -> Path:
    """Join a relative path to the folder given as `folder` in the validation context."""
    folder: Path | None = info.context.get("folder") if info.context else None
    path = path.expanduser()
    return path if folder is None or path.is_absolute() else folder / path


RecipePath = Annotated[Path, AfterValidator(_relative_to_recipe)]
"""A path that is taken relative to the recipe file; `~` is the home folder."""
