"""The fields of the installed `trl.SFTConfig`, read from its sources without importing it.

Importing trl takes ten seconds and brings torch in; a recipe's `trainer` section is checked without
either. The classes are found by following the imports from `trl` to `SFTConfig`, to its bases and
to the enums that its annotations name, so that files which move between releases are still found.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from finqa_sft.errors import RecipeError
from finqa_sft.recipe.problems import expected, no_such, spelled


class Default(StrEnum):
    """Stands for defaults that the sources do not state."""

    COMPUTED = "computed by the trainer"


@dataclass(frozen=True, slots=True)
class Allowed:
    """The values that an annotation lets through.

    Attributes:
        types: Names of types, of those in `PHRASES`; with no type and no literal, anything goes.
        choices: The words that are allowed, where text is one of a few.
        literals: Single values that are allowed besides.
    """

    types: frozenset[str] = frozenset()
    choices: tuple[str, ...] = ()
    literals: tuple[Any, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether nothing is known, so that nothing can be refused."""
        return not self.types and not self.literals


@dataclass(frozen=True, slots=True)
class TrainerField:
    """One field of `SFTConfig`.

    Attributes:
        name: Its name.
        allowed: The values that it takes.
        default: Its default, or `Default.COMPUTED`.
    """

    name: str
    allowed: Allowed = Allowed()
    default: Any = Default.COMPUTED

    def problem(self, value: object) -> str | None:
        """What is wrong with a value that was read from YAML, or None."""
        allowed = self.allowed
        if isinstance(value, str) and allowed.choices:
            return None if value in allowed.choices else no_such(value, allowed.choices)
        if allowed.anything or allowed.types & _TYPES_OF[type(value)]:
            return None
        if any(type(value) is type(literal) and value == literal for literal in allowed.literals):
            return None
        words = [*allowed.choices, *map(spelled, allowed.literals)]
        return expected([*words, *(PHRASES[name] for name in _shown(allowed))], value)


PHRASES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a section",
    "None": "null",
}
"""The types that a value in a recipe can have, each in plain words."""

_TYPES_OF: Mapping[type, frozenset[str]] = {
    int: frozenset({"int", "float"}),
    float: frozenset({"float"}),
    bool: frozenset({"bool"}),
    str: frozenset({"str"}),
    list: frozenset({"list"}),
    dict: frozenset({"dict"}),
    type(None): frozenset({"None"}),
}


def _shown(allowed: Allowed) -> list[str]:
    """The types worth naming: not text beside its choices, not whole numbers beside numbers."""
    covered = {"str": bool(allowed.choices), "int": "float" in allowed.types}
    return [name for name in PHRASES if name in allowed.types and not covered.get(name)]


_ENCODED = "finqa_sft encodes the rows before the trainer sees them; leave it out"
_SUPERVISED = "the completion alone is always supervised; leave it out"
_COLLATOR = "the collator decides how rows share a batch; choose one with collator.name"
_COLUMNS = "the collator needs the columns as they are; leave it out"
_NO_EFFECT = "has no effect in the trainer; leave it out"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "output_dir": "set output.dir instead",
        "max_length": "set formatter.max_length instead",
        "truncation_mode": "answers are never cut off; set formatter.max_length instead",
        "model_init_kwargs": "set the options of the model section instead",
        "trust_remote_code": "never allowed: it runs code from the model's folder; leave it out",
        "chat_template_path": "set model.chat_template instead",
        "dataset_text_field": _ENCODED,
        "dataset_kwargs": _ENCODED,
        "dataset_num_proc": _ENCODED,
        "packing": _COLLATOR,
        "packing_strategy": _COLLATOR,
        "padding_free": _COLLATOR,
        "eval_packing": _COLLATOR,
        "pad_to_multiple_of": "padding is an option of the collator; set it under collator",
        "completion_only_loss": _SUPERVISED,
        "assistant_only_loss": _SUPERVISED,
        "shuffle_dataset": "the sampler shuffles the batches already; leave it out",
        "eos_token": "the chat template ends an answer; leave it out",
        "pad_token": "the model factory chooses the padding token; leave it out",
        "remove_unused_columns": _COLUMNS,
        "label_names": _COLUMNS,
        "do_train": _NO_EFFECT,
        "do_eval": _NO_EFFECT,
        "do_predict": _NO_EFFECT,
        "logging_nan_inf_filter": "a loss that is not finite stops the run; leave it out",
        "parallelism_config": "no recipe can hold it; configure `accelerate launch` instead",
        "local_rank": "the launcher sets it; leave it out",
        "hub_token": "a secret must not stand in a recipe; set the variable HF_TOKEN instead",
    }
)
"""Fields that a recipe must not set, each with what to do instead."""


