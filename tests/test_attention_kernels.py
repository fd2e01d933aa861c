"""The kernels of FlashAttention: when they are chosen, how they are called, what comes back.

They need a GPU. On a CPU the functions of `kernels_cpu` stand in their place.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
from attended import (
    DEPTHS,
    KINDS,
    LENGTHS,
    PARENTS,
    Attended,
    attend,
    forest,
    gradients,
    naive,
)
from kernels_cpu import (
    backward_of_aten,
    forward_of_aten,
    of_flash_attn,
    of_torch_2_11,
    of_torch_2_12,
)
from torch.nn.attention.varlen import varlen_attn

from finqa_sft.attention import shared_context
from finqa_sft.attention.branches import paths_of
from finqa_sft.attention.shared_context import backend_for
from finqa_sft.errors import ModelError

Chosen = Callable[[str], None]


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Chosen:
    """Has a backend chosen, whatever the device."""

    def choose(name: str) -> None:
        monkeypatch.setattr(shared_context, "backend_for", lambda query, *, wanted, softcap: name)

    return choose


Put = Callable[[Callable[..., Any]], None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, chosen: Chosen) -> Iterator[Put]:
    """Puts a function in the place of a kernel, which is chosen from then on."""

    def replace(function: Callable[..., Any]) -> None:
        if function is of_flash_attn:
            module = ModuleType("flash_attn")
            module.flash_attn_varlen_func = function  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "flash_attn", module)
            chosen("flash_attn")
        else:
            monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", function)
            chosen("varlen")

    shared_context._takes_grouped_heads.cache_clear()
    yield replace
    shared_context._takes_grouped_heads.cache_clear()


def require_the_same(one: torch.Tensor, other: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    """The same attention and the same gradients."""
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(gradients(one, tensors), gradients(other, tensors), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


WITHOUT_CAP = {name: of for name, of in KINDS.items() if of.softcap is None}
"""What torch's kernel can be chosen for."""


@pytest.mark.parametrize(
    ("function", "of"),
    [
        *((function, of) for function in (of_torch_2_11, of_torch_2_12) for of in
          WITHOUT_CAP.values()),
        *((of_flash_attn, of) for of in KINDS.values()),
    ],
    ids=[
        *(f"{version} {name}" for version in ("torch 2.11", "torch 2.12") for name in WITHOUT_CAP),
        *(f"flash_attn {name}" for name in KINDS),
    ],
)  # fmt: skip
def test_a_kernel_is_called_for_the_same_attention(
    function: Callable[..., Any], of: Attended, put: Put
) -> None:
    tensors = of.tensors()
    expected = attend(tensors, forest(backend="sdpa"), of)
    put(function)
    require_the_same(attend(tensors, forest(), of), expected, tensors)


@pytest.fixture
def calls_of_torch() -> Iterator[list[str]]:
    """Operators for the CPU below torch's own `varlen_attn`, and which of them were called."""
    if "enable_gqa" not in inspect.signature(varlen_attn).parameters:
        pytest.skip("needs torch 2.12, whose operators these are")
    calls: list[str] = []

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return function(*arguments, **named)

        return called

    library = torch.library.Library("aten", "IMPL")
    for name, function in (("forward", forward_of_aten), ("backward", backward_of_aten)):
        library.impl(f"_flash_attention_{name}", noted(name, function), "CPU")
    yield calls
    library._destroy()


@pytest.mark.parametrize("of", WITHOUT_CAP.values(), ids=WITHOUT_CAP)
def test_torch_hands_its_kernel_the_same_attention(
    of: Attended, calls_of_torch: list[str], chosen: Chosen
) -> None:
    tensors = of.tensors()
    expected = attend(tensors, forest(backend="sdpa"), of)
    assert calls_of_torch == []
    chosen("varlen")
    require_the_same(attend(tensors, forest(), of), expected, tensors)
    assert calls_of_torch == ["forward", "backward"]


