"""Which documents belong together, which are held out, and whether any stands on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from finqa_sft.documents import Document, Question
from finqa_sft.errors import DataError
from finqa_sft.recipe.schema import SplitSection


def document_groups(
    questions: Iterable[Question], *, by: Literal["document", "company"]
) -> dict[str, str]:
    """Assign each document to a group that must not be divided.

    Documents with one id, or with the same content under two ids, are one group; by company, all
    documents of a company are.

    Returns:
        Group by document id.

    Raises:
        DataError: Groups are wanted by company and a document names none.
    """
    parent: dict[object, object] = {}

    def root(key: object) -> object:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    documents: dict[str, Document] = {}
    for question in questions:
        document = question.document
        if document.id in documents and documents[document.id] is document:
            continue
        documents[document.id] = document
        keys: list[object] = [("content", document.blocks)]
        if by == "company":
            if document.company is None:
                raise DataError(
                    f"data.split.by is company, but document {document.id!r} ({question.source}) "
                    "names none; use data.split.by=document"
                )
            keys.append(("company", document.company))
        for key in keys:
            parent[root(("id", document.id))] = root(key)

    smallest: dict[object, str] = {}
    for name in sorted(documents):
        smallest.setdefault(root(("id", name)), name)
    return {name: smallest[root(("id", name))] for name in documents}


def held_out_groups(groups: Iterable[str], *, share: float, seed: int) -> set[str]:
    """Draw groups to hold out.

    Args:
        groups: Names of groups, repeated or not.
        share: Share of the groups, 0 to 1; a positive share holds out at least one group and
            leaves at least one.
        seed: Another seed draws other groups.
    """
    names = drawn_order(groups, seed=seed)
    if share == 0 or len(names) < 2:
        return set()
    return set(names[: min(max(round(share * len(names)), 1), len(names) - 1)])


def drawn_order(names: Iterable[str], *, seed: int) -> list[str]:
    """Names in the order of a draw, each once.

    The order is that of a hash of seed and name, so it depends on neither the order of the file nor
    the Python version, and adding names moves few others.
    """

    def drawn(name: str) -> bytes:
        return hashlib.sha256(f"{seed}:{name}".encode()).digest()

    return sorted(set(names), key=drawn)


def refuse_leaks(training: Sequence[Question], held_out: Sequence[Question]) -> None:
    """Refuse a document that stands on both sides, by id or by content.

    Raises:
        DataError: Names the first three such documents and where their questions come from.
    """
    by_id: Mapping[str, Question] = {q.document.id: q for q in training}
    by_content = {q.document.blocks: q for q in training}
    leaks: dict[str, str] = {}
    for question in held_out:
        document = question.document
        twin = by_id.get(document.id) or by_content.get(document.blocks)
        if twin is not None:
            leaks.setdefault(
                document.id,
                f"{document.id!r} ({question.source}; in training: {twin.document.id!r}, "
                f"{twin.source})",
            )
    if leaks:
        shown = ", ".join(list(leaks.values())[:3])
        raise DataError(
            f"{len(leaks)} held-out documents are in the training data as well: {shown}. Scores on "
            "them would be too good; take them out of one side, or hold documents out with "
            "data.split"
        )


def divided(pool: Sequence[Question], split: SplitSection) -> tuple[list[Question], list[Question]]:
    """Training and held-out questions, divided between documents.

    Args:
        pool: All questions; one that stands there several times is held out once.
        split: What is held out.

    Raises:
        DataError: All questions belong to one group, which cannot be divided.
    """
    if not split.held_out:
        return list(pool), []
    groups = document_groups(pool, by=split.by)
    if len(set(groups.values())) < 2:
        raise DataError(
            f"data.split.held_out is {split.held_out}, but all questions belong to one "
            f"{split.by}: nothing could be held out without its twin in training; set "
            "data.split.held_out=0 or name other files under evaluation.sources"
        )
    chosen = held_out_groups(groups.values(), share=split.held_out, seed=split.seed)
    training = [q for q in pool if groups[q.document.id] not in chosen]
    held_out = {id(q): q for q in pool if groups[q.document.id] in chosen}
    return training, list(held_out.values())
