"""Options of the model section of a recipe; importing them costs no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from finqa_sft.options import Options, RecipePath

EMBEDDED = "tiny"
"""The name of the base that comes with the package."""

ComputeDtype: TypeAlias = Literal["bfloat16", "float16", "float32"]
Initialisation: TypeAlias = Literal["default", "gaussian", "eva", "orthogonal", "mica"]
StorageDtype: TypeAlias = Literal["uint8", "bfloat16", "float16", "float32"]


def _path_or_name(base: str, info: ValidationInfo) -> str:
    """Make a path absolute, relative to the recipe; leave the name of a base as it is."""
    if base == EMBEDDED:
        return base
    folder: Path = info.context["folder"] if info.context else Path()
    path = folder / Path(base).expanduser()
    written_as_path = base.startswith(("./", "../", "~")) or base.endswith(".gguf")
    return os.path.abspath(path) if written_as_path or path.exists() else base


_REWRITING = re.compile(r"pissa(_niter_\d+)?|olora|corda|loftq|lora_ga", re.IGNORECASE)
"""Initialisations of PEFT that change the base's weights."""


def _leaves_the_base(init: object) -> object:
    """Say why an initialisation of PEFT is not among those that can be chosen."""
    if isinstance(init, str) and _REWRITING.fullmatch(init):
        raise ValueError(
            f"{init} changes the weights of the base, so that the adapter would fit no other copy "
            "of it; eva also starts from principal components, and leaves the base as it is"
        )
    if isinstance(init, bool):
        raise ValueError(
            "PEFT's true is called default here; false, a random update before the first step, is "
            "not offered"
        )
    return init


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

    init: Annotated[Initialisation, BeforeValidator(_leaves_the_base)] = "default"
    """The adapter's first weights; the base is the same with each of them. `default`: uniform and
    zeros. `gaussian`: normal and zeros. `eva`: principal components of what each layer is given in
    the training rows (Paischer et al., 2024). `orthogonal`: orthogonal factors whose product is
    zero; for bases that are not quantised. `mica`: fixed minor components of the layer's weight
    beside a trained factor that starts from zero; likewise."""

    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = (
        "all-linear"
    )
    """Which linear layers get an adapter: all but the output head, or those with these names."""

    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained whole and saved with the adapter, such as `embed_tokens` and
    `lm_head`; each is held a second time, with its gradients and the optimizer's averages."""

    @model_validator(mode="after")
    def _fits_together(self) -> LoraOptions:
        if self.init == "orthogonal" and self.r % 2:
            raise ValueError(f"init orthogonal needs an even rank; r is {self.r}")
        if self.init == "mica" and self.dora:
            raise ValueError("PEFT has no init mica with dora; leave one of them out")
        return self


class BaseOptions(Options):
    """What every built-in factory asks."""

    base: Annotated[str, Field(min_length=1), AfterValidator(_path_or_name)] = EMBEDDED
    """The base: `tiny` (comes with the package, random weights), a folder, a `.gguf` file, or a
    name on the Hugging Face Hub. What starts with `./`, `../` or `~`, or exists beside the recipe,
    is a path."""

    revision: str | None = None
    """Branch, tag or commit of a base on the Hub."""

    chat_template: RecipePath | None = None
    """A Jinja file that takes the place of the tokenizer's own chat template."""

    compute_dtype: Literal["auto"] | ComputeDtype = "auto"
    """What products are computed in: `auto` is bfloat16 on GPUs that have it and float32 on the
    CPU. A quantised base is unpacked to it, and the base of the factory `lora` is held in it."""


class LoRAFactoryOptions(BaseOptions):
    """A frozen base with trained adapters."""

    lora: LoraOptions = LoraOptions()
    """The adapter."""


class QLoRAOptions(LoRAFactoryOptions):
    """A frozen, quantised base with trained adapters (QLoRA; Dettmers et al., 2023)."""

    bits: Literal[4, 8] = 4
    """How the base is quantised: NF4 in 4 bits, or LLM.int8() in 8 (Dettmers et al., 2022), which
    is nearer to the base and takes twice the memory."""

    double_quant: bool = True
    """Quantise the scales of the 4-bit blocks too: saves 0.37 bits a weight."""

    storage_dtype: Literal["auto"] | StorageDtype = "auto"
    """What packed 4-bit weights are stored as: `auto` is uint8, or the compute dtype where FSDP or
    DeepSpeed ZeRO-3 shards the base, as sharding needs one dtype throughout."""

    @field_validator("lora")
    @classmethod
    def _reads_no_base_weights(cls, lora: LoraOptions) -> LoraOptions:
        if lora.init in ("orthogonal", "mica"):
            raise ValueError(
                f"init {lora.init} works on bases that are not quantised; take factory lora, or "
                "init gaussian or eva"
            )
        return lora

    @model_validator(mode="after")
    def _four_bits_only(self) -> QLoRAOptions:
        if self.bits == 8 and self.lora.dora:
            # Seen with PEFT 0.21 and bitsandbytes 0.50: computing the magnitudes loses the scales.
            raise ValueError(
                "lora.dora does not work on an 8-bit base; set bits to 4, or take factory lora"
            )
        if self.bits == 8:
            for name in ("double_quant", "storage_dtype"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name} is for bits: 4; leave it out")
        return self


class FullOptions(BaseOptions):
    """A base all of whose weights are trained."""

    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    """What weights, gradients and the optimizer's averages are held in. bfloat16 halves their
    memory, is then computed in too, and loses updates smaller than about 1/256 of a weight."""

    @model_validator(mode="after")
    def _computes_in_its_weights(self) -> FullOptions:
        if self.weights_dtype == "bfloat16" and self.compute_dtype not in ("auto", "bfloat16"):
            raise ValueError(
                f"weights_dtype bfloat16 is computed in bfloat16, not in {self.compute_dtype}; "
                "leave compute_dtype out, or set weights_dtype to float32"
            )
        return self
