"""A saved adapter: which weights of its base it changes, and how.

The formulas are those of PEFT 0.21 (`peft/tuners/lora`: `layer.py` for LoRA and rsLoRA, `dora.py`
and `variants.py` for DoRA), computed in float32 whatever the weights are stored in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from finqa_sft.errors import ModelError
from finqa_sft.models.bases import ResolvedBase
from finqa_sft.models.merging.tensors import FLOATS, TensorFiles
from finqa_sft.models.options import Initialisation
from finqa_sft.models.saved_adapters import saved_config
from finqa_sft.wording import one_line

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
"""What PEFT puts before the name of a module of the base."""

_PARTS = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector")
"""The ends of the names of a layer's factors and, with DoRA, of its magnitudes."""

_UNDERSTOOD = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_dora",
        "use_rslora",
    }
)
"""Fields of an adapter's config that merging follows, or that say nothing of what it computes."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What an adapter does beside one linear layer.

    Attributes:
        wide: Input width.
        high: Output width.
        scaling: What the product of the factors is multiplied by.
        magnitudes: Whether each output has a magnitude of its own (DoRA).
    """

    wide: int
    high: int
    scaling: float
    magnitudes: bool


class SavedAdapter:
    """A LoRA, rsLoRA or DoRA adapter in its folder.

    Attributes:
        folder: Where it lies.
        layers: What it does beside linear layers, by their full names in the base.
        whole: Shapes of the parameters that were trained whole, by full name in the base.
        tied: Whether an embedding that was trained whole kept its weights shared with the head.
    """

    def __init__(self, folder: Path, *, base: ResolvedBase) -> None:
        """Read config and headers.

        Args:
            folder: As a run, or `save_pretrained`, wrote it.
            base: What it was trained on.

        Raises:
            ModelError: It is none, one of another base, damaged, or does what merging does not
                know.
        """
        config = saved_config(folder, base=base)
        self.folder = folder
        _require_understood(folder, config)
        self.tied = bool(config.get("ensure_weight_tying"))
        self._tensors = TensorFiles([folder / "adapter_model.safetensors"])
        kinds = self._tensors.kinds
        odd = next((name for name, kind in kinds.items() if kind.dtype not in FLOATS), None)
        if odd is not None:
            raise ModelError(
                f"adapter {folder} stores {odd} as {kinds[odd].dtype}; save it again with "
                "save_pretrained, in float32"
            )
        modules: dict[str, set[str]] = {}
        self.whole: dict[str, tuple[int, ...]] = {}
        for name, kind in kinds.items():
            inner = name.removeprefix(_PREFIX)
            end = next((part for part in _PARTS if inner.endswith(part)), None)
            if end is not None and inner != name:
                modules.setdefault(inner.removesuffix(end), set()).add(end)
            elif inner == name or "lora_" in inner:
                raise ModelError(
                    f"adapter {folder} holds {name}, which merging does not know; {_BY_PEFT}"
                )
            else:
                self.whole[inner] = kind.shape
        self.layers = {
            module: self._layer(module, ends, config) for module, ends in modules.items()
        }

    def _layer(self, module: str, ends: set[str], config: Mapping[str, Any]) -> Layer:
        """What the adapter does beside a layer."""
        rank = self._number(config, "rank_pattern", "r", of=module)
        alpha = self._number(config, "alpha_pattern", "lora_alpha", of=module)
        dora = bool(config.get("use_dora"))
        shapes = [self._shape(module, end) if end in ends else () for end in _PARTS]
        first, second, magnitudes = shapes
        if (
            len(first) != 2
            or len(second) != 2
            or first[0] != rank
            or second[1] != rank
            or magnitudes != ((second[0],) if dora else ())
        ):
            raise ModelError(
                f"adapter {self.folder} has factors of shapes {list(first)} and {list(second)} and "
                f"magnitudes of shape {list(magnitudes)} for {module}, where its config says rank "
                f"{rank:g} {'with' if dora else 'without'} DoRA; copy it again"
            )
        scaling = alpha / (sqrt(rank) if config.get("use_rslora") else rank)
        return Layer(wide=first[1], high=second[0], scaling=scaling, magnitudes=dora)

    def _number(self, config: Mapping[str, Any], pattern: str, default: str, *, of: str) -> float:
        """A number that a layer has by its name, or that all layers have."""
        from peft.utils.other import get_pattern_key

        by_name: Any = config.get(pattern) or {}
        try:
            value: Any = by_name.get(get_pattern_key(list(by_name), of), config.get(default))
            if isinstance(value, bool) or not value > 0:
                raise ValueError(f"{value!r} is no number above 0")
        except (AttributeError, TypeError, ValueError, re.error) as error:
            raise ModelError(
                f"adapter {self.folder}: {default} or {pattern} in its adapter_config.json cannot "
                f"be read ({one_line(error)}); copy it again"
            ) from error
        return float(value)

    def _shape(self, module: str, end: str) -> tuple[int, ...]:
        return self._tensors.kinds[_PREFIX + module + end].shape

    def apply(self, module: str, weight: Tensor) -> Tensor:
        """The weight of a layer with the adapter in it.

        Args:
            module: The layer's full name.
            weight: Its weight, [out, in] float32; overwritten.

        Returns:
            W + scaling B A; with DoRA, its rows at their magnitudes' lengths.

        Raises:
            ModelError: The result is not finite.
        """
        import torch

        layer = self.layers[module]

        def part(end: str) -> Tensor:
            return self._tensors.read(_PREFIX + module + end).float()

        first, second, magnitudes = _PARTS
        weight.addmm_(part(second), part(first), alpha=layer.scaling)
        if layer.magnitudes:
            weight.mul_((part(magnitudes) / torch.linalg.norm(weight, dim=1)).unsqueeze(1))
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"adapter {self.folder} makes weights of {module} that are not finite; its "
                "training went wrong, or the file is damaged: merge an earlier checkpoint with "
                "--adapter"
            )
        return weight

    def trained_whole(self, parameter: str) -> Tensor:
        """A parameter that was trained whole."""
        return self._tensors.read(_PREFIX + parameter)


_BY_PEFT = (
    "merge it with peft's merge_and_unload(), which holds the whole model in memory, or train "
    "without it"
)


def _require_understood(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse an adapter that computes something else than what is known here.

    Raises:
        ModelError: Names the field of its config.
    """
    from peft import LoraConfig

    usual: dict[str, Any] = LoraConfig().to_dict()  # type: ignore[no-untyped-call]
    for field, value in config.items():
        # PEFT writes None, [] or {} for the same.
        known = field in _UNDERSTOOD or value == usual.get(field) or not (value or usual.get(field))
        if field == "init_lora_weights" and isinstance(value, str):
            # The others change the base, so the adapter fits no other copy of it.
            known = value in get_args(Initialisation)
        if not known:
            raise ModelError(
                f"adapter {folder} sets {field} to {value!r}, which merging does not know; "
                f"{_BY_PEFT}"
            )
