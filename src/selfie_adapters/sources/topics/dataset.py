"""From topics to a training file: capture, center, split, write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters.containers import safetensors_bytes
from selfie_adapters.chat.request import read_messages
from selfie_adapters.config.prepare import NO_CONCEPT
from selfie_adapters.config.types import SPLITS, Split
from selfie_adapters.dataset import Item, Section, save_dataset
from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.errors import DataError
from selfie_adapters.files import check_free
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.topics.reading import topic_vectors
from selfie_adapters.sources.topics.sites import (
    Position,
    Sites,
    TopicSettings,
    null_sites,
    topic_sites,
)
from selfie_adapters.sources.topics.topic import Topic, split_topics

_ROUNDING = 1e-5  # a centered vector relatively shorter than this is rounding
_RANDOM = 0.2  # of the vectors without a concept: random directions
_LEFTOVERS = 0.05  # and: what is left of a topic's vector without its topic


@dataclass(frozen=True)
class _Taken:
    """States of one position kind, minus the mean of the training topics' states there."""

    sites: Sites
    centered: Tensor  # [n, layers, d_model]
    mean: Tensor  # [layers, d_model]


def write_topic_dataset(
    model: FrozenModel,
    topics: Sequence[Topic],
    settings: TopicSettings,
    labels_file: str | Path,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    overwrite: bool = False,
) -> Path:
    """Capture the topics' vectors and write a training file, a section a layer and position.

    Next to `{name}.json` come the vectors, minus the mean over training topics at that layer and
    position, and `{name}_mean.safetensors`: those means, to be subtracted from whatever is labelled
    later. With one position they are called `{name}_l{layer}.safetensors` and `layer_{layer}`; with
    several `{name}_l{layer}_at_{position}.safetensors` and `layer_{layer}_at_{position}`. Vectors
    without a concept (`TopicSettings.no_concept`) have a section a layer of their own, "null".

    progress: called with the states captured and their total. Returns the path of the training
    file. Raises DataError, and writes nothing, where a topic's vector is NaN or no different from
    the mean; ConfigError where a file exists and `overwrite` is not given.
    """
    path = Path(labels_file)
    settings.check()
    topic_files(path, settings, overwrite)
    splits = split_topics(topics, settings.val_fraction, settings.seed)
    wanted = [topic_sites(model, topics, splits, settings, kind) for kind in settings.positions]
    states: Counter[Split] = Counter(split for sites in wanted for split in sites.splits)
    shares: dict[Split, int] = {one: round(settings.null_share * states[one]) for one in SPLITS}
    tokens: dict[Split, int] = {
        split: round((1 - _RANDOM - _LEFTOVERS) * count) for split, count in shares.items()
    }
    nulls = null_sites(model, topics, splits, settings, tokens) if any(tokens.values()) else []
    total, done = sum(map(len, [*wanted, *nulls])), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    def capture(sites: Sites) -> Tensor:
        return topic_vectors(model, sites.texts, settings.layers, sites.positions, advance)

    taken: dict[Position, _Taken] = {}
    for sites in wanted:
        captured = capture(sites)
        train = torch.tensor([split == "train" for split in sites.splits])
        mean = captured[train].mean(dim=0)  # held-out topics stay out of it
        taken[sites.kind] = _Taken(sites, captured - mean, mean)
        _check(taken[sites.kind].centered, captured, topics, sites, settings)
    sections = [
        section
        for kind, one in taken.items()
        for section in _sections(
            path, model, settings, str(kind), _items(topics, one.sites, settings), one.centered
        )
    ]
    if nulls:
        rows = [capture(sites) - taken[sites.kind].mean for sites in nulls]
        null_splits: list[Split] = []
        for sites in nulls:
            null_splits.extend(sites.splits)
        for split, made in _meaningless(taken["name"], shares, settings.seed):
            rows.append(made)
            null_splits.extend(repeat(split, len(made)))
        items = [Item(i, [NO_CONCEPT], one) for i, one in enumerate(null_splits)]
        sections += _sections(path, model, settings, "null", items, torch.cat(rows))
    save_dataset(path, sections, overwrite, _mean_file(path, model, settings, taken))
    return path


def topic_files(labels_file: str | Path, settings: TopicSettings, overwrite: bool) -> list[Path]:
    """The files `write_topic_dataset` writes. Raises ConfigError if one exists, unless it may be
    replaced."""
    path = Path(labels_file)
    kinds = [str(kind) for kind in settings.positions] + ["null"] * (settings.null_share > 0)
    vectors = [
        _vectors_name(path, settings, layer, kind) for kind in kinds for layer in settings.layers
    ]
    files = [path, path.parent / _mean_name(path), *(path.parent / name for name in vectors)]
    for file in files:
        check_free(file, overwrite)
    return files


def _name(labels_file: Path) -> str:
    return labels_file.name.removesuffix(".gz").removesuffix(".json")


