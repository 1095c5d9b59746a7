"""Train, validation and test: groups of concepts that share a word stay together."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from selfie_adapters.sources.topics.noun_forms import Irregular, shared_keys

HELD_OUT = 0.1  # of all concepts, for each of val and test
LARGEST_GROUP = 50  # concepts; a larger group is trained on, whole


def read_irregular(exceptions: Path) -> dict[str, tuple[str, ...]]:
    """Irregular plurals and their singular forms: `plural singular …` per line of noun.exc."""
    found: dict[str, tuple[str, ...]] = {}
    for line in exceptions.read_text(encoding="utf-8").splitlines():
        plural, *singular = line.split()
        found[plural] = (*found.get(plural, ()), *singular)
    return found


def keys_of(names: Sequence[str], irregular: Irregular) -> set[str]:
    """What a concept with these names (name and synonyms) must not share across splits."""
    return set().union(*(shared_keys(name, irregular) for name in names))


def groups_of(keys: Sequence[set[str]]) -> list[list[int]]:
    """Positions in groups: two with a common key are in one, directly or through others."""
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_with: dict[str, int] = {}
    for i, mine in enumerate(keys):
        for key in sorted(mine):
            one, other = sorted((root(first_with.setdefault(key, i)), root(i)))
            parent[other] = one
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for i in range(len(keys)):
        groups[root(i)].append(i)
    return list(groups.values())


def splits_of(concepts: Sequence[Sequence[str]], irregular: Irregular) -> list[str]:
    """The split of each concept, given by its names: "train", "val" or "test".

    Groups are taken in the order of the SHA-256 of their first concept's name. They fill test, then
    val, up to a tenth of the concepts each; what does not fit, and every group above LARGEST_GROUP,
    is train.
    """
    groups = groups_of([keys_of(names, irregular) for names in concepts])

    def order(group: list[int]) -> str:
        return hashlib.sha256(concepts[group[0]][0].encode()).hexdigest()

    room = {split: int(len(concepts) * HELD_OUT) for split in ("test", "val")}
    splits = ["train"] * len(concepts)
    for group in sorted(groups, key=order):
        if len(group) > LARGEST_GROUP:
            continue
        split = next((name for name, left in room.items() if len(group) <= left), None)
        if split is not None:
            room[split] -= len(group)
            for i in group:
                splits[i] = split
    return splits
