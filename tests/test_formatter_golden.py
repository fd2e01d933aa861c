"""Golden files: what each formatter makes of each reader's questions, token for token.

`golden/<formatter>_<reader>.txt` holds the rows as the model gets them, with what it learns between
⟦ and ⟧. After a change that is meant, write them anew and read the diff:

    FINQA_SFT_WRITE_GOLDEN=1 pytest tests/test_formatter_golden.py
"""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from finqa_sft.documents import Question
from finqa_sft.encoding import Encoder
from finqa_sft.formatters.answer import AnswerFormatter
from finqa_sft.formatters.base import Formatter
from finqa_sft.formatters.program import ProgramFormatter
from finqa_sft.formatters.steps import StepsFormatter
from finqa_sft.readers.columns import ColumnsOptions, ColumnsReader
from finqa_sft.readers.convfinqa import ConvfinqaOptions, ConvfinqaReader
from finqa_sft.readers.filings import FilingsOptions, FilingsReader
from finqa_sft.readers.financebench import FinancebenchOptions, FinancebenchReader
from finqa_sft.readers.finqa import FinqaOptions, FinqaReader
from finqa_sft.readers.tatqa import TatqaOptions, TatqaReader

GOLDEN = Path(__file__).parent / "golden"

FORMATTERS: dict[str, Any] = {
    "answer": AnswerFormatter,
    "program": ProgramFormatter,
    "steps": StepsFormatter,
}

PAGE: dict[str, Any] = {
    "filename": "QZX/2017/page_12.pdf",
    "pre_text": ["harbour freight grew in 2017 .", "amounts are in millions | of dollars ."],
    "post_text": ["the dividend was $ 3 million ; in 2016 it was $ 2 million ."],
    "table": [["", "2017", "2016"], ["revenue", "$ 120", "$ 100"], ["costs", "-80 ( 80 )", "70"]],
}
FINQA = [
    {
        **PAGE,
        "id": "QZX/2017/page_12.pdf-1",
        "qa": {
            "question": "what was the growth of revenue?",
            "answer": "20%",
            "program": "subtract(120, 100), divide(#0, 100)",
            "exe_ans": 0.2,
            "gold_inds": {"table_1": "the revenue of 2017 is $ 120 ;"},
        },
    },
    {
        **PAGE,
        "id": "QZX/2017/page_12.pdf-2",
        "qa": {
            "question": "was revenue higher than costs and dividend together in 2017?",
            "answer": "yes",
            "program": "add(80, 3), greater(120, #0)",
            "exe_ans": "yes",
            "gold_inds": {"table_2": "costs", "text_2": "dividend", "table_1": "revenue"},
        },
    },
]
CONVFINQA = [
    {
        **PAGE,
        "id": "Single_QZX/2017/page_12.pdf-1",
        "annotation": {
            "dialogue_break": [
                "what was revenue in 2016?",
                "and the change to 2017?",
                "as a share of 2016?",
            ],
            "turn_program": [
                "100",
                "subtract(120, 100)",
                "subtract(120, 100), divide(#0, 100)",
            ],
            "exe_ans_list": [100.0, 20.0, 0.2],
        },
    }
]


def _tatqa(number: int, question: str, answer: Any, kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "uid": f"q-{number}",
        "order": number,
        "question": question,
        "answer": answer,
        "derivation": "",
        "answer_type": kind,
        "answer_from": "table",
        "rel_paragraphs": [],
        "req_comparison": False,
        "scale": "",
        **fields,
    }


