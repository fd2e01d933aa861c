"""Tensors in safetensors files: shapes from the headers, values one at a time as they are needed.

Files are mapped into memory, and pages of them are read when a tensor is used and may be dropped
again by the system; nothing of a file is copied until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import ModelError
from finqa_sft.models.bases import read_json
from finqa_sft.wording import one_line

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

SIZES = MappingProxyType(
    {
        **dict.fromkeys(("F64", "I64", "U64"), 8),
        **dict.fromkeys(("F32", "I32", "U32"), 4),
        **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
        **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
    }
)
"""Bytes of a value, by the name that safetensors gives its dtype."""

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes that weights can be computed with, by safetensors' names."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file's header says of a tensor.

    Attributes:
        shape: Its shape.
        dtype: Its dtype, as safetensors calls it.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def count(self) -> int:
        """Number of values."""
        return prod(self.shape)


class TensorFiles:
    """The tensors of some safetensors files, by name.

    Attributes:
        kinds: Shape and dtype of each, in the order of the files.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Open the files and read their headers.

        Raises:
            ModelError: A file is missing or damaged, or holds a dtype that is not known.
        """
        from safetensors import SafetensorError, safe_open

        self.kinds: dict[str, Kind] = {}
        self._opened: dict[str, Any] = {}
        for file in files:
            try:
                opened: Any = safe_open(file, framework="pt")
                for name in opened.keys():  # noqa: SIM118
                    header = opened.get_slice(name)
                    self.kinds[name] = Kind(tuple(header.get_shape()), header.get_dtype())
                    self._opened[name] = opened
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"{file} cannot be read: {one_line(error)}; copy or download it again"
                ) from error
        strange = next((n for n, kind in self.kinds.items() if kind.dtype not in SIZES), None)
        if strange is not None:
            raise ModelError(
                f"{strange} is stored as {self.kinds[strange].dtype}, which is not known here; "
                "save it again with save_pretrained, in bfloat16 or float32"
            )

    def read(self, name: str) -> Tensor:
        """A tensor, mapped from its file."""
        tensor: Tensor = self._opened[name].get_tensor(name)
        return tensor


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights, as `from_pretrained` finds them.

    Args:
        folder: As `save_pretrained` writes it.

    Raises:
        ModelError: There are none, or not all.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        raise ModelError(
            f"{folder} has no {SINGLE}; weights in other formats are not read, as pickled files "
            "can run code: save it again with save_pretrained"
        )
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise ModelError(f"{index} names no files in weight_map; copy or download it again")
    files = [folder / name for name in sorted(set(placed.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of its {len(files)} weight files, {missing[0]} first; "
            "copy or download it again"
        )
    return files
