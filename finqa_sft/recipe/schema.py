"""What stands in a recipe: its sections.

Sections that name a component also hold the component's own options. Those are checked by the
component's own model, so that a stranger's component is checked as ours are; the models here
describe what is the same for all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Union, get_args, get_origin

from pydantic import BaseModel, Field

from finqa_sft.cleaning import CleaningOptions
from finqa_sft.cleaning.targets import Disagreements
from finqa_sft.options import Options, RecipePath
from finqa_sft.recipe.problems import Key, dotted
from finqa_sft.recipe.trainer_fields import REFUSED

if TYPE_CHECKING:
    from finqa_sft.plugins.manager import Component
    from finqa_sft.plugins.records import ComponentRecord


class Registry(Protocol):
    """What a recipe needs of the plugin manager."""

    def components(self, kind: str) -> tuple[Component[ComponentRecord], ...]:
        """All components of a kind: readers, formatters, collators, model_factories, ..."""
        ...

    def find(self, kind: str, name: str) -> Component[ComponentRecord]:
        """The component of that name.

        Raises:
            PluginError: There is none, or more than one; its text is shown beside the key.
        """
        ...

    def add_file(self, path: Path) -> None:
        """Load a plugin from a Python file.

        Raises:
            PluginError: The file is broken.
        """
        ...


class ComponentSection(Options):
    """A section that names a component; the component's options stand beside the keys here."""

    kind: ClassVar[str]
    name_key: ClassVar[str] = "name"


class ModelSection(ComponentSection):
    """The base model and its adapter."""

    kind: ClassVar[str] = "model_factories"
    name_key: ClassVar[str] = "factory"

    factory: str = "qlora"
    """The model factory; its options stand beside this key."""


class SourceSection(ComponentSection):
    """One source of questions."""

    kind: ClassVar[str] = "readers"
    name_key: ClassVar[str] = "reader"

    reader: str
    """The reader; its options stand beside this key."""

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How often the questions are seen in an epoch: 2 is twice, 0.5 once for half the documents."""


class SplitSection(Options):
    """Which of the documents are held out for evaluation."""

    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of the documents that is held out."""

    by: Literal["document", "company"] = "document"
    """What is never divided: a document, or all documents of a company."""

    seed: int = 0
    """Chooses the documents."""


class DataRules(Options):
    """What is done with questions once they are read."""

    split: SplitSection = SplitSection()
    """What is held out."""

    bad_rows: Literal["error", "skip"] = "error"
    """What a row does that cannot be read: stop the run, or be left out and counted."""

    cleaning: CleaningOptions = CleaningOptions()
    """Which known faults of such data are mended; each is counted."""

    disagreements: Disagreements = "keep"
    """What becomes of a question whose written answer and executed answer disagree, in sign, in
    scale or outright: `keep` it as it is, `drop` it, `correct` the label that two others
    contradict and keep the rest, or stop the run with an `error`. All are counted."""

    too_long: Literal["drop", "error"] = "drop"
    """What becomes of a question that does not fit into `formatter.max_length` even with the least
    of its document: left out and counted, or the run stops."""

    cache: bool = True
    """Whether the encoded rows of large data are kept, so that the next run with the same data,
    formatter and tokenizer reads them back. They are in `encoded`, a folder of the cache."""

    processes: int | None = Field(default=None, ge=1)
    """Processes that encode large data. Left out, one a processor, up to 8."""


class DataSection(DataRules):
    """The questions to learn from."""

    sources: tuple[SourceSection, ...] = Field(min_length=1)
    """Files of questions."""


class MetricSection(ComponentSection):
    """A metric that answers are scored by."""

    kind: ClassVar[str] = "metrics"

    name: str
    """The metric; its options stand beside this key."""


class EvaluationRules(Options):
    """When held-out questions are answered and scored, and how answers are generated."""

    before: bool = True
    """Whether the base is asked before the first step, to compare with."""

    every: int = Field(default=1, ge=0)
    """At every how many of the trainer's evaluations (`trainer.eval_strategy`) answers are
    generated and scored: 1 at each, 0 at none. The loss is computed at each."""

    after: bool = True
    """Whether all held-out questions are asked at the end, and a report is written."""

    questions: int = Field(default=100, ge=1)
    """How many held-out questions are asked before and during training: whole documents, the same
    each time. At the end all are."""

    batch_size: int | None = Field(default=None, ge=1)
    """How many answers are generated at a time in each process. Left out, it is
    `trainer.per_device_eval_batch_size`."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of an answer. Left out, twice the longest one that is taught, at least 64."""

    samples: int = Field(default=1, ge=1)
    """How many answers to draw for each question. One is the likeliest, token by token; of several
    the executed answers vote (self-consistency)."""

    temperature: float = Field(default=0.7, gt=0, allow_inf_nan=False)
    """How far samples differ, where several are drawn."""

    top_p: float = Field(default=0.95, gt=0, le=1)
    """Share of the probability that samples are drawn from."""

    seed: int = Field(default=0, ge=0)
    """Of the draws: of samples, and of the documents asked about during training."""


class EvaluationSection(EvaluationRules):
    """Held-out questions from files of their own, and how answers are scored."""

    sources: tuple[SourceSection, ...] = ()
    """Files of questions that are never trained on."""

    metrics: tuple[MetricSection, ...] = ()
    """What answers are scored by; right and wrong go by the first that applies to a question. Left
    out, those that belong to the readers."""


class FormatterSection(ComponentSection):
    """How a question is put to the model."""

    kind: ClassVar[str] = "formatters"

    name: str
    """The formatter; its options stand beside this key."""

    max_length: int = Field(default=2048, ge=32)
    """Longest row, in tokens; longer documents are shortened, questions and answers never."""


