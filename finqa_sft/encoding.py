"""From chat messages to token ids and labels, by the tokenizer's own chat template.

The prompt is never supervised; the completion is, with the end-of-turn token that stops generation.
The ids equal those of TRL's own preparation of prompt-completion rows (TRL 1.16,
`trl/trainer/sft_trainer.py`, `tokenize_fn`) wherever the prompt's tokens are a prefix of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

from finqa_sft.errors import DataError, ModelError
from finqa_sft.formatters.base import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of tokens that the loss leaves out (PyTorch's `ignore_index`)."""

PLAIN_CHAT_TEMPLATE = """\
{{- bos_token if bos_token is defined and bos_token -}}
{%- for message in messages -%}
{{- '\n\n' if not loop.first -}}
{{- '### ' + message['role'] + '\n' + message['content'] -}}
{{- eos_token if message['role'] == 'assistant' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '\n\n### assistant\n' -}}
{%- endif -%}
"""
"""Used where a tokenizer has no template of its own; saved with the adapter."""


class EncodedRow(TypedDict):
    """One encoded question.

    Attributes:
        input_ids: Token ids of prompt and completion.
        labels: As long; the token id where it is supervised, -100 elsewhere.
        document: Id of the document, for collators that group by it.
    """

    input_ids: list[int]
    labels: list[int]
    document: str


