"""The contract of metrics: ours keep it, and each rule is noticed when a metric breaks it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from finqa_sft.documents import Document, Paragraph, Question
from finqa_sft.formatters.base import Prediction
from finqa_sft.metrics.answer import score_answer
from finqa_sft.metrics.base import Figure, Score
from finqa_sft.options import NoOptions, Options
from finqa_sft.plugins import MetricRecord, hookimpl
from finqa_sft.plugins.manager import Component, Plugins
from finqa_sft.testing import (
    ContractError,
    MetricRule,
    PluginRule,
    check_formatter,
    check_metric,
    check_plugin,
)
from finqa_sft.testing.samples import gold_prediction, sample_predictions, sample_questions

METRICS = Plugins.load({"FINQA_SFT_PLUGINS": ""}).components("metrics")
QUESTION = Question(
    id="own 1",
    text="What was rail?",
    document=Document(id="p-1", blocks=(Paragraph("Rail was 5."),)),
    answer="5",
    answer_type="rail",
)


@pytest.mark.parametrize("component", METRICS, ids=lambda component: component.record.name)
def test_our_metrics_keep_the_contract(component: Component[Any]) -> None:
    check_metric(component.record.build(component.record.config()))


def test_the_questions_of_the_check_are_of_all_kinds() -> None:
    questions = sample_questions()
    applied = {
        component.record.name: [
            question.id
            for question in questions
            if component.record.build(component.record.config()).applies(question)
        ]
        for component in METRICS
    }
    programs = ["program", "yes or no", "percent", "table"]
    assert applied == {
        "answer": [question.id for question in questions],
        "convfinqa": [*programs, "turn with a number", "count"],
        "finqa": programs,
        "tatqa": ["span", "spans", "count", "derivation"],
    }
    assert any(question.history for question in questions)
    assert len({question.id for question in questions}) == len(questions)


def test_the_predictions_of_the_check_are_right_wrong_partial_empty_and_garbage() -> None:
    for question in sample_questions():
        predictions = list(sample_predictions(question))
        assert predictions[0] == gold_prediction(question)
        assert Prediction(text="") in predictions
        correct = {
            score_answer(one.answer, gold=question.answer).correct for one in predictions[1:]
        }
        assert correct == {True, False}


class Fine:
    """Whether the answer is the gold one, letter by letter."""

    figures: Any = (Figure("same", "the answer is the gold one, letter by letter"),)

    def applies(self, question: Question) -> Any:
        return True

    def score(self, question: Question, prediction: Prediction) -> Any:
        return Score({"same": float(prediction.answer == question.answer)})


class Named(Fine):
    def __init__(self, *figures: object) -> None:
        self.figures = figures


class Listed(Fine):
    def __init__(self) -> None:
        self.figures = [Figure("same", "equal")]


class Applying(Fine):
    def __init__(self, applies: Callable[[Question], object]) -> None:
        self._applies = applies

    def applies(self, question: Question) -> Any:
        return self._applies(question)


class Scoring(Fine):
    def __init__(self, score: Callable[[Question, Prediction], object]) -> None:
        self._score = score

    def score(self, question: Question, prediction: Prediction) -> Any:
        return self._score(question, prediction)


class Giving(Scoring):
    def __init__(self, figures: object) -> None:
        super().__init__(lambda question, prediction: Score(figures))  # type: ignore[arg-type]


class Learning(Fine):
    """Right is what was right before."""

    def __init__(self) -> None:
        self._seen: set[str | None] = set()

    def score(self, question: Question, prediction: Prediction) -> Score:
        known = prediction.answer in self._seen
        self._seen.add(question.answer)
        return Score({"same": float(known or prediction.answer == question.answer)})


class Sharing(Fine):
    """One dict for all scores."""

    def __init__(self) -> None:
        self._figures: dict[str, float] = {}

    def score(self, question: Question, prediction: Prediction) -> Score:
        self._figures["same"] = float(prediction.answer == question.answer)
        return Score(self._figures)


class Noting(Fine):
    def __init__(self) -> None:
        self._counter = itertools.count()

    def score(self, question: Question, prediction: Prediction) -> Score:
        return Score({"same": 1.0}, note=f"score {next(self._counter)}")


class Renaming(Fine):
    def __init__(self) -> None:
        self._calls = 0

    @property
    def figures(self) -> Any:  # type: ignore[override]
        self._calls += 1
        return (Figure("same", f"asked for {self._calls} times"),)


class Handed(Fine):
    submissions = "answers"

    def score_submitted(self, question: Question, submitted: Any) -> Any:
        return Score({"same": float(submitted[0] == question.answer)})


def changing_question(question: Question, prediction: Prediction) -> Score:
    object.__setattr__(question, "source", "scored")
    return Score({"same": 1.0})


def changing_prediction(question: Question, prediction: Prediction) -> Score:
    object.__setattr__(prediction, "text", "scored")
    return Score({"same": 1.0})


EXTRACTED = "answer '14.5', program 'subtract(412.6, 398.1)', scale million to question 'program'"
CASES: list[tuple[Any, MetricRule, str]] = [
    (Listed(), MetricRule.FIGURES, "figures is [Figure(name='same', summary='equal')]"),
    (Named(), MetricRule.FIGURES, "figures is ()"),
    (Named("same"), MetricRule.FIGURES, "figures is ('same',)"),
    (Named(Figure("same", None)), MetricRule.FIGURES, "figures is (Figure(name='same', "),  # type: ignore[arg-type]
    (
        Named(Figure("Exact Match", "equal")),
        MetricRule.FIGURES,
        "the figure 'Exact Match' has other characters in its name",
    ),
    (Named(Figure("em", " ")), MetricRule.FIGURES, "the figure 'em' has the summary ' '"),
    (Named(Figure("em", "a\nb")), MetricRule.FIGURES, "the figure 'em' has the summary 'a\\nb'"),
    (
        Named(Figure("em", "equal"), Figure("f1", "words"), Figure("em", "equal")),
        MetricRule.FIGURES,
        "more than one is called em",
    ),
    (
        Applying(lambda question: question.program),
        MetricRule.APPLIES,
        "applies() gives 'subtract(412.6, 398.1)' for question 'program'",
    ),
    (
        Applying(lambda question: question.program.startswith("a")),  # type: ignore[union-attr]
        MetricRule.APPLIES,
        "applies() to question 'turn with a number' raised AttributeError: 'NoneType' object has "
        "no attribute 'startswith' (test_testing_metrics.py line ",
    ),
    (
        Applying(lambda question: question.answer_type == "rail"),
        MetricRule.SOME,
        "it applies to none of 0 questions given",
    ),
    (
        Scoring(lambda question, prediction: Score({"same": 0 * float(prediction.answer or "")})),
        MetricRule.SCORES,
        "scoring no answer, program 'subtract(412.6, 398.1)', scale million to question 'program' "
        "raised ValueError: could not convert string to float: '' (test_testing_metrics.py line ",
    ),
    (
        Scoring(lambda question, prediction: 1.0),
        MetricRule.SCORES,
        f"{EXTRACTED} scores 1.0",
    ),
    (Giving(1.0), MetricRule.SCORES, f"the figures of {EXTRACTED} raised TypeError: 'float' "),
    (
        Giving({"exact": 1.0}),
        MetricRule.NUMBERS,
        f"{EXTRACTED} scores {{'exact': 1.0}}; declared are same",
    ),
    (Giving({"same": 100.0}), MetricRule.NUMBERS, f"{EXTRACTED} scores {{'same': 100.0}}"),
    (Giving({"same": True}), MetricRule.NUMBERS, f"{EXTRACTED} scores {{'same': True}}"),
    (Giving({"same": None}), MetricRule.NUMBERS, f"{EXTRACTED} scores {{'same': None}}"),
    (Giving({"same": float("nan")}), MetricRule.NUMBERS, f"{EXTRACTED} scores {{'same': nan}}"),
    (Learning(), MetricRule.SAME, "answer "),
    (Sharing(), MetricRule.SAME, "answer "),
    (Noting(), MetricRule.SAME, "no answer to question 'plain' scores {'same': 1.0} (score "),
    (
        Scoring(lambda question, prediction: Score({"same": random.random()})),
        MetricRule.SAME,
        "no answer to question 'plain' scores {'same': 0.",
    ),
    (Renaming(), MetricRule.SAME, "figures or applies() tell something else after the scoring"),
    (Scoring(changing_question), MetricRule.UNCHANGED, "question 'program' is changed"),
    (
        Scoring(changing_prediction),
        MetricRule.UNCHANGED,
        "a prediction for question 'program' is changed",
    ),
    (
        Scoring(lambda question, prediction: Score({"same": 0.5})),
        MetricRule.RIGHT,
        f"{EXTRACTED}, the gold labels, scores {{'same': 0.5}}",
    ),
    (
        Handed(),
        MetricRule.SUBMITTED,
        "scoring 'None' handed in for question 'program' raised TypeError: 'NoneType' object is ",
    ),
]


@pytest.mark.parametrize(
    ("metric", "rule", "seen"),
    CASES,
    ids=[f"{rule.name}-{n}" for n, (_, rule, _) in enumerate(CASES)],
)
def test_a_broken_metric_is_told_what_it_breaks(metric: Any, rule: MetricRule, seen: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_metric(metric)
    assert caught.value.rule is rule, str(caught.value)
    assert caught.value.seen.startswith(seen)
    assert caught.value.component == f"metric {type(metric).__name__}"


def test_every_rule_has_a_case_that_breaks_it() -> None:
    assert {rule for _, rule, _ in CASES} == set(MetricRule)


def test_rules_are_sentences_and_so_are_remedies() -> None:
    assert len({rule.says for rule in MetricRule}) == len(MetricRule)
    for rule in MetricRule:
        assert not rule.says.endswith(".")
        assert rule.remedy.endswith(".")


def test_a_metric_may_be_for_questions_of_its_own() -> None:
    own = Applying(lambda question: question.answer_type == "rail")
    check_metric(own, [QUESTION])
    wrong = Scoring(lambda question, prediction: Score({"same": float(question.id != "own 1")}))
    check_metric(wrong)
    with pytest.raises(ContractError, match="answer '5' to question 'own 1', the gold labels, "):
        check_metric(wrong, [QUESTION])


def test_a_metric_may_count_something_else_than_right_answers() -> None:
    brief = Scoring(lambda question, prediction: Score({"same": float(len(prediction.text) < 4)}))
    with pytest.raises(ContractError) as caught:
        check_metric(brief)
    assert caught.value.rule is MetricRule.RIGHT
    check_metric(brief, gold_is_right=False)


def test_a_question_for_a_metric_must_be_one() -> None:
    wrong: Any = replace(QUESTION, answer=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^check_metric needs questions: item 1\.answer is 5, "):
        check_metric(Fine(), [wrong])


# In a plugin


class Counting(Options):
    """Options without a default."""

    at_most: int
    """How many letters an answer may have."""


def offering(**fields: Any) -> ModuleType:
    """A plugin with one metric."""

    @hookimpl
    def finqa_sft_metrics() -> list[MetricRecord]:
        return [MetricRecord(**{"name": "m", "summary": "a metric", **fields})]

    made = ModuleType("mine")
    made.finqa_sft_metrics = finqa_sft_metrics  # type: ignore[attr-defined]
    return made


def building(metric: object) -> Callable[[NoOptions], Any]:
    def build(options: NoOptions) -> Any:
        return metric

    return build


def test_the_metrics_of_a_plugin_are_built_and_tried() -> None:
    check_plugin(offering(build=building(Fine())))
    with pytest.raises(ContractError) as caught:
        check_plugin(offering(build=building(Giving({"same": 100.0}))))
    assert caught.value.rule is MetricRule.NUMBERS


def test_a_metric_of_a_plugin_need_not_know_our_questions_nor_take_gold_for_right() -> None:
    check_plugin(offering(build=building(Applying(lambda question: False))))
    check_plugin(offering(build=building(Giving({"same": 0.0}))))


def test_a_metric_that_needs_options_is_not_built() -> None:
    check_plugin(offering(build=building(None), config=Counting))


def test_a_metric_that_cannot_be_built_is_told() -> None:
    def build(options: NoOptions) -> Any:
        raise KeyError("tolerance")

    with pytest.raises(ContractError) as caught:
        check_plugin(offering(build=build))
    assert caught.value.rule is PluginRule.BUILDS
    assert caught.value.seen.startswith("build of the metric 'm' raised KeyError: 'tolerance'")


def test_questions_of_the_check_are_questions() -> None:
    from finqa_sft.formatters.steps import StepsFormatter

    check_formatter(StepsFormatter(), sample_questions())
