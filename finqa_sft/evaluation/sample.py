"""A few questions that need no file: on generated pages, asked as a run asks its own."""

from __future__ import annotations

from finqa_sft.documents import Question
from finqa_sft.encoding import Encoder
from finqa_sft.errors import ModelError
from finqa_sft.evaluation.asking import Asker
from finqa_sft.readers.filings import FilingsOptions, FilingsReader
from finqa_sft.recipe import Recipe

SAMPLE = FilingsOptions(pages=4, questions_per_page=1, length="short", seed=7)
"""The pages."""


def sample_prompts(recipe: Recipe, encoder: Encoder) -> list[list[int]]:
    """The tokens of each prompt.

    Args:
        recipe: Names the formatter and the rules of cleaning and length.
        encoder: Encodes with the model's tokenizer.

    Raises:
        ModelError: No question of the sample fits into the recipe's `formatter.max_length`.
    """
    asker = Asker(
        recipe.formatter.build(),
        encoder,
        component=recipe.formatter.component,
        cleaning=recipe.data.cleaning,
        max_prompt=recipe.max_length,
    )
    questions = [one for one in FilingsReader(SAMPLE) if isinstance(one, Question)]
    prompts = [asked.ids for asked in asker.ask(questions) if not asked.problem]
    if not prompts:
        raise ModelError(
            f"none of the {len(questions)} questions of the sample fits into formatter.max_length "
            f"({recipe.max_length} tokens); raise it with formatter.max_length=N"
        )
    return prompts