class Encoder:
    """Encodes messages with one tokenizer.

    Attributes:
        plain_template: The tokenizer had no chat template and was given the plain one.
        merges_system: The template takes no system message; its text opens the first user message.
        appends_eos: The template ends no assistant turn; the tokenizer's EOS is appended.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Try the tokenizer's template once on a short conversation.

        Raises:
            ModelError: The template cannot render a conversation, or no token ends a turn.
        """
        self._tokenizer = tokenizer
        self.plain_template = tokenizer.chat_template is None
        if self.plain_template:
            tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
        self.merges_system = False
        self.appends_eos = False

        user: Message = {"role": "user", "content": "1"}
        answer: Message = {"role": "assistant", "content": "2"}
        system: Message = {"role": "system", "content": "Answer briefly."}
        try:
            self.merges_system = system["content"] not in self._render(
                [system, user], answering=True
            )
        except ModelError:
            self.merges_system = True
        self._require_content()
        ending = self._completion_ids([user], [answer])[1]
        self.appends_eos = not any(token in self._stop_ids() for token in ending)
        if self.appends_eos and tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no EOS token and its chat template ends no assistant turn, so "
                "the model could not learn to stop; set model.chat_template to a template that "
                "ends the assistant's turn with a special token"
            )

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template takes them."""
        if not (self.merges_system and messages and messages[0]["role"] == "system"):
            return list(messages)
        system, first, *rest = messages
        merged: Message = {**first, "content": f"{system['content']}\n\n{first['content']}"}
        return [merged, *rest]

    def control_token(self, messages: Sequence[Message]) -> str | None:
        """The first control token of the tokenizer that messages spell out, or None.

        The tokenizer would make it the token itself: `<|end|>` in a page ends a turn there.
        Tokens of one character, and of white space, cannot be told from other text.
        """
        found = (self._control_tokens.search(message["content"]) for message in messages)
        return next((match[0] for match in found if match), None)

    def taken_apart(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with a space inside each control token, so that it is text like any other.

        `<|end|>` becomes `< |end|>`. Where there is none, the messages stay as they are.
        """
        return [{**message, "content": self._apart(message["content"])} for message in messages]

    def _apart(self, text: str) -> str:
        # Taking one token apart can bring another to light that overlapped it.
        while self._control_tokens.search(text):
            text = self._control_tokens.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)
        return text

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        """Finds the special tokens, the longest first."""
        added = self._tokenizer.added_tokens_decoder.values()
        tokens = {*self._tokenizer.all_special_tokens, *(t.content for t in added if t.special)}
        longest_first = sorted((t for t in tokens if len(t.strip()) > 1), key=len, reverse=True)
        # Without any token, a pattern that finds nothing.
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _require_text(self, messages: Sequence[Message]) -> None:
        """Refuse messages that spell out a control token."""
        token = self.control_token(messages)
        if token is not None:
            raise DataError(
                f"a message holds {token!r}, which the tokenizer reads as a control token and not "
                "as text; take it apart with Encoder.taken_apart, or leave the row out"
            )

    def completion_text(self, completion: Sequence[Message]) -> str:
        """What a completion says, with the EOS token where the template ends no turn."""
        text = "".join(message["content"] for message in completion)
        return text + str(self._tokenizer.eos_token) if self.appends_eos else text

    def encode_prompt(self, prompt: Sequence[Message]) -> list[int]:
        """Ids of a prompt, up to where the model goes on: what generation starts from.

        Raises:
            DataError: A message holds a control token of the tokenizer.
        """
        self._require_text(prompt)
        return self._ids(self._render(self.messages(prompt), answering=True))

    def encode(
        self, prompt: Sequence[Message], completion: Sequence[Message], *, document: str = ""
    ) -> EncodedRow:
        """Ids and labels of a prompt with its completion.

        Raises:
            DataError: A message holds a control token of the tokenizer.
            ModelError: The template renders the prompt alone differently from the prompt with its
                completion, so that training would not see what generation does.
        """
        self._require_text([*prompt, *completion])
        prompt_ids, completion_ids = self._completion_ids(self.messages(prompt), completion)
        if self.appends_eos:
            completion_ids = [*completion_ids, int(self._tokenizer.eos_token_id or 0)]
        return {
            "input_ids": prompt_ids + completion_ids,
            "labels": [IGNORED] * len(prompt_ids) + completion_ids,
            "document": document,
        }

    def is_far_longer(self, messages: Sequence[Message], *, than: int) -> bool:
        """Whether messages are surely more tokens than a number, by their characters alone.

        Encoding megabytes takes seconds, and a document that is to be cut is encoded many times.
        """
        return sum(len(message["content"]) for message in messages) > than * self._longest_token

    @cached_property
    def _longest_token(self) -> int:
        """Characters of the longest token; with byte-level tokens, at least as many."""
        return max(map(len, self._tokenizer.get_vocab()))

    def marked(self, row: EncodedRow) -> str:
        """The row as text, each supervised span between ⟦ and ⟧."""
        text: list[str] = []
        span: list[int] = []
        supervised = False
        for token, label in [*zip(row["input_ids"], row["labels"], strict=True), (None, None)]:
            now = label is not None and label != IGNORED
            if span and (now != supervised or token is None):
                piece = str(self._tokenizer.decode(span))
                text.append(f"⟦{piece}⟧" if supervised else piece)
                span = []
            supervised = now
            if token is not None:
                span.append(token)
        return "".join(text)

    def _require_content(self) -> None:
        """Refuse a template that leaves out what people say."""
        question: Message = {"role": "user", "content": "What is 1 + 1?"}
        answer: Message = {"role": "assistant", "content": "It is 2."}
        text = self._render([question, answer], answering=False)
        for said in (question, answer):
            if said["content"] not in text:
                raise ModelError(
                    f"the chat template leaves out what the {said['role']} says: a question and "
                    f"its answer become {text[-80:]!r}; set model.chat_template to a template that "
                    "writes every message"
                )

    def _completion_ids(
        self, prompt: Sequence[Message], completion: Sequence[Message]
    ) -> tuple[list[int], list[int]]:
        """Ids of the prompt, and of everything that the template writes after it."""
        before = self._render(prompt, answering=True)
        whole = self._render([*prompt, *completion], answering=False)
        if not whole.startswith(before):
            raise ModelError(
                "the chat template renders a prompt alone differently from the same prompt with "
                f"its answer: {before[-40:]!r} is not in {whole[-80:]!r}; set model.chat_template "
                "to a template whose generation prompt is what it writes before an answer"
            )
        prompt_ids = self._ids(before)
        whole_ids = self._ids(whole)
        if whole_ids[: len(prompt_ids)] == prompt_ids:
            return prompt_ids, whole_ids[len(prompt_ids) :]
        # Tokens merge across the boundary. Generation starts from the prompt's own tokens, so
        # training does too.
        return prompt_ids, self._ids(whole[len(before) :])

    def _render(self, messages: Sequence[Message], *, answering: bool) -> str:
        """The template's text; transformers renders it in Jinja's sandbox."""
        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": m["role"], "content": m["content"]} for m in messages],
                tokenize=False,
                add_generation_prompt=answering,
            )
        # A template can raise what any program can.
        except Exception as error:
            raise ModelError(
                f"the chat template cannot render a conversation: {error}; set model.chat_template"
            ) from error
        return str(text)

    def _ids(self, text: str) -> list[int]:
        """Ids of a rendered text; the template has written the special tokens."""
        # It would warn of texts longer than the model takes; those are cut or left out later.
        encoded = self._tokenizer(text, add_special_tokens=False, verbose=False)
        return list(encoded["input_ids"])

    def _stop_ids(self) -> set[int]:
        """Ids of the tokens that can end a turn."""
        special = {i for i, t in self._tokenizer.added_tokens_decoder.items() if t.special}
        return special | set(self._tokenizer.all_special_ids)