def check_trainer_field(name: str, value: object) -> str | None:
    """What is wrong with a value for a field of `SFTConfig`, or None.

    Args:
        name: A name in `trainer_fields()`.
        value: As read from YAML.
    """
    return trainer_fields()[name].problem(value)


@cache
def trainer_fields() -> Mapping[str, TrainerField]:
    """All fields of the installed `SFTConfig`, by name, those of its bases first.

    Raises:
        RecipeError: trl is not installed, or its sources do not look as expected.
    """
    package = _module("trl")
    found = package and package.find("SFTConfig")
    if not found:
        raise RecipeError("trl.SFTConfig was not found among the installed packages; install trl")
    fields = {field.name: field for field in _fields(*found)}
    # The trainer's own `train` method takes True for "the newest checkpoint", and so does ours.
    resume = fields["resume_from_checkpoint"]
    allowed = replace(resume.allowed, types=resume.allowed.types | {"bool"})
    fields[resume.name] = replace(resume, allowed=allowed)
    return MappingProxyType(fields)


def trainer_schema() -> dict[str, Any]:
    """The JSON schema of a recipe's `trainer` section."""
    return {
        "type": "object",
        "description": "Any field of the installed `trl.SFTConfig` that finqa_sft does not own.",
        "additionalProperties": False,
        "properties": {
            name: _field_schema(field)
            for name, field in trainer_fields().items()
            if name not in REFUSED
        },
    }


def _field_schema(field: TrainerField) -> dict[str, Any]:
    allowed = field.allowed
    members: list[dict[str, Any]] = [{"type": _JSON_TYPES[name]} for name in _shown(allowed)]
    if allowed.choices or allowed.literals:
        members.append({"enum": [*allowed.choices, *allowed.literals]})
    schema: dict[str, Any] = {} if allowed.anything else {"anyOf": members}
    if len(members) == 1:
        schema = members[0]
    return schema if field.default is Default.COMPUTED else schema | {"default": field.default}


_JSON_TYPES = {
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "str": "string",
    "list": "array",
    "dict": "object",
    "None": "null",
}


class _Module:
    """A module's source: its classes, and where the names that it imports come from."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    @cached_property
    def statements(self) -> list[ast.stmt]:
        """The statements of the module, with those inside `if` and `try`."""
        return list(_flat(ast.parse(self.path.read_text(encoding="utf-8")).body))

    def find(self, name: str) -> tuple[_Module, ast.ClassDef] | None:
        """The class that a name stands for, and the module that defines it."""
        for statement in self.statements:
            match statement:
                case ast.ClassDef() if statement.name == name:
                    return self, statement
                case ast.ImportFrom(names=names):
                    for alias in names:
                        if (alias.asname or alias.name) == name:
                            module = self._imported(statement)
                            return module.find(alias.name) if module else None
                case _:
                    pass
        return None

    def _imported(self, statement: ast.ImportFrom) -> _Module | None:
        """The module that a `from ... import` names."""
        package = self.name.split(".")
        if self.path.name != "__init__.py":
            package = package[:-1]
        parents = package[: len(package) - statement.level + 1] if statement.level else []
        return _module(".".join([*parents, *filter(None, [statement.module])]))


@cache
def _module(name: str) -> _Module | None:
    """A module by its dotted name, found without importing anything."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    for path in (folder.joinpath(*rest, "__init__.py"), folder.joinpath(*rest).with_suffix(".py")):
        if path.is_file():
            return _Module(name, path)
    return None


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _flat(statement.body)
            yield from _flat(statement.orelse)


