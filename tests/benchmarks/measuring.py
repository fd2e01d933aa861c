"""Measures of training: peak memory, matrix products, and where the time of a step goes."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm")
"""Operators that are matrix products; attention as a whole goes by its name."""

PEAKS = {"H200": 989.4e12, "H100 PCIe": 756e12, "H100": 989.4e12, "A100": 312e12}
"""Products of dense bfloat16 a second, operations of NVIDIA's data sheets, by a part of the name;
the first that fits counts."""

FORMULA = (
    "operations of the products that the tokens need, without padding and without recomputation: "
    "tokens x 4 x weights of frozen linear layers + tokens x 6 x weights of trained ones (forward, "
    "gradient of the input, and of trained weights), supervised tokens x the same of the output "
    "head, and 12 x layers x heads x head width x pairs of a token and one that it sees"
)


class Memory:
    """Peak memory since a moment, beyond what was held then.

    On a GPU it is what torch has allocated. On the CPU it is the resident memory of the process,
    as Linux counts it; elsewhere it is not measured.
    """

    def __init__(self, device: Any) -> None:
        """Take the device."""
        self.device = device
        self.before: int | None = None

    @staticmethod
    def described(*, on_gpu: bool) -> str:
        """What is measured."""
        if on_gpu:
            return "torch.cuda.max_memory_allocated less memory_allocated before the first step"
        return "peak resident memory (VmHWM) of the process less VmRSS before the first step"

    def begin(self, model: Any) -> None:
        """Take what is held now, the weights included, and forget earlier peaks."""
        import torch

        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        elif sys.platform == "linux":
            # Weights that are mapped from a file are resident only when they have been read.
            for weight in model.parameters():
                weight.detach().sum()
            # What earlier work has freed would hide as much of the peak.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self.before = resident("VmRSS")

    def peak(self) -> int | None:
        """Bytes."""
        import torch

        if self.before is None:
            return None
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device)) - self.before
        return resident("VmHWM") - self.before


def resident(name: str) -> int:
    """Bytes of a line of this process's status."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LookupError(f"/proc/self/status has no {name}")


def synchronise(device: Any) -> None:
    """Wait until a GPU has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gradients(model: Any) -> Any:
    """All gradients, one after the other."""
    import torch

    found = [p.grad.detach().float().cpu().flatten() for p in model.parameters() if p.requires_grad]
    return torch.cat(found)


def products(model: Any, tokens: int, supervised: int, pairs: int) -> float:
    """Operations of the matrix products of a forward and a backward pass, see `FORMULA`.

    Args:
        model: A dense causal language model, with or without adapters.
        tokens: Tokens without padding.
        supervised: Supervised tokens.
        pairs: Pairs of a token and one that it sees.
    """
    import torch

    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = config.to_dict().get("head_dim") or config.hidden_size // heads
    done = 12.0 * config.num_hidden_layers * heads * width * pairs
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            size = module.in_features * module.out_features
            times = 6 if module.weight.requires_grad else 4
            done += size * times * (supervised if module is head else tokens)
    return done


def peak_of(name: str) -> float | None:
    """What a GPU can do at most, operations a second."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def profiled(trainer: Any, *, warm_up: int) -> dict[str, Any]:
    """One optimizer step, after the warm-up, under torch's profiler.

    Args:
        trainer: Ready to train.
        warm_up: Steps before it.

    Returns:
        `seconds`: of all operators. `matrix_products`: their share. `products` and `others`: the
        most expensive of each, with their shares and how often they were called.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile
    from transformers import TrainerCallback

    on_gpu = trainer.model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]

    class Profile(TrainerCallback):
        profiler: Any = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == min(warm_up, state.max_steps - 1):
                self.profiler = profile(activities=activities)
                self.profiler.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.profiler is not None:
                self.profiler.stop()
                control.should_training_stop = True

    callback = Profile()
    trainer.add_callback(callback)
    trainer.train()
    events = [e for e in callback.profiler.key_averages() if e.device_type == DeviceType.CPU]

    def taken(event: Any) -> float:
        # By operator; those of a GPU are the sums of their kernels.
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    events.sort(key=taken, reverse=True)
    total = sum(map(taken, events))
    of_products = [
        e for e in events if e.key in PRODUCTS or "attention" in e.key or "attn" in e.key
    ]
    others = [event for event in events if event not in of_products]

    def listed(some: Any) -> list[dict[str, Any]]:
        return [
            {"operator": e.key, "share": round(taken(e) / total, 4), "calls": e.count}
            for e in some[:10]
        ]

    return {
        "what": "self time of operators in one optimizer step"
        + (", as time of their kernels" if on_gpu else ""),
        "seconds": round(total / 1e6, 4),
        "matrix_products": round(sum(map(taken, of_products)) / total, 4),
        "products": listed(of_products),
        "others": listed(others),
    }