class CollatorSection(ComponentSection):
    """How rows become batches."""

    kind: ClassVar[str] = "collators"

    name: str = "padded"
    """The collator; its options stand beside this key."""


class CallbackSection(ComponentSection):
    """Something that runs beside the training."""

    kind: ClassVar[str] = "callbacks"

    name: str
    """The callback; its options stand beside this key."""


class OutputSection(Options):
    """What the run leaves behind."""

    dir: RecipePath | None = None
    """The run's folder. Left out, it is `runs/<name of the recipe>` in the current folder."""

    overwrite: bool = False
    """Whether a finished run in that folder may be replaced."""

    grace_period: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds that a scheduler leaves between SIGTERM and killing a process. A run that cannot save
    a checkpoint in that time ends without one, shortly before. Left out, it takes as long as it
    needs."""


class Sections(Options):
    """A fine-tuning run: one recipe, one run."""

    model: ModelSection = ModelSection()
    """The base model and its adapter."""

    data: DataSection
    """The questions to learn from."""

    formatter: FormatterSection
    """How a question is put to the model."""

    collator: CollatorSection = CollatorSection()
    """How rows become batches."""

    callbacks: tuple[CallbackSection, ...] = ()
    """What runs beside the training."""

    evaluation: EvaluationSection = EvaluationSection()
    """Held-out questions from files of their own, and how answers are scored."""

    output: OutputSection = OutputSection()
    """What the run leaves behind."""

    plugins: tuple[RecipePath, ...] = ()
    """Python files with components that this recipe names."""

    trainer: dict[str, Any] = Field(default_factory=dict)
    """Any field of the installed `trl.SFTConfig` that finqa_sft does not own."""

    notes: Any = None
    """Anything; for people."""


SLOTS: Mapping[tuple[str, ...], type[ComponentSection]] = MappingProxyType(
    {
        ("model",): ModelSection,
        ("data", "sources", "[]"): SourceSection,
        ("evaluation", "sources", "[]"): SourceSection,
        ("evaluation", "metrics", "[]"): MetricSection,
        ("formatter",): FormatterSection,
        ("collator",): CollatorSection,
        ("callbacks", "[]"): CallbackSection,
    }
)
"""Where a recipe names components; `[]` stands for the items of a list."""


ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "adapter": "model.factory",
        "base_model": "model.base",
        "batch_size": "trainer.per_device_train_batch_size",
        "cutoff_len": "formatter.max_length",
        "datasets": "data.sources",
        "epochs": "trainer.num_train_epochs",
        "eval_batch_size": "trainer.per_device_eval_batch_size",
        "load_in_4bit": "model.factory",
        "lr": "trainer.learning_rate",
        "lr_scheduler": "trainer.lr_scheduler_type",
        "max_seq_length": "formatter.max_length",
        "micro_batch_size": "trainer.per_device_train_batch_size",
        "model_name_or_path": "model.base",
        "num_epochs": "trainer.num_train_epochs",
        "optimizer": "trainer.optim",
        "sequence_len": "formatter.max_length",
        "train_file": "data.sources",
        "val_set_size": "data.split.held_out",
    }
)
"""Keys of other trainers' configurations, each with its name here."""


KEYS_SHOWN = 4
"""So many places are named where a misplaced key may belong."""


def option_keys(model: type[BaseModel]) -> Iterator[Key]:
    """The keys of a model and, below them, those of the models that its fields hold."""
    for name, field in model.model_fields.items():
        yield (name,)
        for inner in _models_in(field.annotation):
            yield from ((name, *key) for key in option_keys(inner))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _models_in(member)


def unknown_key(key: Key, known: Collection[Key]) -> str:
    """Say that a key does not exist, and which one might be meant.

    Args:
        key: The key as it stands in the recipe.
        known: All keys that the recipe could have, given the components that it names.
    """
    name = re.sub(r"[-.]", "_", str(key[-1]))
    siblings = {str(other[-1]): other for other in known if other[:-1] == key[:-1]}
    if name not in siblings:
        name = next((other for other in siblings if other.lower() == name.lower()), name)
    if name in siblings:
        return f"unknown key; did you mean {dotted(siblings[name])}?"
    elsewhere = [other for other in known if name in _tails(other)]
    elsewhere.sort(key=lambda other: other[0] != key[0])
    if elsewhere and "." in str(key[-1]):
        section, last = dotted(elsewhere[0][:-1]), elsewhere[0][-1]
        return f"unknown key; dots are for the command line: write {last} under {section}"
    if elsewhere:
        verb = "is" if len(elsewhere) == 1 else "are"
        named = ", ".join(map(dotted, elsewhere[:KEYS_SHOWN]))
        return f"unknown key; wrong place? there {verb} {named}"
    if name in ALIASES:
        return f"unknown key; here it is {ALIASES[name]}"
    if name in REFUSED:
        return f"unknown key; {REFUSED[name]}"
    near = difflib.get_close_matches(name, siblings, n=1)
    if near:
        return f"unknown key; did you mean {dotted(siblings[near[0]])}?"
    if siblings and len(siblings) <= 12:
        return f"unknown key; there {'is' if len(siblings) == 1 else 'are'} {', '.join(siblings)}"
    return "unknown key; `finqa-sft show RECIPE` lists those that there are"


def _tails(key: Key) -> list[str]:
    """The ends of a key as one word: `r`, `lora_r` and `model_lora_r` for `model.lora.r`."""
    return ["_".join(map(str, key[start:])) for start in range(len(key))]
