"""Row labels in programs: from a page's own labels to the cleaned ones, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping


def rename_labels(program: str, names: Mapping[str, str]) -> str:
    """A program whose table steps name their rows otherwise; all else stays as it is written.

    Args:
        program: A flat program, or anything else a model wrote in its place.
        names: New labels by old ones; others are left.
    """
    if not names or "table_" not in program:
        return program
    longest_first = sorted(names, key=len, reverse=True)
    label = "|".join(map(re.escape, longest_first))
    step = re.compile(rf"(table_[a-z]+\( {{0,8}})({label})(?= {{0,8}},[^,()]*\))")
    return step.sub(lambda match: match[1] + names[match[2]], program)
