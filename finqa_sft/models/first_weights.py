"""First weights of an adapter that PEFT alone does not give: from the rows, and orthogonal ones.

Explained variance adaptation (Paischer et al., 2024, arXiv:2410.07170) begins at the principal
components of what each layer is given. PEFT computes them; here it gets rows without the trainer's
loss around them, an end to its waiting, and layers whose inputs have no batch dimension.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from torch.utils.data import DataLoader
    from trl.trainer.sft_trainer import SFTTrainer

MOST_BATCHES = 1000
"""Batches after which components that still move are given up."""

MOST_TOKENS = 1024
"""Tokens of a batch that are looked at; PEFT compares what layers are given as Python numbers."""


class _Batches:
    """The batches of a data loader, over and over, up to a limit.

    PEFT takes batches until the components of every layer stand still, and keeps those of a finite
    loader to go round them for ever: so this one has no end of its own.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        left = MOST_BATCHES
        while True:
            for batch in self._loader:
                if not left:
                    raise ModelError(
                        f"model.lora.init eva: after {MOST_BATCHES} batches the components of some "
                        "layer still move; lower model.lora.r, or take init gaussian"
                    )
                left -= 1
                yield {key: value for key, value in batch.items() if key != "labels"}


def initialise_from_rows(trainer: SFTTrainer) -> None:
    """Set the acting adapter's first factors to the principal components of its layers' inputs.

    Every process computes them from the same rows, so that all begin alike.

    Args:
        trainer: Built, and not yet training.

    Raises:
        ModelError: No batch has as many tokens as the adapter has ranks, or the components do not
            stand still after `MOST_BATCHES` batches.
    """
    import torch
    from peft import get_eva_state_dict
    from torch.utils.data import DataLoader

    model: Any = trainer.model
    name = model.active_adapter
    config = model.peft_config[name]
    decoder = model.get_base_model().get_decoder()
    loader: DataLoader[Any] = DataLoader(
        trainer.train_dataset,  # type: ignore[arg-type]
        batch_size=trainer.args.per_device_train_batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(trainer.args.seed),
        collate_fn=trainer.data_collator,
    )
    if max(int(_attended(batch).sum()) for batch in loader) < config.r:
        raise ModelError(
            f"model.lora.init eva takes r={config.r} directions from each batch, and no batch has "
            "so many tokens; lower model.lora.r, or raise trainer.per_device_train_batch_size "
            "(collator.tokens_per_batch with the collator shared_context)"
        )
    # PEFT prints a line for each layer and batch with too few tokens.
    with contextlib.redirect_stdout(io.StringIO()):
        components = get_eva_state_dict(
            model,
            _Batches(loader),
            # The output head has no adapter, and its logits would be most of the memory.
            forward_fn=lambda _, inputs: decoder(**{**inputs, "use_cache": False}),
            prepare_model_inputs_fn=lambda inputs, _: _attended(inputs),
            prepare_layer_inputs_fn=partial(_some_inputs, most=max(MOST_TOKENS, config.r)),
            adapter_name=name,
            gather_distributed_inputs=False,
            show_progress_bar=False,
        )
    with torch.no_grad():
        for path, factors in _factors(model, name):
            factors[0].copy_(components[path])


def make_orthogonal(model: PeftModel, name: str) -> None:
    """Make the product of an orthogonal adapter's factors zero again.

    PEFT draws two factors whose product is zero and rounds them to the base's dtype, after which
    it is not. Both are projected, in float32, onto complementary halves of the rank.

    Args:
        model: With the adapter, its factors in float32.
        name: The adapter.
    """
    import torch

    with torch.no_grad():
        for _, (first, second) in _factors(model, name):
            # [r, r / 2]: the directions of the rank that the first factor writes to.
            used = torch.linalg.svd(first, full_matrices=False).U[:, : first.shape[0] // 2]
            first.copy_(used @ (used.T @ first))
            second.sub_(second @ used @ used.T)


def _factors(model: PeftModel, name: str) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Both factors of an adapter, [r, in] and [out, r], by the name of their layer."""
    from peft.tuners.lora import LoraLayer

    for path, module in model.named_modules():
        if isinstance(module, LoraLayer) and name in module.lora_A:
            layers: Any = (module.lora_A[name], module.lora_B[name])
            yield path, (layers[0].weight, layers[1].weight)


def _attended(inputs: dict[str, Tensor]) -> Tensor:
    """Which tokens of a batch are no padding, [B, T] bool."""
    import torch

    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"]).bool() if mask is None else mask.bool()


def _some_inputs(given: Any, attended: Tensor, layer: str, *, most: int) -> Tensor:
    """What a layer is given for tokens that are no padding, evenly chosen, [at most `most`, width].

    A layer of an expert is given some tokens only, in an order of its own; any of them count.
    """
    states: Tensor = given[0] if isinstance(given, tuple | list) else given
    flat, mask = states.reshape(-1, states.shape[-1]), attended.reshape(-1)
    tokens = flat[mask] if len(flat) == len(mask) else flat
    return tokens[:: ceil(len(tokens) / most) or 1]
