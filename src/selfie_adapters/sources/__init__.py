"""Where training data comes from: topics (prompts), the project's concepts, labels of SAEs.

Names load on first use: topics need torch, labels do not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfie_adapters.sources.label_files import read_label_file
    from selfie_adapters.sources.label_set import LabelSet
    from selfie_adapters.sources.neuronpedia import fetch_source_labels
    from selfie_adapters.sources.topic import Topic
    from selfie_adapters.sources.topics import open_topics, read_topics, topic_vectors

_HOMES = {
    "LabelSet": "label_set",
    "Topic": "topic",
    "fetch_source_labels": "neuronpedia",
    "open_topics": "topics",
    "read_label_file": "label_files",
    "read_topics": "topics",
    "topic_vectors": "topics",
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
