"""What the tests of the report share: made-up pages, and what models get wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from finqa_sft.documents import Evidence, Paragraph, Question, Turn
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.report import ReportedRun
from finqa_sft.evaluation.scoring import score_predictions
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.components import FinqaMetric
from finqa_sft.readers.base import BadRow
from finqa_sft.readers.filings import FilingsOptions, FilingsReader

HOSTILE = (
    "<script>window.hacked = 1</script></script></template></details></pre>"
    '"><img src=x onerror="window.hacked = 2">\' onmouseover=hacked=3 {{ 7 * 7 }} <!-- ]]> '
    "&lt;b&gt; \u202eevil\u202c \0 \ud800 \x1b[31m \u200b end"
)
SEEN = (
    "<script>window.hacked = 1</script></script></template></details></pre>"
    '"><img src=x onerror="window.hacked = 2">\' onmouseover=hacked=3 {{ 7 * 7 }} <!-- ]]> '
    "&lt;b&gt; \\u202eevil\\u202c \\x00 \\ud800 \\x1b[31m \\u200b end"
)
"""How a reader sees the hostile text."""

LOG = [
    *({"loss": 2.4 * 0.93**step, "step": step * 10} for step in range(30)),
    *(
        {
            "eval_loss": 2.2 * 0.8**step,
            "eval_nll": 1.9 * 0.82**step,
            "eval_finqa/execution": 0.6 - 0.5 * 0.6**step,
            "eval_finqa/program": 0.55 - 0.5 * 0.6**step,
            "step": step * 60,
        }
        for step in range(1, 6)
    ),
]


NOTES = (
    "The company reviews the carrying amount of long-lived assets whenever events indicate that "
    "it may not be recoverable; no impairment was recorded in the years presented.",
    "Deferred taxes are measured at the rates that are expected to apply when the differences "
    "reverse. A valuation allowance is held against losses that are not likely to be used.",
    "Obligations under operating leases are disclosed in the notes; renewals are at the option of "
    "the lessee and are not included in the minimum payments shown above.",
    "Management believes that cash from operations, together with the undrawn facility, will be "
    "enough to meet what is needed for the next twelve months.",
)


def sample_questions(n: int, *, pages: int) -> list[Question]:
    """Questions about made-up pages of about 4.5 kB, some of them asked in a conversation."""
    options = FilingsOptions(pages=pages, length="long", difficulty="hard", seed=3)
    questions = [each for each in FilingsReader(options) if not isinstance(each, BadRow)]
    chosen = sorted(questions, key=lambda question: question.id.rpartition("-")[2])[:n]
    documents = {question.document.id: question.document for question in chosen}
    for number, document in enumerate(documents.values()):
        notes = tuple(
            Paragraph(f"Note N{number + 1}/{place}: {NOTES[(number + place) % len(NOTES)]}")
            for place in range(1, 10)
        )
        longer = replace(document, blocks=document.blocks + notes)
        documents[document.id] = longer
    chosen = [
        replace(each, document=documents[each.document.id], answer_type=None) for each in chosen
    ]
    for place in range(0, len(chosen), 7):
        turns = (
            Turn("What was net revenue in the year before?", "5,735", executed_answer=5735.0),
            Turn("And how much did it grow by?", "1.6%", "divide(94, 5735)", 0.01639, "percent"),
        )
        chosen[place] = replace(chosen[place], history=turns)
    return chosen


def sample_predictions(questions: Sequence[Question], *, seed: int) -> dict[str, Predicted]:
    """Right ones, and such as a model gets wrong."""
    draw = random.Random(seed)
    return {
        question.id: predicted
        for question in questions
        if (predicted := _predicted(question, draw)) is not None
    }


def sample_run(
    questions: Sequence[Question],
    *,
    title: str = "Quarterly reports, QLoRA 7B",
    seed: int = 1,
    facts: Mapping[str, str] | None = None,
) -> ReportedRun:
    """A run over the questions, scored as FinQA does."""
    predictions = sample_predictions(questions, seed=seed)
    stray = Predicted(id="AB/2009/page_7.pdf-1", prediction=Prediction(""))
    evaluation = score_predictions(
        questions,
        {**predictions, stray.id: stray},
        {"finqa": FinqaMetric()},
        duplicates=("AB/2009/page_7.pdf-2",),
    )
    facts = facts or {
        "Base": "Qwen/Qwen2.5-7B-Instruct",
        "Adapter": "runs/qlora_7b/adapter",
        "Recipe": "recipes/qlora_7b.yaml",
        "Decoding": "greedy, at most 128 new tokens",
    }
    return ReportedRun(title=title, evaluation=evaluation, log=LOG, facts=facts)


def _predicted(question: Question, draw: random.Random) -> Predicted | None:
    program, answer = question.program or "", question.answer
    kind = draw.choices(
        ("right", "operand", "operator", "scale", "sign", "broken", "refused", "ran on", "none"),
        (55, 14, 8, 5, 4, 4, 3, 3, 2),
    )[0]
    match kind:
        case "none":
            return None
        case "operand":
            program = program.replace("0", "1", 1).replace("5", "4", 1)
        case "operator":
            program = program.replace("subtract", "add", 1).replace("divide", "multiply", 1)
        case "scale":
            program = f"{program}, multiply(#{program.count('(') - 1}, const_1000)"
        case "sign":
            program = f"{program}, multiply(#{program.count('(') - 1}, const_m1)"
        case "broken":
            program = program.removesuffix(")") + ", ("
        case "refused":
            text = "The page does not say so."
            prediction = Prediction(text)
            return Predicted(id=question.id, prediction=prediction, tokens=9)
    cited = tuple(f"row {place.row}" for place in question.evidence if place.row is not None)[:2]
    text = f"evidence: {'; '.join(cited)}\nprogram: {program}\nanswer: {answer}"
    samples = (text, text, "answer: 12") if draw.random() < 0.2 else ()
    return Predicted(
        id=question.id,
        prediction=Prediction(text, answer, program or None, question.scale),
        tokens=24 + len(program) // 3,
        finished=kind != "ran on",
        left_out=draw.choice((0, 0, 0, 3)),
        samples=samples,
        votes=2 if samples else 1,
    )


def hostile_run(*, title: str = "A run") -> ReportedRun:
    """A run in which every text that others write tries to break out of the page."""
    plain = sample_questions(2, pages=2)
    question, other = plain
    blocks = tuple(
        replace(block, text=f"{HOSTILE} {block.text}")
        if isinstance(block, Paragraph)
        else replace(block, rows=tuple(tuple(HOSTILE for _ in row) for row in block.rows))
        for block in question.document.blocks
    )
    hostile = replace(
        question,
        id=f"id {HOSTILE}",
        text=f"What? {HOSTILE}",
        document=replace(question.document, id=HOSTILE, blocks=blocks, company=HOSTILE),
        answer=HOSTILE,
        answer_type=HOSTILE,
        derivation=HOSTILE,
        evidence=(Evidence(0), Evidence(99, 3)),
        history=(Turn(HOSTILE, HOSTILE, HOSTILE),),
        source=HOSTILE,
    )
    prediction = Prediction(
        HOSTILE, answer=HOSTILE, program=f"add({HOSTILE}, 1)", evidence=(HOSTILE,)
    )
    predicted = Predicted(
        id=hostile.id, prediction=prediction, problem=HOSTILE, samples=(HOSTILE, "b"), votes=1
    )
    evaluation = score_predictions(
        [hostile, other],
        {hostile.id: predicted, HOSTILE: Predicted(id=HOSTILE, prediction=Prediction(""))},
        {"finqa": FinqaMetric()},
        duplicates=(HOSTILE,),
    )
    return ReportedRun(
        title=f"{title} {HOSTILE}",
        evaluation=evaluation,
        log=[{f"eval_{HOSTILE}/{HOSTILE}": 0.5, "step": 1}, {"eval_a/$x$ $": 0.5, "step": 1}],
        facts={HOSTILE: HOSTILE},
    )
