"""Files: naming them in a recipe, opening and decoding them, and saying what to mend."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator

from finqa_sft.errors import DataError
from finqa_sft.options import RecipePath
from finqa_sft.wording import did_you_mean

CHUNK = 256 * 1024
"""Bytes read at once."""

_SAVE_AS_UTF8 = "save the file with the encoding UTF-8"
_FOREIGN = (
    (b"\xff\xfe", f"UTF-16 text; {_SAVE_AS_UTF8}"),
    (b"\xfe\xff", f"UTF-16 text; {_SAVE_AS_UTF8}"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook or Word document; save it as CSV"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"PAR1", "a Parquet file; give it the suffix .parquet, which reader: columns takes"),
    (b"%PDF-", "a PDF document; write its questions and answers into a text file"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with 'git lfs pull'"),
    (b"<!doctype html", "a web page; download the file itself"),
    (b"<html", "a web page; download the file itself"),
)
"""How files begin that are often taken for data in text, and what to do about each."""


def _one_or_several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Files: TypeAlias = Annotated[
    tuple[RecipePath, ...],
    BeforeValidator(_one_or_several, json_schema_input_type=RecipePath | tuple[RecipePath, ...]),
]
"""One path or a list of paths, each taken relative to the recipe file."""


def short_names(files: Iterable[Path]) -> list[tuple[Path, str]]:
    """Each file with what to call it: its base name, or its path where others have that name."""
    files = list(files)
    names = Counter(path.name for path in files)
    return [(path, path.name if names[path.name] == 1 else str(path)) for path in files]


def cause(error: Exception) -> str:
    """The first line of another library's message, without characters that do not print."""
    line = str(error).strip().partition("\n")[0]
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def check_file(path: Path) -> None:
    """See that a path leads to a file with something in it.

    Raises:
        DataError: It does not.
    """
    try:
        if path.is_dir():
            raise DataError(f"{path}: a folder, not a file; name the files in it")
        if not path.exists():
            raise DataError(f"{path}: {_absence(path)}")
        if not path.is_file():
            raise DataError(f"{path}: a pipe or device; write what it gives into a file")
        if not path.stat().st_size:
            raise DataError(f"{path}: an empty file; was it written or downloaded completely?")
    except OSError as error:
        raise _unreadable(path, error) from error


def _absence(path: Path) -> str:
    """Why there is no such file, and what to do."""
    if path.is_symlink():
        return f"a link to {path.readlink()}, which is not there; download or link the file again"
    if not path.parent.is_dir():
        return f"no such file; there is no folder {path.parent} either"
    names = sorted(entry.name for entry in path.parent.iterdir())
    return f"no such file; {did_you_mean(path.name, names) or 'check name and folder'}"


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}); check its rights")


def text_chunks(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file, a stretch at a time; a byte order mark is left out.

    Raises:
        DataError: The file is missing, empty, not readable or not UTF-8.
    """
    check_file(path)
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with path.open("rb") as file:
            while True:
                raw = file.read(CHUNK)
                if not offset:
                    _refuse_foreign(path, raw)
                pending, _ = decoder.getstate()
                try:
                    text = decoder.decode(raw, final=not raw)
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, error, offset=offset - len(pending)) from error
                if text:
                    yield text if offset else text.removeprefix("\ufeff")
                if not raw:
                    return
                offset += len(raw)
    except OSError as error:
        raise _unreadable(path, error) from error


def text_lines(path: Path) -> Iterator[str]:
    r"""The lines of a UTF-8 file one by one, with their ends; a byte order mark is left out.

    Lines end at `\n` alone, so that joined they are the file's text.

    Raises:
        DataError: The file is missing, empty, not readable or not UTF-8.
    """
    begun: list[str] = []
    for chunk in text_chunks(path):
        *ends, rest = chunk.split("\n")
        for end in ends:
            yield "".join([*begun, end, "\n"])
            begun.clear()
        begun.append(rest)
    if any(begun):
        yield "".join(begun)


def _refuse_foreign(path: Path, start: bytes) -> None:
    """Refuse a file whose first bytes tell that it is of another kind."""
    for signature, what in _FOREIGN:
        if start[: len(signature)].lower() == signature.lower():
            raise DataError(f"{path}: {what}")
    if 0 in start[:4]:
        raise DataError(f"{path}: bytes of value 0 in the text, as in UTF-16; {_SAVE_AS_UTF8}")


def _not_utf8(path: Path, error: UnicodeDecodeError, *, offset: int) -> DataError:
    """The error for bytes that are not UTF-8, the first of them that many bytes into the file."""
    if error.reason == "unexpected end of data":
        return DataError(
            f"{path}: ends within a character; the file seems cut off, copy or download it again"
        )
    byte = error.object[error.start]
    return DataError(
        f"{path}: not UTF-8 text (byte {offset + error.start} is 0x{byte:02x}); {_SAVE_AS_UTF8}"
    )
