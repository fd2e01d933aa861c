"""The reader `filings`: made-up annual-report pages, for trials and tests without a download."""

from finqa_sft.readers.filings.options import FilingsOptions
from finqa_sft.readers.filings.reader import FilingsReader

__all__ = ["FilingsOptions", "FilingsReader"]
