"""The names that other projects import: that they are there, what they take, and what they cost."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from enum import Enum
from types import FunctionType
from typing import Annotated, get_args, get_origin, is_typeddict

import pytest
from conftest import ROOT
from pydantic import BaseModel

import finqa_sft
from finqa_sft.models.base import ModelFactory
from finqa_sft.plugins.records import ComponentRecord

SIGNATURES = {
    "AnswerFormatter": "(options: AnswerOptions | None = None) -> None",
    "AnswerFormatter.completion": "(self, question: Question) -> list[Message]",
    "AnswerFormatter.parse": "(self, completion: str) -> Prediction",
    "AnswerFormatter.prompt": (
        "(self, question: Question, *, document: Document) -> list[Message]"
    ),
    "AnswerScore": "(exact: bool, numeric: bool, f1: float) -> None",
    "Cleaner": "(options: CleaningOptions | None = None) -> None",
    "Cleaner.clean": "(self, question: Question) -> Question",
    "Cleaner.labels": "(self, document_id: str) -> Mapping[str, str]",
    "Cleaner.original_program": "(self, program: str, *, document_id: str) -> str",
    "ColumnsReader": "(options: ColumnsOptions) -> None",
    "ColumnsReader.__iter__": "(self) -> Iterator[Question | BadRow]",
    "ConvfinqaReader": "(options: ConvfinqaOptions) -> None",
    "ConvfinqaReader.__iter__": "(self) -> Iterator[Question | BadRow]",
    "Document": "(id: str, blocks: tuple[Block, ...], company: str | None = None) -> None",
    "Encoder": "(tokenizer: PreTrainedTokenizerBase, *, reuse: bool = True) -> None",
    "Encoder.completion_text": "(self, completion: Sequence[Message]) -> str",
    "Encoder.control_token": "(self, messages: Sequence[Message]) -> str | None",
    "Encoder.encode": (
        "(self, prompt: Sequence[Message], completion: Sequence[Message], *, "
        "document: str = '') -> EncodedRow"
    ),
    "Encoder.encode_prompt": "(self, prompt: Sequence[Message]) -> list[int]",
    "Encoder.is_far_longer": "(self, messages: Sequence[Message], *, than: int) -> bool",
    "Encoder.length": (
        "(self, prompt: Sequence[Message], completion: Sequence[Message], *, limit: "
        "int | None = None) -> int"
    ),
    "Encoder.marked": "(self, row: EncodedRow) -> str",
    "Encoder.messages": "(self, messages: Sequence[Message]) -> list[Message]",
    "Encoder.spans": "(self, row: EncodedRow) -> list[tuple[str, bool]]",
    "Encoder.taken_apart": "(self, messages: Sequence[Message]) -> list[Message]",
    "Encoder.text_length": "(self, text: str) -> int",
    "Evidence": "(block: int, row: int | None = None) -> None",
    "FilingsReader": "(options: FilingsOptions) -> None",
    "FilingsReader.__iter__": "(self) -> Iterator[Question | BadRow]",
    "FinQAScore": (
        "(valid: bool, result: float | str | None, execution: bool, program: bool, "
        "note: str = '') -> None"
    ),
    "FinancebenchReader": "(options: FinancebenchOptions) -> None",
    "FinancebenchReader.__iter__": "(self) -> Iterator[Question | BadRow]",
    "FinqaReader": "(options: FinqaOptions) -> None",
    "FinqaReader.__iter__": "(self) -> Iterator[Question | BadRow]",
    "FlattenedCollator": "() -> None",
    "FlattenedCollator.__call__": "(self, rows: Sequence[EncodedRow]) -> dict[str, Any]",
    "FlattenedCollator.arrange": "(self, dataset: Dataset) -> Dataset",
    "FlattenedCollator.check_config": "(self, config: PreTrainedConfig, dataset: Dataset) -> None",
    "FlattenedCollator.check_model": (
        "(self, model: PreTrainedModel, dataset: Dataset) -> dict[str, Any]"
    ),
    "FullFactory": "(options: FullOptions) -> None",
    "FullFactory.check": "(self) -> None",
    "FullFactory.describe": "(self) -> dict[str, Any]",
    "FullFactory.load_config": "(self) -> PreTrainedConfig",
    "FullFactory.load_model": "(self, args: SFTConfig) -> PreTrainedModel",
    "FullFactory.load_tokenizer": "(self) -> PreTrainedTokenizerBase",
    "FullFactory.load_trained": "(self, folder: Path | None) -> PreTrainedModel",
    "FullFactory.settle": "(self, trainer: SFTTrainer) -> None",
    "FullFactory.sft_args": "(self) -> dict[str, Any]",
    "LoRAFactory": "(options: LoRAFactoryOptions) -> None",
    "LoRAFactory.check": "(self) -> None",
    "LoRAFactory.describe": "(self) -> dict[str, Any]",
    "LoRAFactory.load_config": "(self) -> PreTrainedConfig",
    "LoRAFactory.load_model": "(self, args: SFTConfig) -> PeftModel",
    "LoRAFactory.load_tokenizer": "(self) -> PreTrainedTokenizerBase",
    "LoRAFactory.load_trained": "(self, folder: Path | None) -> PeftModel | PreTrainedModel",
    "LoRAFactory.settle": "(self, trainer: SFTTrainer) -> None",
    "LoRAFactory.sft_args": "(self) -> dict[str, Any]",
    "PaddedCollator": "(pad_token_id: int, *, pad_to_multiple_of: int | None = None) -> None",
    "PaddedCollator.__call__": "(self, rows: Sequence[EncodedRow]) -> dict[str, torch.Tensor]",
    "PaddedCollator.arrange": "(self, dataset: Dataset) -> Dataset",
    "PaddedCollator.check_config": "(self, config: PreTrainedConfig, dataset: Dataset) -> None",
    "PaddedCollator.check_model": (
        "(self, model: PreTrainedModel, dataset: Dataset) -> dict[str, Any]"
    ),
    "Paragraph": "(text: str) -> None",
    "ProgramFormatter": "(options: ProgramOptions | None = None) -> None",
    "ProgramFormatter.completion": "(self, question: Question) -> list[Message]",
    "ProgramFormatter.parse": "(self, completion: str) -> Prediction",
    "ProgramFormatter.prompt": (
        "(self, question: Question, *, document: Document) -> list[Message]"
    ),
    "QLoRAFactory": "(options: QLoRAOptions) -> None",
    "QLoRAFactory.check": "(self) -> None",
    "QLoRAFactory.describe": "(self) -> dict[str, Any]",
    "QLoRAFactory.load_config": "(self) -> PreTrainedConfig",
    "QLoRAFactory.load_model": "(self, args: SFTConfig) -> PeftModel",
    "QLoRAFactory.load_tokenizer": "(self) -> PreTrainedTokenizerBase",
    "QLoRAFactory.load_trained": "(self, folder: Path | None) -> PeftModel | PreTrainedModel",
    "QLoRAFactory.settle": "(self, trainer: SFTTrainer) -> None",
    "QLoRAFactory.sft_args": "(self) -> dict[str, Any]",
    "Question": (
        "(id: str, text: str, document: Document, answer: str, program: str | None = None, "
        "executed_answer: float | str | None = None, scale: Scale = '', answer_type: str | "
        "None = None, evidence: tuple[Evidence, ...] = (), history: tuple[Turn, ...] = (), "
        "source: str = '', derivation: str | None = None) -> None"
    ),
    "SharedContextCollator": (
        "(*, tokens_per_batch: int = 4096, attention: Backend = 'auto') -> None"
    ),
    "SharedContextCollator.__call__": "(self, rows: Sequence[ArrangedRow]) -> dict[str, Any]",
    "SharedContextCollator.arrange": "(self, dataset: Dataset) -> Dataset",
    "SharedContextCollator.check_config": (
        "(self, config: PreTrainedConfig, dataset: Dataset) -> None"
    ),
    "SharedContextCollator.check_model": (
        "(self, model: PreTrainedModel, dataset: Dataset) -> dict[str, Any]"
    ),
    "StepsFormatter": "(options: StepsOptions | None = None) -> None",
    "StepsFormatter.completion": "(self, question: Question) -> list[Message]",
    "StepsFormatter.parse": "(self, completion: str) -> Prediction",
    "StepsFormatter.prompt": ("(self, question: Question, *, document: Document) -> list[Message]"),
    "Table": "(rows: tuple[tuple[str, ...], ...], header_rows: int = 1) -> None",
    "Table.from_cells": "(rows: Sequence[Sequence[str]], *, header_rows: int = 1) -> Table",
    "TatQAScore": (
        "(em: float, f1: float, scale: float, em_with_zero: float, f1_with_zero: float, "
        "note: str = '') -> None"
    ),
    "TatqaReader": "(options: TatqaOptions) -> None",
    "TatqaReader.__iter__": "(self) -> Iterator[Question | BadRow]",
    "Turn": (
        "(question: str, answer: str, program: str | None = None, executed_answer: float | str "
        "| None = None, scale: Scale = '') -> None"
    ),
    "equivalent_programs": (
        "(a: str | Program, b: str | Program, *, strictness: Strictness = 'official') -> bool"
    ),
    "execute_program": "(program: Program, table: Sequence[Sequence[str]] = ()) -> float | str",
    "fit_question": (
        "(question: Question, *, length: Callable[[Document], int], max_length: int, "
        "keep_evidence: bool = False) -> Cut"
    ),
    "fit_questions": (
        "(questions: Sequence[Question], *, length: Callable[[Question, Document], "
        "int], max_length: int, keep_evidence: bool) -> Fitted"
    ),
    "parse_program": "(text: str, *, strictness: Strictness = 'plain') -> Program",
    "score_answer": (
        "(answer: object, *, gold: object, tolerance: float = 0.0001, scale: object = '', "
        "gold_scale: object = '') -> AnswerScore"
    ),
    "score_convfinqa": (
        "(predicted: object, *, program: str, executed: float | str | None, "
        "table: Sequence[Sequence[str]]) -> FinQAScore"
    ),
    "score_finqa": (
        "(predicted: object, *, program: str, executed: float | str | None, "
        "table: Sequence[Sequence[str]]) -> FinQAScore"
    ),
    "score_tatqa": (
        "(answer: object, scale: object, *, gold_answer: object, gold_scale: str, "
        "answer_type: str) -> TatQAScore"
    ),
}
"""What the functions, classes and methods take and give."""

AUTHORS = {
    "collators.padded": {"PaddedOptions": "pad_to_multiple_of=None"},
    "collators.shared_context": {"SharedContextOptions": "tokens_per_batch=4096 attention='auto'"},
    "documents": {"Scale": "('', 'thousand', 'million', 'billion', 'percent')"},
    "errors": {
        "DataError": "FinqaSftError, ValueError",
        "HardwareError": "FinqaSftError, RuntimeError",
        "ModelError": "FinqaSftError, RuntimeError",
        "PluginError": "FinqaSftError, RuntimeError",
        "ProgramError": "FinqaSftError, ValueError",
        "TrainingError": "FinqaSftError, RuntimeError",
    },
    "generation.decoding": {
        "Decoding": (
            "(*, max_new_tokens: int, samples: int = 1, temperature: float = 0.7, "
            "top_p: float = 0.95, seed: int = 0) -> None"
        ),
        "Prompt": "(ids: list[int], document: str) -> None",
    },
    "generation.generator": {
        "Generator": (
            "(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, *, "
            "stop_ids: Sequence[int], decoding: Decoding, batch_size: int, "
            "share_prefix: bool = True) -> None"
        ),
        "stop_ids": "(encoder: Encoder, model: PreTrainedModel | PeftModel) -> tuple[int, ...]",
    },
    "evaluation.trained": {
        "find_trained": (
            "(place: Path, plugins: Plugins, *, overrides: Sequence[str] = ()) -> Trained"
        ),
        "load_answerer": "(trained: Trained) -> Answerer",
    },
    "formatters.base": {
        "Message": "role: str, content: str",
        "Prediction": (
            "(text: str, answer: str | None = None, program: str | None = None, "
            "scale: Scale = '', evidence: tuple[str, ...] = ()) -> None"
        ),
    },
    "formatters.linearize": {
        "document_text": ("(document: Document, *, table_style: TableStyle = 'markdown') -> str")
    },
    "metrics": {
        name: signature
        for name, signature in SIGNATURES.items()
        if name.endswith("Score") or name.startswith("score_")
    },
    "metrics.base": {
        "Figure": "(name: str, summary: str) -> None",
        "Score": "(figures: Mapping[str, float], note: str = '') -> None",
    },
    "metrics.computed": {
        "computed_prediction": "(prediction: Prediction, question: Question) -> Computed"
    },
    "models.tiny": {"tiny_base": "() -> Path"},
    "options": {"NoOptions": "", "Options": "", "RecipePath": "Path"},
    "plugins": {
        "CallbackRecord": "Callable[[Any, Path], TrainerCallback]",
        "CollatorRecord": "Callable[[Any, PreTrainedTokenizerBase], Collator]",
        "FormatterRecord": "Callable[[Any], Formatter]",
        "MetricRecord": "Callable[[Any], Metric]",
        "ModelFactoryRecord": "Callable[[Any], ModelFactory]",
        "ReaderRecord": "Callable[[Any], Reader]",
        "hookimpl": "HookimplMarker",
    },
    "plugins.manager": {"Plugins": "(*, strict: bool = False) -> None"},
    "readers.base": {"BadRow": "(source: str, field: str, problem: str) -> None"},
    "testing": {
        "CollatorRule": "Rule",
        "ContractError": "AssertionError",
        "FormatterRule": "Rule",
        "MetricRule": "Rule",
        "ModelFactoryRule": "Rule",
        "PluginRule": "Rule",
        "ReaderRule": "Rule",
        "Rule": "Enum",
        "TokenizerRule": "Rule",
        "check_collator": (
            "(collator: Collator, *, pad_token_id: int | None = None, "
            "model: PreTrainedModel | None = None, attn_implementation: str | None = None) -> None"
        ),
        "check_formatter": (
            "(formatter: Formatter, questions: Iterable[Question], *, "
            "tokenizer: PreTrainedTokenizerBase | None = None) -> None"
        ),
        "check_metric": (
            "(metric: Metric, questions: Iterable[Question] = (), *, "
            "gold_is_right: bool = True) -> None"
        ),
        "check_model_factory": "(factory: ModelFactory, *, output_dir: Path) -> None",
        "check_plugin": "(plugin: ModuleType) -> None",
        "check_reader": "(reader: Reader) -> None",
        "check_tokenizer": "(tokenizer: PreTrainedTokenizerBase) -> None",
    },
}
"""Names that authors of components import, by their module: signatures, options, bases, `build`."""

OPTIONS = {
    "AnswerOptions": (
        "system=None templates=Templates(opening='{{ document }}\\n\\nQuestion: {{ "
        "question }}', follow_up='Question: {{ question }}') table_style='markdown' "
        "value='executed' evidence='none' scale='separate'"
    ),
    "CleaningOptions": (
        "stripped_quotes=True doubled_negatives=True filler_sentences=True "
        "header_rows=True empty_columns=True empty_rows=True duplicate_labels=True "
        "spaces_and_minus=True"
    ),
    "ColumnsOptions": (
        "files=() delimiter=None dataset=None subset=None revision=None "
        "dataset_split='train' question='question' context='context' answer='answer' "
        "document=None company=None program=None scale=None id=None"
    ),
    "ConvfinqaOptions": "files split=None",
    "FilingsOptions": (
        "pages=40 questions_per_page=None length='medium' difficulty='medium' seed=0"
    ),
    "FinancebenchOptions": "files context='evidence'",
    "FinqaOptions": "files",
    "FullOptions": (
        "base='tiny' revision=None chat_template=None compute_dtype='auto' weights_dtype='float32'"
    ),
    "LoRAFactoryOptions": (
        "base='tiny' revision=None chat_template=None compute_dtype='auto' "
        "lora=LoraOptions(r=16, alpha=32, dropout=0.0, rslora=False, dora=False, "
        "init='default', target_modules='all-linear', modules_to_save=())"
    ),
    "LoraOptions": (
        "r=16 alpha=32 dropout=0.0 rslora=False dora=False init='default' "
        "target_modules='all-linear' modules_to_save=()"
    ),
    "ProgramOptions": (
        "system=None templates=Templates(opening='{{ document }}\\n\\nQuestion: {{ "
        "question }}', follow_up='Question: {{ question }}') table_style='markdown' "
        "value='written' evidence='none' scale='separate'"
    ),
    "QLoRAOptions": (
        "base='tiny' revision=None chat_template=None compute_dtype='auto' "
        "lora=LoraOptions(r=16, alpha=32, dropout=0.0, rslora=False, dora=False, "
        "init='default', target_modules='all-linear', modules_to_save=()) bits=4 "
        "double_quant=True storage_dtype='auto'"
    ),
    "StepsOptions": (
        "system=None templates=Templates(opening='{{ document }}\\n\\nQuestion: {{ "
        "question }}', follow_up='Question: {{ question }}') table_style='markdown' "
        "value='executed' evidence='quote' scale='separate'"
    ),
    "TatqaOptions": "files",
}
"""The options and their defaults."""

HEAVY = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "jinja2",
    "peft",
    "pluggy",
    "pydantic",
    "rich",
    "torch",
    "transformers",
    "trl",
    "yaml",
)


def _public() -> dict[str, object]:
    return {name: getattr(finqa_sft, name) for name in finqa_sft.__all__}


def _methods(owner: type) -> list[str]:
    """The public methods that are written in a class; of a model factory, those of its contract."""
    if owner.__name__.endswith("Factory"):
        return [name for name in vars(ModelFactory) if not name.startswith("_")]
    own = {name: value for base in reversed(owner.__mro__) for name, value in vars(base).items()}
    return [
        name
        for name, value in own.items()
        if isinstance(value, FunctionType | classmethod)
        and (not name.startswith("_") or name in ("__call__", "__iter__"))
    ]


def _signature(value: object) -> str:
    """A signature with its annotations as they are written."""
    assert callable(value)
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(value)))


@pytest.mark.parametrize("name", finqa_sft.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(finqa_sft, name)
    assert value is getattr(finqa_sft, name)
    assert name in dir(finqa_sft)


def test_the_lazy_names_are_those_of_all() -> None:
    assert sorted([*vars(finqa_sft)["_HOME_OF"], "__version__"]) == sorted(finqa_sft.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'finqa_sft' has no attribute 'Reader'$"):
        _ = vars(finqa_sft)["__getattr__"]("Reader")
    with pytest.raises(ImportError, match="cannot import name 'Reader'"):
        exec("from finqa_sft import Reader")
    assert not hasattr(finqa_sft, "Reader")


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, finqa_sft; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    assert _run(code) == "\n"


def test_documents_and_programs_cost_nothing_heavy_either() -> None:
    code = (
        "import sys\n"
        "from finqa_sft import Document, Question, FinqaSftError, execute_program, parse_program\n"
        "assert execute_program(parse_program('add(1, 2)')) == 3\n"
        f"print(*sorted(set({HEAVY}) & set(sys.modules)))"
    )
    assert _run(code) == "\n"


def test_no_public_name_imports_torch_or_looks_for_plugins() -> None:
    costly = ("datasets", "finqa_sft.plugins.manager", "peft", "torch", "transformers", "trl")
    code = f"import sys; from finqa_sft import *; print(*set({costly}) & set(sys.modules))"
    assert _run(code) == "\n"


def _pinned(value: object) -> str:
    """What of a name that authors import must not change."""
    if isinstance(value, type) and is_typeddict(value):
        return ", ".join(f"{k}: {v.__forward_arg__}" for k, v in value.__annotations__.items())
    if isinstance(value, type) and issubclass(value, BaseModel):
        return " ".join(f"{key}={f.default!r}" for key, f in value.model_fields.items())
    if isinstance(value, type) and issubclass(value, ComponentRecord):
        return str(value.__annotations__["build"])
    if isinstance(value, type) and issubclass(value, Exception | Enum):
        return ", ".join(base.__name__ for base in value.__bases__)
    if isinstance(value, type | FunctionType):
        return _signature(value)
    if get_origin(value) is Annotated:
        return str(get_args(value)[0].__name__)
    return type(value).__name__ if get_origin(value) is None else repr(get_args(value))


@pytest.mark.parametrize("module", AUTHORS)
def test_what_authors_import_is_pinned(module: str) -> None:
    home = importlib.import_module(f"finqa_sft.{module}")
    assert {name: _pinned(vars(home)[name]) for name in AUTHORS[module]} == AUTHORS[module]
    # What a package lists is for authors; what one of its modules lists may be for other rooms.
    if {"__all__", "__path__"} <= vars(home).keys():
        assert sorted(home.__all__) == sorted(AUTHORS[module])


def test_the_documentation_imports_pinned_names_only() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = set()
    for page in pages:
        for module, names in re.findall(
            r"^from finqa_sft([\w.]*) import (\w+(?:, \w+)*)$", page.read_text("utf-8"), re.M
        ):
            found |= {(module.removeprefix("."), name) for name in names.split(", ")}
    public = {("", name) for name in finqa_sft.__all__}
    public |= {(module, name) for module, names in AUTHORS.items() for name in names}
    public |= {("", module) for module in AUTHORS}
    assert found <= public


def test_signatures_are_pinned() -> None:
    found = {}
    for name, value in _public().items():
        if isinstance(value, FunctionType):
            found[name] = _signature(value)
        elif isinstance(value, type) and not issubclass(value, BaseModel | Exception):
            found[name] = _signature(value)
            for method in _methods(value):
                found[f"{name}.{method}"] = _signature(getattr(value, method))
    assert found == SIGNATURES


def test_options_and_their_defaults_are_pinned() -> None:
    found = {}
    for name, value in _public().items():
        if isinstance(value, type) and issubclass(value, BaseModel):
            fields = value.model_fields.items()
            found[name] = " ".join(
                key if field.is_required() else f"{key}={field.default!r}" for key, field in fields
            )
    assert found == OPTIONS


def test_the_root_error_is_an_exception_that_ends_the_command_line_with_2() -> None:
    assert issubclass(finqa_sft.FinqaSftError, Exception)
    assert finqa_sft.FinqaSftError.exit_status == 2


def test_a_hook_is_marked_for_our_plugin_manager() -> None:
    @finqa_sft.hookimpl
    def finqa_sft_readers() -> list[object]:
        return []

    assert finqa_sft.hookimpl.project_name == "finqa_sft"
    assert vars(finqa_sft_readers)["finqa_sft_impl"]
