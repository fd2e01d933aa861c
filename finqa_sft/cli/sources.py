"""A file of questions on the command line: which reader it is for, and with what options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finqa_sft.errors import DataError
from finqa_sft.evaluation.gold import reader_of
from finqa_sft.plugins.manager import Component, Plugins
from finqa_sft.plugins.records import ComponentRecord, ReaderRecord
from finqa_sft.recipe.problems import Problem, faults
from finqa_sft.recipe.resolved import Chosen
from finqa_sft.wording import did_you_mean

R = TypeVar("R", bound=ComponentRecord)

_FILES = "files"


def found_reader(file: Path, *, name: str | None, plugins: Plugins) -> Component[ReaderRecord]:
    """The reader of a file.

    Args:
        file: The file.
        name: The reader's name; None for the one whose layout the file has.
        plugins: The components at hand.

    Raises:
        DataError: The file does not look like any reader's, or the reader reads no files.
        PluginError: There is no such reader.
    """
    name = name or reader_of(file)
    component = cast("Component[ReaderRecord]", plugins.find("readers", name))
    if _FILES not in component.record.config.model_fields:
        raise DataError(f"the reader {name!r} reads no files; name another one with --reader")
    return component


def reader_of_file(
    component: Component[ReaderRecord],
    file: Path,
    options: Mapping[str, Any],
    problems: list[Problem],
) -> Chosen[ReaderRecord] | None:
    """A reader with its options.

    Args:
        component: The reader.
        file: What it reads.
        options: Its options but for the files.
        problems: What is wrong with them is added here.

    Returns:
        The reader, or None where an option is wrong.
    """
    if _FILES in options:
        problems.append(Problem(_FILES, f"the file is {file} already; leave it out"))
    data = {**options, _FILES: [str(file)]}
    return with_options(component.record.name, component, data, problems)


def with_options(
    name: str,
    component: Component[R],
    data: object,
    problems: list[Problem],
    *,
    prefix: str = "",
) -> Chosen[R] | None:
    """A component with its options.

    Args:
        name: What the component is called.
        component: The component.
        data: Its options.
        problems: What is wrong with them is added here.
        prefix: What stands before the names of the options on the command line.

    Returns:
        The component, or None where an option is wrong.
    """
    model = component.record.config
    errors: list[ErrorDetails] = []
    strict_errors: list[ErrorDetails] = []
    checked = None
    try:
        checked = model.model_validate(data, context={"folder": Path()})
    except ValidationError as error:
        errors = error.errors(include_url=False)
    try:
        # As JSON, since strictness about Python's own types would refuse text for a path.
        model.model_validate_json(json.dumps(data), strict=True, context={"folder": Path()})
    except ValidationError as error:
        strict_errors = error.errors(include_url=False)
    found = faults(errors, strict_errors, data)
    known = [field for field in model.model_fields if field != _FILES]
    for fault in found:
        key = ".".join(filter(None, (prefix, *map(str, fault.key))))
        text = fault.text
        if fault.kind == "unknown":
            hint = did_you_mean(str(fault.key[-1]), known) or f"there are {', '.join(known)}"
            text = f"unknown option of {name}; {hint if known else 'it has none'}"
        problems.append(Problem(key, text))
    return None if found or checked is None else Chosen(name, component, checked)
