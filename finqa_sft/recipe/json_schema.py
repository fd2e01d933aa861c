"""The JSON schema of a recipe, with the options of every component at hand, for editors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from finqa_sft.recipe.schema import SLOTS, ComponentSection, Registry, Sections
from finqa_sft.recipe.trainer_fields import trainer_schema

if TYPE_CHECKING:
    from finqa_sft.plugins.manager import Component
    from finqa_sft.plugins.records import ComponentRecord


def json_schema(registry: Registry) -> dict[str, Any]:
    """The JSON schema of a recipe, with the options of every component at hand.

    Args:
        registry: Whose components a recipe may name.
    """
    kinds = {section.kind for section in SLOTS.values()}
    components = {kind: registry.components(kind) for kind in sorted(kinds)}
    models = [component.record.config for every in components.values() for component in every]
    unique: dict[type[BaseModel], None] = dict.fromkeys([Sections, *SLOTS.values(), *models])
    references, definitions = models_json_schema([(model, "validation") for model in unique])
    named = {
        model: reference["$ref"].removeprefix("#/$defs/")
        for (model, _), reference in references.items()
    }
    bodies = definitions["$defs"]
    for section in dict.fromkeys(SLOTS.values()):
        own = bodies[named[section]]
        variants = [
            _merged(section, own, name, component, bodies[named[component.record.config]])
            for name, component in _by_name(components[section.kind])
        ]
        choice: dict[str, Any] = {"oneOf": variants} if variants else {"not": {}}
        bodies[named[section]] = {"description": own["description"], **choice}
    recipe = bodies.pop(named[Sections])
    recipe["properties"]["trainer"] = trainer_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "finqa_sft recipe",
        **{key: value for key, value in recipe.items() if key != "title"},
        "$defs": bodies,
    }


def _by_name(
    components: tuple[Component[ComponentRecord], ...],
) -> Iterator[tuple[str, Component[ComponentRecord]]]:
    """The components with the names that a recipe can use: bare where one component has it."""
    names = [component.record.name for component in components]
    for component in components:
        name = component.record.name
        yield (name if names.count(name) == 1 else component.full_name), component


def _merged(
    section: type[ComponentSection],
    own: dict[str, Any],
    name: str,
    component: Component[ComponentRecord],
    options: dict[str, Any],
) -> dict[str, Any]:
    """The schema of a section that names one component: the section's keys and the options."""
    key = section.name_key
    required = {*own.get("required", ()), *options.get("required", ())}
    if section.model_fields[key].default != name:
        required.add(key)
    return {
        "type": "object",
        "description": component.record.summary,
        "additionalProperties": False,
        "required": sorted(required),
        "properties": {
            **options.get("properties", {}),
            **own["properties"],
            key: {"const": name, "description": own["properties"][key]["description"]},
        },
    }
