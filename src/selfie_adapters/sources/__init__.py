"""Where training data comes from: topics (prompts), the project's concepts, labels of SAEs.

Names load on first use: topics need torch, labels do not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfie_adapters.sources.labels.files import read_label_file
    from selfie_adapters.sources.labels.label_set import LabelSet
    from selfie_adapters.sources.labels.neuronpedia import fetch_source_labels
    from selfie_adapters.sources.topics.reading import open_topics, read_topics, topic_vectors
    from selfie_adapters.sources.topics.topic import Topic

_HOMES = {
    "LabelSet": "labels.label_set",
    "Topic": "topics.topic",
    "fetch_source_labels": "labels.neuronpedia",
    "open_topics": "topics.reading",
    "read_label_file": "labels.files",
    "read_topics": "topics.reading",
    "topic_vectors": "topics.reading",
}

__all__ = [
    "LabelSet",
    "Topic",
    "fetch_source_labels",
    "open_topics",
    "read_label_file",
    "read_topics",
    "topic_vectors",
]


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
