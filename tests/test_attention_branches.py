"""The index work of branches, and attention over them against one computed path by path."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.attention import shared_context
from finqa_sft.attention.branches import Branches, paths_of
from finqa_sft.attention.shared_context import backend_for, shared_context_attention
from finqa_sft.errors import ModelError

# A page of 7 tokens with three questions, one of them with two answers; and a page of 4.
LENGTHS, PARENTS, DEPTHS = [9, 4, 5, 2, 4, 3], [-1, 0, 0, 2, -1, 4], [0, 7, 6, 9, 0, 2]
TOKENS = sum(LENGTHS)


def forest(**changes: Any) -> Branches:
    return Branches.of(LENGTHS, parents=PARENTS, depths=DEPTHS, **changes)


def test_a_path_is_the_beginning_of_its_parents_and_the_branch() -> None:
    paths = paths_of(LENGTHS, parents=PARENTS, depths=DEPTHS)
    assert [path.tolist() for path in paths] == [
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12],
        [0, 1, 2, 3, 4, 5, 13, 14, 15, 16, 17],
        [0, 1, 2, 3, 4, 5, 13, 14, 15, 18, 19],
        [20, 21, 22, 23],
        [20, 21, 24, 25, 26],
    ]


def test_bounds_and_index_are_those_of_the_paths() -> None:
    branches = forest()
    assert branches.lengths == tuple(LENGTHS)
    assert branches.path_lengths == (9, 11, 11, 11, 4, 5)
    assert branches.cu_seq_q.tolist() == [0, 9, 13, 18, 20, 24, 27]
    assert branches.cu_seq_k.tolist() == [0, 9, 20, 31, 42, 46, 51]
    assert branches.key_index.dtype == torch.int64
    assert branches.cu_seq_q.dtype == branches.cu_seq_k.dtype == torch.int32
    assert len(branches.key_index) == 51


@pytest.mark.parametrize("window", [None, 1, 3, 10, 11, 100])
def test_a_mask_hides_what_comes_later_and_what_is_too_far(window: int | None) -> None:
    branches = forest()
    masks = branches.masks(window=window, dtype=torch.float32)
    for length, path, mask in zip(branches.lengths, branches.path_lengths, masks, strict=True):
        reach = math.inf if window is None else window
        seen = [
            [0 <= own - key < reach for key in range(path)] for own in range(path - length, path)
        ]
        if mask is None:
            assert length == path
            assert all(seen[q][k] == (k <= q) for q in range(path) for k in range(path))
        else:
            assert mask.tolist() == [[0.0 if one else -math.inf for one in line] for line in seen]


def test_masks_are_made_once_for_a_window_and_a_dtype() -> None:
    branches = forest()
    masks = branches.masks(window=3, dtype=torch.float32)
    assert branches.masks(window=3, dtype=torch.float32) is masks
    assert branches.masks(window=4, dtype=torch.float32) is not masks
    wide = branches.masks(window=None, dtype=torch.float32)
    assert branches.masks(window=500, dtype=torch.float32) is wide


def test_branches_that_are_on_a_device_stay_as_they_are() -> None:
    branches = forest()
    assert branches.to("cpu") is branches
    moved = branches.to("meta")
    assert moved is not branches
    assert (moved.key_index.device.type, moved.cu_seq_k.device.type) == ("meta", "meta")
    assert (moved.lengths, moved.backend) == (branches.lengths, branches.backend)


@dataclass
class Attended:
    """What attention is to do, and random tensors for it."""

    heads: int = 4
    key_heads: int = 2
    width: int = 16
    value_width: int = 16
    window: int | None = None
    softcap: float | None = None
    scaling: float | None = None
    tokens: int = TOKENS
    seed: int = 0

    def tensors(self, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        draws = torch.Generator().manual_seed(self.seed)
        shapes = (
            (self.heads, self.width),
            (self.key_heads, self.width),
            (self.key_heads, self.value_width),
        )
        return [
            torch.randn(1, heads, self.tokens, width, generator=draws).to(dtype).requires_grad_()
            for heads, width in shapes
        ]


def naive(
    tensors: list[torch.Tensor], paths: list[np.ndarray[Any, Any]], of: Attended
) -> torch.Tensor:
    """Each token of each path by itself, `[1, T, heads, e]`."""
    query, key, value = tensors
    groups = of.heads // of.key_heads
    found: dict[int, torch.Tensor] = {}
    for path in paths:
        for n, place in enumerate(path.tolist()):
            if place in found:
                continue
            first = 0 if of.window is None else max(0, n + 1 - of.window)
            seen = path[first : n + 1].tolist()
            heads = []
            for head in range(of.heads):
                scores = key[0, head // groups, seen] @ query[0, head, place]
                scores = scores * (of.width**-0.5 if of.scaling is None else of.scaling)
                if of.softcap is not None:
                    scores = of.softcap * torch.tanh(scores / of.softcap)
                heads.append(torch.softmax(scores, 0) @ value[0, head // groups, seen])
            found[place] = torch.stack(heads)
    return torch.stack([found[place] for place in sorted(found)])[None]


def attend(tensors: list[torch.Tensor], branches: Branches, of: Attended) -> torch.Tensor:
    attended, weights = shared_context_attention(
        torch.nn.Module(),
        *tensors,
        None,
        scaling=of.scaling,
        sliding_window=of.window,
        softcap=of.softcap,
        branches=branches,
    )
    assert weights is None
    return attended


def gradients(attended: torch.Tensor, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(9)
    weights = torch.randn(attended.shape, generator=draws)
    return list(torch.autograd.grad((attended * weights).sum(), tensors))


KINDS = {
    "grouped heads": Attended(),
    "as many key heads": Attended(key_heads=4),
    "one key head": Attended(key_heads=1),
    "a window": Attended(window=3),
    "a window of one": Attended(window=1),
    "a window as long as the longest path": Attended(window=11),
    "a cap": Attended(softcap=0.7),
    "a cap and a window": Attended(softcap=0.7, window=3),
    "a scale": Attended(scaling=0.11),
    "narrow values": Attended(value_width=12),
    "narrow values, a window and a scale": Attended(value_width=4, window=4, scaling=1.0),
}


@pytest.mark.parametrize("of", KINDS.values(), ids=KINDS)
def test_attention_is_that_of_each_path_alone(of: Attended) -> None:
    tensors = of.tensors()
    paths = paths_of(LENGTHS, parents=PARENTS, depths=DEPTHS)
    expected = naive(tensors, paths, of)
    attended = attend(tensors, forest(), of)
    torch.testing.assert_close(attended, expected, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(
        gradients(attended, tensors), gradients(expected, tensors), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@st.composite
def generated_forests(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    lengths: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    for n in range(draw(st.integers(1, 6))):
        lengths.append(draw(st.integers(1, 5)))
        parents.append(draw(st.integers(-1, n - 1)))
        path = 0 if parents[n] < 0 else depths[parents[n]] + lengths[parents[n]]
        depths.append(draw(st.integers(1, path)) if path else 0)
    return lengths, parents, depths


@settings(max_examples=60, deadline=None)
@given(generated_forests(), st.sampled_from([None, 1, 2, 4]), st.sampled_from([None, 0.5]))
def test_whatever_the_forest_attention_is_that_of_each_path_alone(
    shape: tuple[list[int], list[int], list[int]], window: int | None, softcap: float | None
) -> None:
    lengths, parents, depths = shape
    of = Attended(window=window, softcap=softcap, tokens=sum(lengths), width=4, value_width=3)
    tensors = of.tensors()
    branches = Branches.of(lengths, parents=parents, depths=depths)
    expected = naive(tensors, paths_of(lengths, parents=parents, depths=depths), of)
    torch.testing.assert_close(attend(tensors, branches, of), expected, rtol=1e-5, atol=1e-6)


def bottom_right(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    softcap: float = 0.0,
) -> torch.Tensor:
    """What the kernels document: `[T, heads, d]`, sequence by sequence, aligned bottom right.

    Query i of Tq sees key j of Tk where i + Tk - Tq - left <= j <= i + Tk - Tq + right; a negative
    left or right is without bound.
    """
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert query.shape[-1] == key.shape[-1] == value.shape[-1]
    assert query.dtype == key.dtype == value.dtype
    left, right = window_size
    found = []
    bounds_q, bounds_k = cu_seq_q.tolist(), cu_seq_k.tolist()
    assert (bounds_q[0], bounds_q[-1]) == (0, len(query))
    assert (bounds_k[0], bounds_k[-1]) == (0, len(key))
    for n in range(len(bounds_q) - 1):
        q = query[bounds_q[n] : bounds_q[n + 1]].transpose(0, 1)
        k, v = (x[bounds_k[n] : bounds_k[n + 1]].transpose(0, 1) for x in (key, value))
        assert q.shape[1] <= max_q
        assert k.shape[1] <= max_k
        groups = len(q) // len(k)
        k, v = (x.repeat_interleave(groups, 0) for x in (k, v))
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        middle = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
        away = torch.arange(k.shape[1])[None] - middle
        hidden = torch.zeros(away.shape, dtype=torch.bool)
        if left >= 0:
            hidden |= away < -left
        if right >= 0:
            hidden |= away > right
        found.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(found)


def of_torch_2_12(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    assert enable_gqa or query.shape[1] == key.shape[1]
    bounds = cu_seq_q, cu_seq_k, max_q, max_k
    return bottom_right(query, key, value, *bounds, scale=scale, window_size=window_size)


def of_torch_2_11(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    assert query.shape[1] == key.shape[1]
    bounds = cu_seq_q, cu_seq_k, max_q, max_k
    return bottom_right(query, key, value, *bounds, scale=scale, window_size=window_size)


def of_flash_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    assert dropout_p == 0
    left, right = window_size
    return bottom_right(
        q,
        k,
        v,
        *(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k),
        scale=softmax_scale,
        window_size=(left, 0 if causal else right),
        softcap=softcap,
    )


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., Any]], str]]:
    """Puts a function of documented semantics in the place of a kernel that needs a GPU."""

    def put(function: Callable[..., Any]) -> str:
        name = "flash_attn" if function is of_flash_attn else "varlen"
        path = "flash_attn" if name == "flash_attn" else "torch.nn.attention.varlen"
        module = ModuleType(path)
        setattr(
            module, "flash_attn_varlen_func" if name == "flash_attn" else "varlen_attn", function
        )
        monkeypatch.setitem(sys.modules, path, module)
        monkeypatch.setattr(shared_context, "backend_for", lambda query, *, wanted, softcap: name)
        return name

    shared_context._takes_grouped_heads.cache_clear()
    yield put
    shared_context._takes_grouped_heads.cache_clear()


KERNELS = [of_torch_2_11, of_torch_2_12, of_flash_attn]


@pytest.mark.parametrize("function", KERNELS)
@pytest.mark.parametrize("of", KINDS.values(), ids=KINDS)
def test_a_kernel_is_called_for_the_same_attention(
    of: Attended, function: Callable[..., Any], kernel: Callable[[Callable[..., Any]], str]
) -> None:
    if of.softcap is not None and function is not of_flash_attn:
        pytest.skip("torch's kernel has no cap, and is not chosen where there is one")
    tensors = of.tensors()
    expected = attend(tensors, forest(backend="sdpa"), of)
    assert kernel(function) == ("flash_attn" if function is of_flash_attn else "varlen")
    attended = attend(tensors, forest(), of)
    torch.testing.assert_close(attended, expected, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(
        gradients(attended, tensors), gradients(expected, tensors), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@dataclass
class Elsewhere:
    """A query as it would be on a GPU, as far as the choice of a backend looks at it."""

    dtype: torch.dtype = torch.bfloat16
    shape: tuple[int, ...] = (1, 4, 10, 64)
    device: torch.device = field(default_factory=lambda: torch.device("cuda"))


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
    query: Any, softcap: float | None, chosen: str
) -> None:
    assert backend_for(query, wanted="auto", softcap=softcap) == chosen
    assert backend_for(query, wanted="sdpa", softcap=softcap) == "sdpa"


WANTS = "it takes bfloat16 or float16 on a CUDA device and heads up to 256 wide{}; set it to auto"


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
    query: Any, softcap: float | None, why: str
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
