"""Which topics are held out: as they state themselves, or drawn."""

from __future__ import annotations

from collections.abc import Sequence

from selfie_adapters.dataset import split_indices
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import DataError
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.words import plain


def split_topics(topics: Sequence[Topic], val_fraction: float, seed: int) -> list[Split]:
    """The split of each topic.

    A topic that occurs more than once (the same name, or the same prompt) is in one of them only.
    Raises DataError where some topics state a split and others do not, where the same topic states
    two, and where nothing is left to train on.
    """
    first = _first_of_each(topics)
    stated = [topic.split for topic in topics if topic.split is not None]
    if not stated:
        _, val = split_indices(set(first), val_fraction, seed)
        held_out = set(val)
        return ["val" if one in held_out else "train" for one in first]
    splits: list[Split] = []
    for topic, one in zip(topics, first, strict=True):
        if topic.split is None:
            raise DataError(
                f'the topic "{topic.title}" has no split and {len(stated)} others have one. Give '
                "all of them one, or none."
            )
        if topic.split != topics[one].split:
            raise DataError(
                f'the topic "{topic.title}" is in more than one split, so that what is held '
                "out is trained on. Give its rows one split."
            )
        splits.append(topic.split)
    if "train" not in splits:
        raise DataError('no topic has the split "train".')
    return splits


def _first_of_each(topics: Sequence[Topic]) -> list[int]:
    """For each topic, the first that is the same: by name (case and whitespace aside) or prompt."""
    first = list(range(len(topics)))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    seen: dict[tuple[str, str], int] = {}
    for i, topic in enumerate(topics):
        for kind, text in (("name", topic.name), ("prompt", topic.prompt)):
            if text:
                one, other = sorted((root(seen.setdefault((kind, plain(text)), i)), root(i)))
                first[other] = one
    return [root(i) for i in range(len(topics))]
