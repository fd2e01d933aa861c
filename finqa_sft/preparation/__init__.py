"""From a recipe's sources to encoded rows: read, clean, split, fit, encode, and count."""

from __future__ import annotations

from finqa_sft.preparation.counts import Counts
from finqa_sft.preparation.parts import Example, Part, PreparedData
from finqa_sft.preparation.prepare import prepare_data

__all__ = ["Counts", "Example", "Part", "PreparedData", "prepare_data"]
