"""Turns a GGUF file into an ordinary base, once.

transformers reads GGUF files but cannot quantise what it reads to NF4 in the same step (5.23 raises
for `gguf_file` together with a bitsandbytes config). So the file is dequantised into a folder of
the cache, and training starts from there.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import ModelError
from finqa_sft.models.cache import cache_root, cached
from finqa_sft.models.devices import is_zero3
from finqa_sft.models.memory import size, skeleton

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_MAGIC = b"GGUF"

_FORMAT = 1
"""Part of the cache key; raised when this module would write another folder for the same file."""

_FIELDS = ("tokenizer.ggml.model", "tokenizer.ggml.pre")

DIGIT_SPLITTERS = frozenset(
    {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
)
"""Pre-tokenizers that cut out each digit and then split as GPT-2 does (llama.cpp,
`src/llama-vocab.cpp`)."""

GPT2_SPLITTERS = frozenset({"default", "gpt-2", "mpt", "olmo", "jais", "phi-2", "trillion"})
"""Pre-tokenizers that split as GPT-2 does (the same source)."""


def dequantised(path: Path) -> Path:
    """The folder with the dequantised model and its tokenizer.

    The weights are float32: exactly what transformers computes from the file, so that NF4 starts
    from the same numbers on every device. That takes 4 bytes a weight on disk, 28 GB for a model
    of 7 billion, and as much memory while it is written.

    Args:
        path: A `.gguf` file. Its folder in the cache is found by the file's SHA-256.

    Raises:
        ModelError: The file is missing, broken or of an unsupported kind, or there is no room.
    """
    _require_gguf(path)
    return cached(_cache_name(path), lambda folder: _dequantise(path, folder))


def read_config(path: Path) -> PreTrainedConfig:
    """The shape of the model in a GGUF file, from its header or its folder in the cache.

    Raises:
        ModelError: The file is missing, broken or of an unsupported architecture.
    """
    from transformers import AutoConfig

    _require_gguf(path)
    folder = cache_root() / _cache_name(path)
    if folder.is_dir():
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return config
    with _blamed_on(path):
        config = AutoConfig.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False, local_files_only=True
        )
    return config


def _require_gguf(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"base {str(path)!r}: no such file; correct the path in model.base")
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ModelError(
                f"base {str(path)!r} is not a GGUF file (it does not begin with 'GGUF'); name a "
                "GGUF file or a folder"
            )


def _cache_name(path: Path) -> str:
    status = path.stat()
    return f"gguf-{_FORMAT}-{_sha256(path, status.st_size, status.st_mtime_ns)[:32]}"


@lru_cache
def _sha256(path: Path, length: int, changed: int) -> str:
    """Digest of a file, remembered while its length and time of change stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dequantise(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if is_zero3():
        # from_pretrained would share the weights out among the processes while they are read.
        raise ModelError(
            f"base {str(path)!r} has to be dequantised before DeepSpeed ZeRO-3 is on; load its "
            "tokenizer before building SFTConfig"
        )
    config = read_config(path)
    _require_room(path, config)
    with _blamed_on(path):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, config=config)
        _mend_digits(tokenizer, path)
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            config=config,
            dtype=torch.float32,
            # Said explicitly: with the package `kernels` at hand, blocks would stay packed, and
            # the kernels for them would be downloaded.
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
        )
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _require_room(path: Path, config: PreTrainedConfig) -> None:
    """Refuse to begin what memory or disk cannot hold."""
    import psutil

    needed = 4 * skeleton(config).parameters
    root = cache_root()
    for place, free in (
        ("memory", psutil.virtual_memory().available),
        (f"disk at {root}", shutil.disk_usage(root).free),
    ):
        if needed > free:
            raise ModelError(
                f"base {str(path)!r} takes {size(needed)} when dequantised to float32, and there "
                f"are {size(free)} of {place} free; dequantise it on a larger machine and copy "
                "the folder, or name the model that the file was made from"
            )


def _mend_digits(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Give the tokenizer the split that its vocabulary was trained with.

    A GGUF file names its split and transformers 5.23 knows some of the names; for others it splits
    as GPT-2 does without a word. For SmolLM2 that changes tokens around numbers: in a blank line
    before a figure it makes two line breaks of what is one token.

    Raises:
        ModelError: The file names a split that neither transformers nor this module knows.
    """
    from tokenizers import pre_tokenizers

    kind, split = (_fields(path).get(name) for name in _FIELDS)
    if kind != "gpt2" or not isinstance(
        tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel
    ):
        return
    if split in DIGIT_SPLITTERS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    elif split not in GPT2_SPLITTERS:
        raise ModelError(
            f"base {str(path)!r} splits text by {split!r}, which is not known here, and a wrong "
            "split changes the tokens of numbers; name the model that the file was made from"
        )


def _fields(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    return {name: field.contents() for name in _FIELDS if (field := reader.get_field(name))}


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Say which file could not be read."""
    try:
        yield
    except (ValueError, LookupError, OSError, struct.error, NotImplementedError) as error:
        raise ModelError(
            f"base {str(path)!r} cannot be read as a causal language model: "
            f"{type(error).__name__}: {error}; download it again, or name the model that it was "
            "made from"
        ) from error
