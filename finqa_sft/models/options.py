"""Options of the model section of a recipe; importing them costs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo

from finqa_sft.options import Options, RecipePath

EMBEDDED = "tiny"
"""The name of the base that comes with the package."""

ComputeDtype: TypeAlias = Literal["bfloat16", "float16", "float32"]
StorageDtype: TypeAlias = Literal["uint8", "bfloat16", "float16", "float32"]


def _path_or_name(base: str, info: ValidationInfo) -> str:
    """Make a path absolute, relative to the recipe; leave the name of a base as it is."""
    if base == EMBEDDED:
        return base
    folder: Path = info.context["folder"] if info.context else Path()
    path = folder / Path(base).expanduser()
    written_as_path = base.startswith(("./", "../", "~")) or base.endswith(".gguf")
    return os.path.abspath(path) if written_as_path or path.exists() else base


class LoraOptions(Options):
    """The adapter: low-rank updates beside frozen linear layers (Hu et al., 2021)."""

    r: int = Field(default=16, ge=1)
    """Rank of the update: each layer gets two matrices with `r` rows or columns."""

    alpha: int = Field(default=32, ge=1)
    """The update is scaled by `alpha / r`, or by `alpha / sqrt(r)` with `rslora`."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input."""

    rslora: bool = False
    """Scale by the square root of the rank, which keeps high ranks learning."""

    dora: bool = False
    """Learn a magnitude for each output beside the update's direction; slower, often better."""

    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = (
        "all-linear"
    )
    """Which linear layers get an adapter: all but the output head, or those with these names."""


class QLoRAOptions(Options):
    """A frozen 4-bit base with trained adapters (QLoRA; Dettmers et al., 2023)."""

    base: Annotated[str, Field(min_length=1), AfterValidator(_path_or_name)] = EMBEDDED
    """The base: `tiny` (comes with the package, random weights), a folder, a `.gguf` file, or a
    name on the Hugging Face Hub. What starts with `./`, `../` or `~`, or exists beside the recipe,
    is a path."""

    revision: str | None = None
    """Branch, tag or commit of a base on the Hub."""

    lora: LoraOptions = LoraOptions()
    """The adapter."""

    double_quant: bool = True
    """Quantise the scales of the 4-bit blocks too: saves 0.37 bits a weight."""

    compute_dtype: Literal["auto"] | ComputeDtype = "auto"
    """What 4-bit weights are unpacked to for a product: `auto` is bfloat16 on GPUs that have it and
    float32 on the CPU."""

    storage_dtype: Literal["auto"] | StorageDtype = "auto"
    """What the packed weights are stored as: `auto` is uint8, or the compute dtype where FSDP or
    DeepSpeed ZeRO-3 shards the base, as sharding needs one dtype throughout."""

    chat_template: RecipePath | None = None
    """A Jinja file that takes the place of the tokenizer's own chat template."""