def _fields(module: _Module, definition: ast.ClassDef) -> Iterator[TrainerField]:
    """The dataclass fields of a class, after those of its bases."""
    for base in definition.bases:
        found = module.find(ast.unparse(base))
        if found is not None:
            yield from _fields(*found)
    for statement in definition.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                if not ast.unparse(annotation).startswith("ClassVar"):
                    yield _field(module, name, annotation, value)
            case _:
                pass


def _field(
    module: _Module, name: str, annotation: ast.expr, value: ast.expr | None
) -> TrainerField:
    allowed, default = _allowed(module, annotation), value
    if isinstance(value, ast.Call):
        arguments = {keyword.arg: keyword.value for keyword in value.keywords}
        default = arguments.get("default")
        match arguments.get("default_factory"):
            case ast.Name(id="list"):
                default = ast.List(elts=[])
            case ast.Name(id="dict"):
                default = ast.Dict(keys=[], values=[])
            case _:
                pass
        match arguments.get("metadata"):
            case ast.Dict(keys=keys, values=values):
                stated = {ast.unparse(k): v for k, v in zip(keys, values, strict=True) if k}
                choices = _literal(stated.get("'choices'"), allowed.choices)
                # What the bare option means on a command line, such as True for `--fsdp`.
                bare = type(_literal(stated.get("'const'"), None)).__name__
                if "'const'" in stated and not allowed.anything:
                    allowed = replace(allowed, types=allowed.types | ({bare} & PHRASES.keys()))
                allowed = replace(allowed, choices=tuple(choices))
            case _:
                pass
    return TrainerField(name, allowed, _literal(default, Default.COMPUTED))


def _literal(node: ast.expr | None, otherwise: Any) -> Any:
    """The value of an expression that is made of literals, or what to take otherwise."""
    if node is None:
        return otherwise
    try:
        return ast.literal_eval(node)
    except ValueError:
        return otherwise


_ANYTHING = Allowed()
_NOTHING = Allowed(frozenset({"None"}))


def _allowed(module: _Module, node: ast.expr) -> Allowed:
    """What an annotation lets through."""
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union([_allowed(module, left), _allowed(module, right)])
        case ast.Constant(value=None):
            return _NOTHING
        case ast.Constant(value=str(text)):
            return _allowed(module, ast.parse(text, mode="eval").body)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _union([_allowed(module, inner), _NOTHING])
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=members)):
            return _union([_allowed(module, member) for member in members])
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            return _literals(ast.literal_eval(inner))
        case ast.Subscript(value=ast.Name() as outer):
            return _allowed(module, outer)
        case ast.Name(id="tuple" | "Tuple" | "List"):
            return Allowed(frozenset({"list"}))
        case ast.Name(id="Dict"):
            return Allowed(frozenset({"dict"}))
        case ast.Name(id=name) if name in PHRASES:
            return Allowed(frozenset({name}))
        case ast.Name(id=name):
            return _enum(module.find(name))
        case _:
            return _ANYTHING


def _union(members: Sequence[Allowed]) -> Allowed:
    if any(member.anything for member in members):
        return _ANYTHING
    return Allowed(
        frozenset[str]().union(*(member.types for member in members)),
        tuple(choice for member in members for choice in member.choices),
        tuple(literal for member in members for literal in member.literals),
    )


def _literals(values: object) -> Allowed:
    """What `Literal[...]` lets through."""
    every = values if isinstance(values, tuple) else (values,)
    words = tuple(value for value in every if isinstance(value, str))
    others = tuple(value for value in every if not isinstance(value, str))
    return Allowed(frozenset({"str"} if words else ()), words, others)


def _enum(found: tuple[_Module, ast.ClassDef] | None) -> Allowed:
    """The words of an enum; anything for other classes, which no recipe can spell."""
    if found is None or not any("Enum" in ast.unparse(base) for base in found[1].bases):
        return _ANYTHING
    words = tuple(
        statement.value.value
        for statement in found[1].body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
    return Allowed(frozenset({"str"}), words)
