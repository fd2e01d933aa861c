"""Loads a base's tokenizer and settles its padding token and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finqa_sft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(
    location: str, *, name: str, revision: str | None, chat_template: Path | None
) -> tuple[PreTrainedTokenizerBase, dict[str, str]]:
    """A tokenizer that can pad, and how its padding token and template came about.

    No token is added: the embeddings of the base stay as they are. A tokenizer without a chat
    template keeps none; `finqa_sft.encoding` gives it a plain one.

    Args:
        location: A folder or a name on the Hub.
        name: What the options call the base, for messages.
        revision: Branch, tag or commit on the Hub.
        chat_template: A Jinja file that takes the place of the tokenizer's own template.

    Raises:
        ModelError: There is no tokenizer, it cannot pad, or the template is missing or broken.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            location, revision=revision or "main", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        if Path(location).is_dir() and not (Path(location) / "tokenizer.json").is_file():
            reason = "it has no tokenizer.json"
        else:
            reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"base {name!r} has no tokenizer that can be loaded: {reason}; copy its tokenizer "
            "files (tokenizer.json, tokenizer_config.json) beside its weights"
        ) from error
    facts = {"pad_token": _settle_padding(tokenizer, name), "chat_template": "the base's own"}
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
        _try_template(tokenizer, chat_template)
        facts["chat_template"] = str(chat_template)
    elif tokenizer.chat_template is None:
        facts["chat_template"] = "none; the plain one is used"
    return tokenizer, facts


def _settle_padding(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """Choose among the tokens that are there; return which and why."""
    if tokenizer.pad_token is not None:
        return f"{tokenizer.pad_token}, the base's own"
    reserved = [
        token.content
        for _, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and ("pad" in token.content.lower() or "reserved" in token.content.lower())
    ]
    reserved.sort(key=lambda token: "pad" not in token.lower())
    if reserved:
        tokenizer.pad_token = reserved[0]
        return f"{reserved[0]}, reserved in the base"
    for token in (tokenizer.unk_token, tokenizer.eos_token):
        if token is not None:
            tokenizer.pad_token = token
            return f"{token}, as the base has none of its own"
    raise ModelError(
        f"base {name!r} has a tokenizer without pad, unk and eos tokens; set eos_token in its "
        "tokenizer_config.json"
    )


def _read_template(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"chat template {file} cannot be read: {error.strerror}; correct the path in "
            "model.chat_template"
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError(
            f"chat template {file} is not UTF-8 text ({error}); save it as UTF-8"
        ) from error


def _try_template(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Render a question and its answer; transformers does so in Jinja's sandbox."""
    from jinja2 import TemplateSyntaxError

    conversation = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    try:
        tokenizer.apply_chat_template(conversation, tokenize=False)
    except TemplateSyntaxError as error:
        raise ModelError(
            f"chat template {file}, line {error.lineno}: {error.message}; correct the template"
        ) from error
    # A template can raise what any program can.
    except Exception as error:
        raise ModelError(
            f"chat template {file} cannot render a question and its answer: {error}; correct the "
            "template"
        ) from error
