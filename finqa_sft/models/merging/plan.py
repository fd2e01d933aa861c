"""What a merged model is made of, tensor by tensor: looked at and found to fit before it is begun.

Tensors keep the names that the base's files have for them, so that the merged model loads as the
base does. Only those that the adapter changes, or that were quantised, must be known as parameters
of the model; all others are copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from finqa_sft.errors import ModelError
from finqa_sft.models.adapters import AdapterFactory
from finqa_sft.models.bases import BaseKind
from finqa_sft.models.hub import download_weights
from finqa_sft.models.merging.adapter import SavedAdapter
from finqa_sft.models.merging.names import keys_of_parameters
from finqa_sft.models.merging.tensors import FLOATS, SIZES, Kind, TensorFiles, weight_files
from finqa_sft.models.merging.trained_weights import TrainedWeights
from finqa_sft.models.options import ComputeDtype

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Weights: TypeAlias = Literal["original", "dequantised"]
MergedDtype: TypeAlias = Literal["bfloat16", "float32"]

_CALLED = {"bfloat16": "BF16", "float32": "F32"}
"""What safetensors calls them."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of a tensor of the base.

    Attributes:
        layer: The linear layer whose weight it is, where that has an adapter or was quantised.
        adapted: Whether the layer has an adapter.
        quantised: Whether the layer was quantised.
        turned: Whether the file holds the weight as [in, out], as GPT-2's layers do.
        whole: The parameter of the adapter that takes its place.
    """

    layer: str = ""
    adapted: bool = False
    quantised: bool = False
    turned: bool = False
    whole: str = ""


_NONE = _Change()


class MergePlan:
    """An adapter and its base, found to fit; nothing has been written.

    Attributes:
        factory: The factory that the adapter was trained with.
        adapter: The adapter.
        folder: Where the base's files lie.
        weights: Over which weights.
        dtype: The dtype of the merged model.
        trained_in: The dtype that the base was unpacked to in the run.
        kinds: Shape and dtype of each tensor of the merged model.
    """

    def __init__(
        self,
        factory: AdapterFactory,
        adapter: Path,
        *,
        weights: Weights,
        dtype: MergedDtype,
        trained_in: ComputeDtype,
    ) -> None:
        """Look at both; a GGUF base is dequantised into the cache, if it is not there.

        Args:
            factory: The factory that the adapter was trained with.
            adapter: The adapter's folder.
            weights: `original` for the base's own weights, `dequantised` for the quantised ones
                that the adapter was trained beside.
            dtype: The dtype of the merged model.
            trained_in: The dtype that the base was unpacked to in the run.

        Raises:
            ModelError: Base or adapter is missing, damaged, or they do not fit.
        """
        self.factory = factory
        self.weights: Weights = weights
        self.dtype: MergedDtype = dtype
        self.trained_in: ComputeDtype = trained_in
        self._base = factory.base
        self.adapter = SavedAdapter(adapter, base=self._base)
        self.folder = _local(factory)
        self._tensors = TensorFiles(weight_files(self.folder))
        self._parameters = frozenset(self.model.state_dict())
        self._keys = keys_of_parameters(self._tensors.kinds, self.model)
        self._float32 = frozenset(self._held_in_float32())
        self._changes = dict(self._adapted())
        self._trained: TrainedWeights | None = None
        if weights == "dequantised":
            # Checked before: only a quantised base has such arguments.
            quantisation = factory.quantisation_arguments(sharded=False) or {}
            self._trained = TrainedWeights(
                quantisation, dtype=trained_in, device=factory.device.torch_name
            )
            bones = factory.skeleton
            for layer in bones.linears | bones.others:
                key = self._key(f"{layer}.weight", whose="the quantised base")
                change = self._changes.get(key, _NONE)
                turned = self._is_turned(layer)
                self._changes[key] = replace(change, layer=layer, quantised=True, turned=turned)
        self.kinds = {
            name: Kind(kind.shape, self._dtype_of(name, kind))
            for name, kind in self._tensors.kinds.items()
        }

    @property
    def size(self) -> int:
        """Bytes of all tensors of the merged model."""
        return sum(kind.count * SIZES[kind.dtype] for kind in self.kinds.values())

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model of the base's config, without weights."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                self._base.config
            )
        return model

    def tensor(self, name: str) -> Tensor:
        """A tensor of the merged model.

        Args:
            name: Its name in the files.

        Raises:
            ModelError: The adapter makes something of it that is not finite.
        """
        import torch

        change = self._changes.get(name, _NONE)
        kept = {"BF16": torch.bfloat16, "F32": torch.float32}.get(self.kinds[name].dtype)
        if change.whole:
            return self.adapter.trained_whole(change.whole).to(kept).contiguous()
        found = self._tensors.read(name)
        if kept is None or self._tensors.kinds[name].dtype not in FLOATS:
            return found
        if not change.layer:
            if self._trained is not None and name not in self._float32:
                found = self._trained.rounded(found)
            return found.to(kept)
        if change.turned:
            found = found.T
        if change.quantised and self._trained is not None:
            found = self._trained.unpacked(found)
        if change.adapted:
            # A copy, as what is mapped from the file must stay as it is.
            found = found.to(torch.float32, copy=True)
            found = self.adapter.apply(change.layer, found)
        found = found.to(kept)
        return (found.T if change.turned else found).contiguous()

    def _key(self, parameter: str, *, whose: str) -> str:
        """The name in the base's files of a parameter that has to be there."""
        if parameter in self._keys:
            return self._keys[parameter]
        if parameter not in self._parameters:
            raise ModelError(
                f"{whose} has {parameter}, and base {self._base.name} does not; merge it into the "
                "base that it was trained on"
            )
        other = "merge with --weights original" if whose == "the quantised base" else _BY_PEFT
        raise ModelError(
            f"base {self._base.name} has no tensor {parameter} in its files, which transformers "
            f"makes of others when it loads them; {other}"
        )

    def _held_in_float32(self) -> Iterator[str]:
        """The tensors, buffers among them, that transformers loads in float32 whatever it is asked.

        transformers 5.24, `_get_dtype_plan`.
        """
        for pattern in self.model._keep_in_fp32_modules_strict or ():
            rule = re.compile(pattern.replace("*", ".*"))
            yield from (key for name, key in self._keys.items() if rule.search(name))

    def _adapted(self) -> Iterator[tuple[str, _Change]]:
        """What the adapter changes, by the names in the base's files."""
        whose = f"adapter {self.adapter.folder}"
        for module, layer in self.adapter.layers.items():
            if len(self._shared_with(f"{module}.weight")) > 1:
                raise ModelError(
                    f"{whose} adapts {module}, whose weights base {self._base.name} shares with "
                    f"another module; {_BY_PEFT}"
                )
            key = self._key(f"{module}.weight", whose=whose)
            turned = self._is_turned(module)
            shape = (layer.wide, layer.high) if turned else (layer.high, layer.wide)
            self._require_shape(key, shape, whose=whose, of=module)
            yield key, _Change(layer=module, adapted=True, turned=turned)
        for parameter, whole in self.adapter.whole.items():
            for shared in self._shared_with(parameter):
                if not self.adapter.tied and shared != parameter:
                    raise ModelError(
                        f"{whose} trained {parameter} apart from {shared}, which shares its "
                        f"weights in base {self._base.name}; {_BY_PEFT}"
                    )
                if shared in self._keys:
                    key = self._keys[shared]
                    self._require_shape(key, whole, whose=whose, of=parameter)
                    yield key, _Change(whole=parameter)

    def _shared_with(self, parameter: str) -> list[str]:
        """The parameters that share a parameter's weights, itself first.

        Raises:
            ModelError: The base holds none of them by name.
        """
        # [target: source]; a source may have several targets.
        shared: dict[str, str] = self.model.all_tied_weights_keys
        source = shared.get(parameter, parameter)
        group = [parameter, source, *(name for name, of in shared.items() if of == source)]
        group = list(dict.fromkeys(group))
        if not any(name in self._keys for name in group):
            self._key(parameter, whose=f"adapter {self.adapter.folder}")
        return group

    def _require_shape(self, key: str, shape: tuple[int, ...], *, whose: str, of: str) -> None:
        kind = self._tensors.kinds[key]
        if kind.shape != shape:
            raise ModelError(
                f"{whose} is made for weights of shape {list(shape)} in {of}, and in base "
                f"{self._base.name} they have {list(kind.shape)}; merge it into the base that it "
                "was trained on"
            )
        if kind.dtype not in FLOATS:
            raise ModelError(
                f"base {self._base.name} stores {key} as {kind.dtype}, which nothing can be added "
                "to; name the base that it was made from"
            )

    def _is_turned(self, layer: str) -> bool:
        from transformers.pytorch_utils import Conv1D

        return isinstance(self.model.get_submodule(layer), Conv1D)

    def _dtype_of(self, name: str, kind: Kind) -> str:
        """The dtype that a tensor gets, as safetensors calls it."""
        if kind.dtype not in FLOATS:
            return kind.dtype
        return "F32" if name in self._float32 else _CALLED[self.dtype]


_BY_PEFT = "merge it with peft's merge_and_unload(), which holds the whole model in memory"


def _local(factory: AdapterFactory) -> Path:
    """The folder of the base's files, downloaded where they are not at hand."""
    base = factory.base
    if base.kind is BaseKind.HUB:
        return download_weights(base.name, base.revision)
    return Path(base.location())