@pytest.mark.parametrize("backend", ["sdpa", "varlen"])
@pytest.mark.parametrize("of", WITHOUT_CAP.values(), ids=WITHOUT_CAP)
def test_attention_asks_for_no_value_on_its_device(
    of: Attended, backend: str, chosen: Chosen, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On this device tensors have no values: what would wait for a GPU's is an error here.
    chosen(backend)
    # Autocast does not know the device.
    monkeypatch.setattr(shared_context, "_compute_dtype", lambda query: query.dtype)
    tensors = [one.detach().to("meta").requires_grad_() for one in of.tensors()]
    attended = attend(tensors, forest(), of)
    assert attended.shape == (1, of.tokens, of.heads, of.value_width)
    found = torch.autograd.grad(attended.sum(), tensors)
    assert [one.shape for one in found] == [one.shape for one in tensors]


def test_without_anything_to_widen_nothing_is_copied(put: Put) -> None:
    queries: list[torch.Tensor] = []

    def noting(query: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        queries.append(query)
        return of_torch_2_12(query, *others, **named)

    put(noting)
    noting.__signature__ = inspect.signature(of_torch_2_12)  # type: ignore[attr-defined]
    for of in (Attended(), Attended(width=12)):
        tensors = of.tensors()
        attend(tensors, forest(), of)
        assert (queries[-1].data_ptr() == tensors[0].data_ptr()) == (of.width == 16)


def test_mixed_precision_reaches_the_kernel_in_its_dtype(put: Put) -> None:
    seen: list[torch.dtype] = []

    def noting(query: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        seen.append(query.dtype)
        return of_torch_2_12(query, *others, **named)

    noting.__signature__ = inspect.signature(of_torch_2_12)  # type: ignore[attr-defined]
    put(noting)
    of = Attended()
    query, key, value = of.tensors()
    # As after a norm whose weights are float32.
    tensors = [query, key, value.detach().bfloat16().requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        attended = attend(tensors, forest(), of)
    assert seen == [torch.bfloat16]
    assert attended.dtype == torch.float32
    expected = attend([query, key, value], forest(backend="sdpa"), of)
    torch.testing.assert_close(attended, expected, rtol=3e-2, atol=3e-2)
    assert [one.dtype for one in gradients(attended, tensors)] == [one.dtype for one in tensors]


@dataclass
class Elsewhere:
    """A query as it would be on a GPU, as far as the choice of a backend looks at it."""

    dtype: torch.dtype = torch.bfloat16
    shape: tuple[int, ...] = (1, 4, 10, 64)
    device: torch.device = field(default_factory=lambda: torch.device("cuda"))


Gpu = Callable[..., None]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """What kind of GPU there is; without a call, an H100."""

    def be(capability: tuple[int, int] = (9, 0), *, hip: str | None = None) -> None:
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
        monkeypatch.setattr("torch.version.hip", hip)
        shared_context._has_kernels.cache_clear()

    be()
    yield be
    shared_context._has_kernels.cache_clear()


@pytest.mark.parametrize(
    ("query", "softcap", "chosen"),
    [
        (Elsewhere(), None, "varlen"),
        (Elsewhere(torch.float16), None, "varlen"),
        (Elsewhere(torch.float32), None, "sdpa"),
        (Elsewhere(shape=(1, 4, 10, 256)), None, "varlen"),
        (Elsewhere(shape=(1, 4, 10, 320)), None, "sdpa"),
        (Elsewhere(), 50.0, "sdpa"),
        (Elsewhere(device=torch.device("cpu")), None, "sdpa"),
        (Elsewhere(device=torch.device("mps")), None, "sdpa"),
    ],
)
def test_the_kernel_is_chosen_where_it_can_compute_this(
    query: Any, softcap: float | None, chosen: str, gpu: Gpu
) -> None:
    assert backend_for(query, wanted="auto", softcap=softcap) == chosen
    assert backend_for(query, wanted="sdpa", softcap=softcap) == "sdpa"


WANTS = (
    "it takes bfloat16 or float16 on an NVIDIA GPU of compute capability 8.0 or later, and heads "
    "up to 256 wide{}; set it to auto"
)


@pytest.mark.parametrize(
    ("query", "softcap", "why"),
    [
        (Elsewhere(device=torch.device("cpu")), None, "the batch is on cpu"),
        (Elsewhere(torch.float32), None, "the model computes in torch.float32"),
        (Elsewhere(shape=(1, 4, 10, 320)), None, "its heads are 320 wide"),
        (Elsewhere(), 50.0, "the model caps its scores"),
    ],
)
def test_a_kernel_that_is_named_and_cannot_compute_this_is_refused(
    query: Any, softcap: float | None, why: str, gpu: Gpu
) -> None:
    with pytest.raises(ModelError) as caught:
        backend_for(query, wanted="varlen", softcap=softcap)
    wants = WANTS.format(", without a cap on scores")
    assert str(caught.value) == f"collator.attention is varlen, and {why}: {wants}"
    if softcap:
        assert backend_for(query, wanted="flash_attn", softcap=softcap) == "flash_attn"
        return
    with pytest.raises(ModelError) as caught:
        backend_for(query, wanted="flash_attn", softcap=softcap)
    assert str(caught.value) == f"collator.attention is flash_attn, and {why}: {WANTS.format('')}"


@pytest.mark.parametrize(
    ("capability", "hip", "has"),
    [((7, 5), None, False), ((8, 0), None, True), ((12, 0), None, True), ((9, 4), "6.4", False)],
    ids=["Turing", "Ampere", "Blackwell", "ROCm"],
)
def test_a_gpu_without_the_kernels_takes_the_other_way(
    capability: tuple[int, int], hip: str | None, has: bool, gpu: Gpu
) -> None:
    gpu(capability, hip=hip)
    query: Any = Elsewhere(torch.float16)
    assert backend_for(query, wanted="auto", softcap=None) == ("varlen" if has else "sdpa")
    if has:
        assert backend_for(query, wanted="flash_attn", softcap=None) == "flash_attn"
        return
    with pytest.raises(ModelError) as caught:
        backend_for(query, wanted="flash_attn", softcap=None)
    assert str(caught.value) == (
        f"collator.attention is flash_attn, and this GPU has no kernels for it: {WANTS.format('')}"
    )


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["varlen", "flash_attn", "sdpa"])
@pytest.mark.parametrize("of", KINDS.values(), ids=KINDS)
def test_the_kernels_of_a_gpu_compute_the_same(
    of: Attended, backend: Any, cuda: torch.device
) -> None:
    if backend == "flash_attn":
        pytest.importorskip("flash_attn", reason="needs the package flash-attn")
    if backend == "varlen" and of.softcap is not None:
        pytest.skip("torch's kernel has no cap, and is not chosen where there is one")
    here = [one.detach().bfloat16().float().requires_grad_() for one in of.tensors()]
    expected = naive(here, paths_of(LENGTHS, parents=PARENTS, depths=DEPTHS), of)
    there = [one.detach().to(cuda, torch.bfloat16).requires_grad_() for one in here]
    branches = forest(backend=backend).to(cuda)
    attended = attend(there, branches, of)
    torch.testing.assert_close(attended.float().cpu(), expected, rtol=2e-2, atol=2e-2)
    for mine, theirs in zip(
        gradients(attended.float().cpu(), there), gradients(expected, here), strict=True
    ):
        torch.testing.assert_close(mine.float().cpu(), theirs, rtol=5e-2, atol=5e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("of", [Attended(), Attended(window=3)], ids=["all", "a window"])
def test_attention_on_a_gpu_waits_for_nothing(of: Attended, cuda: torch.device) -> None:
    there = [one.detach().to(cuda, torch.bfloat16).requires_grad_() for one in of.tensors()]
    branches = forest(backend="varlen").to(cuda)
    attend(there, branches, of)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        attend(there, branches, of).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("of", KINDS.values(), ids=KINDS)
def test_float32_on_a_gpu_takes_the_other_way(of: Attended, cuda: torch.device) -> None:
    here = of.tensors()
    expected = naive(here, paths_of(LENGTHS, parents=PARENTS, depths=DEPTHS), of)
    there = [one.detach().to(cuda).requires_grad_() for one in here]
    attended = attend(there, forest().to(cuda), of)
    torch.testing.assert_close(attended.cpu(), expected, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(
        gradients(attended.cpu(), there), gradients(expected, here), strict=True
    ):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-4, atol=1e-4)
