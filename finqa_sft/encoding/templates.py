"""A tokenizer's chat template: tried, helped where it can be, and rendered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from finqa_sft.encoding.pins import completed_prompt, pinned_date, pinned_thinking
from finqa_sft.encoding.words import any_of, common_beginning
from finqa_sft.errors import ModelError
from finqa_sft.formatters.base import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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

_SYSTEM: Message = {"role": "system", "content": "Answer briefly."}
_USER: Message = {"role": "user", "content": "What is 1 + 1?"}
_ANSWER: Message = {"role": "assistant", "content": "It is 2."}
_SPACED: Message = {"role": "assistant", "content": "\n It is 2. \n"}


_CLOSED = re.compile(r"(</[^<>]+>|<[^<>/|]+\|>|\[/[^\[\]]+\])\s*\Z")
"""A closing tag at the end: `</think>`, `<channel|>`, `[/THINK]`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer as the template writes it after the generation prompt.

    Attributes:
        gap: White space before the answer.
        end: What follows it: the end-of-turn token, more special tokens, white space.
    """

    gap: str
    end: str


class ChatTemplate:
    """The chat template of one tokenizer.

    Attributes:
        plain: The tokenizer had none and was given the plain one.
        date_pinned: It asks for the day; the day is held fast.
        thinking_off: It can ask for thinking, which is switched off.
        merges_system: It takes no system message; its text opens the first user message.
        completion: What its generation prompt lacked of what stands before an answer; it was added.
        thought: An empty thought that ends its generation prompt and that it does not write before
            an answer; rows keep it.
        trims: It takes white space off around an answer.
        turn: What it writes around an answer.
        ends: Whether it ends an answer with a special token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Try the template on short conversations, and help it; the tokenizer keeps what it is.

        Raises:
            ModelError: It cannot be used, with what to do.
        """
        self._tokenizer = tokenizer
        self.plain = tokenizer.chat_template is None
        if self.plain:
            tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
        self.thinking_off = self._pin(pinned_thinking(self._text))
        self.date_pinned = self._pin(pinned_date(self._text))
        self.merges_system = False
        self.thought = ""
        self.merges_system = not self._takes_system()
        self._require_content()
        self.thought = self._empty_thought()
        self.completion = self._completed_prompt()
        self.turn = self._turn()
        self.ends = any(token in self.turn.end for token in self.stop_tokens)
        self.trims = not self._keeps(_SPACED)

    def notes(self) -> list[str]:
        """What was done to the template, for the user."""
        notes = [
            (self.plain, "the tokenizer has no chat template; a plain one is used"),
            (
                self.thinking_off,
                "the chat template can ask for thinking; it is switched off, also in the template "
                "that is saved",
            ),
            (
                self.date_pinned,
                "the chat template asks for the day; it is always 26 Jul 2024, also in the "
                "template that is saved",
            ),
            (
                self.merges_system,
                "the chat template takes no system message; it opens the question",
            ),
            (
                bool(self.completion),
                f"the chat template's generation prompt is completed with {self.completion!r}, "
                "which it writes before an answer",
            ),
            (
                bool(self.thought),
                f"the chat template's generation prompt ends with {self.thought!r}, which it does "
                "not write before an answer; rows have it, as generation does",
            ),
            (not self.ends, "the chat template ends no answer; the EOS token is appended"),
            (self.trims, "the chat template takes white space off around an answer"),
        ]
        return [note for applies, note in notes if applies]

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template takes them."""
        if not (self.merges_system and messages and messages[0]["role"] == "system"):
            return list(messages)
        system, *rest = messages
        if not rest or rest[0]["role"] != "user":
            return [{**system, "role": "user"}, *rest]
        merged: Message = {**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}
        return [merged, *rest[1:]]

    def render(self, messages: Sequence[Message], *, answering: bool) -> str:
        """The template's text; transformers renders it in Jinja's sandbox.

        Args:
            messages: The conversation, as `messages` gives it.
            answering: Whether an answer of the model is to follow.

        Raises:
            ModelError: The template refuses; the cause is what it raised.
        """
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

    def rest(self, before: str, whole: str) -> str | None:
        """What stands after a prompt, or None where the whole does not begin as the prompt does.

        Args:
            before: The prompt, rendered for an answer to follow.
            whole: The same prompt with its answer.
        """
        if whole.startswith(before):
            return whole[len(before) :]
        shared = before.removesuffix(self.thought)
        return whole[len(shared) :] if self.thought and whole.startswith(shared) else None

    def writes(self, answer: str, *, rest: str) -> bool:
        """Whether what stands after a prompt is an answer as it should be, and its end."""
        gap, end = self.turn.gap, self.turn.end
        said = rest[len(gap) : len(rest) - len(end)]
        if rest != gap + said + end:
            return False
        return said == answer or (self.trims and said.strip() == answer.strip())

    @property
    def end_token(self) -> str | None:
        """The first special token after an answer, with which a turn is over."""
        found = re.search(any_of(self.stop_tokens), self.turn.end) if self.ends else None
        return found and found[0]

    @cached_property
    def stop_tokens(self) -> frozenset[str]:
        """The special tokens, any of which can end a turn."""
        added = self._tokenizer.added_tokens_decoder.values()
        special = {token.content for token in added if token.special}
        return frozenset(special | set(self._tokenizer.all_special_tokens))

    @property
    def _text(self) -> str:
        """The template that transformers takes; a tokenizer can have several, by name."""
        return str(self._tokenizer.get_chat_template())

    def _pin(self, template: str | None) -> bool:
        if template is None:
            return False
        stored = self._tokenizer.chat_template
        if isinstance(stored, dict):
            self._tokenizer.chat_template = {**stored, "default": template}
        else:
            self._tokenizer.chat_template = template
        return True

    def _takes_system(self) -> bool:
        """Whether a system message is written, and in the same place with and without an answer."""
        asked = [_SYSTEM, _USER]
        try:
            before = self.render(asked, answering=True)
            whole = self.render([*asked, _ANSWER], answering=False)
            alone = self._begins([_USER])
        except ModelError:
            return False
        # Where the prompt differs even without a system message, that is not its fault.
        return _SYSTEM["content"] in before and (whole.startswith(before) or not alone)

    def _begins(self, prompt: list[Message]) -> bool:
        """Whether a prompt is rendered as the beginning of the prompt with its answer."""
        before = self.render(prompt, answering=True)
        return self.render([*prompt, _ANSWER], answering=False).startswith(before)

    def _require_content(self) -> None:
        """Refuse a template that leaves out what people say."""
        text = self.render([_USER, _ANSWER], answering=False)
        for said in (_USER, _ANSWER):
            if said["content"] not in text:
                raise ModelError(
                    f"the chat template leaves out what the {said['role']} says: a question and "
                    f"its answer become {text[-80:]!r}; set model.chat_template to a template that "
                    "writes every message"
                )

    def _empty_thought(self) -> str:
        """What the generation prompt ends with and an answer does not follow, if it is a thought.

        Generation goes on after it, so rows have it too. One that is left open is refused: the
        answer would stand inside of it.
        """
        before = self.render([_USER], answering=True)
        whole = self.render([_USER, _ANSWER], answering=False)
        shared = common_beginning(before, whole)
        extra = before[len(shared) :]
        if not re.search(r"think|thought", extra, re.IGNORECASE):
            return ""
        if _CLOSED.search(extra) and whole[len(shared) :].lstrip().startswith(_ANSWER["content"]):
            return extra
        raise ModelError(
            f"the chat template opens a thought before generation ({extra!r}) and none before "
            "an answer in training, so the model would be asked for what it was not taught; "
            "set model.chat_template to a template without thinking"
        )

    def _rest(self, answer: Message) -> str:
        """What the template writes after the generation prompt."""
        before = self.render([_USER], answering=True)
        whole = self.render([_USER, answer], answering=False)
        rest = self.rest(before, whole)
        if rest is None:
            raise ModelError(
                "the chat template renders a prompt alone differently from the same prompt with "
                f"its answer: {before[-40:]!r} is not in {whole[-80:]!r}; set model.chat_template "
                "to a template whose generation prompt is what it writes before an answer"
            )
        return rest

    def _completed_prompt(self) -> str:
        """Complete the generation prompt with what the template writes before an answer."""
        missing = self._rest(_ANSWER).partition(_ANSWER["content"])[0]
        if not missing.strip():
            return ""
        before = self.render([_USER], answering=True)
        whole = self.render([_USER, _ANSWER], answering=False)
        self._pin(completed_prompt(self._text, missing=missing))
        done = self.render([_USER], answering=True), self.render([_USER, _ANSWER], answering=False)
        if done != (before + missing, whole):
            raise ModelError(
                f"the chat template writes {missing!r} before an answer, but not where an answer "
                "is asked for; set model.chat_template to a template with add_generation_prompt"
            )
        return missing

    def _turn(self) -> Turn:
        """What stands around an answer: white space before, and the end of the turn after it."""
        gap, _, end = self._rest(_ANSWER).partition(_ANSWER["content"])
        tokens = {*self.stop_tokens, *self._tokenizer.get_added_vocab()}
        left_over = re.sub(any_of(tokens), "", end)
        if left_over.strip():
            raise ModelError(
                f"the chat template ends an answer with {end!r}, of which {left_over.strip()!r} "
                "is no token of its own in the tokenizer: it would be learnt as text; set "
                "model.chat_template to a template that was written for this tokenizer"
            )
        return Turn(gap, end)

    def _keeps(self, answer: Message) -> bool:
        """Whether an answer is written as it is, white space included."""
        return self._rest(answer) == self.turn.gap + answer["content"] + self.turn.end
