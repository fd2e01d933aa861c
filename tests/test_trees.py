"""Rows as trees, and trees as rows of a given size: nothing is lost, doubled or misplaced."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from forests import all_documents, answered, arranged, forests, generated_rows, labels_of, row
from hypothesis import given, settings
from hypothesis import strategies as st

from finqa_sft.attention.branches import Branches, paths_of
from finqa_sft.collators.packing import best_fit_decreasing
from finqa_sft.collators.shared_context import SharedContextCollator
from finqa_sft.collators.trees import Row, Tree, tree_of, trees_within
from finqa_sft.encoding import IGNORED, EncodedRow


def grown(rows: list[EncodedRow]) -> Tree:
    return tree_of([Row.of(one) for one in rows])


def shown(tree: Tree) -> list[str]:
    """Each branch in a line: what it leaves and where, and its tokens, those learnt in brackets."""
    ends = list(accumulate(tree.lengths))
    lines = []
    for end, length, parent, depth in zip(
        ends, tree.lengths, tree.parents, tree.depths, strict=True
    ):
        tokens = [
            f"[{token}]" if label != IGNORED else f"{token}"
            for token, label in zip(
                tree.input_ids[end - length : end], tree.labels[end - length : end], strict=True
            )
        ]
        lines.append(f"{parent} {depth}: {' '.join(tokens)}")
    return lines


@pytest.mark.parametrize(
    ("rows", "branches"),
    [
        ([row([1, 2, 3], [2])], ["-1 0: 1 2 [3]"]),
        # The first goes whole; the second adds what is new.
        (
            [row([1, 2, 3, 4], [3]), row([1, 2, 5, 6], [3])],
            ["-1 0: 1 2 3 [4]", "0 2: 5 [6]"],
        ),
        # What is learnt stands right behind what foretells it, so 2 stands twice.
        ([row([1, 2, 3], [2]), row([1, 2, 4], [2])], ["-1 0: 1 2 [3]", "0 1: 2 [4]"]),
        # A turn's answer is learnt in one row and history in the next.
        (
            [row([1, 2, 3], [2]), row([1, 2, 3, 4, 5], [4])],
            ["-1 0: 1 2 [3] 4 [5]"],
        ),
        (
            [row([1, 2, 3, 4, 5], [4]), row([1, 2, 3], [2])],
            ["-1 0: 1 2 [3] 4 [5]"],
        ),
        # The same answer to the same question is learnt twice.
        (
            [row([1, 2, 3, 4], [2, 3]), row([1, 2, 3, 4], [2, 3])],
            ["-1 0: 1 2 [3] [4]", "0 1: 2 [3] [4]"],
        ),
        # Once without labels, it is in the tree already.
        ([row([1, 2, 3], []), row([1, 2, 3], [])], ["-1 0: 1 2 3"]),
        # A branch of a branch.
        (
            [row([1, 2], []), row([1, 3, 4], []), row([1, 3, 5], [2]), row([1, 3, 5, 6], [3])],
            ["-1 0: 1 2", "0 1: 3 4", "1 1: 3 [5] [6]"],
        ),
        # Nothing in common: two roots.
        ([row([1, 2], [1]), row([3, 2], [1])], ["-1 0: 1 [2]", "-1 0: 3 [2]"]),
        # Where a row leaves behind the first token, with a copy of it, it begins a tree of its own.
        ([row([1, 2], [1]), row([1, 3], [1])], ["-1 0: 1 [2]", "-1 0: 1 [3]"]),
        # Nothing foretells a first token.
        ([row([1, 2], [0, 1])], ["-1 0: 1 [2]"]),
        ([row([1], [0])], ["-1 0: 1"]),
    ],
)
def test_rows_become_branches(rows: list[EncodedRow], branches: list[str]) -> None:
    tree = grown(rows)
    assert shown(tree) == branches
    assert tree.rows == len(rows)
    assert len(tree) == sum(tree.lengths) == len(tree.input_ids) == len(tree.labels)


@pytest.mark.parametrize("name", forests())
def test_a_tree_is_never_larger_than_its_rows(name: str) -> None:
    rows = forests()[name]
    assert len(grown(rows)) <= sum(len(one["input_ids"]) for one in rows)


def test_a_page_with_questions_has_the_tokens_of_one_page() -> None:
    page = list(range(10, 1010))
    rows = [answered([*page, n, 1, 2], [3, 4]) for n in range(2000, 2006)]
    tree = grown(rows)
    assert len(tree) == 1000 + 6 * 5
    assert tree.depths == (0, *[1000] * 5)


def test_a_chain_of_turns_has_the_tokens_of_the_last() -> None:
    rows = forests()["a conversation"]
    assert len(grown(rows)) == len(rows[-1]["input_ids"])
    assert len(grown(rows[::-1])) == len(rows[-1]["input_ids"])
    assert labels_of(rows) == sum(grown(rows).labels != IGNORED)


def test_the_deep_tree_is_deep() -> None:
    tree = grown(forests()["a deep tree"])

    def generation(branch: int) -> int:
        parent = tree.parents[branch]
        return 0 if parent < 0 else 1 + generation(parent)

    assert max(map(generation, range(len(tree.parents)))) > 5


def require_well_formed(tree: Tree) -> None:
    ends = list(accumulate(tree.lengths))
    path_lengths: list[int] = []
    for n, (length, parent, depth) in enumerate(
        zip(tree.lengths, tree.parents, tree.depths, strict=True)
    ):
        assert length > 0
        assert (parent < 0) == (depth == 0)
        if parent >= 0:
            assert parent < n
            assert 0 < depth <= path_lengths[parent]
        path_lengths.append(depth + length)
        # Nothing is learnt where the shift of labels would take what stands before for its sign.
        assert tree.labels[ends[n] - length] == IGNORED
    learnt = tree.labels != IGNORED
    assert (tree.labels[learnt] == tree.input_ids[learnt]).all()


def learnt_on_paths(tree: Tree) -> Counter[tuple[int, ...]]:
    """For each learnt token all that stands before it on its path, itself at the end."""
    found: Counter[tuple[int, ...]] = Counter()
    for path, depth in zip(
        paths_of(tree.lengths, parents=tree.parents, depths=tree.depths), tree.depths, strict=True
    ):
        for place in range(depth, len(path)):
            if tree.labels[path[place]] != IGNORED:
                # What foretells it stands right before it in the flat row.
                assert path[place - 1] == path[place] - 1
                found[tuple(tree.input_ids[path[: place + 1]].tolist())] += 1
    return found


def learnt_in_rows(rows: list[EncodedRow]) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(one["input_ids"][: n + 1])
        for one in rows
        for n in range(1, len(one["input_ids"]))
        if one["labels"][n] != IGNORED
    )


def starts_of_paths(trees: list[Tree]) -> set[tuple[int, ...]]:
    return {
        tuple(tree.input_ids[path[: n + 1]].tolist())
        for tree in trees
        for path in paths_of(tree.lengths, parents=tree.parents, depths=tree.depths)
        for n in range(len(path))
    }


def starts_of_rows(rows: list[EncodedRow]) -> set[tuple[int, ...]]:
    return {tuple(one["input_ids"][: n + 1]) for one in rows for n in range(len(one["input_ids"]))}


def require_same_rows(trees: list[Tree], rows: list[EncodedRow]) -> None:
    """Every row stands in a tree, with all that it learns and nothing else."""
    for tree in trees:
        require_well_formed(tree)
    assert sum(tree.rows for tree in trees) == len(rows)
    assert starts_of_paths(trees) == starts_of_rows(rows)
    learnt = [learnt_on_paths(tree) for tree in trees]
    assert sum(learnt, Counter()) == learnt_in_rows(rows)


@settings(max_examples=300, deadline=None)
@given(generated_rows())
def test_a_tree_holds_its_rows_and_learns_each_token_once(rows: list[EncodedRow]) -> None:
    require_same_rows([grown(rows)], rows)


@settings(max_examples=200, deadline=None)
@given(generated_rows(), st.integers(0, 12))
def test_divided_trees_hold_the_rows_and_no_more_than_they_may(
    rows: list[EncodedRow], room: int
) -> None:
    at_most = max(len(one["input_ids"]) for one in rows) + room
    trees = list(trees_within([Row.of(one) for one in rows], at_most=at_most))
    assert max(map(len, trees)) <= at_most
    require_same_rows(trees, rows)


def test_a_page_is_not_divided_more_often_than_it_must_be() -> None:
    page = list(range(10, 110))
    rows = [Row.of(answered([*page, 200 + n, 1], [2, 3])) for n in range(10)]
    assert [tree.rows for tree in trees_within(rows, at_most=140)] == [10]
    assert [tree.rows for tree in trees_within(rows, at_most=120)] == [5, 5]
    assert [tree.rows for tree in trees_within(rows, at_most=139)] == [9, 1]


def test_a_divided_page_keeps_what_is_alike_together() -> None:
    cuts = [[*range(10, 60)], [*range(10, 20), *range(60, 100)]]
    rows = [Row.of(answered([*cuts[n % 2], 200 + n], [2])) for n in range(6)]
    trees = list(trees_within(rows, at_most=56))
    assert [(tree.rows, len(tree)) for tree in trees] == [(3, 56), (3, 56)]


def test_many_rows_that_teach_nothing_new_are_one_tree() -> None:
    rows = [Row.of(row([1, 2, 3], []))] * 20
    assert [(tree.rows, len(tree)) for tree in trees_within(rows, at_most=3)] == [(20, 3)]


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 90))
def test_packing_loses_nothing_and_overfills_nothing(sizes: list[int], capacity: int) -> None:
    bins = best_fit_decreasing(sizes, capacity=capacity)
    assert sorted(n for one in bins for n in one) == list(range(len(sizes)))
    loads = [sum(sizes[n] for n in one) for one in bins]
    assert all(0 < load <= capacity for load in loads)
    # Of two bins one is more than half full.
    assert sum(2 * load <= capacity for load in loads) <= 1


@pytest.mark.parametrize(
    ("sizes", "bins"),
    [
        ([], []),
        ([5], [[0]]),
        ([3, 7, 5, 5, 10], [[4], [1, 0], [2, 3]]),
        # The largest first, each where the least room is left.
        ([2, 8, 7, 3], [[1, 0], [2, 3]]),
    ],
)
def test_each_goes_where_the_least_room_is_left(sizes: list[int], bins: list[list[int]]) -> None:
    assert best_fit_decreasing(sizes, capacity=10) == bins


def with_tokens(one: dict[str, Any]) -> Tree:
    return Tree(
        rows=one["questions"],
        input_ids=np.array(one["input_ids"]),
        labels=np.array(one["labels"]),
        lengths=tuple(one["lengths"]),
        parents=tuple(one["parents"]),
        depths=tuple(one["depths"]),
    )


@settings(max_examples=50, deadline=None)
@given(generated_rows(), st.integers(0, 30))
def test_arranged_rows_hold_all_questions_and_are_not_too_long(
    rows: list[EncodedRow], room: int
) -> None:
    tokens = max(len(one["input_ids"]) for one in rows) + room
    found = arranged(rows, tokens=tokens)
    assert max(len(one["input_ids"]) for one in found) <= tokens
    assert {name for one in found for name in one["documents"]} == {one["document"] for one in rows}
    require_same_rows([with_tokens(one) for one in found], rows)
    for one in found:
        roots = [start for start in one["parents"] if start < 0]
        assert len(roots) >= len(one["documents"])


def test_rows_of_trees_are_nearly_full() -> None:
    rows = [one for seed in range(12) for one in all_documents(seed)]
    rows = [{**one, "document": f"{one['document']} {n // 55}"} for n, one in enumerate(rows)]
    found = arranged(rows, tokens=400)
    filled = sum(len(one["input_ids"]) for one in found) / (400 * len(found))
    assert len(found) > 10
    assert filled > 0.9


def test_the_same_rows_are_arranged_the_same() -> None:
    rows = all_documents()
    assert arranged(rows, tokens=90) == arranged(rows, tokens=90)


def test_no_rows_are_arranged_as_none() -> None:
    collator = SharedContextCollator()
    none = collator.arrange(Dataset.from_list([]))
    assert len(none) == 0
    assert set(none.column_names) == {
        *("input_ids", "labels", "lengths", "parents", "depths", "documents", "questions")
    }


def test_a_batch_counts_positions_along_the_paths() -> None:
    rows = [
        *(row([1, 2, 3, 4], [3]), row([1, 2, 5, 6], [2, 3])),
        *(row([7, 8], [1], "other"), row([7, 9], [], "other")),
    ]
    [one] = arranged(rows)
    batch = SharedContextCollator()([one])  # type: ignore[list-item]
    assert set(batch) == {"input_ids", "position_ids", "labels", "branches", "use_cache"}
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 2, 5, 6, 7, 8, 9]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 4, -100, 5, 6, -100, 8, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 1, 2, 3, 0, 1, 1]]
    assert batch["use_cache"] is False
    branches: Branches = batch["branches"]
    assert branches.lengths == (4, 3, 2, 1)
    assert branches.path_lengths == (4, 4, 2, 2)
    assert branches.key_index.tolist() == [0, 1, 2, 3, 0, 4, 5, 6, 7, 8, 7, 9]
    assert branches.cu_seq_q.tolist() == [0, 4, 7, 9, 10]
    assert branches.cu_seq_k.tolist() == [0, 4, 8, 10, 12]
