"""From what a labelling run names to the vectors it labels, and checks of those."""

from __future__ import annotations

import logging
from pathlib import Path

from selfie_adapters.adapters import Adapter
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.dataset.source import LabelSource, read_label_source
from selfie_adapters.errors import ConfigError
from selfie_adapters.sources.sae.rows import is_sae_name, open_sae_rows

log = logging.getLogger(__name__)


def open_source(settings: LabelSettings) -> LabelSource:
    """The vectors that `settings` ask for: source, split, indices, limit.

    Raises what reading the source raises; ConfigError for indices that are none.
    """
    if is_sae_name(settings.source) and not Path(settings.source).exists():
        named = open_sae_rows(settings.source, settings.which)
        source = LabelSource.of_rows(named.rows, named.layer)
    else:
        source = read_label_source(settings.source, settings.split)
    if settings.indices is not None:
        source = source.only(settings.indices)
    return source if settings.limit is None else source.first(settings.limit)


def check_not_centered(settings: LabelSettings, source: LabelSource) -> None:
    """Raise ConfigError if the mean is already subtracted from the vectors."""
    if settings.mean is None or source.dataset is None:
        return
    for section in source.dataset.sections:
        if done := section.metadata.get("mean_file"):
            raise ConfigError(
                f"{settings.source}, {section.id}: its vectors have their mean ({done}) subtracted "
                "already. Leave --mean out."
            )


def check_captured(settings: LabelSettings, source: LabelSource, adapter: Adapter) -> None:
    """Warn where the vectors or the mean were captured in another way than the training vectors."""
    trained = Captured.by_binding(adapter.binding)
    inputs: dict[str, Captured] = {}
    if source.dataset is not None:
        inputs[settings.source] = Captured.by_sections(source.dataset.sections)
    if settings.mean is not None:
        inputs[settings.mean] = Captured.by_mean_file(settings.mean)
    for name, captured in inputs.items():
        for difference in captured.differences(trained):
            log.warning("%s: %s as in the adapter's training vectors.", name, difference)
