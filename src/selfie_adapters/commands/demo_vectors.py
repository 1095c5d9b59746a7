"""Vectors of the package's concepts for `selfie demo`, minus the shipped adapter's means."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from selfie_adapters.commands.demo_settings import CapturePoint, Size
from selfie_adapters.config.prepare import TopicSettings
from selfie_adapters.dataset.schema import Split
from selfie_adapters.labelling.centering import load_mean
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.user_text import Chat
from selfie_adapters.sources.topics.reading import packaged_topics, topic_vectors
from selfie_adapters.sources.topics.sites import topic_sites
from selfie_adapters.sources.topics.topic import Topic

CHAT: Chat = "bare"
"""The chat format that the shipped adapter's vectors were captured in."""


@dataclass(frozen=True)
class Concepts:
    """Concepts of the package by split, drawn at random, the same in every run."""

    train: list[Topic]
    val: list[Topic]
    test: list[Topic]

    @classmethod
    def drawn(cls, size: Size) -> Concepts:
        topics = packaged_topics()
        random.Random(0).shuffle(topics)

        def first(split: Split, count: int) -> list[Topic]:
            return [topic for topic in topics if topic.split == split][:count]

        return cls(first("train", size.train), first("val", size.val), first("test", size.test))


def captured(
    model: FrozenModel,
    topics: Sequence[Topic],
    place: CapturePoint,
    mean_file: Path,
    progress: Callable[[int], None] = lambda _done: None,
) -> Tensor:
    """One vector per topic, minus the shipped mean of the place: [n, d_model].

    Held-out topics are in sentences that contain no training topic. progress: called with how
    many more are done.
    """
    settings = TopicSettings(
        layers=(place.layer,),
        chat=CHAT,
        positions=(place.position,),
        frames_per_topic=1,
        no_concept=0.0,
    )
    splits: list[Split] = [topic.split or "train" for topic in topics]
    sites = topic_sites(model, topics, splits, settings, place.position)
    states = topic_vectors(model, sites.texts, settings.layers, sites.positions, progress)
    return states[:, 0] - load_mean(mean_file, place.layer, model.d_model, str(place.position))
