"""Explained variance adaptation: an adapter that begins at what its layers are given.

Source of the method: Paischer et al., 2024 (arXiv:2410.07170). PEFT computes the components; here
it gets rows without the trainer's loss around them, and an end to its waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import ModelError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from trl.trainer.sft_trainer import SFTTrainer

MOST_BATCHES = 2000
"""Batches after which components that still move are given up."""


class _Batches:
    """The batches of a data loader, over and over, up to a limit.

    PEFT goes round the loader until the components of every layer stand still.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self._left = MOST_BATCHES

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader:
            if not self._left:
                raise ModelError(
                    f"model.lora.init eva: after {MOST_BATCHES} batches the components of some "
                    "layer still move; lower model.lora.r, or take init gaussian"
                )
            self._left -= 1
            yield {key: value for key, value in batch.items() if key != "labels"}


def initialise_from_rows(trainer: SFTTrainer) -> None:
    """Set the adapter's first factor to the principal components of each layer's inputs.

    Every process computes them from the same rows, so that all begin alike.

    Args:
        trainer: Built, and not yet training.

    Raises:
        ModelError: The components do not stand still after `MOST_BATCHES` batches.
    """
    import torch
    from peft import initialize_lora_eva_weights
    from torch.utils.data import DataLoader

    model: Any = trainer.model
    decoder = model.get_base_model().get_decoder()
    loader = DataLoader(
        trainer.train_dataset,  # type: ignore[arg-type]
        batch_size=trainer.args.per_device_train_batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(trainer.args.seed),
        collate_fn=trainer.data_collator,
    )
    initialize_lora_eva_weights(
        model,
        _Batches(loader),
        # The output head has no adapter, and its logits would be most of the memory.
        forward_fn=lambda _, inputs: decoder(**inputs),
        adapter_name=model.active_adapter,
        gather_distributed_inputs=False,
        show_progress_bar=False,
    )
