"""Imports bitsandbytes without its false alarm, and without a download."""

from __future__ import annotations

import logging
import sys

_CPU_OPS = logging.getLogger("bitsandbytes.backends.cpu.ops")


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Failed to load CPU gemm_4bit_forward")


def import_bitsandbytes() -> None:
    """Import bitsandbytes; call it before anything that imports trl or peft, which import it too.

    On a CPU with AVX512-BF16 units, importing bitsandbytes 0.50 asks the package `kernels` to
    download a compiled matrix product from the Hub, and warns when it gets none
    (`bitsandbytes/backends/cpu/ops.py`). Training never calls that product: it belongs to the
    packing that `finqa_sft.models.qlora` switches off. So the download is kept from happening, as
    a run on local files opens no socket, and that one warning is dropped.
    """
    if "bitsandbytes" in sys.modules:
        return
    _CPU_OPS.addFilter(_is_no_false_alarm)
    installed = sys.modules.get("kernels")
    # An entry of None makes `import kernels` fail (documented under `sys.modules`).
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        if installed is not None:
            sys.modules["kernels"] = installed
