"""The index work of branches, and attention over them against one computed path by path."""

from __future__ import annotations

import math

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
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.attention.branches import Branches, paths_of


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
    assert moved.to("meta") is moved
    assert (moved.key_index.device.type, moved.cu_seq_k.device.type) == ("meta", "meta")
    assert (moved.lengths, moved.backend) == (branches.lengths, branches.backend)


def test_branches_are_copied_to_a_device_once_for_all_layers() -> None:
    branches = forest()
    assert branches.to("meta") is branches.to("meta")
    masks = branches.to("meta").masks(window=3, dtype=torch.float32)
    assert branches.to("meta").masks(window=3, dtype=torch.float32) is masks
    assert masks is not branches.masks(window=3, dtype=torch.float32)


@pytest.mark.parametrize("of", KINDS.values(), ids=KINDS)
def test_attention_is_that_of_each_path_alone(of: Attended) -> None:
    tensors = of.tensors()
    paths = paths_of(LENGTHS, parents=PARENTS, depths=DEPTHS)
    expected = naive(tensors, paths, of)
    attended = attend(tensors, forest(), of)
    assert attended.is_contiguous()
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
