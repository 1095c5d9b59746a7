"""Everything that decides the results of the taboo protocol."""

from __future__ import annotations

from selfie_adapters.config.evaluation.retrieval import PACKAGED_EMBEDDER, Strategy
from selfie_adapters.config.shared import ChatSettings, DeviceSettings
from selfie_adapters.config.types import Count, InFile, NotNegative, Seed, Split


class TabooSettings(DeviceSettings):
    """Look up a chat model's descriptions of topics, without their names, among all topics."""

    topics: InFile
    """Topics that are searched, and of which some are asked about: concepts, a topics file, or a
    data set on the hub (owner/name)."""
    retrieval: InFile | None = None
    """Folder of a retrieval among the same topics: its topics are asked about, its labels
    compared."""
    split: Split = "val"
    """Topics asked about, where they come with a split and no retrieval names them."""
    limit: Count | None = None
    """Take N of them, drawn at random; null takes all."""
    index: Strategy = "title"
    """What of a topic is embedded: title, title_and_first_label, title_and_all_labels, mean."""
    embedder: str = PACKAGED_EMBEDDER
    """Any sentence-transformers model: hub id or folder; minilm comes from a package."""
    chat: ChatSettings = ChatSettings()
    """The model that is asked."""
    max_tokens: Count = 80
    """Longest description, in tokens."""
    temperature: NotNegative = 0.0
    """Sampling temperature; 0 is greedy."""
    seed: Seed = 0
    """Seed of the topics that are taken, of the descriptions, and of the controls."""
