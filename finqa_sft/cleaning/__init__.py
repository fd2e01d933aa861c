"""Mending what is known to be broken in financial documents and their labels, and counting it."""

from __future__ import annotations

from finqa_sft.cleaning.account import Change
from finqa_sft.cleaning.cleaner import Cleaner
from finqa_sft.cleaning.options import CleaningOptions
from finqa_sft.cleaning.targets import Agreement, Disagreements, agreement, settle

__all__ = [
    "Agreement",
    "Change",
    "Cleaner",
    "CleaningOptions",
    "Disagreements",
    "agreement",
    "settle",
]
