"""What a topic is, how it is written in a row of a file, and which topics are held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from selfie_adapters.config.types import SPLITS, Split
from selfie_adapters.dataset import split_indices
from selfie_adapters.dataset.schema import SPLITS_LISTED
from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files.columns import Columns, StringLists
from selfie_adapters.words import plain

_FIELDS = ("name", "prompt", "labels")
_LIKE_LABELS = ("label", "labels", "lables")
_NAMED, _APART, _PROMPTED = 1, 2, 4  # has a name; which is not its first label; has a prompt


@dataclass(frozen=True, slots=True)
class Topic:
    """Something to have a vector of: the text that evokes it, and its labels.

    `name` is put into a question ("Tell me about …"); `prompt` is used as it is instead.
    split: which topics are held out, where the source states so.
    """

    labels: tuple[str, ...]
    name: str | None = None
    prompt: str | None = None
    split: Split | None = None

    @property
    def title(self) -> str:
        """What to call it: its name, or without one its first label."""
        return self.name or self.labels[0]


class Topics(Columns[Topic]):
    """Topics that only grow in number."""

    def __init__(self, topics: Iterable[Topic] = ()) -> None:
        # Of each its labels, its name where that is not the first of them, and its prompt.
        self._strings = StringLists()
        self._kinds = bytearray()
        for topic in topics:
            self.append(topic)

    def append(self, topic: Topic) -> None:
        named = topic.name is not None
        apart = named and topic.name != (topic.labels[0] if topic.labels else None)
        further = (topic.name if apart else None, topic.prompt)
        self._strings.append([*topic.labels, *(one for one in further if one is not None)])
        split = 0 if topic.split is None else 1 + SPLITS.index(topic.split)
        self._kinds.append(
            split << 3 | _PROMPTED * (topic.prompt is not None) | _APART * apart | _NAMED * named
        )

    def __len__(self) -> int:
        return len(self._kinds)

    def _at(self, position: int) -> Topic:
        strings, kind = self._strings[position], self._kinds[position]
        prompt = strings.pop() if kind & _PROMPTED else None
        name = strings.pop() if kind & _APART else strings[0] if kind & _NAMED else None
        split = SPLITS[(kind >> 3) - 1] if kind >> 3 else None
        return Topic(tuple(strings), name, prompt, split)


def topic_of_row(place: str, row: Any) -> Topic:
    """A topic from the fields of a file's row.

    place: where the row is, for messages. Raises DataError for anything that is no topic.
    """
    if not isinstance(row, dict):
        raise DataError(
            f"{place}: a JSON object with name or prompt is expected, found {row!r:.60}. "
            'Write it as {"name": "owl"}, or remove it.'
        )
    if "name" not in row and "original_title" in row:  # as in the published topics data sets
        row = {**row, "name": row["original_title"]}
    texts = {key: row.get(key) for key in ("name", "prompt")}
    for key, value in texts.items():
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise DataError(f"{place}: {key} is {value!r:.60}; a string is expected.")
    if not (texts["name"] or texts["prompt"]):
        keys = ", ".join(map(str, row)) or "nothing"
        hint = " ".join(nearest(str(key), _FIELDS) for key in list(row)[:1])
        raise DataError(f"{place}: neither name nor prompt (found {keys}). {hint}".rstrip())
    if "labels" not in row:
        # Other keys are fine, but a slip here would train on names instead of the labels.
        for key in row:
            if str(key).strip().lower() in _LIKE_LABELS:
                raise DataError(f'{place}: unknown key "{key}". Did you mean "labels"?')
    labels = row.get("labels", [texts["name"]] if texts["name"] else None)
    if isinstance(labels, str):
        labels = [labels]
    if not isinstance(labels, list) or not labels:
        raise DataError(f"{place}: labels is {labels!r:.60}; a list of strings is expected.")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise DataError(f"{place}: label {label!r:.60} is not a text.")
    split = row.get("split")
    if split is not None and split not in SPLITS:
        raise DataError(f"{place}: split is {split!r:.60}; {SPLITS_LISTED} is expected.")
    return Topic(tuple(labels), texts["name"], texts["prompt"], split)


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
