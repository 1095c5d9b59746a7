"""From what a labelling run names to the vectors it labels."""

from __future__ import annotations

from pathlib import Path

from selfie_adapters.dataset.source import LabelSource, read_label_source
from selfie_adapters.labelling.settings import LabelSettings
from selfie_adapters.sources.sae_rows import is_sae_name, open_sae_rows


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
