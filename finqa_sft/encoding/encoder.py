"""Encodes messages with one tokenizer, and checks what comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finqa_sft.encoding.guarantees import BrokenGuarantee, Guarantee, RowCheck
from finqa_sft.encoding.rows import IGNORED, EncodedRow
from finqa_sft.encoding.templates import ChatTemplate
from finqa_sft.encoding.tokens import Tokens
from finqa_sft.encoding.words import any_of
from finqa_sft.errors import DataError, ModelError
from finqa_sft.formatters.base import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FIRST = re.compile(r"\A\s*\S")
"""The first character of a token that is no white space."""


class Encoder:
    """Encodes messages with one tokenizer.

    Every row is checked against `Guarantee`. Encoders can be pickled, for worker processes.

    Attributes:
        plain_template: The tokenizer had no chat template and was given the plain one.
        merges_system: The template takes no system message; its text opens the first user message.
        appends_eos: The template ends no assistant turn; the tokenizer's EOS is appended.
        thinking_off: The template can ask for thinking; that is switched off in it.
        date_pinned: The template asks for the day; the day is held fast in it.
        completes_prompt: What the template writes before an answer and its generation prompt
            lacked; it was added there. Else empty.
        empty_thought: An empty thought that ends the generation prompt, and which the template
            does not write before an answer; rows have it, as generation does. Else empty.
        trims_answer: The template takes white space off around an answer.
        notes: All of these that apply, as sentences for the user.
        stop_ids: Ids of the tokens that end an answer: the first special token that the template
            writes after it, and the tokenizer's EOS; ascending.
        reuses_tokens: Parts of texts that came before are not tokenised again.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, reuse: bool = True) -> None:
        """Try the tokenizer's chat template on short conversations.

        Where the template needs help, the tokenizer's `chat_template` is changed, so that whoever
        loads the saved tokenizer generates from the prompts that were trained on.

        Args:
            tokenizer: The tokenizer of the base.
            reuse: Whether to keep the tokens of parts of texts. The ids are the same either way.

        Raises:
            ModelError: The template cannot be used, or no token ends a turn.
        """
        self._tokenizer = tokenizer
        self._template = template = ChatTemplate(tokenizer)
        self.plain_template = template.plain
        self.merges_system = template.merges_system
        self.thinking_off = template.thinking_off
        self.date_pinned = template.date_pinned
        self.completes_prompt = template.completion
        self.empty_thought = template.thought
        self.trims_answer = template.trims
        self.appends_eos = not template.ends
        if self.appends_eos and tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no EOS token and its chat template ends no assistant turn, so "
                "the model could not learn to stop; set model.chat_template to a template that "
                "ends the assistant's turn with a special token"
            )
        self.notes = template.notes()
        ends = {template.end_token, tokenizer.eos_token} - {None}
        vocabulary = tokenizer.get_vocab()
        self.stop_ids = tuple(sorted(vocabulary[str(end)] for end in ends))
        self._tokens = Tokens(tokenizer, reuse=reuse)
        self._check = RowCheck(tokenizer)
        self.reuses_tokens = self._tokens.reuses

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that it encodes with."""
        return self._tokenizer

    def text_length(self, text: str) -> int:
        """Tokens of a text by itself."""
        return len(self._tokens.ids(text))

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template takes them."""
        return self._template.messages(messages)

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
            text = self._control_tokens.sub(lambda token: _FIRST.sub(r"\g<0> ", token[0]), text)
        return text

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        """Finds the special tokens, the longest first."""
        return re.compile(any_of(t for t in self._template.stop_tokens if len(t.strip()) > 1))

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
            DataError: A message holds a control token of the tokenizer, or the template refuses
                the messages.
        """
        self._require_text(prompt)
        return self._tokens.ids(self._rendered(self.messages(prompt), answering=True))

    def encode(
        self, prompt: Sequence[Message], completion: Sequence[Message], *, document: str = ""
    ) -> EncodedRow:
        """Ids and labels of a prompt with its completion, checked.

        Raises:
            BrokenGuarantee: A `Guarantee` does not hold, such as for an answer that the template
                changes. It is a DataError.
            DataError: A message holds a control token of the tokenizer, the template refuses the
                messages, or the completion is not one message.
        """
        self._require_text([*prompt, *completion])
        prompt_ids, completion_ids, says = self._sides(prompt, completion)
        row: EncodedRow = {
            "input_ids": prompt_ids + completion_ids,
            "labels": [IGNORED] * len(prompt_ids) + completion_ids,
            "document": document,
        }
        self._require_answer(says, completion[0]["content"])
        self._check.require(row, prompt=prompt_ids, says=says)
        return row

    def length(
        self,
        prompt: Sequence[Message],
        completion: Sequence[Message],
        *,
        limit: int | None = None,
    ) -> int:
        """Tokens of a row, without its checks; of text in which control tokens are taken apart.

        Args:
            prompt: Its prompt.
            completion: Its completion.
            limit: Where the characters alone tell that the row is longer than this many tokens,
                nothing is tokenised: what is returned is then above the limit, and at most the
                row's length.

        Raises:
            DataError: The template refuses the messages.
        """
        if limit is not None:
            at_least = self._fewest_tokens([*prompt, *completion])
            if at_least > limit:
                return at_least
        prompt_ids, completion_ids, _ = self._sides(prompt, completion)
        return len(prompt_ids) + len(completion_ids)

    def is_far_longer(self, messages: Sequence[Message], *, than: int) -> bool:
        """Whether messages are surely more tokens than a number, by their characters alone.

        Encoding megabytes takes seconds, and a document that is to be cut is encoded many times.
        """
        return self._fewest_tokens(messages) > than

    def _fewest_tokens(self, messages: Sequence[Message]) -> int:
        if self._longest_token is None:
            return 0
        # Templates and tokens can take white space away, as much of it as there is.
        characters = sum(len("".join(message["content"].split())) for message in messages)
        return -(-characters // self._longest_token)

    @cached_property
    def _longest_token(self) -> int | None:
        """Characters of the longest token; with byte-level tokens, at least as many.

        None where characters can be left out, or one unknown token can stand for many of them.
        """
        from tokenizers.decoders import ByteLevel
        from tokenizers.models import BPE
        from transformers import PreTrainedTokenizerFast

        if not isinstance(self._tokenizer, PreTrainedTokenizerFast):
            return None
        backend = self._tokenizer.backend_tokenizer
        in_bytes = isinstance(backend.decoder, ByteLevel)
        if not isinstance(backend.model, BPE) or not (in_bytes or backend.model.byte_fallback):
            return None
        return max(map(len, self._tokenizer.get_vocab()))

    def marked(self, row: EncodedRow) -> str:
        """The row as text, each supervised span between ⟦ and ⟧."""
        return "".join(f"⟦{text}⟧" if learnt else text for text, learnt in self.spans(row))

    def spans(self, row: EncodedRow) -> list[tuple[str, bool]]:
        """The row as text in pieces, and whether each is supervised."""
        spans: list[tuple[str, bool]] = []
        span: list[int] = []
        supervised = False
        for token, label in [*zip(row["input_ids"], row["labels"], strict=True), (None, None)]:
            now = label is not None and label != IGNORED
            if span and (now != supervised or token is None):
                spans.append((self._check.decode(span), supervised))
                span = []
            supervised = now
            if token is not None:
                span.append(token)
        return spans

    def _sides(
        self, prompt: Sequence[Message], completion: Sequence[Message]
    ) -> tuple[list[int], list[int], str]:
        """Ids of the prompt, of everything after it, and the text of the latter."""
        if len(completion) != 1:
            raise DataError(
                f"a completion is one assistant message, not {len(completion)}; put all but the "
                "last into the prompt"
            )
        asked = self.messages(prompt)
        before = self._rendered(asked, answering=True)
        whole = self._rendered([*asked, *completion], answering=False)
        says = self._template.rest(before, whole)
        if says is None:
            raise BrokenGuarantee(
                Guarantee.SAME_PROMPT,
                f"with its answer the chat template writes the prompt otherwise: {before[-40:]!r} "
                f"is not in {whole[-80:]!r}; set model.chat_template to a template that writes "
                "earlier messages the same way in both cases",
            )
        prompt_ids = self._tokens.ids(before)
        whole_ids = self._tokens.ids(whole)
        if whole_ids[: len(prompt_ids)] == prompt_ids:
            completion_ids = whole_ids[len(prompt_ids) :]
        else:
            # Tokens merge across the boundary, or the prompt ends with a thought. Generation starts
            # from the prompt's own tokens, so training does too.
            completion_ids = self._tokens.ids(says)
        if self.appends_eos:
            completion_ids = [*completion_ids, int(self._tokenizer.eos_token_id or 0)]
            says += str(self._tokenizer.eos_token)
        return prompt_ids, completion_ids, says

    def _require_answer(self, says: str, said: str) -> None:
        """Refuse a row whose answer the template changed."""
        text = says.removesuffix(str(self._tokenizer.eos_token)) if self.appends_eos else says
        if not self._template.writes(said, rest=text):
            raise BrokenGuarantee(
                Guarantee.SAYS,
                f"the chat template writes the answer {said!r} as {text!r}; set "
                "model.chat_template to a template that writes answers as they are, or leave the "
                "row out",
            )

    def _rendered(self, messages: Sequence[Message], *, answering: bool) -> str:
        """The template's text of a row."""
        try:
            return self._template.render(messages, answering=answering)
        except ModelError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(
                f"the chat template refuses messages of the roles {roles}: {error.__cause__}; "
                "change the formatter's messages, or set model.chat_template to a template that "
                "takes them"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Without what is worked out on demand."""
        kept = dict(self.__dict__)
        for name in ("_control_tokens", "_longest_token"):
            kept.pop(name, None)
        return kept
