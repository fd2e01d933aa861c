"""Encoding all questions: in this process, or in several with the result kept in the cache."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

import finqa_sft
from finqa_sft.documents import Document, Question
from finqa_sft.errors import DataError
from finqa_sft.models.cache import cache_root
from finqa_sft.preparation.bars import bars_in_terminals
from finqa_sft.preparation.pages import Page, PageEncoder
from finqa_sft.preparation.workers import Workers
from finqa_sft.wording import one_line

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from transformers import PreTrainedTokenizerBase

SECONDS_BETWEEN_REPORTS = 10.0

FEW_QUESTIONS = 2000
"""Up to so many are encoded in this process, in seconds, and not kept: starting others takes
longer, and so does reading the cache's Arrow files."""

_NO_DOCUMENT = Document(id="", blocks=())

COLUMNS = {
    "input_ids": "int32 list",
    "labels": "int32 list",
    "document": "string",
    "question": "int64",
    "reason": "string",
    "prompt": "string",
    "completion": "string",
    "cut": "string",
    "lacks": "string",
    "taken_apart": "bool",
}
"""The columns of encoded questions, with their types.

`input_ids` and `labels`: the row, empty where `reason` says why there is none. `question`: its
index. `prompt` and `completion`: messages as JSON. `cut`: what is left out of the document, as
JSON, empty where nothing is; `lacks`: `evidence` or `answer` where that is among it.
"""


def encode_questions(
    questions: Sequence[Question],
    encoder: PageEncoder,
    *,
    key: str | None,
    processes: int,
    say: Callable[[str], None] | None = None,
) -> Dataset:
    """Encode questions, those of a document together.

    Args:
        questions: The questions, each once.
        encoder: Encodes the questions of a document.
        key: What the rows depend on besides the questions; None where that cannot be told, so
            that nothing is taken from the cache.
        processes: Processes for more than `FEW_QUESTIONS`, where this system can fork safely.
        say: Is told every few seconds how far the work is.

    Returns:
        A row a question, in their order, with `COLUMNS`.
    """
    from datasets import Dataset

    pages = _pages(questions)
    report = _Report(len(questions), say)
    is_few = len(questions) <= FEW_QUESTIONS
    folder = cache_root() / "encoded"
    if say and not is_few:
        kept = f", kept in {folder}" if key else ""
        say(f"encoding {len(questions)} questions in {processes} processes{kept}")
    with Workers(encoder, pages, processes=1 if is_few else processes, done=report.add) as workers:
        if is_few or key is None:
            rows = sorted(workers.rows(), key=lambda row: int(row["question"]))
            # By columns, as a list without rows would have none.
            columns = {name: [row[name] for row in rows] for name in COLUMNS}
            return Dataset.from_dict(columns, features=_features())
        with _library_errors(folder, workers):
            encoded = Dataset.from_generator(
                workers.rows,
                features=_features(),
                cache_dir=str(folder),
                fingerprint=_fingerprint(pages, key),
            )
            if len(encoded) != len(questions):
                raise _cannot_read(folder, f"{len(encoded)} of {len(questions)} rows are there")
    order = sorted(range(len(encoded)), key=encoded["question"].__getitem__)
    return encoded.select(order)


def cache_key(
    tokenizer: PreTrainedTokenizerBase, formatter: object, options: BaseModel, *settings: object
) -> str | None:
    """What rows depend on besides the questions, as one text.

    Args:
        tokenizer: Its vocabulary, rules and chat template count.
        formatter: The source code of its package counts.
        options: Its options; the contents of files that they name count too.
        settings: Anything else that rows depend on.

    Returns:
        The text, or None where a source, a named file or the tokenizer's rules cannot be read.
    """
    if not tokenizer.is_fast:
        return None
    package = type(formatter).__module__.partition(".")[0]
    code = [_source_hash(name) for name in sorted({package, finqa_sft.__name__})]
    files = [_file_hash(path) for path in _paths_in(options)]
    if None in (*code, *files):
        return None
    rules = tokenizer.backend_tokenizer.to_str()
    return repr(
        (
            code,
            files,
            options.model_dump_json(),
            hashlib.sha256(rules.encode()).hexdigest(),
            tokenizer.chat_template,
            sorted(map(str, tokenizer.all_special_tokens)),
            settings,
        )
    )


def _source_hash(package: str) -> str | None:
    """A hash of all Python files of a package; None where it has none, as in a zip file."""
    file = vars(sys.modules[package]).get("__file__")
    path = Path(file or "")
    if not path.is_file():
        return None
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    digest = hashlib.sha256()
    for source in files:
        digest.update(str(source.relative_to(path.parent)).encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _paths_in(value: object) -> Iterator[Path]:
    """The paths among options."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        yield from _paths_in(dict(value))
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_paths_in, value.values()))
    elif isinstance(value, (tuple, list, set, frozenset)):
        yield from chain.from_iterable(map(_paths_in, value))


def _file_hash(path: Path) -> str | None:
    """A hash of a file's contents; None for a folder, and where there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _pages(questions: Sequence[Question]) -> list[Page]:
    by_document: dict[str, list[tuple[int, Question]]] = {}
    for number, question in enumerate(questions):
        by_document.setdefault(question.document.id, []).append((number, question))
    return [tuple(page) for page in by_document.values()]


def _fingerprint(pages: Sequence[Page], key: str) -> str:
    digest = hashlib.sha256(key.encode())
    for page in pages:
        # The document once, and not with each of its questions.
        digest.update(repr(page[0][1].document).encode())
        for number, question in page:
            alone = replace(question, document=_NO_DOCUMENT)
            digest.update(repr((number, alone)).encode())
    return digest.hexdigest()[:32]


def _features() -> Features:
    from datasets import Features, List, Value

    def column(kind: str) -> Any:
        value, _, is_list = kind.partition(" ")
        return List(Value(value)) if is_list else Value(value)

    return Features({name: column(kind) for name, kind in COLUMNS.items()})


@contextmanager
def _library_errors(folder: Path, workers: Workers) -> Iterator[None]:
    """The errors of encoding out of those that datasets wraps them in.

    Raises:
        DataError: The cache folder cannot be written, or what is there cannot be read.
    """
    import pyarrow
    from datasets.exceptions import DatasetGenerationError

    try:
        with bars_in_terminals():
            yield
    except DatasetGenerationError as error:
        if workers.error is not None:
            raise workers.error from workers.error.__cause__
        if isinstance(error.__cause__, OSError):
            raise _cannot_write(folder, error.__cause__) from error
        raise
    # While rows are written, all errors come as one of datasets.
    except (pyarrow.ArrowInvalid, FileNotFoundError) as error:
        raise _cannot_read(folder, one_line(error)) from error
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {folder}: {error.strerror or error}; set FINQA_SFT_CACHE to a folder that "
        "can be written and has room, or data.cache=false"
    )


def _cannot_read(folder: Path, problem: str) -> DataError:
    return DataError(
        f"the rows kept in {folder} are damaged: {problem}; delete that folder, or set "
        "data.cache=false"
    )


class _Report:
    """Says now and then how many questions are encoded."""

    def __init__(self, total: int, say: Callable[[str], None] | None) -> None:
        self._total = total
        self._say = say
        self._done = 0
        self._said = time.monotonic()

    def add(self, questions: int) -> None:
        """Note further questions as done."""
        self._done += questions
        now = time.monotonic()
        if self._say and now - self._said >= SECONDS_BETWEEN_REPORTS:
            self._said = now
            self._say(f"encoded {self._done} of {self._total} questions")
