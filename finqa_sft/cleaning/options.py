"""Options of cleaning: one switch a rule."""

from __future__ import annotations

from finqa_sft.options import Options


class CleaningOptions(Options):
    """What is mended in documents, questions and written answers before they are taught."""

    stripped_quotes: bool = True
    """Quotation marks of which only the character's number is left, as in FinQA: "company 2019s"
    becomes "company's", "201cnotes 201d" becomes '"notes"'. Years stay as they are; what may be a
    year is left and counted."""

    doubled_negatives: bool = True
    """Negative amounts and percentages that are written twice: "-2 ( 2 )" becomes "-2" and
    "16.6% ( 16.6 % )" becomes "16.6%", where both say the same number."""

    filler_sentences: bool = True
    """Paragraphs without a letter or a digit, such as runs of "." in FinQA, are left out."""

    header_rows: bool = True
    """Further header rows under the first, which hold only years, dates or units, are marked as
    headers."""

    empty_columns: bool = True
    """Columns without any text are left out; the first column stays."""

    empty_rows: bool = True
    """Rows without any text are left out."""

    duplicate_labels: bool = True
    """Row labels that stand several times in a table are made unique: the last keeps its label,
    as programs mean the last one; earlier ones get the section's heading in front or a number
    behind: "Americas: Other", "granted (1)"."""

    spaces_and_minus: bool = True
    """Special spaces become plain ones, characters without width go, and a minus sign or an en
    dash in front of a number in a cell becomes "-"."""
