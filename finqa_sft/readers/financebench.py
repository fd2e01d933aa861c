"""The reader `financebench`: FinanceBench's questions with their evidence.

Source of the layout: the data set's repository, github.com/patronus-ai/financebench.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from finqa_sft.documents import Block, Document, Evidence, Question
from finqa_sft.options import Options
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.context import Register, fingerprint, parse_context
from finqa_sft.readers.files import Files
from finqa_sft.readers.rows import read_files
from finqa_sft.readers.values import Row, RowProblem, as_text, kind, required_text

Context: TypeAlias = Literal["evidence", "page"]

_TEXTS: Mapping[Context, str] = {
    "evidence": "evidence_text",
    "page": "evidence_text_full_page",
}


class FinancebenchOptions(Options):
    """Options of the reader `financebench`."""

    files: Annotated[Files, Field(min_length=1)]
    """FinanceBench's JSON lines (`.jsonl`), or the same rows as a JSON list: one path or
    several."""

    context: Context = "evidence"
    """What of the filing is shown: the passages marked as evidence, or the full pages that they
    stand on."""


class FinancebenchReader:
    """Reads questions about filings, each with its evidence as context.

    The context is the row's distinct evidence texts, or pages, in order; pipe and markdown tables
    in them are recognised. A filing's questions have different contexts, so a document is a
    context: its id is the filing's name, `#` and a hash of the content. **A filing therefore is
    several documents; keep it on one side of a split by holding out companies**
    (`data.split.by=company`); the company is always set.

    Evidence is every block if the context is the evidence, and unknown within full pages.
    `answer_type` is the row's `question_reasoning`, or its `question_type` where that is empty.
    Justifications are not read.
    """

    def __init__(self, options: FinancebenchOptions) -> None:
        """Take the options; files are opened when the reader is iterated."""
        self._options = options

    def __iter__(self) -> Iterator[Question | BadRow]:
        """Read all files from their beginning.

        Raises:
            DataError: A file is missing, empty, not JSON, or in another data set's layout.
        """
        register = Register()

        def questions(row: Row, source: str) -> Iterator[Question]:
            question = _question(row, context=self._options.context, source=source)
            yield register.enter(question, document_field="evidence", id_field="financebench_id")

        return read_files(self._options.files, reader="financebench", questions=questions)


def _question(row: Row, *, context: Context, source: str) -> Question:
    filing = required_text(row, "doc_name")
    blocks = _blocks(row.get("evidence"), key=_TEXTS[context])
    types = (as_text(row.get(key), field=key) for key in ("question_reasoning", "question_type"))
    return Question(
        id=required_text(row, "financebench_id"),
        text=required_text(row, "question"),
        document=Document(
            id=f"{filing}#{fingerprint(blocks)[:16]}",
            blocks=blocks,
            company=required_text(row, "company"),
        ),
        answer=required_text(row, "answer"),
        answer_type=next(filter(None, types), None),
        evidence=tuple(map(Evidence, range(len(blocks)))) if context == "evidence" else (),
        source=source,
    )


def _blocks(evidence: object, *, key: str) -> tuple[Block, ...]:
    """The blocks of all distinct texts under a key, in order."""
    if not isinstance(evidence, list) or not evidence:
        found = "an empty list" if evidence == [] else kind(evidence)
        raise RowProblem("evidence", f"{found}; expected a list of evidence")
    texts: dict[str, None] = {}
    for index, item in enumerate(evidence):
        if not isinstance(item, dict):
            raise RowProblem(f"evidence[{index}]", f"{kind(item)}; expected an object")
        texts[required_text(item, key, field=f"evidence[{index}].{key}")] = None
    return tuple(block for text in texts for block in parse_context(text))