TATQA = [
    {
        "table": {
            "uid": "t-1",
            "table": [
                ["", "Years ended", ""],
                ["", "2019", "2018"],
                ["Berths", "", ""],
                ["Freight", "49", "(40)"],
                ["Passengers", "$ 7.5", "-"],
            ],
        },
        "paragraphs": [{"uid": "p-1", "order": 1, "text": "Freight rose in the north."}],
        "questions": [
            _tatqa(1, "What was the change in freight?", 22.5, "arithmetic",
                   derivation="(49-40)/40", scale="percent"),
            _tatqa(2, "What did passengers bring?", ["$ 7.5"], "span", scale="thousand"),
            _tatqa(3, "Where and when did freight rise?", ["in the north", "2019"], "multi-span",
                   answer_from="table-text", rel_paragraphs=["1"]),
            _tatqa(4, "In how many years was freight above 45?", 1, "count", derivation="2019"),
        ],
    }
]  # fmt: skip
FINANCEBENCH = [
    {
        "financebench_id": "financebench_id_90001",
        "company": "Quayside",
        "doc_name": "QUAYSIDE_2019_10K",
        "question_type": "metrics-generated",
        "question_reasoning": "Information extraction",
        "question": "What was freight in 2019?",
        "answer": "$5 thousand",
        "justification": "It is in the text.",
        "evidence": [
            {
                "evidence_text": "Freight was $5 thousand.\n\n| | 2019 |\n|---|---|\n| Rail | 5 |",
                "doc_name": "QUAYSIDE_2019_10K",
                "evidence_page_num": 41,
                "evidence_text_full_page": "Page 41.\n\nFreight was $5 thousand.",
            }
        ],
    }
]
COLUMNS = [
    {
        "question": "What did the port earn?",
        "context": "The port earned EUR 412.6 million.\n\nBerths | 2023\nNorth | 12\nSouth | 7",
        "answer": "412.6",
        "scale": "million",
    },
    {
        "question": "How many berths more has the north?",
        "context": "The port earned EUR 412.6 million.\n\nBerths | 2023\nNorth | 12\nSouth | 7",
        "answer": "5",
        "program": "subtract(12, 7)",
        "scale": "",
    },
]


def _questions(name: str, folder: Path) -> list[Question]:
    """A few questions of each reader, from files that are written here."""
    if name == "filings":
        return _good(FilingsReader(FilingsOptions(pages=1, seed=5)))
    readers: dict[str, tuple[Any, Any, list[Any]]] = {
        "finqa": (FinqaReader, FinqaOptions, FINQA),
        "convfinqa": (ConvfinqaReader, ConvfinqaOptions, CONVFINQA),
        "tatqa": (TatqaReader, TatqaOptions, TATQA),
        "financebench": (FinancebenchReader, FinancebenchOptions, FINANCEBENCH),
        "columns": (ColumnsReader, ColumnsOptions, COLUMNS),
    }
    reader, options, rows = readers[name]
    path = folder / ("rows.jsonl" if name == "financebench" else "rows.json")
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{', '.join(lines)}]")
    return _good(reader(options(files=(path,))))


def _good(reader: Any) -> list[Question]:
    items = list(reader)
    assert all(isinstance(item, Question) for item in items), items
    return items


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Encoder:
    from transformers import AutoTokenizer

    return Encoder(AutoTokenizer.from_pretrained(tiny))


def _marked(formatter: Formatter, question: Question, encoder: Encoder) -> str:
    prompt = formatter.prompt(question, document=question.document)
    row = encoder.encode(prompt, formatter.completion(question), document=question.document.id)
    return encoder.marked(row)


@pytest.mark.parametrize(
    "reader", ["finqa", "convfinqa", "tatqa", "financebench", "columns", "filings"]
)
@pytest.mark.parametrize("name", FORMATTERS)
def test_rows_are_what_they_were(name: str, reader: str, encoder: Encoder, tmp_path: Path) -> None:
    formatter = FORMATTERS[name]()
    rows = [
        f"=== {question.id}\n{_marked(formatter, question, encoder)}\n"
        for question in _questions(reader, tmp_path)[:4]
    ]
    text = "\n".join(rows)
    assert text.count("⟦") == text.count("⟧") == len(rows)
    path = GOLDEN / f"{name}_{reader}.txt"
    if os.environ.get("FINQA_SFT_WRITE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    golden = path.read_text(encoding="utf-8") if path.exists() else ""
    diff = difflib.unified_diff(
        golden.splitlines(), text.splitlines(), path.name, "now", lineterm="", n=1
    )
    assert text == golden, "\n".join(["not what the golden file says", *diff])


def test_no_golden_file_is_left_over() -> None:
    names = {path.stem.split("_", 1)[0] for path in GOLDEN.glob("*.txt")}
    assert names == set(FORMATTERS)
    assert len(list(GOLDEN.iterdir())) == len(FORMATTERS) * 6
