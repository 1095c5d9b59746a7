"""What `selfie eval published` takes."""

from __future__ import annotations

from typing import Annotated

from selfie_adapters.config.shared import DeviceSettings
from selfie_adapters.config.types import InFile, Numbers, Option


class PublishedSettings(DeviceSettings):
    split_60: bool = False
    """Take a label's first 60 conversations as six labels of ten (label_dataset files)."""
    topics: Annotated[InFile | None, Option(default="the data set that the labels file names")] = (
        None
    )
    """What labels are looked up in: concepts, a topics file, or a data set on the hub."""
    metadata: InFile | None = None
    """List whose entry i states which topic latent i is about, for labels files without topics."""
    index: str = "title_plus_all_labels"
    """What of a topic is embedded: title_only, title_plus_first_label, title_plus_all_labels,
    mean_of_all."""
    embedder: str = "thenlper/gte-large"
    """Any sentence-transformers model: hub id or folder; minilm comes from a package."""
    scales: Annotated[list[float] | None, Numbers] = None
    """Look up labels of these scales only."""
