"""From questions to predictions with a model at hand: ask, generate, read, vote."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from finqa_sft.documents import Question
from finqa_sft.encoding import Encoder
from finqa_sft.evaluation.asking import Asked, Asker
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.voting import vote
from finqa_sft.formatters.base import Formatter, Prediction
from finqa_sft.formatters.linearize import document_text
from finqa_sft.generation.decoding import Completion, Decoding, Prompt
from finqa_sft.preparation.splits import drawn_order
from finqa_sft.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from finqa_sft.generation.generator import Generator

LEAST_NEW_TOKENS = 64
"""An answer may have as many tokens, however short those are that were taught."""

ANSWER_CHARACTERS = 500
"""Characters of a document that take about as long to read as one answer takes to write."""

BATCH_SIZE = 8
"""Answers generated at a time, where neither `evaluation` nor `trainer` says."""


class Answerer:
    """Asks one model questions, as its training was asked.

    Attributes:
        decoding: How completions are generated.
    """

    def __init__(self, asker: Asker, generator: Generator, decoding: Decoding) -> None:
        """Take what asks and what answers."""
        self.decoding = decoding
        self._asker = asker
        self._generator = generator

    @property
    def at_once(self) -> int:
        """How many questions are answered at a time."""
        return max(1, self._generator.batch_size // self.decoding.samples)

    def answer(
        self, questions: Sequence[Question], *, done: Collection[str] = ()
    ) -> Iterator[Predicted]:
        """Predictions, in the order in which batches are done.

        Args:
            questions: All questions of each document that is asked about: they share what is
                shown of it.
            done: Ids of those that have been answered before.

        Yields:
            One prediction for each question that is not done.
        """
        asked = [one for one in self._asker.ask(questions) if one.question.id not in done]
        for one in asked:
            if one.problem:
                yield Predicted(
                    id=one.question.id,
                    prediction=Prediction(text=""),
                    problem=one.problem,
                    question=one.question.text,
                    source=one.question.source,
                )
        asked = [one for one in asked if not one.problem]
        prompts = [Prompt(one.ids, one.question.document.id) for one in asked]
        for index, completions in self._generator.complete(prompts):
            yield self._predicted(asked[index], completions)

    def _predicted(self, asked: Asked, completions: Sequence[Completion]) -> Predicted:
        """The one completion read, or what most of several come to."""
        question = asked.question
        readings = [self._asker.read(question, completion.text) for completion in completions]
        chosen, votes = vote(readings, question)
        completion = completions[next(n for n, one in enumerate(readings) if one is chosen)]
        several = len(completions) > 1
        return Predicted(
            id=question.id,
            prediction=chosen,
            tokens=completion.tokens,
            finished=completion.finished,
            left_out=len(asked.left_out),
            samples=tuple(completion.text for completion in completions) if several else (),
            votes=votes,
            question=question.text,
            source=question.source,
        )


def decoding_of(recipe: Recipe, *, longest_answer: int) -> Decoding:
    """How completions are generated, as a recipe's `evaluation` section says.

    Args:
        recipe: The recipe.
        longest_answer: Tokens of the longest answer that was taught.
    """
    rules = recipe.evaluation
    return Decoding(
        max_new_tokens=rules.max_new_tokens or max(LEAST_NEW_TOKENS, 2 * longest_answer),
        samples=rules.samples,
        temperature=rules.temperature,
        top_p=rules.top_p,
        seed=rules.seed,
    )


def answerer(
    recipe: Recipe,
    model: PeftModel | PreTrainedModel,
    *,
    encoder: Encoder,
    formatter: Formatter,
    longest_answer: int,
) -> Answerer:
    """What asks a model as a recipe trains it.

    Args:
        recipe: Names the formatter and the rules of cleaning, length and decoding.
        model: The model, trained or not; not wrapped for several processes.
        encoder: Encodes with the model's tokenizer.
        formatter: The recipe's formatter.
        longest_answer: Tokens of the longest answer that was taught.
    """
    from finqa_sft.generation.generator import Generator, stop_ids
    from finqa_sft.generation.reach import reach
    from finqa_sft.generation.state import unwrapped

    decoding = decoding_of(recipe, longest_answer=longest_answer)
    size = recipe.evaluation.batch_size or recipe.trainer.get("per_device_eval_batch_size")
    generator = Generator(
        model,
        encoder.tokenizer,
        stop_ids=stop_ids(encoder, model),
        decoding=decoding,
        batch_size=size or BATCH_SIZE,
    )
    longest = recipe.max_length
    positions = reach(unwrapped(model)).positions
    if positions is not None:
        # The longest answer that was taught has to find room behind the prompt.
        longest = min(longest, positions - (longest_answer or LEAST_NEW_TOKENS))
    asker = Asker(
        formatter,
        encoder,
        component=recipe.formatter.component,
        cleaning=recipe.data.cleaning,
        max_prompt=max(longest, 1),
    )
    return Answerer(asker, generator, decoding)


def share(questions: Sequence[Question], *, rank: int, of: int) -> list[Question]:
    """The questions that one of several processes answers: whole documents, evenly by length.

    Args:
        questions: All questions, the same in each process.
        rank: This process's number.
        of: How many processes there are.
    """
    by_document: dict[str, list[Question]] = {}
    for question in questions:
        by_document.setdefault(question.document.id, []).append(question)
    loads = [0] * of
    mine: list[Question] = []
    # The longest first, each to the process with the least to do.
    for page in sorted(by_document.values(), key=_work, reverse=True):
        least = loads.index(min(loads))
        loads[least] += _work(page)
        if least == rank:
            mine += page
    return mine


def _work(page: Sequence[Question]) -> int:
    """How much there is to do for the questions of one document, in characters to read."""
    return len(document_text(page[0].document)) + ANSWER_CHARACTERS * len(page)


def sample_of(questions: Sequence[Question], *, at_most: int, seed: int) -> list[Question]:
    """Whole documents drawn until a number of questions is reached; all where that is no limit.

    The draw depends on the documents' names and the seed alone.

    Args:
        questions: All questions.
        at_most: How many are wanted. The last document drawn may be shared out.
        seed: Another seed draws other documents.
    """
    if len(questions) <= at_most:
        return list(questions)
    order = drawn_order({question.document.id for question in questions}, seed=seed)
    place = {document: n for n, document in enumerate(order)}
    chosen = sorted(questions, key=lambda question: place[question.document.id])[:at_most]
    kept = {question.id for question in chosen}
    return [question for question in questions if question.id in kept]
