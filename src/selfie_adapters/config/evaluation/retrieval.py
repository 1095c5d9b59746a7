"""Everything that decides the results of the retrieval protocol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfie_adapters.config.labelling import TRAINED_SCALES, UNTRAINED_SCALES
from selfie_adapters.config.shared import DeviceSettings
from selfie_adapters.config.types import (
    Count,
    Dtype,
    InFile,
    NotNegative,
    Nucleus,
    Numbers,
    Positive,
    Seed,
    Split,
)

Strategy = Literal["title", "title_and_first_label", "title_and_all_labels", "mean"]
"""What of a topic is embedded."""
PACKAGED_EMBEDDER = "minilm"
UNTRAINED = "untrained"
TRAINING_LABELS = "training labels"
RESERVED = {UNTRAINED, TRAINING_LABELS, "logit lens", "cosine", "ridge probe"}
"""Names of conditions that are there without being asked for."""
Scales = Annotated[tuple[Positive, ...], Field(min_length=1), Numbers]


class RetrievalSettings(DeviceSettings):
    """Look up labels among all topics and rank the right one."""

    vectors: InFile | None = None
    """Training file whose vectors are labelled; without it, labels are of topics."""
    split: Split | None = None
    """Which vectors (or topics) are looked up; null: test where the file has it, else val."""
    limit: Count | None = None
    """Take N of the vectors (or topics), drawn at random; null takes all."""
    topics: InFile | None = None
    """What is searched: concepts, a topics file, or a data set on the hub (owner/name); null takes
    the labels of the training file."""
    index: Strategy = "title"
    """What of a topic is embedded: title, title_and_first_label, title_and_all_labels, mean."""
    embedder: str = PACKAGED_EMBEDDER
    """Any sentence-transformers model: hub id or folder; minilm comes from a package."""
    model: InFile | None = None
    """Model that writes the labels of the adapters: hub id, folder, .gguf file, or demo."""
    dtype: Dtype = "auto"
    """Dtype of the model."""
    adapters: dict[str, InFile] = Field(default_factory=dict)
    """Name of a condition: adapter file or hub path."""
    labels: dict[str, InFile] = Field(default_factory=dict)
    """Name of a condition: labelling run's folder, or JSONL file with labels that are made."""
    scales: Scales = TRAINED_SCALES
    """Of the adapters' input; of several the best on `choose_on` vectors is taken."""
    untrained_scales: Scales = UNTRAINED_SCALES
    """Of the unit vector without an adapter, in mean embedding norms; chosen in the same way."""
    choose_on: Count = 100
    """Vectors on which a scale is chosen: of val, or of train where val is measured."""
    temperature: NotNegative = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Nucleus = 1.0
    """Sample from the most likely tokens that make up this share of the probability."""
    max_new_tokens: Count = 30
    """Longest label, in tokens."""
    batch_size: Count = 64
    """Vectors at a time; a kill loses one batch at most."""
    seed: Seed = 0
    """Seed of the sample, of the labels, and of the controls."""

    @model_validator(mode="after")
    def _something_to_look_up(self) -> RetrievalSettings:
        if not self.adapters and not self.labels:
            raise ValueError("adapters and labels are both empty; name at least one of either")
        if self.adapters and (self.model is None or self.vectors is None):
            raise ValueError("adapters need model and vectors")
        if self.vectors is None and self.topics is None:
            raise ValueError("give vectors, or topics, or both")
        both = {*self.adapters} & {*self.labels}
        reserved = RESERVED & {*self.adapters, *self.labels}
        if both or reserved:
            raise ValueError(f"the name {min(both | reserved)} stands for another condition too")
        return self
