"""FinQA's program language: parse, execute and compare; and the arithmetic that analysts write."""

from __future__ import annotations

from finqa_sft.programs.arithmetic import evaluate_arithmetic
from finqa_sft.programs.derive import DerivationError, derivation_problem, derived_program
from finqa_sft.programs.equivalence import equivalent_programs, matches_gold
from finqa_sft.programs.flat import Strictness, execute_program, parse_program
from finqa_sft.programs.language import Program, ProgramSyntaxError, Step
from finqa_sft.programs.official import OfficialResult, official_result

__all__ = [
    "DerivationError",
    "OfficialResult",
    "Program",
    "ProgramSyntaxError",
    "Step",
    "Strictness",
    "derivation_problem",
    "derived_program",
    "equivalent_programs",
    "evaluate_arithmetic",
    "execute_program",
    "matches_gold",
    "official_result",
    "parse_program",
]
