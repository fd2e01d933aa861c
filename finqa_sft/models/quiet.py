"""Keeps libraries from alarming a user about what is none of theirs to mend, message by message."""

from __future__ import annotations

import logging
import sys
import warnings


class _Dropped(logging.Filter):
    """Lets everything pass but messages with one beginning."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.name)


_INT8_CAST = _Dropped("MatMul8bitLt: inputs will be cast")
"""Logged at every product of an 8-bit base that is given other than float16, by design."""


def quiet_libraries() -> None:
    """Drop the false alarms of a run; call it before anything that imports trl or peft.

    Progress bars for loading and saving stay in a terminal, where a large base takes minutes.
    """
    # Logged where there is no GPU, which the run has said already.
    logging.getLogger("DeepSpeed").addFilter(_Dropped("Setting accelerator to CPU"))
    # TRL 1.16 still sets the field by the name that transformers 5.2x deprecates.
    warnings.filterwarnings("ignore", r"`(is_)?gradient_checkpointing\w*` is deprecated")
    import_bitsandbytes()
    if not sys.stderr.isatty():
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def import_bitsandbytes() -> None:
    """Import bitsandbytes without a download and without a false alarm.

    On a CPU with AVX512-BF16 units, importing bitsandbytes 0.50 asks the package `kernels` to
    download a compiled matrix product from the Hub, and warns when it gets none
    (`bitsandbytes/backends/cpu/ops.py`). Training never calls that product: it belongs to the
    packing that `finqa_sft.models.qlora` switches off. So the download is kept from happening, as
    a run on local files opens no socket, and the warning about it is dropped.
    """
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_INT8_CAST)
    if "bitsandbytes" in sys.modules:
        return
    cpu_ops = logging.getLogger("bitsandbytes.backends.cpu.ops")
    cpu_ops.addFilter(_Dropped("Failed to load CPU gemm_4bit_forward"))
    installed = sys.modules.get("kernels")
    # An entry of None makes `import kernels` fail (documented under `sys.modules`).
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        if installed is not None:
            sys.modules["kernels"] = installed
