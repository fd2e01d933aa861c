"""From a recipe file and overrides to checked values, or to a list of everything that is wrong.

Two steps, because a recipe can name plugin files whose components it uses: `read_recipe` finds
these files, `resolve_recipe` looks the components up. `load_recipe` does both.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finqa_sft.errors import PluginError
from finqa_sft.plugins.records import CollatorRecord, ReaderRecord
from finqa_sft.recipe.deepspeed import trainer_file
from finqa_sft.recipe.problems import Key, Problem, dotted, faults, recipe_error, spelled
from finqa_sft.recipe.raw import RawRecipe, read_recipe
from finqa_sft.recipe.resolved import Chosen, Output, Recipe, Source, Value
from finqa_sft.recipe.schema import (
    SLOTS,
    ComponentSection,
    Registry,
    Sections,
    SourceSection,
    option_keys,
    unknown_key,
)
from finqa_sft.recipe.scored import best_problem, metric_names
from finqa_sft.recipe.sharing import sharing_problems
from finqa_sft.recipe.trainer_fields import REFUSED, check_trainer_field, trainer_fields
from finqa_sft.recipe.trainer_values import check_trainer_value
from finqa_sft.recipe.tree import at, leaves, matching

if TYPE_CHECKING:
    from finqa_sft.plugins.manager import Component
    from finqa_sft.plugins.records import (
        CallbackRecord,
        ComponentRecord,
        FormatterRecord,
        MetricRecord,
        ModelFactoryRecord,
    )

M = TypeVar("M", bound=BaseModel)

_TRAINER_FILES = ("accelerator_config", "deepspeed", "fsdp_config", "resume_from_checkpoint")
"""Fields of `SFTConfig` that can name a file."""


def load_recipe(
    path_or_name: str | os.PathLike[str], overrides: Sequence[str], registry: Registry
) -> Recipe:
    """Read a recipe, load the plugin files that it names, and check everything.

    Args:
        path_or_name: A file, or the name of a shipped recipe.
        overrides: Each `key.path=value`. Paths in them are relative to the current folder; paths
            in the recipe are relative to the recipe.
        registry: The plugin manager.

    Raises:
        RecipeError: Anything is wrong with the recipe; the text lists all of it.
        PluginError: A plugin file is broken.
    """
    raw = read_recipe(path_or_name, overrides)
    for path in raw.plugin_files:
        registry.add_file(path)
    return resolve_recipe(raw, registry)


def resolve_recipe(raw: RawRecipe, registry: Registry) -> Recipe:
    """Check a recipe against the components at hand and the installed trainer.

    Args:
        raw: What `read_recipe` gave; its plugin files have been loaded.
        registry: The plugin manager.

    Raises:
        RecipeError: Anything is wrong; the text lists all of it.
    """
    resolver = _Resolver(raw, registry)
    sections = resolver.check()
    if resolver.problems or sections is None:
        raise recipe_error(str(raw.path), resolver.problems)
    name = raw.path.stem
    section = sections.output
    output = Output(section.dir or Path("runs", name), section.overwrite, section.grace_period)
    return Recipe(
        path=raw.path,
        name=name,
        model=cast("Chosen[ModelFactoryRecord]", resolver.chosen["model",]),
        sources=resolver.sources("data", sections.data.sources),
        evaluation_sources=resolver.sources("evaluation", sections.evaluation.sources),
        formatter=cast("Chosen[FormatterRecord]", resolver.chosen["formatter",]),
        max_length=sections.formatter.max_length,
        collator=cast("Chosen[CollatorRecord]", resolver.chosen["collator",]),
        callbacks=tuple(
            cast("Chosen[CallbackRecord]", resolver.chosen["callbacks", index])
            for index in range(len(sections.callbacks))
        ),
        metrics=tuple(resolver.metrics),
        evaluation=sections.evaluation,
        data=sections.data,
        trainer=MappingProxyType(resolver.trainer),
        output=output,
        plugins=sections.plugins,
        notes=sections.notes,
        _values=tuple(resolver.values(sections, output)),
    )


class _Resolver:
    """Checks one recipe, section by section, and collects what is wrong.

    Attributes:
        problems: What is wrong so far.
        chosen: The components, by the key of their section.
        trainer: The `trainer` section, its paths settled.
        metrics: What answers are scored by.
    """

    def __init__(self, raw: RawRecipe, registry: Registry) -> None:
        self.problems = list(raw.problems)
        self.chosen: dict[Key, Chosen[ComponentRecord]] = {}
        self.trainer: dict[str, Any] = {}
        self.metrics: list[Chosen[MetricRecord]] = []
        self._raw = raw
        self._registry = registry
        self._unknown: list[Key] = []
        self._known = list(option_keys(Sections))

    def check(self) -> Sections | None:
        """Check everything; None where the sections are not as they must be."""
        data = copy.deepcopy(self._raw.data)
        for name in Sections.model_fields.keys() - {"notes"}:
            # A section without content, `collator:`, is a section that is left out.
            if data.get(name, ()) is None:
                del data[name]
        for name in ("model", "data", "formatter", "collator"):
            data.setdefault(name, {})
        self._check_finite({key: value for key, value in data.items() if key != "notes"})
        components = list(_take_options(data))
        sections = self._validated(Sections, data, ())
        for key, section, own, options in components:
            name = own.get(section.name_key, section.model_fields[section.name_key].default)
            self._known += [(*key, inner) for inner in section.model_fields]
            if isinstance(name, str):
                self._choose(key, section, name, options)
            elif section.name_key not in own:
                # Without a component no option is known; one of them may be its misspelt name.
                near = difflib.get_close_matches(section.name_key, options)
                self._unknown += [(*key, option) for option in near]
        trainer = data.get("trainer", {})
        self._check_trainer(trainer if isinstance(trainer, dict) else {})
        if sections:
            self._choose_metrics(sections)
        for index, file in enumerate(sections.plugins if sections else ()):
            if file.is_dir():
                self._problem(("plugins", index), f"a folder: {file}; name the Python file in it")
            elif not file.is_file():
                self._problem(("plugins", index), f"no such file: {file}")
        known = list(dict.fromkeys(self._known))
        for key in self._unknown:
            self._problem(key, unknown_key(key, known), of_value=False)
        return sections

    def sources(self, name: str, sections: Sequence[SourceSection]) -> tuple[Source, ...]:
        """The readers of a list of sources."""
        chosen = [self.chosen[name, "sources", index] for index in range(len(sections))]
        return tuple(
            Source(one.name, cast("Component[ReaderRecord]", one.component), one.options, s.weight)
            for one, s in zip(chosen, sections, strict=True)
        )

    def values(self, sections: Sections, output: Output) -> Iterator[Value]:
        """Every value with its origin."""
        tree = sections.model_dump(mode="json", exclude={"trainer", "notes"})
        tree["output"]["dir"] = str(output.dir)
        for key, chosen in self.chosen.items():
            at(tree, key).update(chosen.options.model_dump(mode="json"))
        for key, value in leaves(tree, ()):
            yield self._value(key, value)
        needed = cast(CollatorRecord, self.chosen["collator",].record).sft_args
        for name, field in trainer_fields().items():
            if name in self.trainer:
                yield self._value(("trainer", name), self.trainer[name])
            elif name in needed:
                yield Value(f"trainer.{name}", needed[name], "collator")
            elif name not in REFUSED:
                yield Value(f"trainer.{name}", field.default, "default")
        if sections.notes is not None:
            yield self._value(("notes",), sections.notes)

    def _value(self, key: Key, value: Any) -> Value:
        origin = self._raw.origin(key)
        line = self._raw.located.keys[key].line if origin == "recipe" else None
        return Value(dotted(key), value, origin, line)

    def _problem(self, key: Key, text: str, *, of_value: bool = True) -> None:
        """Note a problem; the first of a key is the one to mend."""
        if not any(problem.key == dotted(key) for problem in self.problems):
            position = self._raw.position(key, of_value=of_value)
            self.problems.append(Problem(dotted(key), text, position))

    def _check_finite(self, data: dict[str, Any]) -> None:
        """Complain about infinities and NaN: no option means anything by them."""
        for key, value in leaves(data, (), into_lists=True):
            if isinstance(value, float) and not math.isfinite(value):
                self._problem(key, f"expected a finite number, got {value}")

    def _choose(
        self, key: Key, section: type[ComponentSection], name: str, options: dict[str, Any]
    ) -> None:
        """Look a component up and check its options."""
        try:
            found = self._registry.find(section.kind, name)
        except PluginError as error:
            self._problem((*key, section.name_key), str(error))
            return
        self._known += [(*key, *inner) for inner in option_keys(found.record.config)]
        checked = self._validated(found.record.config, options, key)
        if checked is not None:
            self.chosen[key] = Chosen(name, found, checked)

    def _choose_metrics(self, sections: Sections) -> None:
        """Take the metrics that the recipe names, else those of its readers."""
        named = [("evaluation", "metrics", n) for n in range(len(sections.evaluation.metrics))]
        found = [self.chosen[key] for key in named if key in self.chosen]
        if not named:
            readers = {
                key: cast(ReaderRecord, chosen.record).metrics
                for key, chosen in self.chosen.items()
                if chosen.component.kind == "readers"
            }
            for name in metric_names(readers.values()):
                key = next(key for key, names in readers.items() if name in names)
                try:
                    component = self._registry.find("metrics", name)
                    found.append(Chosen(name, component, component.record.config()))
                except (PluginError, ValidationError) as error:
                    self._problem((*key, "reader"), f"its metric cannot be used: {error}")
        self.metrics = cast("list[Chosen[MetricRecord]]", found)
        names = [chosen.name for chosen in self.metrics]
        for index, name in enumerate(names if named else ()):
            if name in names[:index]:
                self._problem(("evaluation", "metrics", index, "name"), f"{name!r} stands twice")
        if self.problems:
            return
        wrong = best_problem(
            self.trainer,
            sections.evaluation,
            self.metrics,
            evaluates=bool(sections.data.split.held_out or sections.evaluation.sources),
        )
        if wrong:
            self._problem(tuple(wrong[0].split(".")), wrong[1])

    def _check_trainer(self, trainer: dict[str, Any]) -> None:
        """Check the pass-through section, and find the files that it names."""
        self._known += [("trainer", name) for name in trainer_fields() if name not in REFUSED]
        chosen = self.chosen.get(("collator",))
        collator = cast(CollatorRecord, chosen.record) if chosen else None
        for name, value in trainer.items():
            key = ("trainer", name)
            if name in REFUSED:
                self._problem(key, REFUSED[name], of_value=False)
            elif name not in trainer_fields():
                self._unknown.append(key)
            elif problem := check_trainer_field(name, value) or check_trainer_value(name, value):
                self._problem(key, problem)
            elif collator and name in collator.sft_args and collator.sft_args[name] != value:
                self._problem(key, _needed(collator, name))
            elif name in _TRAINER_FILES and isinstance(value, str):
                self.trainer[name] = self._trainer_file(key, value)
            else:
                self.trainer[name] = value
        model = self.chosen.get(("model",))
        if model and not self.problems:
            held = collator.sft_args if collator else {}
            for name, text in sharing_problems(self.trainer, model.options, held=held):
                self._problem(tuple(name.split(".")), text)

    def _trainer_file(self, key: Key, text: str) -> str:
        """The path of a file that a trainer field names, relative to the recipe or as it is."""
        folder = Path() if self._raw.is_overridden(key) else self._raw.path.parent
        path, problem = trainer_file(str(key[-1]), text, folder=folder)
        if problem:
            self._problem(key, problem)
        return path

    def _validated(self, model: type[M], data: dict[str, Any], key: Key) -> M | None:
        """Data as a model, or problems."""
        context = {"folder": self._raw.path.parent}
        checked: M | None = None
        errors: list[ErrorDetails] = []
        strict_errors: list[ErrorDetails] = []
        try:
            checked = model.model_validate(data, context=context)
            if self._raw.touches(key):
                here = model.model_validate(data, context={"folder": Path()})
                checked = self._mixed(here, checked, key)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        try:
            # As JSON, since strictness about Python's own types would refuse text for a path.
            model.model_validate_json(json.dumps(data), strict=True, context=context)
        except ValidationError as error:
            strict_errors = error.errors(include_url=False)
        found = faults(errors, strict_errors, data)
        for fault in found:
            place = (*key, *fault.key)
            if fault.kind == "unknown":
                self._unknown.append(place)
            else:
                self._problem(place, fault.text, of_value=fault.kind == "value")
        return None if found else checked

    def _mixed(self, here: Any, there: Any, key: Key) -> Any:
        """Take what overrides have set from one reading of the data, and the rest from another.

        Paths in overrides are relative to the current folder, those in a recipe to the recipe.
        Only the models know what is a path, so they read the same data once for each folder.
        """
        if self._raw.is_overridden(key):
            return here
        if not self._raw.touches(key):
            return there
        match there:
            case BaseModel():
                update = dict(here)
                for name, value in there:
                    update[name] = self._mixed(update[name], value, (*key, name))
                    if update[name] is value:
                        del update[name]
                return there.model_copy(update=update)
            case list() | tuple():
                pairs = enumerate(zip(here, there, strict=True))
                return type(there)(self._mixed(h, t, (*key, index)) for index, (h, t) in pairs)
            case dict():
                return {name: self._mixed(here[name], there[name], (*key, name)) for name in there}
            case _:
                return there


def _needed(collator: CollatorRecord, name: str) -> str:
    """What a collator needs of a trainer field, why, and what to do."""
    why = f": {collator.reasons[name]}" if name in collator.reasons else ""
    value = spelled(collator.sft_args[name])
    return f"collator {collator.name} needs {name}={value}{why}; leave it out"


def _take_options(
    data: dict[str, Any],
) -> Iterator[tuple[Key, type[ComponentSection], dict[str, Any], dict[str, Any]]]:
    """Take the components' options out of their sections.

    Yields:
        The section's key, its model, what is left in it, and the options.
    """
    for pattern, section in SLOTS.items():
        for key, node in matching(data, pattern, ()):
            if isinstance(node, dict):
                names = [name for name in node if name not in section.model_fields]
                options = {name: node.pop(name) for name in names}
                yield key, section, node, options
