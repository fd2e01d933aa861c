"""Finds a base and refuses what cannot be one, before anything large is read or downloaded."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finqa_sft.errors import ModelError
from finqa_sft.models.options import EMBEDDED
from finqa_sft.wording import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class BaseKind(StrEnum):
    """Where a base comes from."""

    EMBEDDED = "embedded"
    """Built from the package."""

    FOLDER = "folder"
    """A local folder as `save_pretrained` writes it."""

    GGUF = "gguf"
    """A local GGUF file, dequantised once into the cache folder."""

    HUB = "hub"
    """The Hugging Face Hub, or its cache."""


_BLOCK, _BLOCKS = 2**18, 256
"""Bytes of a block, and how many blocks at most, at even distances, tell a file of weights from
another one of its size: all of an adapter, and some of every layer of a model."""


@dataclass(frozen=True, slots=True)
class ResolvedBase:
    """A base that was found and looked at.

    Attributes:
        name: As the options have it.
        kind: Where it comes from.
        revision: Branch, tag or commit; for bases on the Hub alone.
        config: Its shape.
    """

    name: str
    kind: BaseKind
    revision: str | None
    config: PreTrainedConfig

    def location(self) -> str:
        """What `from_pretrained` takes: a folder, or a name on the Hub.

        A GGUF file is dequantised on the first call; later calls find its folder.

        Raises:
            ModelError: The GGUF file cannot be dequantised.
        """
        match self.kind:
            case BaseKind.EMBEDDED:
                from finqa_sft.models.tiny import tiny_base

                return str(tiny_base())
            case BaseKind.GGUF:
                from finqa_sft.models.gguf import dequantised

                return str(dequantised(Path(self.name)))
            case _:
                return self.name

    def fingerprint(self) -> str:
        """The same for bases that are the same: a name on the Hub, or a hash of parts of the files.

        Raises:
            ModelError: The GGUF file cannot be dequantised.
        """
        if self.kind is BaseKind.HUB:
            return f"{self.name} at {self.revision or 'main'}"
        folder = Path(self.location())
        config = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:16]
        return f"{config}-{weights_digest(folder)}"


def weights_digest(folder: Path) -> str:
    """A hash of the weights in a folder, of large ones in blocks.

    Raises:
        OSError: They cannot be read.
    """
    hashed = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = path.stat().st_size
            hashed.update(f"{path.name} {size}".encode())
            step = max(_BLOCK, size // _BLOCKS)
            for place in (*range(0, size, step), max(size - _BLOCK, 0)):
                file.seek(place)
                hashed.update(file.read(_BLOCK))
    return hashed.hexdigest()[:16]


def resolve_base(
    base: str, *, revision: str | None = None, weights: Literal["needed", "not read"] = "needed"
) -> ResolvedBase:
    """Find a base and read its config; only for a name on the Hub is a socket opened.

    Args:
        base: `tiny`, a folder, a `.gguf` file, or a name on the Hub.
        revision: Branch, tag or commit; for a name on the Hub alone.
        weights: Whether a folder must hold the weights too; its config is enough to plan with.

    Raises:
        ModelError: There is no such base, it cannot be reached, or it is not a causal language
            model that can be quantised here.
    """
    kind = _kind(base)
    if revision is not None and kind is not BaseKind.HUB:
        raise ModelError(
            f"model.revision is set to {revision!r} and base {base!r} is not on the Hub; take "
            "model.revision out"
        )
    match kind:
        case BaseKind.EMBEDDED:
            from finqa_sft.models.tiny import tiny_base

            config = _checked_config(base, tiny_base() / "config.json", revision)
        case BaseKind.GGUF:
            from finqa_sft.models.gguf import read_config

            config = read_config(Path(base))
            _require_causal(base, config)
        case BaseKind.FOLDER:
            config = _checked_config(base, _config_of_folder(Path(base)), revision)
            if weights == "needed":
                _require_weights(Path(base))
        case BaseKind.HUB:
            from finqa_sft.models.hub import download_config

            config = _checked_config(base, download_config(base, revision), revision)
    return ResolvedBase(base, kind, revision, config)


def _kind(base: str) -> BaseKind:
    if base == EMBEDDED:
        return BaseKind.EMBEDDED
    path = Path(base)
    if path.suffix == ".gguf" or path.is_file():
        return BaseKind.GGUF
    if path.is_absolute() or path.is_dir() or not _HUB_NAME.fullmatch(base):
        return BaseKind.FOLDER
    return BaseKind.HUB


def _config_of_folder(folder: Path) -> Path:
    """The config file of a folder."""
    if not folder.is_dir():
        siblings = sorted(p.name for p in folder.parent.iterdir()) if folder.parent.is_dir() else []
        near = difflib.get_close_matches(folder.name, siblings, n=1)
        hint = f"; did you mean {folder.parent / near[0]}?" if near else ""
        raise ModelError(
            f"base {str(folder)!r}: no such folder{hint or '; correct the path in model.base'}"
        )
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        its_base = read_json(adapter).get("base_model_name_or_path")
        raise ModelError(
            f"base {str(folder)!r} is an adapter, not a base; its base is {its_base!r}: name that "
            "in model.base"
        )
    config = folder / "config.json"
    if not config.is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        remedy = (
            f"to take the GGUF file in it, name {ggufs[0]}"
            if ggufs
            else "name the folder that save_pretrained wrote, with config, weights and tokenizer"
        )
        raise ModelError(f"base {str(folder)!r} has no config.json; {remedy}")
    return config


def _require_weights(folder: Path) -> None:
    """Refuse a folder without its weights; pickled ones (`.bin`) are never read."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index)["weight_map"].values()))
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise ModelError(
                f"base {str(folder)!r} lacks {len(missing)} of its {len(shards)} weight files, "
                f"{missing[0]} first; copy or download it again"
            )
    elif not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"base {str(folder)!r} has no model.safetensors; weights in other formats are not "
            "read, as pickled files can run code: save it again with save_pretrained"
        )


