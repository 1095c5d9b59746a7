"""Everything that decides the results of the taboo protocol."""

from __future__ import annotations

from selfie_adapters.config.chat import ChatSettings
from selfie_adapters.config.evaluation.retrieval import PACKAGED_EMBEDDER, Strategy
from selfie_adapters.config.reading import Section
from selfie_adapters.config.types import Count, NotNegative, Seed, Split


class TabooSettings(Section):
    topics: str
    """Topics that are searched, and of which some are asked about: concepts, a topics file, or a
    data set on the hub (owner/name)."""
    retrieval: str | None = None
    """Folder of a retrieval among the same topics: its topics are asked about, its labels
    compared."""
    split: Split = "val"
    """Topics asked about, where they come with a split and no retrieval names them."""
    limit: Count | None = None
    """So many of them, drawn at random; null takes all."""
    index: Strategy = "title"
    embedder: str = PACKAGED_EMBEDDER
    chat: ChatSettings = ChatSettings()
    """The model that is asked."""
    device: str | None = None
    """Where it (if it is in this process) and the embedder go: cpu, cuda, cuda:1, mps, auto; null:
    the first GPU, else the CPU."""
    max_tokens: Count = 80
    temperature: NotNegative = 0.0
    seed: Seed = 0