def _mean_name(labels_file: Path) -> str:
    return f"{_name(labels_file)}_mean.safetensors"


def _at(settings: TopicSettings, kind: str) -> str:
    """What files and means of a position kind are called, in addition to their layer."""
    return "" if len(settings.positions) == 1 and kind != "null" else f"_at_{kind}"


def _vectors_name(labels_file: Path, settings: TopicSettings, layer: int, kind: str) -> str:
    return f"{_name(labels_file)}_l{layer}{_at(settings, kind)}.safetensors"


def _items(topics: Sequence[Topic], sites: Sites, settings: TopicSettings) -> list[Item]:
    """Training rows first, then those of val and test."""
    items: list[Item] = []
    for row, (number, split) in enumerate(zip(sites.topics, sites.splits, strict=True)):
        topic = topics[number]
        alone = settings.names_only and split == "train"
        items.append(Item(row, [topic.title] if alone else list(topic.labels), split))
    return sorted(items, key=lambda item: SPLITS.index(item.split))


def _sections(
    path: Path,
    model: FrozenModel,
    settings: TopicSettings,
    kind: str,
    items: list[Item],
    vectors: Tensor,
) -> Iterator[Section]:
    """A section for each layer. vectors: [n, layers, d_model]."""
    for column, layer in enumerate(settings.layers):
        metadata = {
            "dataset_name": _name(path) + _at(settings, kind),
            "filename": _vectors_name(path, settings, layer, kind),
            "layer": layer,
            "source": "topics",
            "vector_type": "null" if kind == "null" else "topic",
            "model": model.name,
            "model_dim": model.d_model,
            **_prompted(settings),
            "position": kind if kind.isalpha() else int(kind),
            "mean_file": _mean_name(path),
        }
        if settings.null_share:
            metadata["no_concept"] = NO_CONCEPT
        yield Section(metadata, vectors[:, column], items)


def _prompted(settings: TopicSettings) -> dict[str, Any]:
    """What names were put into."""
    if settings.messages is None:
        return {"question": settings.question, "chat": settings.chat}
    turns = [message._asdict() for message in read_messages(settings.messages)]
    return {"messages": turns, "chat": settings.chat}


def _mean_file(
    path: Path,
    model: FrozenModel,
    settings: TopicSettings,
    taken: Mapping[Position, _Taken],
) -> dict[str, bytes]:
    tensors = {
        f"layer_{layer}{_at(settings, str(kind))}": one.mean[column].clone()
        for kind, one in taken.items()
        for column, layer in enumerate(settings.layers)
    }
    facts = {**_prompted(settings), "model": model.name}
    if "messages" in facts:
        facts["messages"] = json.dumps(facts["messages"], ensure_ascii=False)
    if len(taken) == 1:
        facts["position"] = str(settings.positions[0])
    return {_mean_name(path): safetensors_bytes(tensors, facts)}


def _meaningless(
    named: _Taken, shares: Mapping[Split, int], seed: int
) -> Iterator[tuple[Split, Tensor]]:
    """Made vectors of each split: random directions, and leftovers of topics' vectors.

    A leftover is a topic's vector minus its projection on another vector of the same topic: what
    belongs to the sentence. [n, layers, d_model] of each.
    """
    for number, (split, count) in enumerate(shares.items()):
        rows = [row for row, own in enumerate(named.sites.splits) if own == split]
        if not rows or not count:
            continue
        some = torch.tensor(rows)[torch.arange(round(_RANDOM * count)) % len(rows)]
        yield split, random_vectors(named.centered[some], seed + number)
        pairs = [
            (one, other)
            for one, other in pairwise(rows)
            if named.sites.topics[one] == named.sites.topics[other]
        ]
        step = max(1, len(pairs) // max(1, round(_LEFTOVERS * count)))
        left, right = (
            named.centered[torch.tensor([pair[side] for pair in pairs[::step]], dtype=torch.int64)]
            for side in (0, 1)
        )
        along = right / right.norm(dim=-1, keepdim=True)
        yield split, left - (left * along).sum(dim=-1, keepdim=True) * along


def _check(
    centered: Tensor,
    captured: Tensor,
    topics: Sequence[Topic],
    sites: Sites,
    settings: TopicSettings,
) -> None:
    """Raise DataError for a vector that holds nothing about its topic."""
    left = centered.norm(dim=2) / captured.norm(dim=2)  # [n, layers]
    for i, column in (~(left > _ROUNDING)).nonzero().tolist():  # NaN is not greater either
        topic = topics[sites.topics[i]]
        alike = bool(left[i, column] <= _ROUNDING)
        what = "is the mean of the training topics" if alike else "is NaN or infinite"
        raise DataError(
            f'the vector of "{topic.name or topic.prompt}" at layer {settings.layers[column]}, '
            f"position {sites.kind}, {what}. Give more topics, a position after the "
            "topic's name, or --dtype float32."
        )
