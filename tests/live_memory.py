"""Counts the bytes of tensors that are alive, op by op, for tests of what is planned of them.

On the CPU nothing keeps account of memory. Here every tensor that an operation makes counts from
then until its storage is let go. What a kernel needs inside of one operation is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Bytes of the tensors made while this is entered.

    Attributes:
        live: Of those that are alive now.
        peak: The most at a time.
    """

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.live = self.peak = 0
        # Those that were there before, and views of them, do not count.
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        self.peak = max(self.peak, self.live)
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size

        def gone() -> None:
            self._known.discard(key)
            self.live -= size

        weakref.finalize(storage, gone)


@contextmanager
def kept(*known: torch.Tensor) -> Iterator[list[int]]:
    """The bytes that autograd keeps for the backward pass, as the one item of a list in the end.

    Args:
        known: Tensors that do not count, with views of them: parameters and buffers.
    """
    seen = {tensor.untyped_storage()._cdata for tensor in known}
    alive: list[torch.Tensor] = []
    total: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    sizes = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in alive}
    total.append(sum(size for key, size in sizes.items() if key not in seen))
