"""The weights that an adapter was trained beside: rounded to the run's dtype, quantised and back.

What bitsandbytes does when transformers loads a base (`Bnb4bitQuantize` and `Bnb8bitQuantize` in
`transformers/integrations/bitsandbytes.py`) is done here to one tensor at a time: the same classes
quantise it, with the same block size and the same double quantisation, and it is unpacked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finqa_sft.models.options import ComputeDtype
from finqa_sft.models.quiet import import_bitsandbytes

if TYPE_CHECKING:
    from torch import Tensor


class TrainedWeights:
    """Makes of a base's weights what its training held."""

    def __init__(
        self, quantisation: Mapping[str, Any], *, dtype: ComputeDtype, device: str
    ) -> None:
        """Take how the base was loaded.

        Args:
            quantisation: Arguments of `transformers.BitsAndBytesConfig`.
            dtype: The dtype that weights were loaded in.
            device: Where to quantise.
        """
        import torch

        import_bitsandbytes()
        self._quantisation = quantisation
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._device = device

    def rounded(self, weight: Tensor) -> Tensor:
        """A weight that is not quantised, in the run's dtype."""
        return weight.to(self._dtype)

    def unpacked(self, weight: Tensor) -> Tensor:
        """The weight of a quantised layer, [out, in], as its products are computed with it.

        Args:
            weight: As the base holds it, [out, in].

        Returns:
            On the CPU; in the run's dtype where it was quantised to 4 bits, in float32 after 8.
        """
        from bitsandbytes import functional
        from bitsandbytes.nn import modules

        # Their methods are annotated for another class than they stand in.
        kinds: Any = modules
        rounded = self.rounded(weight)
        if self._quantisation.get("load_in_8bit"):
            packed = kinds.Int8Params(rounded, requires_grad=False).to(self._device)
            found: Tensor = functional.int8_vectorwise_dequant(packed.data, packed.SCB)
        else:
            packed = kinds.Params4bit(
                rounded,
                requires_grad=False,
                compress_statistics=self._quantisation["bnb_4bit_use_double_quant"],
                quant_type=self._quantisation["bnb_4bit_quant_type"],
            ).to(self._device)
            found = functional.dequantize_4bit(packed.data, packed.quant_state)
        return found.cpu()
