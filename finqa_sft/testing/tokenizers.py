"""The contract of a tokenizer with its chat template, as a check."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from finqa_sft.encoding import Encoder
from finqa_sft.formatters.base import Message
from finqa_sft.testing.contract import Checked, Rule, excerpt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenizerRule(Rule):
    """What holds for every tokenizer and its chat template, once `Encoder` has helped it."""

    USABLE = (
        "the chat template writes conversations as they are and ends answers with a stop token",
        "Change the template as the message says, or give the tokenizer an EOS token.",
    )
    GUARANTEES = (
        "every row keeps the guarantees of finqa_sft.encoding.Guarantee",
        "Write messages into the template as they are, and the generation prompt as what stands "
        "before an answer.",
    )
    SAVED = (
        "saved and loaded, it encodes the same rows",
        "Keep what rows depend on in the chat template and in the tokenizer's own files.",
    )


QUESTIONS = (
    "Revenue was $ 412.6 million (2022: $ 398.1 million).\n\n| | 2023 |\n| --- | --- |\n"
    "| a | 5 |\n\nQuestion: What was revenue?",
    "  spaces around \n",
    "Größe, 前年比 3.6% \u2212 l'année",
)
ANSWERS = ("412.6", "subtract(412.6, 398.1), divide(#0, 398.1)", "-22.22\nscale: percent", "yes")


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that rows made with a tokenizer's chat template are what they must be.

    Args:
        tokenizer: The tokenizer; it is left as it is.

    Raises:
        ContractError: A rule of `TokenizerRule` is broken.
    """
    checked = Checked("tokenizer", type(tokenizer).__name__)
    own = copy.deepcopy(tokenizer)
    with checked.unraised(TokenizerRule.USABLE, "Encoder(tokenizer)"):
        encoder = Encoder(own)
    # What `Encoder` has written into the template is all that a second one may need.
    with checked.unraised(TokenizerRule.SAVED, "Encoder of the helped tokenizer"):
        again = Encoder(copy.deepcopy(own))
    for prompt, completion in _conversations():
        said = excerpt(completion[0]["content"])
        with checked.unraised(TokenizerRule.GUARANTEES, f"encoding the answer {said}"):
            row = encoder.encode(prompt, completion)
            begin = encoder.encode_prompt(prompt)
        checked.require(
            TokenizerRule.GUARANTEES,
            row["input_ids"][: len(begin)] == begin,
            f"the row of the answer {said} does not begin with the tokens of its prompt",
        )
        checked.require(
            TokenizerRule.SAVED,
            again.encode(prompt, completion) == row,
            f"the row of the answer {said} is another one the second time",
        )


def _conversations() -> Iterator[tuple[list[Message], list[Message]]]:
    """Prompts with and without an instruction and earlier turns, and answers."""
    system: Message = {"role": "system", "content": "Answer briefly."}
    for question in QUESTIONS:
        asked: Message = {"role": "user", "content": question}
        for answer in ANSWERS:
            said: Message = {"role": "assistant", "content": answer}
            yield [asked], [said]
            yield [system, asked], [said]
            yield [system, asked, said, asked], [said]