def _checked_config(base: str, file: Path, revision: str | None) -> PreTrainedConfig:
    """The config of a base, after looking at the file itself."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig
    from transformers import __version__ as transformers_version

    written = read_json(file)
    quantised = written.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method", "an unnamed method")
        raise ModelError(
            f"base {base!r} is already quantised ({method}); factory qlora quantises a base "
            "itself: name the one that it was made from"
        )
    model_type = written.get("model_type")
    if model_type not in CONFIG_MAPPING:
        reason = (
            "needs code of its own, which is never run (trust_remote_code is off)"
            if "auto_map" in written
            else f"has model type {model_type!r}, unknown to transformers {transformers_version}"
        )
        raise ModelError(
            f"base {base!r} {reason}; upgrade transformers or name a base that it supports"
        )
    # A name on the Hub has been downloaded to the cache by now, with nothing but its config.
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(file.parent, trust_remote_code=False)
    except (StrictDataclassError, ArithmeticError, OSError, TypeError, ValueError) as error:
        raise ModelError(
            f"{file} describes no model: {one_line(error)}; copy or download it again"
        ) from error
    _require_causal(base, config)
    return config


def _require_causal(base: str, config: PreTrainedConfig) -> None:
    """Refuse models that do not write text from left to right."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    if config.is_encoder_decoder:
        problem = "an encoder-decoder"
    elif kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        problem = "not a causal language model"
    elif kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_decoder:
        # transformers can run BERT and its kin as decoders, but they were not trained so.
        problem = "an encoder"
    else:
        return
    raise ModelError(
        f"base {base!r} is {problem} (model type {kind!r}); name a causal language model, such as "
        "a Llama, Mistral, Qwen or Gemma"
    )


def read_json(file: Path) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        ModelError: The file is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not JSON: {error}; copy or download it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is not a JSON object; copy or download it again")
    return content
