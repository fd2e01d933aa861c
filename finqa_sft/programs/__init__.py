"""FinQA's program language: parse and execute."""

from __future__ import annotations

from finqa_sft.programs.flat import Program, Step, execute_program, parse_program

__all__ = ["Program", "Step", "execute_program", "parse_program"]
