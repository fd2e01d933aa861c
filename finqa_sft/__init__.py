"""Fine-tune language models on financial documents: a plugin for TRL's `SFTTrainer`.

The names below are for other projects. Each is imported from its module when it is first used, so
that importing the package costs nothing and looks for no plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "AnswerFormatter",
    "AnswerOptions",
    "AnswerScore",
    "Cleaner",
    "CleaningOptions",
    "ColumnsOptions",
    "ColumnsReader",
    "ConvfinqaOptions",
    "ConvfinqaReader",
    "Document",
    "Encoder",
    "Evidence",
    "FilingsOptions",
    "FilingsReader",
    "FinQAScore",
    "FinancebenchOptions",
    "FinancebenchReader",
    "FinqaOptions",
    "FinqaReader",
    "FinqaSftError",
    "FlattenedCollator",
    "FullFactory",
    "FullOptions",
    "LoRAFactory",
    "LoRAFactoryOptions",
    "LoraOptions",
    "PaddedCollator",
    "Paragraph",
    "ProgramFormatter",
    "ProgramOptions",
    "QLoRAFactory",
    "QLoRAOptions",
    "Question",
    "SharedContextCollator",
    "StepsFormatter",
    "StepsOptions",
    "Table",
    "TatQAScore",
    "TatqaOptions",
    "TatqaReader",
    "Turn",
    "__version__",
    "equivalent_programs",
    "execute_program",
    "fit_question",
    "fit_questions",
    "hookimpl",
    "parse_program",
    "score_answer",
    "score_convfinqa",
    "score_finqa",
    "score_tatqa",
]

if TYPE_CHECKING:
    from finqa_sft.budget import fit_question, fit_questions
    from finqa_sft.cleaning import Cleaner, CleaningOptions
    from finqa_sft.collators.flattened import FlattenedCollator
    from finqa_sft.collators.padded import PaddedCollator
    from finqa_sft.collators.shared_context import SharedContextCollator
    from finqa_sft.documents import Document, Evidence, Paragraph, Question, Table, Turn
    from finqa_sft.encoding import Encoder
    from finqa_sft.errors import FinqaSftError
    from finqa_sft.formatters.answer import AnswerFormatter, AnswerOptions
    from finqa_sft.formatters.program import ProgramFormatter, ProgramOptions
    from finqa_sft.formatters.steps import StepsFormatter, StepsOptions
    from finqa_sft.metrics import (
        AnswerScore,
        FinQAScore,
        TatQAScore,
        score_answer,
        score_convfinqa,
        score_finqa,
        score_tatqa,
    )
    from finqa_sft.models.full import FullFactory
    from finqa_sft.models.lora import LoRAFactory
    from finqa_sft.models.options import (
        FullOptions,
        LoRAFactoryOptions,
        LoraOptions,
        QLoRAOptions,
    )
    from finqa_sft.models.qlora import QLoRAFactory
    from finqa_sft.plugins.hookspecs import hookimpl
    from finqa_sft.programs import equivalent_programs, execute_program, parse_program
    from finqa_sft.readers.columns import ColumnsOptions, ColumnsReader
    from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
    from finqa_sft.readers.filings import FilingsOptions, FilingsReader
    from finqa_sft.readers.financebench import FinancebenchOptions, FinancebenchReader
    from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
    from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader
else:
    # Not for type checkers: to them, a module with a `__getattr__` would have every name.
    _HOMES = {
        "finqa_sft.budget": ("fit_question", "fit_questions"),
        "finqa_sft.cleaning": ("Cleaner", "CleaningOptions"),
        "finqa_sft.collators.flattened": ("FlattenedCollator",),
        "finqa_sft.collators.padded": ("PaddedCollator",),
        "finqa_sft.collators.shared_context": ("SharedContextCollator",),
        "finqa_sft.documents": ("Document", "Evidence", "Paragraph", "Question", "Table", "Turn"),
        "finqa_sft.encoding": ("Encoder",),
        "finqa_sft.errors": ("FinqaSftError",),
        "finqa_sft.formatters.answer": ("AnswerFormatter", "AnswerOptions"),
        "finqa_sft.formatters.program": ("ProgramFormatter", "ProgramOptions"),
        "finqa_sft.formatters.steps": ("StepsFormatter", "StepsOptions"),
        "finqa_sft.metrics": (
            "AnswerScore",
            "FinQAScore",
            "TatQAScore",
            "score_answer",
            "score_convfinqa",
            "score_finqa",
            "score_tatqa",
        ),
        "finqa_sft.models.full": ("FullFactory",),
        "finqa_sft.models.lora": ("LoRAFactory",),
        "finqa_sft.models.options": (
            "FullOptions",
            "LoRAFactoryOptions",
            "LoraOptions",
            "QLoRAOptions",
        ),
        "finqa_sft.models.qlora": ("QLoRAFactory",),
        "finqa_sft.plugins.hookspecs": ("hookimpl",),
        "finqa_sft.programs": ("equivalent_programs", "execute_program", "parse_program"),
        "finqa_sft.readers.columns": ("ColumnsOptions", "ColumnsReader"),
        "finqa_sft.readers.convfinqa": ("ConvfinqaOptions", "ConvfinqaReader"),
        "finqa_sft.readers.filings": ("FilingsOptions", "FilingsReader"),
        "finqa_sft.readers.financebench": ("FinancebenchOptions", "FinancebenchReader"),
        "finqa_sft.readers.finqa": ("FinqaOptions", "FinqaReader"),
        "finqa_sft.readers.tatqa": ("TatqaOptions", "TatqaReader"),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:
        """Import a public name from its module (PEP 562) and keep it."""
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    """The public names, imported yet or not."""
    return sorted({*globals(), *__all__})
