"""A model for the time of a generation, and after it as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from finqa_sft.attention.stock import stock_attention
from finqa_sft.models.quiet import import_bitsandbytes

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


def unwrapped(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model of transformers inside, whose layers hold the adapters if there are any."""
    # Before peft, which imports it with its false alarm.
    import_bitsandbytes()
    from peft import PeftModel

    inside: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    base: PreTrainedModel = inside
    return base


@contextmanager
def generating(model: PreTrainedModel | PeftModel) -> Iterator[PreTrainedModel]:
    """Make a model ready to generate; whatever was changed for that is put back at the end.

    Inside, dropout and gradient checkpointing are off, attention is a stock one, no gradients are
    recorded, and the base's own `generation_config` (temperatures, penalties) has no say. Weights
    in two precisions are computed with as in training, under autocast.

    Args:
        model: A model in training or not, not wrapped for distributed training.

    Yields:
        What `generate` is to be called on.
    """
    inside = unwrapped(model)
    modes = {module: module.training for module in model.modules()}
    rotary = [_Rotary(module) for module in model.modules() if "max_seq_len_cached" in vars(module)]
    own = inside.generation_config
    inside.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        model.eval()
        # Tensors made in inference mode could stay behind in buffers, where training needs others.
        with stock_attention(inside), torch.no_grad(), _as_in_training(inside):
            yield inside
    finally:
        inside.generation_config = own
        for module, training in modes.items():
            module.training = training
        for embedding in rotary:
            embedding.put_back()


class _Rotary:
    """What a rotary embedding of the kind `dynamic` changes as rows grow, and does not undo."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._attributes: dict[str, Any] = {
            name: value for name, value in vars(module).items() if not name.startswith("_")
        }
        self._buffers = dict(module._buffers)

    def put_back(self) -> None:
        vars(self._module).update(self._attributes)
        self._module._buffers.update(self._buffers)


def _as_in_training(model: PreTrainedModel) -> AbstractContextManager[Any]:
    """Autocast where weights in float32 stand among weights in half precision.

    Adapters, or modules that are trained whole, are held in float32 over a base in bfloat16, and
    the trainer computes under autocast then. Packed weights, which may be stored as any dtype, are
    of classes of their own.
    """
    dtypes = {weight.dtype for weight in model.parameters() if type(weight) is torch.nn.Parameter}
    half = dtypes & {torch.bfloat16, torch.float16}
    if len(half) != 1 or torch.float32 not in dtypes:
        return nullcontext()
    return torch.autocast(model.device.type, dtype=half.pop())
